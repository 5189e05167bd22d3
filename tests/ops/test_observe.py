"""What the node's metrics say is what happened: against a real core, alone and among liars."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from consensus.command import CommandId
from consensus.effects import Reply, Write
from matcher.outcome import CommandOutcome
from ops import observe
from ops.metrics import Metrics
from ops.observe import Observer, OwnCommands
from ops.replica import ExchangeReplica, Executed
from ops.sim.plan import Plan
from ops.sim.world import World
from ops.store import MemoryStore, Storage
from settlement.checkpoint import KEY_EVIDENCE
from settlement.checkpoint import TABLE as TABLE_CHECKPOINT
from tests.ops.solo import GENESIS_MS, INTERVAL_MS, Solo
from tests.ops.test_journal import block, id_of
from tests.ops.test_replica import story

SEED = 7


class Seen:
    """The metrics of one node as a scrape shows them."""

    def __init__(self, replicas: int = 1) -> None:
        self.metrics = Metrics(replica=0, replicas=replicas, version="test", process=False)

    def __call__(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(f"fairlane_{name}", labels)
        assert value is not None, name
        return value


def lived() -> tuple[Solo, Observer, Seen]:
    """Return a machine that has traded, with its observer, which saw every block."""
    solo, seen = Solo(), Seen()
    observer = Observer(seen.metrics, solo.replica, solo.store)
    story(solo)
    for executed in solo.blocks.values():
        observer.executed(executed)
    observer.measure(solo.now_ms)
    return solo, observer, seen


def test_the_chain_is_shown_as_it_stands() -> None:
    solo, _, seen = lived()
    consensus = solo.replica.consensus
    assert seen("consensus_height") == consensus.height == len(solo.blocks)
    assert seen("consensus_round") == consensus.rounds.round
    assert seen("consensus_rounds") == 1
    assert seen("consensus_total_txs") == len(solo.told) == 8
    lag_ms = solo.now_ms - consensus.ctx.sequencer.time_ms
    assert seen("consensus_block_time_lag_seconds") == lag_ms / 1000
    assert seen("orderlog_committed_head", replica="0") == consensus.ctx.logs.bases[0].seq
    assert seen("execution_trades_total") == len(solo.fills) == 2
    assert seen("execution_commands_total", status="rejected") == 1
    assert seen("execution_rejects_total", reason="insufficient_margin") == 1
    assert seen("order_batch_size_sum") == 8


def test_the_settlement_lag_is_since_the_accepted_number() -> None:
    solo, observer, seen = lived()
    accepted = solo.replica.checkpoints.accepted_number
    assert seen("checkpoint_accepted") == accepted > 0
    assert seen("checkpoint_formed") == max(solo.formed)
    time_ms = solo.replica.consensus.ctx.sequencer.time_ms
    assert seen("checkpoint_lag_seconds") == (time_ms - accepted * INTERVAL_MS) / 1000
    for each in (solo.formed[accepted].height,) * 2:
        observer.accepted(each)
    assert seen("checkpoint_settled_seconds_count") == 1, "once, and only for what was seen live"
    fresh = Solo()
    fresh.accepts = False
    story(fresh)
    Observer(seen.metrics, fresh.replica, fresh.store).measure(fresh.now_ms)
    time_ms = fresh.replica.consensus.ctx.sequencer.time_ms
    assert seen("checkpoint_lag_seconds") == (time_ms - GENESIS_MS) / 1000


def test_a_cancelled_order_is_no_reject() -> None:
    _, observer, seen = lived()
    before = seen("execution_commands_total", status="cancelled") if _has(seen) else 0
    executed = block(1, [], 1)
    event = CommandOutcome(id_of(1), "cancelled", "self_trade", 3, 1, 0)
    observer.executed(Executed(executed.block, (event,), 1, False))
    assert seen("execution_commands_total", status="cancelled") == before + 1
    assert b'rejects_total{reason="self_trade"}' not in seen.metrics.text()


def _has(seen: Seen) -> bool:
    return b'commands_total{status="cancelled"}' in seen.metrics.text()


def test_commands_of_the_own_door_are_timed_from_stage_to_stage() -> None:
    seen = Seen()
    own = OwnCommands(seen.metrics)
    id_ = id_of(1)
    own.submitted(id_, 1.0)
    own.submitted(id_, 5.0)
    own.answered(Reply(id_, "seen", 0, 3), 1.5)
    own.answered(Reply(id_, "duplicate"), 6.0)
    own.executed(id_, 3.5)
    own.executed(id_, 9.0)
    assert seen("orderlog_seen_wait_seconds_sum") == 0.5
    assert seen("order_wait_seconds_sum") == 2.0
    assert seen("execution_latency_seconds_sum") == 2.5
    assert seen("execution_latency_seconds_count") == 1
    assert len(own) == 0


def test_commands_that_were_not_taken_are_not_timed() -> None:
    seen = Seen()
    own = OwnCommands(seen.metrics)
    for n, status in enumerate(("busy", "expired", "duplicate")):
        own.submitted(id_of(n), 1.0)
        own.answered(Reply(id_of(n), status), 2.0)
    own.executed(id_of(9), 2.0)
    assert len(own) == 0
    assert seen("execution_latency_seconds_count") == 0
    own.submitted(id_of(3), 1.0)
    own.answered(Reply(id_of(3), "seen"), 2.0)
    own.executed(id_of(3), 4.0)
    assert seen("orderlog_seen_wait_seconds_count") == 0, "another's log had it first"
    assert seen("execution_latency_seconds_sum") == 3.0


def test_memory_of_the_own_commands_is_bounded() -> None:
    own = OwnCommands(Seen().metrics)
    for n in range(observe.OWN_MAX + 100):
        own.submitted(CommandId(n.to_bytes(40, "big")), float(n))
    assert len(own) == observe.OWN_MAX


def simulated(liars: dict[int, str], me: int) -> tuple[World, Observer]:
    """Return a simulated network of five after some seconds, and the observer of replica `me`."""
    plan = Plan(nodes=5, seed=SEED, duration_ms=40_000, liars=liars)
    print(f"seed {plan.seed}")
    world = World(plan)
    world.start()
    world.loop.run_until(3_000_000, lambda: True)
    host = world.hosts[me]
    assert host.core is not None
    config = SimpleNamespace(committee=world.committee)
    replica = cast(ExchangeReplica, SimpleNamespace(consensus=host.core, config=config))
    return world, Observer(Seen(plan.nodes).metrics, replica, cast(Storage, host.disk))


def test_a_replica_that_never_votes_is_missing() -> None:
    _, whole = simulated({}, 0)
    assert whole._missing() == 0, "a certificate has 4 of 5 votes, but not always the same"
    _, lame = simulated({3: "mute"}, 0)
    assert lame._missing() == 1


def test_a_replica_with_evidence_against_it_is_counted_once() -> None:
    world, _ = simulated({2: "fork"}, 1)
    assert any(offender == 2 for _, offender in world.evidence)
    observers = [simulated({2: "fork"}, me)[1] for me in (0, 3)]  # Who was shown the other branch.
    assert max(observer._offenders() for observer in observers) == 1
    assert not any(observer._is_offender(1) for observer in observers)


def test_two_shares_for_one_number_are_evidence_too() -> None:
    solo = Solo()
    observer = Observer(Seen().metrics, solo.replica, solo.store)
    assert observer._offenders() == 0
    solo.store.apply([Write(TABLE_CHECKPOINT, KEY_EVIDENCE + bytes((0,)), b"x")], sync=True)
    assert observer._offenders() == 1
    assert isinstance(solo.store, MemoryStore)
