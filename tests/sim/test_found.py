"""Faults that the simulator found in the core: each is put back, and must be found again.

Every test prints in how many seeds; what is in the tree holds on the same runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from consensus import recovery
from consensus.batches import SealedBatch
from consensus.command import CommandId
from consensus.context import TABLE_BODIES, Context
from consensus.digest import Digest
from consensus.logstore import LogStore
from consensus.messages import Block, LogBatch
from consensus.voting import Voting
from ops.sim.plan import Plan
from ops.sim.report import run
from tests.sim.runs import assert_held, hunt, quick

SEEDS = 12


def found(plans: Iterator[Plan], kind: str) -> int:
    """Return the seed that shows a violation of `kind`; the test fails if none does."""
    report = hunt(plans, [kind])
    assert report is not None, f"not found in {SEEDS} seeds"
    print(f"{kind} broken at seed {report.seed}: {report.violations[0]}")
    return report.seed


def test_a_vote_never_leaves_before_all_data_up_to_its_heads_is_durable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once a batch below the parent's heads could be missing, and the state went unchecked."""

    def plans() -> Iterator[Plan]:
        return (quick("loss", 5, seed) for seed in range(SEEDS))

    with monkeypatch.context() as patch:
        patch.setattr(Voting, "_check_state", lambda *_: True)
        honest_data_for = Voting._is_valid

        def careless(self: Voting, block: Block, digest: Digest) -> bool:
            parent = self._ctx.tree.block(block.qc.block)
            if parent is not None and self._committer.data_for(block, block) is None:
                return self._check_paths(block, parent, digest)
            return honest_data_for(self, block, digest)

        patch.setattr(Voting, "_is_valid", careless)
        seed = found(plans(), "durability")
    assert_held(run(quick("loss", 5, seed)))


def test_a_block_that_commit_votes_proved_first_is_not_held_against_its_leader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once the proposal of a block that was already committed got its honest leader blamed."""

    class Forgetful(Voting):
        def try_vote(self) -> bool:
            proposal = self._proposals.get(self._rounds.round)
            if proposal is not None and self._ctx.safety.may_vote(proposal.block):
                tip = self._ctx.tree.tip.height
                if self._ctx.tree.block(proposal.block.qc.block) and proposal.block.height <= tip:
                    self._refuse(proposal.block, Digest(bytes(32)), "does not extend the chain")
            return super().try_vote()

    with monkeypatch.context() as patch:
        patch.setattr("consensus.replica.Voting", Forgetful)
        seed = found((quick("loss", 7, seed) for seed in range(SEEDS)), "blame")
    assert_held(run(quick("loss", 7, seed)))


def test_void_ids_that_nobody_can_serve_do_not_stop_a_network_that_lost_power(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once a restarted replica waited for the bodies of void ids that a liar had logged."""

    def forgetful(ctx: Context, sealed: SealedBatch) -> None:
        fair = ctx.sequencer.fair
        over = [CommandId(e) for e in sealed.batch.entries if fair.is_done(e)]
        ctx.logs.add(sealed, over)
        for id_ in list(sealed.missing):
            body = ctx.reader.get(TABLE_BODIES, id_)
            if body is not None:
                ctx.logs.add_body(id_, body)

    def plan(seed: int) -> Plan:
        shaped = quick("power-liar", 5, seed)
        return quick("power-liar", 5, seed, {next(iter(shaped.liars)): "stuff"})

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "_hold", forgetful)
        seed = found(map(plan, range(SEEDS)), "liveness")
    assert_held(run(plan(seed)))


def test_a_liar_with_many_branches_cannot_fill_the_places_that_the_order_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once eight branches from anybody shut out the one that the leader had."""

    def crowded(
        self: LogStore,
        batch: LogBatch,
        digest: Digest,
        giver: int | None = None,
        named: bool = False,
    ) -> bool:
        base = self.bases[batch.author].seq
        if not base < batch.seq <= base + 2 * self._parameters.log_window:
            return False
        rivals = self._by_seq[batch.author].get(batch.seq, ())
        return not rivals or (giver is not None and len(rivals) < 8)

    with monkeypatch.context() as patch:
        patch.setattr(LogStore, "has_room", crowded)
        seed = found((quick("plain", 5, s, {1: "hydra"}) for s in range(SEEDS)), "liveness")
    assert_held(run(quick("plain", 5, seed, {1: "hydra"})))
