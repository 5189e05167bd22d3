"""Quorums meet in an honest replica at every size; votes are counted once each."""

from __future__ import annotations

from itertools import combinations

import pytest

from consensus.committee import REPLICAS_MAX, Committee, faults, quorum
from consensus.messages import Vote
from consensus.tally import TimeoutTally, VoteTally, make_commit_proof, make_qc, make_tc
from tests.consensus.samples import NETWORK, Sample, digest_of

A, B = digest_of(b"a"), digest_of(b"b")


@pytest.mark.parametrize("n", range(1, REPLICAS_MAX + 1))
def test_two_quorums_share_an_honest_replica_and_the_honest_make_one(n: int) -> None:
    f, q = faults(n), quorum(n)
    assert n >= 3 * f + 1 > n - 3
    assert 2 * q - n > f, "two quorums may share only liars"
    assert q <= n - f, "the honest alone make no quorum"
    assert 2 * (q - 1) - n <= f, "a smaller quorum would do"
    assert q - f > f, "of a quorum, fewer honest than liars"


@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_quorum_intersection_by_enumeration(n: int) -> None:
    liars = set(range(faults(n)))
    quorums = [set(chosen) for chosen in combinations(range(n), quorum(n))]
    assert all((a & b) - liars for a in quorums for b in quorums)


def test_2f1_at_five_has_two_quorums_that_share_only_the_liar() -> None:
    assert faults(5) == 1
    assert {0, 1, 2} & {0, 3, 4} == {0}
    assert quorum(5) == 4


def test_leaders_rotate_strictly() -> None:
    committee = Committee(NETWORK, 1, tuple(bytes([i]) * 32 for i in range(7)))
    assert [committee.leader(r) for r in range(15)] == [r % 7 for r in range(15)]


def vote(voter: int, round_: int, block: bytes, seen: tuple[int, ...] = (0,)) -> Vote:
    return Vote(1, round_, block, seen, voter, b"")


def test_a_voter_counts_once_a_round_whatever_else_it_says() -> None:
    tally: VoteTally[Vote] = VoteTally()
    assert tally.add(vote(0, 1, A))
    assert tally.add(vote(0, 1, A)), "the same again is the same"
    assert not tally.add(vote(0, 1, B))
    assert not tally.add(vote(0, 1, A, (7,))), "another claim for one block is another vote"
    assert tally.add(vote(0, 2, B))
    assert tally.add(vote(1, 1, A))
    assert [v.voter for v in tally.for_block(1, A)] == [0, 1]
    assert tally.for_block(1, B) == []
    assert len(tally) == 3
    tally.prune(2)
    assert len(tally) == 1


def test_the_timeout_with_the_highest_lock_counts() -> None:
    sample = Sample()
    tally = TimeoutTally()
    lock = sample.qc(2, A)
    tally.add(sample.timeout(0, 3, lock))
    tally.add(sample.timeout(0, 3))
    tally.add(sample.timeout(1, 4))
    assert [t.lock.round for t in tally.of_round(3)] == [2]
    assert tally.voters_from(3) == [0, 1]
    assert tally.voters_from(4) == [1]
    tally.prune(4)
    assert len(tally) == 1


def test_certificates_hold_all_that_was_counted_by_voter() -> None:
    sample = Sample()
    qc = make_qc([sample.vote(v, 1, A, (0,) * 4) for v in sample.voters])
    assert [part.voter for part in qc.votes] == list(sample.voters)
    proof = make_commit_proof([sample.commit_vote(v, 1, A) for v in sample.voters])
    assert [voter for voter, _ in proof.votes] == list(sample.voters)
    lock = sample.qc(2, A)
    tc = make_tc([sample.timeout(0, 3), sample.timeout(1, 3, lock), sample.timeout(2, 3)])
    assert tc.high_qc == lock
    assert tc.high_round == 2
