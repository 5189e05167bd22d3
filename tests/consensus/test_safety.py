"""The voting rules alone: small committees exhaustively, larger adventures at random, mutations.

The adversaries of `safety_search` and `safety_model` propose, deliver and form certificates as they
like; what may not happen is two committed blocks that are not on one chain. `-s` prints what was
explored. Three rounds: `make model ARGS=--long`.
"""

from __future__ import annotations

import random
from itertools import count

import pytest

from consensus.messages import QC, Block, CommitVote
from consensus.safety import Safety, SafetyViolation, extends, genesis_qc
from tests.consensus.safety_model import GENESIS, Model, NoSigner, Rules, random_walk
from tests.consensus.safety_search import FORK, Search

STATES_MAX = 500_000
WALKS = 250


class NoTimeoutCheck(Safety):
    """Commit-votes in rounds that it has given up."""

    def may_commit_vote(self, qc: QC) -> bool:
        return qc.round > (self.commit_vote.round if self.commit_vote else 0)


class LeavesLock(Safety):
    """Commit-votes without raising the lock to what it commits."""

    def sign_commit_vote(self, qc: QC) -> CommitVote:
        lock = self.lock
        vote = super().sign_commit_vote(qc)
        self.lock = lock
        return vote


class IgnoresHighestQC(Safety):
    """Votes on a TC whatever QC it names."""

    def may_vote(self, block: Block) -> bool:
        by_tc = block.tc is not None and block.tc.round == block.round - 1
        return block.round > self.last_voted and (block.qc.round == block.round - 1 or by_tc)


class LockWithCommitVote(Safety):
    """Raises the lock only where it commit-votes."""

    def take_qc(self, qc: QC) -> bool:
        return qc.round > self.hi_timeout and super().take_qc(qc)


