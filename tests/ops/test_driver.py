"""The trio driver around the core: nothing leaves before the write, and bad peers are cut off."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest
import trio

from consensus import effects as core
from consensus.admission import Admission
from consensus.codec import encode
from consensus.command import CommandId
from consensus.effects import Write
from consensus.messages import (
    Bodies,
    CommitVote,
    GetBodies,
    Vote,
)
from matcher.outcome import CommandOutcome
from ops.admission import AdmittedCommand
from ops.config import Genesis
from ops.driver import INPUTS_MAX, Driver, Halted
from ops.gateway.port import SubmitStatus
from ops.journal import Journal
from ops.nodeport import NodeView
from ops.observe import Observer
from ops.replica import Executed
from ops.store import MemoryStore, StoreError
from p2p.framing import CONSENSUS, SETTLEMENT, frame, payload_of
from p2p.lanes import Lane
from p2p.transport import Transport
from tests.ops.driver_rig import Barrier, Disk, Rig, Script, alone, command, driving
from tests.ops.solo import NETWORK
from tests.p2p.kinds import of_lane


async def test_whatever_leaves_is_durable_at_that_moment() -> None:
    rig = alone()
    barrier = rig.mesh.check = Barrier(rig.disk)
    commands = [command(rig, n) for n in range(20)]
    async with driving(rig):
        for each in commands:
            assert rig.driver.offer(core.Submitted(each.id, each.body))
            await trio.sleep(0.01)
        done: set[bytes] = set()

        def finished() -> bool:
            done.update(
                event.id
                for executed in rig.out
                if isinstance(executed, Executed)
                for event in executed.events
                if isinstance(event, CommandOutcome)
            )
            return done >= {each.id for each in commands}

        await rig.until(finished)
    assert barrier.seen["LogBatch"] > 3
    assert barrier.seen["Proposal"] > 3 and barrier.seen["Vote"] > 3
    seen = [reply for reply in rig.out if isinstance(reply, core.Reply)]
    assert {reply.id for reply in seen} == {each.id for each in commands}


async def test_a_driver_that_sends_first_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = alone()
    rig.mesh.check = Barrier(rig.disk)
    step_all = Driver._step_all

    def hasty(self: Driver, events: list[Any]) -> Any:
        effects, writes, sync = step_all(self, events)
        for effect in effects:
            self._perform(effect)
        return [], writes, sync

    monkeypatch.setattr(Driver, "_step_all", hasty)
    with pytest.RaisesGroup(AssertionError):
        await rig.driver.run()


async def test_a_client_is_told_only_what_is_durable() -> None:
    """Replies, places and outcomes come after the write of their turn, their records before."""
    rig = alone()
    durable_when_told: list[int] = []

    def told(event: Any) -> None:
        rig.out.append(event)
        durable_when_told.append(rig.disk.unsynced)

    rig.driver._on_reply = rig.driver._on_executed = rig.driver._on_logged = told
    async with driving(rig):
        one = command(rig)
        rig.driver.offer(core.Submitted(one.id, one.body))
        await rig.until(lambda: sum(isinstance(event, Executed) for event in rig.out) > 3)
    assert set(durable_when_told) == {0}
    told_last = [event for event in rig.out if not isinstance(event, core.Reply)]
    assert rig.recorded == told_last, "each was recorded first"


@pytest.mark.parametrize("call", ["apply", "sync"])
async def test_a_failing_write_lets_nothing_out(call: str) -> None:
    rig = alone()
    one = command(rig)
    left: list[Any] = []
    with pytest.RaisesGroup(pytest.RaisesExc(StoreError, match="disk is full")):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run_driver, rig)
            await rig.until(lambda: rig.mesh.frames)

            def fails(at: str) -> bool:
                if at == call and not left:
                    left.append((len(rig.mesh.frames), len(rig.out)))
                return at == call

            rig.disk.fails = fails
            rig.driver.offer(core.Submitted(one.id, one.body))
            await trio.sleep_forever()
    assert left == [(len(rig.mesh.frames), len(rig.out))], "not a frame or a reply after it"


async def _run_driver(rig: Rig) -> None:
    """Run the driver; its nursery's group is unwrapped so that the cause shows."""
    try:
        await rig.driver.run()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


