"""Each check that looks on is shown something broken on purpose, and sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from consensus.command import command_id, encode_command
from consensus.digest import Digest
from consensus.fairorder import FairOrder
from consensus.messages import Vote
from consensus.prune import Pruner
from consensus.rounds import Rounds
from consensus.sequencer import OrderedBlock
from ops.sim.audit.memory import UNKNOWN_MAX, bound, sizes
from ops.sim.audit.receipts import ReceiptAudit
from ops.sim.executor import HashChain
from ops.sim.keys import sign_command
from ops.sim.plan import NetworkDials, Plan
from ops.sim.report import run
from ops.sim.world import World
from tests.sim.runs import QUICK, assert_held, quick


def first_kind(plan: Plan) -> str:
    report = run(plan)
    assert report.violations, "what was broken went unseen"
    print(report.violations[0])
    return report.violations[0].partition("]")[0].lstrip("[")


def test_a_command_that_is_never_ordered_raises_the_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """All replicas agree to leave some commands out: nothing forks, and the others go on."""
    commit = FairOrder.commit

    def choosy(self: FairOrder, height: int, ms: int, digest: Any, suffixes: Any) -> Any:
        kept = [[id_ for id_ in suffix if id_[8] % 16] for suffix in suffixes]
        return commit(self, height, ms, digest, kept)

    monkeypatch.setattr(FairOrder, "commit", choosy)
    assert first_kind(quick("plain", 4, 1)) == "inclusion"


def test_batches_in_the_wrong_order_are_unfair(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = FairOrder.commit
    monkeypatch.setattr(FairOrder, "commit", lambda *args: commit(*args)[::-1])
    assert first_kind(quick("plain", 5, 1)) == "fairness"


def test_a_new_container_without_a_bound_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody told the audit of `log`: it walks the replica."""
    on_vote = Rounds.on_vote

    def leaky(self: Rounds, peer: int, vote: Vote) -> None:
        self.__dict__.setdefault("log", {}).setdefault(peer, []).append(vote)
        on_vote(self, peer, vote)

    monkeypatch.setattr(Rounds, "on_vote", leaky)
    monkeypatch.setattr("ops.sim.audit.memory.UNKNOWN_MAX", 300)
    report = run(quick("plain", 4, 1))
    assert report.violations[0].startswith("[memory]") and "rounds.log[]" in report.violations[0]


def test_every_container_of_a_replica_is_measured() -> None:
    """Also those in slots and in objects inside containers; those with a bound of their own too."""
    world = World(quick("plain", 4, 2))
    world.run()
    core = world.hosts[0].core
    assert core is not None
    found = sizes(core)
    for place in (
        "ctx.logs._held[]",
        "ctx.executed_digests",
        "rounds._votes._votes",
        "_peer_heights",
    ):
        assert place in found
    assert found["ctx.tree._blocks"] > 10
    assert bound(core, "somewhere.else") == UNKNOWN_MAX
    assert all(size <= bound(core, place) for place, size in found.items())


def test_checks_that_see_no_receipts_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tap once named replicas by the wrong bytes of a key, and the checks held of nothing."""
    kept = ReceiptAudit.kept

    def blind(self: ReceiptAudit, node: int, key: bytes, raw: bytes) -> None:
        if node != 1:
            kept(self, node, key, raw)

    monkeypatch.setattr(ReceiptAudit, "kept", blind)
    assert first_kind(quick("plain", 4, 1)) == "tap"


def test_receipts_are_those_of_every_honest_replica() -> None:
    plan = quick("plain", 4, 1)
    world = World(plan)
    world.run()
    logs = [world.audits.receipts.log(node) for node in world.honest]
    executed = set(world.chain.order)
    assert len(executed) > 30
    assert all(len(executed - set(log)) < len(executed) // 10 for log in logs)
    assert_held(run(plan))


def test_a_disk_that_is_pruned_is_level_and_one_that_grows_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hundreds of blocks, of which 32 are kept."""
    monkeypatch.setattr("consensus.committer.SNAPSHOT_INTERVAL", 8)
    quick_blocks = msgspec.structs.replace(
        QUICK, block_interval_ms=10, empty_block_ms=15, batch_interval_ms=60
    )
    still = NetworkDials(delay_min_ms=1, delay_max_ms=2)
    plan = replace(quick("plain", 4, 1, parameters=quick_blocks, network=still), retain_blocks=32)
    plan = replace(plan, duration_ms=8_000, commands_per_s=10)
    held = run(plan)
    assert_held(held)
    assert held.height > 300
    monkeypatch.setattr(Pruner, "work", lambda self: None)
    assert first_kind(plan) == "disk"


def test_what_is_executed_does_not_depend_on_which_signature_a_command_carries() -> None:
    """A signature has a twin: states once differed where replicas held different ones."""
    signed = sign_command(bytes(32), 5_000, bytes(20), b"order")
    twin = msgspec.structs.replace(signed, signature=bytes(65))
    id_ = command_id(bytes(32), signed)
    digests = set()
    for command in (signed, twin):
        executor = HashChain()
        executor.execute(
            OrderedBlock(1, 1, Digest(bytes(32)), 1, (), (id_,), (), (), (), b""),
            [(id_, encode_command(command))],
        )
        digests.add(executor._chain)
    assert len(digests) == 1
