"""The mesh: a link to every peer, a reader from every peer, and a rule for those that misbehave.

Frames go to `on_frame`, which must be quick and never wait: put them into a bounded queue (`Inbox`)
and say whether there was room. Source: ARCHITECTURE.md, "Transport".
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

import trio

from p2p.errors import HostCrashed, HostError, LinkBroken
from p2p.framing import FRAME_MAX, FrameParser, MalformedFrame
from p2p.lanes import lane_of
from p2p.link import Link, Network, PeerStats, Stream

if TYPE_CHECKING:
    from trio_typing import TaskStatus

READ_BYTES: Final = 64 << 10
SILENCE_MAX_S: Final = 5.0
"""Heartbeats come every second: a peer silent for longer is frozen or gone (yamux never asks)."""
FRAME_MAX_S: Final = 30.0
"""From the first byte of a frame to its last: who drips longer is cut off."""
WATCH_S: Final = 1.0
TURN_FRAMES_MAX: Final = 256
"""Frames of one peer handled before other tasks get their turn."""
PENALTY_FIRST_S: Final = 1.0
PENALTY_MAX_S: Final = 60.0
PENALTY_FORGOTTEN_S: Final = 600.0
RESTART_S: Final = 1.0

_log = logging.getLogger("fairlane.p2p")

Peer = tuple[bytes, str, int]
"""A replica's network public key (Ed25519, 32 bytes), host and port."""


class RunnableNetwork(Network, Protocol):
    """A network that has to be run; `Host` is the real one."""

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Errors: HostError."""


class NetworkFactory(Protocol):
    """Makes a network from identity, peers in replica order, address, admission and handler."""

    def __call__(
        self,
        seed: bytes,
        peers: Sequence[Peer],
        listen: tuple[str, int],
        admits: Callable[[int], bool],
        on_stream: Callable[[int, Stream], Awaitable[None]],
    ) -> RunnableNetwork: ...


def _ignore(*_: object) -> None:
    """Stand in for a callback that nobody gave."""


class _Begun:
    """Since when each of a stream's unfinished frames and pieces has been unfinished."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, int], float] = {}

    def note(self, numbers: Sequence[int], now: float) -> None:
        """Take what `FrameParser.unfinished` says."""
        begun = [(place, number) for place, number in enumerate(numbers) if number]
        self._since = {each: self._since.get(each, now) for each in begun}

    @property
    def oldest_s(self) -> float:
        """When the oldest began."""
        return min(self._since.values(), default=math.inf)


