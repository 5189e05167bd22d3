"""The trio driver of the deterministic node: inputs in, effects carried out in order.

Per turn: frames are verified in a worker thread, all waiting inputs go through the core, their
records are written as one batch (synced once if any step asked for it), and only then does
anything leave the node. So a Persist of any step is on disk before the sends that followed it.
Large answers are verified in a thread of their own beside the turns, so that no vote waits for it.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import deque
from collections.abc import Callable

import trio

from consensus import effects as core
from consensus.admission import Admission, Refused
from consensus.codec import CodecError, decode, encode
from consensus.messages import LogBatch, Message, Proposal
from ops.clock import Clock
from ops.metrics import Metrics
from ops.replica import Effect, ExchangeReplica, Executed, Input
from ops.store import Storage
from p2p.framing import CONSENSUS, SETTLEMENT, channel_of, frame, payload_of
from p2p.inbox import Inbox
from p2p.lanes import QUICK_LANES, SLOW_LANES
from p2p.transport import Transport
from settlement.checkpoint import BroadcastShare, ShareReceived, SubmitCheckpoint
from settlement.shares import Share

log = logging.getLogger("fairlane.node")

TURN_S = 0.004
"""Turns begin at least so far apart: what comes meanwhile shares one hop to the worker thread and
one sync. It costs a frame 2 ms on average and saved a fifth of a node's CPU at 300 commands/s."""
INPUTS_MAX = 8_192
"""Local inputs (clients, timers, chain, prices) that wait; beyond it clients hear `busy`."""
SHARE_BYTES_MAX = 1_024
BLAME_LOG_S = 5.0
"""One line a peer in this time: a liar fills no log. All are counted in the metrics."""


class Halted(RuntimeError):
    """The core stopped, since going on would be unsafe; `kind` and `dump` are as in `Halt`."""

    def __init__(self, why: str, dump: bytes, kind: str = "unsafe") -> None:
        super().__init__(why)
        self.dump = dump
        self.kind = kind


