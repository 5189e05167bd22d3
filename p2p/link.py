"""One peer's outbound stream: a bounded queue, many frames to a write, redialled for ever.

A full queue drops the newest frame. What was queued first is a prefix of what the peer lacks, so
it is of use as it comes (logs and chains are hash-linked); and whatever was dropped the core
sends or fetches again: the next frames show the peer its gap, the next connection shows us ours.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from p2p.errors import LinkBroken
from p2p.framing import FRAME_MAX, HEARTBEAT, LENGTH_BYTES, pack

QUEUE_BYTES_MAX: Final = 8 << 20
"""Waiting for one peer; larger than the largest frame, so that one fits into an empty queue."""
WRITE_BYTES_MAX: Final = 256 << 10
"""Bytes to one write: a write costs libp2p about 90 us, whatever its size."""
WRITE_TIMEOUT_S: Final = 4.0
"""Below the 5 s after which yamux gives up a stream by itself, in the middle of a frame."""
HEARTBEAT_S: Final = 1.0
HOLD_S: Final = 2.0
"""How long frames wait for a link that is down; older ones would only be noise."""
DIAL_TIMEOUT_S: Final = 6.0
REDIAL_FIRST_S: Final = 0.1
REDIAL_MAX_S: Final = 3.0
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
    received_frames: int = 0
    received_bytes: int = 0
    dropped_in: int = 0
    malformed: int = 0
    silences: int = 0
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
        self.stats = PeerStats()
        self._peer = peer
        self._network = network
        self._gives_way = gives_way
        self._on_up = on_up
        self._on_down = on_down
        self._queue: deque[bytes] = deque()  # Packed: length, then frame.
        self._work = trio.Event()
        self._poked = trio.Event()
        self._down_since = math.inf  # Counts from `run` on.
        self._penalty_until = -math.inf

    def send(self, frame: bytes) -> bool:
        """Queue a frame; False when it was dropped. Never waits."""
        assert 0 < len(frame) <= FRAME_MAX, len(frame)
        return self.send_packed(pack(frame))

    def send_packed(self, packed: bytes) -> bool:
        """Queue a frame that `pack` made; so a broadcast packs once."""
        stats = self.stats
        if not stats.connected and trio.current_time() - self._down_since > HOLD_S:
            self._discard()
            stats.dropped_out += 1
            return False
        if stats.queued_bytes + len(packed) > QUEUE_BYTES_MAX:
            stats.dropped_out += 1
            return False
        self._queue.append(packed)
        stats.queued_bytes += len(packed)
        self._work.set()
        return True

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
        delay = REDIAL_FIRST_S
        while True:
            await trio.sleep(max(0.0, self._penalty_until - trio.current_time()))
            self._poked = trio.Event()
            stream = await self._dial(patient=delay < GIVE_WAY_S)
            if stream is None:
                await self._pause(delay)
                delay = min(delay * 2, REDIAL_MAX_S)
            else:
                delay = REDIAL_FIRST_S
                await self._serve(stream)
                await trio.sleep(delay)  # A peer that cuts at once must not make a busy loop.

    async def _dial(self, patient: bool) -> Stream | None:
        if self._gives_way and patient and not self._network.connected(self._peer):
            return None
        try:
            with trio.fail_after(DIAL_TIMEOUT_S):
                return await self._network.open(self._peer)
        except (LinkBroken, trio.TooSlowError):
            self.stats.dial_failures += 1
            return None

    async def _pause(self, seconds: float) -> None:
        await trio.sleep(REDIAL_FIRST_S / 2)
        with trio.move_on_after(seconds):
            await self._poked.wait()

    async def _serve(self, stream: Stream) -> None:
        """Write what is queued until the stream ends."""
        self.stats.connects += 1
        if trio.current_time() - self._down_since > HOLD_S:
            self._discard()
        self.stats.connected = True
        try:
            self._on_up(self._peer)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_watch_end, stream, nursery.cancel_scope)
                await self._write_all(stream)
                nursery.cancel_scope.cancel()
        finally:
            self.stats.connected = False
            self._down_since = trio.current_time()
            with trio.move_on_after(CLOSE_TIMEOUT_S) as scope:
                scope.shield = True
                await stream.close()
            self._on_down(self._peer)

    async def _write_all(self, stream: Stream) -> None:
        """Return when the stream breaks; what may not have left is queued again, in its place."""
        while True:
            if not self._queue:
                self._work = trio.Event()
                with trio.move_on_after(HEARTBEAT_S):
                    await self._work.wait()
            taken = self._take()
            left = False
            try:
                await self._write(stream, b"".join(taken) or HEARTBEAT)
                left = True
            except LinkBroken:
                return
            finally:  # Also when the stream's end cancels the write.
                if not left and not self.punished:
                    self._queue.extendleft(reversed(taken))
                    self.stats.queued_bytes += sum(map(len, taken))
            self.stats.sent_frames += len(taken)
            self.stats.sent_bytes += sum(map(len, taken))

    def _take(self) -> list[bytes]:
        taken: list[bytes] = []
        size = 0
        while self._queue and size < WRITE_BYTES_MAX:
            taken.append(self._queue.popleft())
            size += len(taken[-1])
        self.stats.queued_bytes -= size
        return taken

    async def _write(self, stream: Stream, blob: bytes) -> None:
        """Write in pieces, each with its own time limit: a slow link may carry a large frame."""
        for start in range(0, len(blob), WRITE_BYTES_MAX):
            with trio.move_on_after(WRITE_TIMEOUT_S) as scope:
                await stream.write(blob[start : start + WRITE_BYTES_MAX])
            if scope.cancelled_caught:
                await self._network.abort(self._peer)
                raise LinkBroken("the peer does not read")

    def _discard(self) -> None:
        self.stats.dropped_out += len(self._queue)
        self.stats.queued_bytes = 0
        self._queue.clear()


async def _watch_end(stream: Stream, scope: trio.CancelScope) -> None:
    """End the link when the peer ends the stream; it has nothing to say on ours."""
    with suppress(LinkBroken):
        await stream.read(LENGTH_BYTES)
    scope.cancel()
