"""A network without sockets: streams that a test holds in its hand, in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio
from trio_typing import TaskStatus

from p2p.errors import LinkBroken
from p2p.link import Stream


class FakeStream:
    """A stream that records what is written, and can be stuck, broken or fed."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False
        self.stuck = False
        self._send, self._receive = trio.open_memory_channel[bytes](1000)
        self._broken = trio.Event()

    @property
    def written(self) -> bytes:
        return b"".join(self.writes)

    def feed(self, data: bytes) -> None:
        """Let the reader see `data`."""
        self._send.send_nowait(data)

    def end(self) -> None:
        """Break the stream for reader and writer."""
        self._broken.set()
        self._send.close()

    async def read(self, bytes_max: int) -> bytes:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise LinkBroken("ended") from None

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.stuck:
            await self._broken.wait()
        if self._broken.is_set():
            raise LinkBroken("ended")
        self.writes.append(data)

    async def close(self) -> None:
        self.closed = True


class FakeNetwork:
    """Opens fake streams, or refuses, and remembers when."""

    def __init__(self) -> None:
        self.reachable = True
        self.known = False
        self.stuck = False
        self.streams: list[FakeStream] = []
        self.dials: list[float] = []
        self.aborted: list[int] = []
        self.crash: BaseException | None = None
        self.runs = 0
        self.admits: Callable[[int], bool] = lambda _: True
        self.on_stream: Callable[[int, Stream], Awaitable[None]] | None = None
        self._stop = trio.Event()

    def make(
        self,
        seed: bytes,
        peers: Sequence[tuple[bytes, str, int]],
        listen: tuple[str, int],
        admits: Callable[[int], bool],
        on_stream: Callable[[int, Stream], Awaitable[None]],
    ) -> FakeNetwork:
        """Stand in for the host's class."""
        self.admits, self.on_stream = admits, on_stream
        return self

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self.runs += 1
        self._stop = trio.Event()
        if self.crash is not None and self.runs == 1:
            raise self.crash
        task_status.started()
        await self._stop.wait()
        if self.crash is not None:
            raise self.crash

    def stop(self, error: BaseException) -> None:
        """Let the running network fail."""
        self.crash = error
        self._stop.set()

    async def open(self, peer: int) -> FakeStream:
        self.dials.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if not self.reachable:
            raise LinkBroken("unreachable")
        stream = FakeStream()
        stream.stuck = self.stuck
        self.streams.append(stream)
        return stream

    def connected(self, peer: int) -> bool:
        return self.known

    async def abort(self, peer: int) -> None:
        self.aborted.append(peer)
        for stream in self.streams:
            stream.end()
        await trio.lowlevel.checkpoint()