SOUND = {
    "one round, two proposals": Search(1, 2, crashes=True),
    "two rounds, crashes": Search(2, 1, crashes=True),
    "two rounds, two proposals each, crashes": Search(2, 2, crashes=True),
    "five replicas, crashes": Search(2, 1, crashes=True, n=5),
    "lock raised only with a commit vote": Search(
        2, 2, Rules(safety=LockWithCommitVote, forks_only=True), crashes=True
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_no_reachable_state_breaks_a_claim(name: str) -> None:
    """Every state, with a crash at every point: nothing is left to chance. The last one has no
    lock where it should: that stops networks, and does not fork them."""
    verdict = SOUND[name].run(STATES_MAX)
    print(f"{name}: {verdict}")
    assert verdict.whole and not verdict.fault, verdict.steps


def test_records_that_differ_in_what_no_rule_reads_are_alike() -> None:
    """The reduction that makes three rounds feasible changes no verdict, and saves states."""
    for rules in (Rules(), Rules(safety=NoTimeoutCheck, forks_only=True)):
        exact = Search(2, 1, rules, crashes=True).run(STATES_MAX)
        alike = Search(2, 1, rules, crashes=True, reduced=True).run(STATES_MAX)
        assert exact.fault == alike.fault
        assert alike.states < exact.states


BROKEN = {
    "a quorum of two": (FORK, Search(1, 2, Rules(quorum=2, forks_only=True))),
    "a quorum of 2f+1 among five": (FORK, Search(1, 2, Rules(quorum=3, forks_only=True), n=5)),
    "no hi_timeout check": (FORK, Search(2, 1, Rules(safety=NoTimeoutCheck, forks_only=True))),
    "a commit vote that leaves the lock": (
        FORK, Search(2, 1, Rules(safety=LeavesLock, forks_only=True)),
    ),
    "a forgotten last_voted": (FORK, Search(2, 2, Rules(forgets=True, forks_only=True))),
    "a vote that leaves before its record": (
        FORK, Search(2, 2, Rules(persists=False, forks_only=True), crashes=True),
    ),
    "a TC that ignores the highest QC": (
        FORK, Search(3, 1, Rules(safety=IgnoresHighestQC, forks_only=True)),
    ),
    "a two-chain whose rounds do not follow": (
        "a certificate that leaves a committed block",
        Search(3, 1, Rules(two_chain_gap=True), reduced=True),
    ),
    "lock raised only with a commit vote": (
        "a QC that does not open the next round", Search(2, 1, Rules(safety=LockWithCommitVote)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_taken_away_is_noticed(name: str) -> None:
    fault, search = BROKEN[name]
    verdict = search.run(STATES_MAX, trail=True)
    print(f"{name}: {verdict}", *verdict.steps, sep="\n  ")
    assert verdict.fault == fault
    assert verdict.steps


@pytest.mark.parametrize("n", [4, 5, 7])
def test_no_random_adventure_forks(n: int) -> None:
    for seed in range(WALKS // n):
        for rounds, per_round in ((6, 1), (8, 2)):
            model = Model(n, rounds, per_round)
            assert not random_walk(model, random.Random(seed), 120), f"seed {seed}, n={n}"


FORKS = {
    "q = 2f+1 at n = 5": (5, 8, 2, 150, Rules(quorum=3)),
    "no hi_timeout check": (4, 8, 2, 150, Rules(safety=NoTimeoutCheck)),
    "a commit vote that leaves the lock": (4, 8, 2, 150, Rules(safety=LeavesLock)),
    "a forgotten last_voted": (4, 8, 2, 150, Rules(forgets=True)),
    "a TC that ignores the highest QC": (
        4, 8, 2, 150, Rules(safety=IgnoresHighestQC, ignores_tc_qc=True),
    ),
    "a two-chain whose rounds do not follow": (4, 6, 1, 60, Rules(two_chain_gap=True)),
}  # fmt: skip


@pytest.mark.parametrize("mutation", FORKS)
def test_each_mutated_rule_forks(mutation: str) -> None:
    """The same adversary breaks every weaker rule, so that it is no weak adversary."""
    n, rounds, per_round, steps, rules = FORKS[mutation]
    model = Model(n, rounds, per_round, rules)
    for seed in count():
        assert seed < 4_000, f"{mutation}: no fork in {seed} walks"
        if random_walk(model, random.Random(seed), steps):
            print(f"{mutation}: forks in walk {seed}")
            return


def block_at(round_: int, qc: QC) -> Block:
    return Block(1, round_, 1, qc, None, (), 0, b"")


def test_it_signs_nothing_against_its_record() -> None:
    safety = Safety(NoSigner(), 0, Safety.fresh(1, GENESIS))
    block = block_at(1, genesis_qc(GENESIS))
    safety.sign_vote(block, GENESIS, ())
    with pytest.raises(SafetyViolation):
        safety.sign_vote(block, GENESIS, ())
    safety.sign_proposal(block)
    with pytest.raises(SafetyViolation):
        safety.sign_proposal(block_at(1, QC(0, GENESIS, ())))
    safety.sign_timeout(1)
    with pytest.raises(SafetyViolation):
        safety.sign_commit_vote(QC(1, GENESIS, ()))
    with pytest.raises(SafetyViolation):
        safety.sign_timeout(3)


def test_a_timed_out_round_still_raises_the_lock() -> None:
    """Only a commit vote is refused: leaving the lock behind as well stops networks."""
    safety = Safety(NoSigner(), 0, Safety.fresh(1, GENESIS))
    safety.sign_timeout(1)
    assert not safety.may_commit_vote(QC(1, GENESIS, ()))
    assert safety.take_qc(QC(1, GENESIS, ()))
    assert safety.lock.round == 1


def test_a_restart_from_the_record_changes_no_answer() -> None:
    """Random statements; a second `Safety` over the record allows what the first allows."""
    rng = random.Random(7)
    safety = Safety(NoSigner(), 0, Safety.fresh(1, GENESIS))
    for _ in range(300):
        twin = Safety(NoSigner(), 0, safety.record())
        qc = QC(rng.randint(0, safety.round + 1), GENESIS, ())
        block = block_at(rng.randint(1, safety.round + 2), qc)
        assert twin.may_vote(block) == safety.may_vote(block)
        assert twin.may_commit_vote(qc) == safety.may_commit_vote(qc)
        assert twin.may_time_out(block.round) == safety.may_time_out(block.round)
        assert twin.round == safety.round
        if safety.may_vote(block) and extends(block.round, block.qc, None):
            safety.sign_vote(block, GENESIS, ())
        elif safety.may_commit_vote(qc):
            safety.sign_commit_vote(qc)
        elif safety.may_time_out(safety.round):
            safety.sign_timeout(safety.round)