class Transport:
    """Frames between this replica and all others, whatever the others do."""

    def __init__(
        self,
        seed: bytes,
        index: int,
        peers: Sequence[Peer],
        listen: tuple[str, int],
        on_frame: Callable[[int, bytes], bool],
        on_up: Callable[[int], None] = _ignore,
        on_down: Callable[[int], None] = _ignore,
        on_malformed: Callable[[int, str], None] = _ignore,
        network: NetworkFactory | None = None,
    ) -> None:
        """`peers` are all replicas in index order, ourselves included.

        `on_frame(peer, frame)` returns False for a frame it had no room for; `on_up` and
        `on_down` tell when frames can be sent; `on_malformed` blames a peer for its bytes.
        """
        self._seed = seed
        self._index = index
        self._peers = tuple(peers)
        self._listen = listen
        self._on_frame = on_frame
        self._on_malformed = on_malformed
        if network is None:
            from p2p.host import Host

            network = Host
        self._factory = network
        self._network: RunnableNetwork | None = None
        self._nursery: trio.Nursery | None = None
        others = [i for i in range(len(self._peers)) if i != index]
        self._links = {i: Link(i, self, i < index, on_up, on_down) for i in others}
        self._readers: dict[int, trio.CancelScope] = {}
        self._heard: dict[int, float] = {}
        self._begun: dict[int, _Begun] = {}
        self._penalties: dict[int, tuple[int, float]] = {}
        self.crashes = 0

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the mesh up until cancelled.

        Errors: HostError (PortInUse) at the start only; later the host is started anew.
        """
        while True:
            try:
                await self._run_once(task_status)
            except HostError as error:
                if not self.crashes and not isinstance(error, HostCrashed):
                    raise
                self.crashes += 1
                task_status = trio.TASK_STATUS_IGNORED
                _log.error("the p2p host stopped (%s): starting it anew", error)
            await trio.sleep(RESTART_S)

    async def _run_once(self, task_status: TaskStatus[None]) -> None:
        self._network = self._factory(
            self._seed, self._peers, self._listen, self._admits, self._receive
        )
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._network.run)
                self._nursery = nursery
                for link in self._links.values():
                    nursery.start_soon(link.run)
                nursery.start_soon(self._watch)
                task_status.started()
        except* HostError as group:
            failure = group
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        if failure is not None:
            raise failure

    def send(self, peer: int, frame: bytes) -> bool:
        """Queue a frame for `peer`; False when it was dropped and counted. Never waits."""
        return self._links[peer].send(frame)

    def broadcast(self, frame: bytes) -> int:
        """Queue a frame for all other replicas, and return for how many there was room."""
        assert 0 < len(frame) <= FRAME_MAX, len(frame)
        lane = lane_of(frame)
        return sum(link.send(frame, lane) for link in self._links.values())

    def drop(self, peer: int, why: str) -> None:
        """Cut off a peer that misbehaves, and take it back after a delay that grows each time."""
        now = trio.current_time()
        count, last = self._penalties.get(peer, (0, now))
        if now - last > PENALTY_FORGOTTEN_S:
            count = 0
        seconds = min(PENALTY_FIRST_S * 2.0 ** min(count, 16), PENALTY_MAX_S)
        self._penalties[peer] = (count + 1, now)
        self._links[peer].punish(seconds)
        _log.warning("replica %d is cut off for %.0f s: %s", peer, seconds, why)
        if self._nursery is not None and self._network is not None:
            self._nursery.start_soon(self._network.abort, peer)

    def stats(self) -> dict[int, PeerStats]:
        """Return what happened with each peer so far."""
        return {
            peer: replace(link.stats, lanes=link.lane_stats()) for peer, link in self._links.items()
        }

    # What the links need: the host that runs now.

    async def open(self, peer: int) -> Stream:
        """Open a stream to `peer`. Errors: LinkBroken."""
        if self._network is None:
            raise LinkBroken("not running")
        return await self._network.open(peer)

    def connected(self, peer: int) -> bool:
        """Say whether there is a connection to `peer`."""
        return self._network is not None and self._network.connected(peer)

    async def abort(self, peer: int) -> None:
        """Cut all connections to `peer`."""
        if self._network is not None:
            await self._network.abort(peer)

    def _admits(self, peer: int) -> bool:
        return peer in self._links and not self._links[peer].punished

    async def _receive(self, peer: int, stream: Stream) -> None:
        """Read one inbound stream; a peer's newer stream ends the older one."""
        if not self._admits(peer):
            return
        older = self._readers.get(peer)
        if older is not None:
            older.cancel()
        self._links[peer].poke()
        with trio.CancelScope() as scope:
            self._readers[peer] = scope
            try:
                await self._read(peer, stream)
            except LinkBroken:
                pass
            except MalformedFrame as error:
                self._links[peer].stats.malformed += 1
                self._on_malformed(peer, str(error))
                self.drop(peer, f"malformed: {error}")
            finally:
                if self._readers.get(peer) is scope:
                    del self._readers[peer]
                    self._heard.pop(peer, None)
                    self._begun.pop(peer, None)

    async def _read(self, peer: int, stream: Stream) -> None:
        parser = FrameParser()
        begun = self._begun[peer] = _Begun()
        stats = self._links[peer].stats
        self._heard[peer] = trio.current_time()
        while True:
            data = await stream.read(READ_BYTES)
            self._heard[peer] = trio.current_time()
            stats.received_bytes += len(data)
            for count, frame in enumerate(parser.feed(data), 1):
                stats.received_frames += 1
                if not self._handed_on(peer, frame):
                    stats.dropped_in += 1
                if count % TURN_FRAMES_MAX == 0:
                    await trio.lowlevel.checkpoint()
            begun.note(parser.unfinished(), self._heard[peer])

    def _handed_on(self, peer: int, frame: bytes) -> bool:
        """Hand a frame to the node; an error there is ours, and no reason to lose the link."""
        try:
            return self._on_frame(peer, frame) is not False
        except Exception:  # noqa: BLE001  Logged and counted: the node shows it.
            self._links[peer].stats.handler_errors += 1
            _log.exception("handling a frame of replica %d failed", peer)
            return False

    async def _watch(self) -> None:
        """Cut connections whose other side is frozen or drips: nothing else would notice."""
        while True:
            await trio.sleep(WATCH_S)
            now = trio.current_time()
            for peer, heard in list(self._heard.items()):
                if now - heard > SILENCE_MAX_S:
                    self._heard[peer] = now
                    self._links[peer].stats.silences += 1
                    _log.info("replica %d is silent: cutting its connection", peer)
                    await self.abort(peer)
            for peer, begun in list(self._begun.items()):
                if now - begun.oldest_s > FRAME_MAX_S:
                    del self._begun[peer]
                    self._links[peer].stats.stalls += 1
                    self.drop(peer, "a frame without end")