async def test_effects_of_one_turn_are_written_once_and_then_leave_in_order() -> None:
    bodies = [GetBodies((bytes([i]) * 40,)) for i in range(3)]
    script = Script(
        [
            core.Persist((Write("state", b"a", b"1"),), sync=False),
            core.Send(1, bodies[0]),
        ],
        [
            core.Send(2, bodies[1]),
            core.Reply(CommandId(bytes(40)), "busy", 5),
            core.Persist((Write("state", b"b", b"2"),), sync=True),
            core.Broadcast(bodies[2]),
        ],
    )
    disk = Disk()
    rig = Rig(script, disk)
    order: list[str] = []

    def leaving(data: bytes) -> None:
        assert (disk.durable("state", b"a"), disk.durable("state", b"b")) == (b"1", b"2")
        order.append(payload_of(data).hex())

    rig.mesh.check = leaving
    rig.driver.offer(core.TimerFired("x"))
    rig.driver.offer(core.TimerFired("y"))
    async with driving(rig):
        await rig.until(lambda: rig.mesh.frames)
    assert order == [encode(body).hex() for body in bodies]
    assert (disk.applied, disk.synced) == (1, 1)
    assert rig.out == [core.Reply(CommandId(bytes(40)), "busy", 5)]


async def test_the_start_is_the_first_input_whatever_came_before() -> None:
    script = Script()
    rig = Rig(script, Disk())
    rig.driver.on_up(2)
    rig.driver.on_frame(2, frame(CONSENSUS, encode(GetBodies((bytes(40),)))))
    async with driving(rig):
        await rig.until(lambda: len(script.inputs) == 3)
    assert script.inputs[:2] == [core.Start(), core.Connected(2)]


async def test_a_halt_ends_the_driver_after_what_came_before_it() -> None:
    question = GetBodies((bytes(40),))
    halt = core.Halt("fork", b"dump", "forked")
    script = Script([core.Send(1, question), halt, core.Send(2, question)])
    rig = Rig(script, Disk())
    rig.driver.offer(core.TimerFired("x"))
    with pytest.RaisesGroup(pytest.RaisesExc(Halted, match="fork", check=_is_fork)):
        await rig.driver.run()
    assert [peer for peer, _ in rig.mesh.sent] == [1]
    assert rig.out == [halt], "whoever dumps is told before the driver ends, and once"


def _is_fork(halted: Halted) -> bool:
    return (halted.kind, halted.dump) == ("forked", b"dump")


async def test_a_bad_frame_cuts_its_sender_and_nobody_else() -> None:
    vote = Vote(1, 5, bytes(32), (0, 0, 0, 0), 2, b"")
    forged = Vote(1, 5, bytes(32), (0, 0, 0, 0), 2, bytes(64))
    question = GetBodies((bytes(40),))
    script = Script()
    rig = Rig(script, Disk())
    async with driving(rig):
        for peer, data in (
            (1, frame(CONSENSUS, b"\xff" * 50)),
            (2, frame(CONSENSUS, encode(vote))),
            (2, frame(CONSENSUS, encode(forged))),
            (1, frame(SETTLEMENT, b"\x00")),
            (1, frame(SETTLEMENT, b"\x00" * 5_000)),
            (3, frame(CONSENSUS, encode(question))),
        ):
            assert rig.driver.on_frame(peer, data)
        await rig.until(lambda: len(script.inputs) > 1 and len(rig.mesh.dropped) >= 5)
    assert sorted(rig.mesh.dropped) == [1, 1, 1, 2, 2]
    assert script.inputs[1:] == [core.Received(3, question)]
    blames = rig.registry.get_sample_value
    kinds = {"peer": "1", "kind": "malformed share"}
    assert blames("fairlane_p2p_blames_total", kinds) == 2


async def test_a_full_queue_makes_clients_busy_and_loses_no_timer() -> None:
    rig = alone()
    own = Observer(rig.metrics, rig.driver.replica, rig.disk).own
    journal = Journal(rig.disk, 0)
    view = NodeView(
        "1",
        cast(Genesis, None),
        NETWORK,
        rig.driver,
        journal,
        rig.clock,
        rig.metrics,
        own,
        cast(Transport, rig.mesh),
        MemoryStore(),
    )
    while rig.driver.offer(core.PricesObserved(())):
        pass
    assert rig.driver.waiting == INPUTS_MAX
    one = command(rig)
    (result,) = await view.submit([AdmittedCommand(one.id, one.body)])
    assert (result.status, result.id) == (SubmitStatus.BUSY, one.id)
    assert result.retry_after_ms > 0
    assert len(own) == 0
    rig.driver.insist(core.TimerFired("batch"))
    assert rig.driver.waiting == INPUTS_MAX + 1, "what must not be lost is not"


