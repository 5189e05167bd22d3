"""One peer's outbound stream: bounded lanes, many frames to a write, redialled for ever.

Whatever a full lane drops the core sends or fetches again: the next frames show the peer its gap,
the next connection shows us ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from p2p.errors import LinkBroken
from p2p.framing import FRAME_MAX, HEADER_BYTES, HEARTBEAT
from p2p.lanes import Lane, LaneStats, lane_of
from p2p.outbox import Outbox

WRITE_TIMEOUT_S: Final = 4.0
"""Below the 5 s after which yamux gives up a stream by itself, in the middle of a frame."""
HEARTBEAT_S: Final = 1.0
HOLD_S: Final = 2.0
"""How long frames wait for a link that is down; older ones would only be noise."""
DIAL_TIMEOUT_S: Final = 6.0
REDIAL_FIRST_S: Final = 0.1
REDIAL_MAX_S: Final = 3.0
STEADY_S: Final = 5.0
"""A stream that ends sooner makes the next dial wait longer, up to REDIAL_MAX_S."""
GIVE_WAY_S: Final = 1.0
"""Two peers that dial at once would make two connections: the higher index waits this long."""
CLOSE_TIMEOUT_S: Final = 1.0


class Stream(Protocol):
    """A stream of bytes to or from one peer. Errors: LinkBroken, from `read` and `write`."""

    async def read(self, bytes_max: int) -> bytes:
        """Return at least one byte."""

    async def write(self, data: bytes) -> None:
        """Return when `data` is handed on."""

    async def close(self) -> None:
        """End the stream; never fails."""


class Network(Protocol):
    """The way to the peers, each named by its index."""

    async def open(self, peer: int) -> Stream:
        """Return a new stream to `peer`, dialling if need be. Errors: LinkBroken."""

    def connected(self, peer: int) -> bool:
        """Say whether there is a connection to `peer`, whoever dialled it."""

    async def abort(self, peer: int) -> None:
        """Cut all connections to `peer` without a word to it; never fails."""


@dataclass(slots=True)
class PeerStats:
    """What happened on the way to and from one peer since the start. Units: frames, bytes."""

    connected: bool = False
    connects: int = 0
    dial_failures: int = 0
    sent_frames: int = 0
    sent_bytes: int = 0
    dropped_out: int = 0
    queued_bytes: int = 0
    lanes: dict[Lane, LaneStats] = field(default_factory=dict)
    received_frames: int = 0
    received_bytes: int = 0
    dropped_in: int = 0
    malformed: int = 0
    silences: int = 0
    stalls: int = 0
    handler_errors: int = 0

    @property
    def reconnects(self) -> int:
        """Connections after the first."""
        return max(0, self.connects - 1)


class Link:
    """The queue and the stream towards one peer."""

    def __init__(
        self,
        peer: int,
        network: Network,
        gives_way: bool,
        on_up: Callable[[int], None],
        on_down: Callable[[int], None],
    ) -> None:
        """`gives_way` lets the peer dial first."""
        self._stats = PeerStats()
        self._peer = peer
        self._network = network
        self._gives_way = gives_way
        self._on_up = on_up
        self._on_down = on_down
        self._outbox = Outbox()
        self._refused = 0  # Frames dropped because the link was down.
        self._work = trio.Event()
        self._poked = trio.Event()
        self._down_since = math.inf  # Counts from `run` on.
        self._penalty_until = -math.inf

    def send(self, frame: bytes, lane: Lane | None = None) -> bool:
        """Queue a frame in its lane (by its kind); False when it was dropped. Never waits."""
        assert 0 < len(frame) <= FRAME_MAX, len(frame)
        if not self._stats.connected and trio.current_time() - self._down_since > HOLD_S:
            self._discard()
            self._refused += 1
            return False
        kept = self._outbox.put(frame, lane_of(frame) if lane is None else lane)
        self._work.set()
        return kept

    @property
    def stats(self) -> PeerStats:
        """What happened with the peer so far; what waits is counted when it is asked for."""
        self._stats.queued_bytes = self._outbox.size
        self._stats.dropped_out = self._refused + sum(map(self._outbox.dropped, Lane))
        return self._stats

    def lane_stats(self) -> dict[Lane, LaneStats]:
        """Return what waits in each lane."""
        return {
            lane: LaneStats(*self._outbox.waiting(lane), self._outbox.dropped(lane))
            for lane in Lane
        }

    def poke(self) -> None:
        """Dial now: the peer has just shown that it is there."""
        self._poked.set()

    def punish(self, seconds: float) -> None:
        """Do not dial before that time has passed; what is queued is dropped."""
        self._penalty_until = trio.current_time() + seconds
        self._discard()

    @property
    def punished(self) -> bool:
        """Whether the peer is not to be spoken to yet."""
        return trio.current_time() < self._penalty_until

    async def run(self) -> None:
        """Keep the stream up until cancelled."""
        self._down_since = trio.current_time()
        delay = again = REDIAL_FIRST_S
        while True:
            await trio.sleep(max(0.0, self._penalty_until - trio.current_time()))
            self._poked = trio.Event()
            stream = await self._dial(patient=delay < GIVE_WAY_S)
            if stream is None:
                await self._pause(delay)
                delay = min(delay * 2, REDIAL_MAX_S)
            else:
                delay = REDIAL_FIRST_S
                since = trio.current_time()
                await self._serve(stream)
                # A peer that cuts, or never reads, must not make a busy loop.
                if trio.current_time() - since >= STEADY_S:
                    again = REDIAL_FIRST_S
                await self._pause(again)
                again = min(again * 2, REDIAL_MAX_S)

    async def _dial(self, patient: bool) -> Stream | None:
        if self._gives_way and patient and not self._network.connected(self._peer):
            return None
        try:
            with trio.fail_after(DIAL_TIMEOUT_S):
                return await self._network.open(self._peer)
        except (LinkBroken, trio.TooSlowError):
            self._stats.dial_failures += 1
            return None

    async def _pause(self, seconds: float) -> None:
        await trio.sleep(REDIAL_FIRST_S / 2)
        with trio.move_on_after(seconds):
            await self._poked.wait()

    async def _serve(self, stream: Stream) -> None:
        """Write what is queued until the stream ends."""
        self._stats.connects += 1
        if trio.current_time() - self._down_since > HOLD_S:
            self._discard()
        self._stats.connected = True
        try:
            self._on_up(self._peer)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_watch_end, stream, nursery.cancel_scope)
                await self._write_all(stream)
                nursery.cancel_scope.cancel()
        finally:
            self._stats.connected = False
            self._down_since = trio.current_time()
            with trio.move_on_after(CLOSE_TIMEOUT_S) as scope:
                scope.shield = True
                await stream.close()
            self._on_down(self._peer)

    async def _write_all(self, stream: Stream) -> None:
        """Return when the stream breaks; what may not have left is sent again, in its place."""
        outbox = self._outbox
        while True:
            if not len(outbox):
                self._work = trio.Event()
                with trio.move_on_after(HEARTBEAT_S):
                    await self._work.wait()
            blob = outbox.take()
            left = False
            try:
                await self._write(stream, blob or HEARTBEAT)
                left = True
            except LinkBroken:
                return
            finally:  # Also when the stream's end cancels the write.
                if left:
                    self._stats.sent_frames += outbox.done()
                    self._stats.sent_bytes += len(blob)
                else:
                    outbox.undo()

    async def _write(self, stream: Stream, blob: bytes) -> None:
        with trio.move_on_after(WRITE_TIMEOUT_S) as scope:
            await stream.write(blob)
        if scope.cancelled_caught:
            await self._network.abort(self._peer)
            raise LinkBroken("the peer does not read")

    def _discard(self) -> None:
        self._outbox.clear()


async def _watch_end(stream: Stream, scope: trio.CancelScope) -> None:
    """End the link when the peer ends the stream; it has nothing to say on ours."""
    with suppress(LinkBroken):
        await stream.read(HEADER_BYTES)
    scope.cancel()
