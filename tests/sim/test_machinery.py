"""The simulator's own parts: a disk that forgets, links that break, and audits that see."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from consensus.codec import encode
from consensus.effects import Persist, Write
from consensus.messages import CommitProof, block_digest
from ops.sim.audit import CertificateAudit, ChainAudit, Ledger, unfair_pairs
from ops.sim.disk import SimDisk
from ops.sim.loop import Loop
from ops.sim.network import Network
from ops.sim.plan import NetworkDials
from tests.consensus.fairness_oracle import inversions
from tests.consensus.samples import Sample

SAMPLE = Sample()


def persist(k: int, sync: bool) -> Persist:
    return Persist((Write("t", b"%d" % k, b"%d" % k),), sync)


@given(st.lists(st.booleans(), max_size=20), st.integers(0, 1 << 30))
def test_a_crash_takes_an_end_of_what_was_not_synced(syncs: list[bool], seed: int) -> None:
    disk = SimDisk()
    for k, sync in enumerate(syncs):
        disk.persist(persist(k, sync))
        assert disk.get("t", b"%d" % k) is not None
        assert (disk.durable("t", b"%d" % k) is not None) == sync
    safe = max((k + 1 for k, sync in enumerate(syncs) if sync), default=0)
    disk.crash(random.Random(seed))
    left = [k for k in range(len(syncs)) if disk.get("t", b"%d" % k) is not None]
    assert left == list(range(len(left)))
    assert len(left) >= safe
    assert all(disk.durable("t", b"%d" % k) is not None for k in left)
    assert disk.lost_persists == len(syncs) - len(left)


def network(dials: NetworkDials) -> tuple[Loop, Network, list[tuple[int, int, bytes]]]:
    loop, arrived = Loop(), list[tuple[int, int, bytes]]()
    net = Network(loop, random.Random(1), 4, dials, lambda a, b, f: arrived.append((a, b, f)))
    return loop, net, arrived


def run(loop: Loop) -> None:
    loop.run_until(loop.now_us + 10_000_000, lambda: True)


def test_frames_pass_only_over_links_and_not_between_groups() -> None:
    loop, net, arrived = network(NetworkDials())
    net.send(0, 1, b"too early")
    net.link(0, 1)
    net.link(1, 2)
    net.send(0, 1, b"a")
    run(loop)
    again = net.part((0, 1, 1, 1), breaks=False)
    assert (0, 1) not in again
    net.send(0, 1, b"cut")
    net.send(1, 2, b"b")
    run(loop)
    assert (0, 1) not in net.part((0, 0, 0, 0), breaks=False), "the link never noticed"
    net.send(0, 1, b"c")
    run(loop)
    net.part((0, 1, 1, 1), breaks=True)
    assert (0, 1) in net.part((0, 0, 0, 0), breaks=True), "to be connected again"
    net.send(0, 1, b"no link")
    net.unlink(2)
    net.send(1, 2, b"down")
    run(loop)
    assert [frame for _, _, frame in arrived] == [b"a", b"b", b"c"]
    assert net.cut_off == 4


def test_a_calm_network_loses_and_delays_nothing() -> None:
    wild = NetworkDials(loss=0.5, repeat=0.5, slow=0.5, storm=0.5)
    loop, net, arrived = network(wild)
    net.link(0, 1)
    for _ in range(200):
        net.send(0, 1, b"wild")
    run(loop)
    assert net.lost > 50 and net.repeated > 20
    assert len(arrived) == 200 - net.lost + net.repeated
    arrived.clear()
    net.calm()
    for _ in range(200):
        net.send(0, 1, b"calm")
    loop.run_until(loop.now_us + 17_000, lambda: True)
    assert len(arrived) == 200


def never_void(a: bytes, b: bytes) -> bool:
    return False


@given(
    st.lists(st.permutations([b"a", b"b", b"c", b"d"]), min_size=3, max_size=5),
    st.lists(st.integers(0, 4), min_size=3, max_size=5),
    st.permutations([(1, b"a"), (2, b"b"), (3, b"c"), (3, b"d")]),
    st.integers(0, 4),
    st.integers(0, 2),
    st.integers(1, 6),
)
def test_the_fairness_audit_agrees_with_another_oracle(
    logs: list[Sequence[bytes]],
    lengths: list[int],
    emission: list[tuple[int, bytes]],
    emitted: int,
    liars: int,
    received_min: int,
) -> None:
    receipts = [list(log)[:length] for log, length in zip(logs, lengths, strict=False)]
    emission = sorted(emission[:emitted])
    still_open = {b"d": 3}
    found = unfair_pairs(receipts, liars, received_min, emission, still_open, never_void)
    expected = inversions(receipts, liars, received_min, emission, still_open)
    assert sorted(found) == sorted(expected)


def ledger() -> Ledger:
    return Ledger(lambda: 0)


def test_the_chain_audit_sees_a_fork_a_repetition_and_what_is_left_out() -> None:
    notes = ledger()
    audit = ChainAudit(notes, SAMPLE.committee, SAMPLE.parameters, SAMPLE.genesis)
    qc = SAMPLE.qc(0, b"")
    first = SAMPLE.block(1, qc)
    second = replace(SAMPLE.block(2, SAMPLE.qc(1, block_digest(first), (0, 5, 0, 0)), height=2))
    for height, block in ((1, first), (2, second)):
        assert notes.is_clean
        audit.committed(0, height, block_digest(block), encode(block))
    assert [v.kind for v in notes.violations] == ["inclusion"]
    audit.committed(1, 1, bytes(32), encode(first))
    assert notes.violations[-1].kind == "agreement"


@pytest.mark.parametrize("voters", [(0, 1), (0, 1, 1)])
def test_the_certificate_audit_does_its_own_sums(voters: tuple[int, ...]) -> None:
    notes = ledger()
    audit = CertificateAudit(notes, SAMPLE.committee, SAMPLE.keys.verify)
    good = SAMPLE.qc(1, bytes(32))
    audit.held(0, good)
    audit.held(0, SAMPLE.tc(3, good))
    votes = tuple((v, SAMPLE.commit_vote(v, 1, bytes(32)).signature) for v in (0, 1, 2))
    audit.held(0, CommitProof(1, bytes(32), votes))
    assert notes.is_clean
    audit.held(0, CommitProof(1, bytes(32), tuple(votes[v] for v in voters)))
    assert [v.kind for v in notes.violations] == ["certificate"]
    audit.held(0, CommitProof(2, bytes(32), votes))
    assert "bad signature" in notes.violations[-1].text


def test_ignored_kinds_are_not_noted() -> None:
    notes = Ledger(lambda: 0, frozenset({"blame"}))
    notes.found("blame", 1, "nothing")
    assert notes.is_clean
    notes.found("halt", 1, "something")
    assert not notes.is_clean