async def test_a_flooding_peer_loses_its_own_frames_only() -> None:
    rig = Rig(Script(), Disk())
    while rig.driver.on_frame(1, frame(CONSENSUS, bytes(1_000))):
        pass
    assert rig.driver.on_frame(2, frame(CONSENSUS, bytes(1_000)))


async def test_the_newest_setting_of_a_timer_counts() -> None:
    disk = Disk()
    script = Script()
    rig = Rig(script, disk)
    now = rig.clock.now_ms()
    script.answers = [[core.SetTimer("a", now + 20), core.SetTimer("b", now + 30)]]
    script.answers += [[core.SetTimer("a", now + 90)]]
    async with driving(rig):
        rig.driver.offer(core.TimerFired("one"))
        rig.driver.offer(core.TimerFired("two"))
        await rig.until(lambda: len(script.inputs) >= 5)
    fired = [event.name for event in script.inputs[1:]]
    assert fired == ["one", "two", "b", "a"]
    assert rig.clock.now_ms() >= now + 90


async def test_metrics_say_what_the_driver_did() -> None:
    rig = alone()
    observer = Observer(rig.metrics, rig.driver.replica, rig.disk)
    rig.driver._on_executed = observer.executed
    rig.driver._on_reply = lambda reply: observer.own.answered(reply, 2.0)
    async with driving(rig):
        one = command(rig)
        observer.own.submitted(one.id, 1.0)
        rig.driver.offer(core.Submitted(one.id, one.body))
        await rig.until(lambda: rig.driver.replica.exchange.outcomes == 1)
        await rig.until(lambda: not len(observer.own))
        await rig.until(lambda: rig.driver.replica.consensus.height > 4)
    read = rig.registry.get_sample_value
    height = rig.driver.replica.consensus.height
    observer.measure(rig.clock.now_ms())
    assert read("fairlane_store_write_seconds_count") == rig.disk.applied
    assert read("fairlane_store_sync_seconds_count") == rig.disk.synced
    assert read("fairlane_consensus_height") == height
    assert read("fairlane_consensus_rounds") == 1
    assert read("fairlane_consensus_missing_validators") == 0
    assert read("fairlane_execution_block_seconds_count") == height
    assert read("fairlane_orderlog_seen_wait_seconds_sum") == 1.0
    assert read("fairlane_execution_latency_seconds_count") == 1
    assert read("fairlane_order_wait_seconds_count") == 1
    assert read("fairlane_orderlog_batch_entries_sum") == 1
    assert read("fairlane_execution_commands_total", {"status": "rejected"}) == 1
    committed = read("fairlane_consensus_commit_seconds_count")
    assert committed is not None and committed >= height - 1, "all but the start's own proposal"


class _Gate:
    """An admission that takes its time over answers, and says what it lets through."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun = threading.Event()

    def admit(self, peer: int, data: bytes) -> Any:
        if b"bodies" in data[:10]:
            self.begun.set()
            assert self.open.wait(20)
            return Bodies(())
        return CommitVote(1, len(data), bytes(32), peer, bytes(64))


async def test_a_vote_does_not_wait_for_an_answer_that_is_verified() -> None:
    """However long that takes, and however many answers stand in line."""
    core_ = Script()
    rig, gate = Rig(core_, Disk()), _Gate()
    rig.driver._admission = cast(Admission, gate)

    def stepped(kind: type) -> int:
        received = [event.message for event in core_.inputs if isinstance(event, core.Received)]
        return sum(isinstance(message, kind) for message in received)

    async with driving(rig):
        for _ in range(50):
            rig.driver.on_frame(2, of_lane(Lane.FETCH, bytes(10_000)))
        await rig.until(gate.begun.is_set)
        for count in range(1, 6):
            rig.driver.on_frame(1, of_lane(Lane.URGENT, b""))
            await rig.until(lambda c=count: stepped(CommitVote) == c)  # type: ignore[misc]
        assert stepped(Bodies) == 0
        gate.open.set()
        await rig.until(lambda: stepped(Bodies) == 50)
