"""What honest replicas sign never is evidence, whatever happens to them; what liars sign is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from consensus.codec import decode
from consensus.context import TABLE_EVIDENCE
from consensus.evidence import Evidence, Statement, contradiction_of, evidence_fault
from consensus.messages import CommitVote, GaveUp, LogBatch, Message, Proposal, Timeout, Vote
from consensus.words import gave_up_of
from ops.sim.audit import WordsAudit
from ops.sim.host import Host
from ops.sim.world import NETWORK_ID, World
from tests.sim.runs import quick, seeds


def position(said: Statement) -> int:
    if isinstance(said, Proposal):
        return said.block.round
    return said.seq if isinstance(said, LogBatch) else said.round


def contradictions(said: Iterable[Statement], n: int) -> list[tuple[str, int, int]]:
    """Return what any two of one key's statements prove, found by trying all that could."""
    by_place: dict[tuple[str, int], list[Statement]] = {}
    every = list(said)
    for each in every:
        by_place.setdefault((type(each).__name__, position(each)), []).append(each)
    pairs = [(a, b) for group in by_place.values() for a in group for b in group]
    gave_up = [each for each in every if isinstance(each, GaveUp)]
    pairs += [(vote, each) for vote in every if isinstance(vote, CommitVote) for each in gave_up]
    found = (contradiction_of(first, second, n) for first, second in pairs)
    return [each for each in found if each is not None]


@pytest.mark.parametrize("scenario", ["storm", "power", "crash"])
@pytest.mark.parametrize("liar", [None, "equivocate", "turncoat"])
def test_nothing_that_an_honest_replica_signs_is_evidence(
    monkeypatch: pytest.MonkeyPatch, scenario: str, liar: str | None
) -> None:
    """All that leaves it in a run, over all its crashes, against all."""
    said: dict[int, dict[Statement, None]] = {}
    spoken = WordsAudit.spoken

    def listening(audit: WordsAudit, host: Host, message: Message) -> None:
        if isinstance(message, Vote | CommitVote | Proposal | LogBatch):
            said.setdefault(host.me, {})[message] = None
        elif isinstance(message, Timeout):
            said.setdefault(host.me, {})[gave_up_of(message)] = None
        spoken(audit, host, message)

    monkeypatch.setattr(WordsAudit, "spoken", listening)
    for seed in seeds(1):
        said.clear()
        plan = quick(scenario, 4, seed, {} if liar is None else {1: liar})
        print(f"seed {seed}")
        world = World(plan)
        world.run()
        assert world.ledger.is_clean, world.ledger.violations
        for node in world.honest:
            own = [each for each in said[node] if author(each) == node]
            assert {type(each) for each in own} >= {Vote, CommitVote, Proposal, LogBatch}
            assert len(own) > 100
            assert contradictions(own, 4) == []


def author(said: Statement) -> int:
    if isinstance(said, Proposal):
        return said.block.round % 4
    return said.author if isinstance(said, LogBatch) else said.voter


@pytest.mark.parametrize(
    ("liar", "scenario", "kinds"),
    [
        ("two-votes", "plain", {"vote", "commit_vote"}),
        ("equivocate", "plain", {"vote"}),
        ("turncoat", "storm", {"commit_vote_after_timeout"}),
        ("fork", "plain", {"log_fork"}),
        ("twin", "plain", {"vote"}),
    ],
)
def test_what_a_liar_signs_proves_itself(liar: str, scenario: str, kinds: set[str]) -> None:
    plan = replace(quick(scenario, 4, 0, {1: liar}), real_keys=True)
    world = World(plan)
    world.run()
    assert world.ledger.is_clean, world.ledger.violations
    found: dict[str, int] = {}
    for node in world.honest:
        counted: dict[str, int] = {}
        for _, raw in world.hosts[node].disk.scan(TABLE_EVIDENCE, b"", b"\xff" * 64):
            record = decode(Evidence, raw)
            fault = evidence_fault(record, NETWORK_ID, world._keys.publics, world._keys.verify)
            assert fault is None
            assert record.offender == 1
            counted[record.kind] = counted.get(record.kind, 0) + 1
            found[record.kind] = found.get(record.kind, 0) + 1
        # A restart knows what the disk has, and counts it.
        host = world.hosts[node]
        world.carrier.crash(host)
        host.boot()
        assert host.core is not None
        counters = host.core.ctx.counters
        durable = {kind: counters.get(f"evidence_{kind}", 0) for kind in counted}
        assert all(0 < durable[kind] <= counted[kind] for kind in durable), (durable, counted)
    assert kinds <= set(found), found
    print(liar, found)