class Driver:
    """One node's core at work."""

    def __init__(
        self,
        replica: ExchangeReplica,
        admission: Admission,
        store: Storage,
        clock: Clock,
        metrics: Metrics,
        *,
        on_record: Callable[[Executed | LogBatch, list[core.Write]], None],
        on_logged: Callable[[LogBatch], None],
        on_executed: Callable[[Executed], None],
        on_reply: Callable[[core.Reply], None],
        on_submit: Callable[[SubmitCheckpoint], None],
        on_installed: Callable[[int], None] = lambda height: None,
        on_halt: Callable[[core.Halt], None] = lambda halt: None,
    ) -> None:
        """`on_record` may append records to write in the turn; the others come after the write.

        `on_logged` gets the own batches. `on_halt` comes before `run` raises, and nothing of the
        node goes on meanwhile.
        """
        self.replica = replica
        self.inbox = Inbox(replica.config.committee.n)
        self._admission = admission
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._on_record = on_record
        self._on_logged = on_logged
        self._on_executed = on_executed
        self._on_reply = on_reply
        self._on_submit = on_submit
        self._on_installed = on_installed
        self._on_halt = on_halt
        self._transport: Transport | None = None
        self._inputs: deque[Input] = deque()
        self._wake = trio.Event()
        self._slow: list[Input] = []
        self._slow_wake = trio.Event()
        self._slow_taken = trio.Event()
        self._blamed_s: dict[int, float] = {}
        self._timers: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []
        self._timer_wake = trio.Event()

    def attach(self, transport: Transport) -> None:
        """Give the driver its way out; frames before that are lost, as any may be."""
        self._transport = transport

    @property
    def waiting(self) -> int:
        """Local inputs and frames that wait for the core."""
        return len(self._inputs) + len(self.inbox)

    def offer(self, event: Input) -> bool:
        """Queue a local input; False when the queue is full and the input is not taken."""
        if len(self._inputs) >= INPUTS_MAX:
            return False
        self._inputs.append(event)
        self._wake.set()
        return True

    def insist(self, event: Input) -> None:
        """Queue a local input that comes seldom and must not be lost, whatever waits."""
        self._inputs.append(event)
        self._wake.set()

    def on_frame(self, peer: int, data: bytes) -> bool:
        """Queue a peer's frame; False when its share of the inbox is full."""
        self._wake.set()
        self._slow_wake.set()
        return self.inbox.put(peer, data)

    def on_up(self, peer: int) -> None:
        """A link to `peer` came up: the core greets it."""
        self.offer(core.Connected(peer))

    async def run(self) -> None:
        """Drive the core until cancelled. Errors: Halted; StoreError, after which nothing left."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_timers)
            nursery.start_soon(self._run_slow)
            self._inputs.appendleft(core.Start())  # Links may have come up before.
            next_turn_s = trio.current_time()
            while True:
                if not self._inputs and not self._slow and not self.inbox.holds(QUICK_LANES):
                    self._wake = trio.Event()
                    await self._wake.wait()
                await trio.sleep_until(next_turn_s)
                next_turn_s = trio.current_time() + TURN_S
                await self._turn()

    async def _run_slow(self) -> None:
        """Verify large answers beside the turns, a bounded lot at a time."""
        while True:
            while not self.inbox.holds(SLOW_LANES):
                self._slow_wake = trio.Event()
                await self._slow_wake.wait()
            self._slow = await self._verified(self.inbox.take(lanes=SLOW_LANES))
            self._wake.set()
            while self._slow:
                self._slow_taken = trio.Event()
                await self._slow_taken.wait()

    async def _turn(self) -> None:
        """Take what waits, make it durable, then let it out."""
        local = list(self._inputs)
        self._inputs.clear()
        received = await self._verified(self.inbox.take(lanes=QUICK_LANES))
        slow, self._slow = self._slow, []
        self._slow_taken.set()
        effects, writes, sync = self._step_all([*local, *received, *slow])
        if writes:
            started = time.perf_counter()
            self._store.apply(writes, sync=False)
            written = time.perf_counter()
            size = sum(len(write.value or b"") for write in writes)
            self._metrics.node.written(size, written - started)
            if sync:
                await trio.to_thread.run_sync(self._store.sync)
                self._metrics.node.synced(time.perf_counter() - written)
        for effect in effects:
            self._perform(effect)
        await trio.lowlevel.checkpoint()

    async def _verified(self, frames: list[tuple[int, bytes]]) -> list[Input]:
        """Return the inputs behind these frames; whoever sent a bad one is cut off."""
        if not frames:
            return []
        started = time.perf_counter()
        results = await trio.to_thread.run_sync(self._admit_all, frames)
        self._metrics.node.verified(time.perf_counter() - started)
        inputs: list[Input] = []
        for (peer, data), result in zip(frames, results, strict=True):
            if isinstance(result, Refused):
                self._blame(peer, str(result), cut=True)
                continue
            kind = "share" if isinstance(result, Share) else str(result.__struct_config__.tag)
            self._metrics.peers.received(kind, len(data))
            if isinstance(result, Share):
                self._metrics.checkpoints.share(peer)
                inputs.append(ShareReceived(peer, result))
                continue
            if isinstance(result, Proposal):
                self._metrics.consensus.proposed(started, result.block.round)
            inputs.append(core.Received(peer, result))
        return inputs

    def _admit_all(self, frames: list[tuple[int, bytes]]) -> list[Message | Share | Refused]:
        """Verify frames; runs in a worker thread."""
        return [self._admit(peer, data) for peer, data in frames]

    def _admit(self, peer: int, data: bytes) -> Message | Share | Refused:
        try:
            if channel_of(data) == CONSENSUS:
                return self._admission.admit(peer, payload_of(data))
            return decode(Share, payload_of(data), SHARE_BYTES_MAX)
        except CodecError as error:
            return Refused(f"malformed share: {error}")
        except Refused as refused:
            return refused

    def _step_all(self, events: list[Input]) -> tuple[list[Effect], list[core.Write], bool]:
        """Put events through the core; return what to do after the records are written."""
        effects: list[Effect] = []
        writes: list[core.Write] = []
        sync = False
        for event in events:
            started = time.perf_counter()
            caused = self.replica.step(self._clock.now_ms(), event)
            took_s = time.perf_counter() - started
            blocks = 0
            for effect in caused:
                if isinstance(effect, core.Persist):
                    writes.extend(effect.writes)
                    sync = sync or effect.sync
                    continue
                effects.append(effect)
                if isinstance(effect, Executed):
                    self._on_record(effect, writes)
                    blocks += not effect.replayed
                elif isinstance(effect, core.Broadcast) and not isinstance(event, core.Start):
                    self._note_own(effect.message, started, writes)
            self._metrics.node.stepped(took_s)
            self._metrics.execution.blocks_took(took_s, blocks)
        return effects, writes, sync

    def _note_own(self, message: Message, now_s: float, writes: list[core.Write]) -> None:
        """Count what the core made in a step (at the start it only says its last words again)."""
        if isinstance(message, Proposal):
            self._metrics.consensus.proposed(now_s, message.block.round)
        elif isinstance(message, LogBatch):
            self._metrics.order.batch_signed(len(message.entries))
            self._on_record(message, writes)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case core.Send(peer, message):
                self._send(peer, message)
            case core.Broadcast(message):
                self._broadcast(CONSENSUS, encode(message), str(message.__struct_config__.tag))
                if isinstance(message, LogBatch):
                    self._on_logged(message)
            case BroadcastShare(share):
                self._broadcast(SETTLEMENT, encode(share), "share")
            case core.SetTimer(name, at_ms):
                self._set_timer(name, at_ms)
            case core.Reply():
                self._on_reply(effect)
            case Executed():
                self._on_executed(effect)
            case core.Blame(peer, why):
                self._blame(peer, why, cut=False)
            case SubmitCheckpoint(checkpoint):
                self._metrics.checkpoints.signed(checkpoint.number)
                self._on_submit(effect)
            case core.Halt(why, dump, kind):
                self._on_halt(effect)
                raise Halted(why, dump, kind)
            case core.Installed(height):
                self._on_installed(height)
            case core.Persist():
                raise AssertionError("records are taken before anything leaves")

    def _send(self, peer: int, message: Message) -> None:
        data = frame(CONSENSUS, encode(message))
        if self._transport is not None and self._transport.send(peer, data):
            kind = str(message.__struct_config__.tag)
            self._metrics.peers.sent(kind, len(data))
            self._metrics.order.sent(kind)

    def _broadcast(self, channel: int, payload: bytes, kind: str) -> None:
        data = frame(channel, payload)
        if self._transport is not None:
            self._metrics.peers.sent(kind, len(data) * self._transport.broadcast(data))

    def _blame(self, peer: int, why: str, cut: bool) -> None:
        kind = why.split(":", 1)[0]
        now = time.monotonic()
        if now - self._blamed_s.get(peer, -BLAME_LOG_S) >= BLAME_LOG_S:
            self._blamed_s[peer] = now
            log.warning("replica %d: %s", peer, why)
        self._metrics.peers.blamed(peer, kind)
        if cut and self._transport is not None:
            self._transport.drop(peer, why)

    def _set_timer(self, name: str, at_ms: int) -> None:
        self._timers[name] = at_ms
        heapq.heappush(self._heap, (at_ms, name))
        if self._heap[0] == (at_ms, name):
            self._timer_wake.set()

    async def _run_timers(self) -> None:
        """Turn due timers into inputs; a replaced setting is skipped when its turn comes."""
        while True:
            now_ms = self._clock.now_ms()
            while self._heap and self._heap[0][0] <= now_ms:
                at_ms, name = heapq.heappop(self._heap)
                if self._timers.get(name) == at_ms:
                    del self._timers[name]
                    self.insist(core.TimerFired(name))
            self._timer_wake = trio.Event()
            wait_ms = self._heap[0][0] - now_ms if self._heap else 60_000
            with trio.move_on_after(max(wait_ms, 0) / 1000):
                await self._timer_wake.wait()
