"""What the transport costs, beside plain trio TCP with the same framing in the same run."""

from __future__ import annotations

import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest
import trio
import trio.lowlevel
from pytest_benchmark.fixture import BenchmarkFixture

from p2p import host as host_module
from p2p.framing import FrameParser, pack
from p2p.lanes import Lane, lane_of
from tests.p2p.kinds import of_lane
from tests.p2p.mesh import Replica, free_ports, mesh

ROUND_TRIPS = 1_000
SMALL = of_lane(Lane.LOGS, bytes(190))
JOINED = 60_000
MESH_SECONDS = 4
MESH_RATE = 40


class End(Protocol):
    """One end of a link: queue a frame; frames that arrive go to `on_frame`."""

    on_frame: Callable[[bytes], None]

    def send(self, frame: bytes) -> None: ...


class TransportEnd:
    """An end of a link of ours."""

    def __init__(self, replica: Replica, peer: int) -> None:
        self._transport, self._peer = replica.transport, peer
        self.on_frame: Callable[[bytes], None] = lambda frame: None
        replica.transport._on_frame = self._arrived

    def _arrived(self, peer: int, frame: bytes) -> bool:
        self.on_frame(frame)
        return True

    def send(self, frame: bytes) -> None:
        self._transport.send(self._peer, frame)


class PlainEnd:
    """An end of a plain TCP connection, with a queue and joined writes as ours."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._queue: list[bytes] = []
        self._work = trio.Event()
        self.on_frame: Callable[[bytes], None] = lambda frame: None

    def send(self, frame: bytes) -> None:
        self._queue.append(pack(frame))
        self._work.set()

    async def write(self) -> None:
        while True:
            if not self._queue:
                self._work = trio.Event()
                await self._work.wait()
            blob = b"".join(self._queue)
            self._queue.clear()
            await self._stream.send_all(blob)

    async def read(self) -> None:
        parser = FrameParser()
        while data := await self._stream.receive_some(1 << 16):
            for frame in parser.feed(data):
                self.on_frame(frame)


@asynccontextmanager
async def _ours() -> AsyncIterator[tuple[End, End]]:
    async with mesh(2) as (one, other):
        yield TransportEnd(one, 1), TransportEnd(other, 0)


@asynccontextmanager
async def _plain() -> AsyncIterator[tuple[End, End]]:
    accepted: list[trio.SocketStream] = []
    arrived = trio.Event()

    async def accept(stream: trio.SocketStream) -> None:
        accepted.append(stream)
        arrived.set()
        await trio.sleep_forever()

    (port,) = free_ports(1)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, accept, [listener])
        dialled = await trio.open_tcp_stream("127.0.0.1", port)
        await arrived.wait()
        ends = PlainEnd(dialled), PlainEnd(accepted[0])
        for end in ends:
            nursery.start_soon(end.write)
            nursery.start_soon(end.read)
        yield ends
        nursery.cancel_scope.cancel()


async def _round_trips(one: End, other: End) -> list[float]:
    """Return the times of single small frames there and back, in seconds."""
    times = []
    back = trio.Event()
    other.on_frame = other.send

    def arrived(frame: bytes) -> None:
        back.set()

    one.on_frame = arrived
    for _ in range(ROUND_TRIPS):
        back = trio.Event()
        begun = time.perf_counter()
        one.send(SMALL)
        await back.wait()
        times.append(time.perf_counter() - begun)
    return sorted(times)


async def _joined(one: End, other: End, frame: bytes, frames: int) -> float:
    """Return frames a CPU-second, both ends together, a megabyte queued at a time."""
    seen = 0
    wanted = 0
    reached = trio.Event()

    def arrived(_: bytes) -> None:
        nonlocal seen
        seen += 1
        if seen == wanted:
            reached.set()

    other.on_frame = arrived
    per_turn = max(1, min(2_000, (1 << 20) // len(frame)))  # What a lane holds for sure.
    begun = time.process_time()
    while wanted < frames:
        reached = trio.Event()
        wanted += per_turn
        for _ in range(per_turn):
            one.send(frame)
        await reached.wait()
    return wanted / (time.process_time() - begun)


async def _measure(link: Callable[[], Any]) -> dict[str, float]:
    async with link() as (one, other):
        await _round_trips(one, other)  # Warm: windows grow, caches fill.
        times = await _round_trips(one, other)
        small = await _joined(one, other, SMALL, JOINED)
        large = await _joined(one, other, b"\0" + bytes(1 << 16), 1_000)
    return {
        "rtt_p50_us": times[len(times) // 2] * 1e6,
        "rtt_p99_us": times[len(times) * 99 // 100] * 1e6,
        "small_frames_per_cpu_s": small,
        "large_mb_per_cpu_s": large * (1 << 16) / 1e6,
    }


def test_bench_link(benchmark: BenchmarkFixture) -> None:
    """200-byte frames there and back, joined, and 64 KiB frames: ours beside plain TCP.

    Round trips are in wall time, what is joined in CPU time of both ends.
    """
    plain = trio.run(_measure, _plain)
    ours = benchmark.pedantic(trio.run, (_measure, _ours), rounds=1)  # type: ignore[no-untyped-call]
    for name in ours:
        ratio = ours[name] / plain[name]
        benchmark.extra_info[name] = ours[name]
        benchmark.extra_info[f"{name}_ratio"] = ratio
        print(f"{name:22} ours {ours[name]:12.0f}  plain {plain[name]:12.0f}  ratio {ratio:.3f}")
    assert ours["rtt_p50_us"] < 20_000
    assert ours["small_frames_per_cpu_s"] > 20_000


async def _mesh_cpu(n: int) -> float:
    """Return CPU seconds a node and second, everybody sending small frames to all."""
    async with mesh(n) as replicas:
        begun, cpu = trio.current_time(), time.process_time()
        for tick in range(MESH_SECONDS * MESH_RATE):
            await trio.sleep_until(begun + tick / MESH_RATE)
            for replica in replicas:
                replica.transport.broadcast(SMALL)
        used = time.process_time() - cpu
        expected = MESH_SECONDS * MESH_RATE * (n - 1)
        for replica in replicas:
            await replica.until(lambda r=replica: len(r.received) == expected)  # type: ignore[misc]
        return used / MESH_SECONDS / n


def test_bench_mesh_of_five(benchmark: BenchmarkFixture) -> None:
    """Five nodes in one process, 40 frames of 200 bytes a second from each to all others."""
    share = benchmark.pedantic(trio.run, (_mesh_cpu, 5), rounds=1)  # type: ignore[no-untyped-call]
    frames = MESH_RATE * 4 / share
    benchmark.extra_info["cpu_share_per_node"] = share
    benchmark.extra_info["frames_per_cpu_second"] = frames
    print(f"CPU of one node: {share:.3f} of a core; {frames:.0f} frames sent and got a CPU-second")
    assert share < 0.9


VOTE_S = 0.02
ANSWERS_MB = 40
LINK_BYTES_PER_S = 12_500_000
"""100 Mbit/s. On loopback alone there is no queue anywhere that is not ours."""


def _slow_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each connection carry no more than a 100 Mbit/s line does."""
    write = host_module._Buffered.write
    free: dict[int, float] = {}

    async def paced(self: Any, data: bytes) -> None:
        begun = max(free.get(id(self), 0.0), trio.current_time())
        free[id(self)] = begun + len(data) / LINK_BYTES_PER_S
        await trio.sleep_until(free[id(self)])
        await write(self, data)

    monkeypatch.setattr(host_module._Buffered, "write", paced)


async def _vote_latency(answers_to: int | None) -> list[float]:
    """Return the seconds that votes from 0 to 1 take while 0 answers a peer that syncs."""
    took: list[float] = []
    answer = of_lane(Lane.BULK, bytes(1 << 20))
    received = 0

    def on_frame(peer: int, frame: bytes) -> bool:
        nonlocal received
        if lane_of(frame) is Lane.URGENT:
            took.append(time.perf_counter() - struct.unpack("d", frame[-8:])[0])
        received += len(frame)
        return True

    async def sync(sender: Replica) -> None:
        while answers_to is not None:
            while sender.transport.send(answers_to, answer):
                pass
            await trio.sleep(0.005)

    async with mesh(3) as (zero, one, two), trio.open_nursery() as nursery:
        one.transport._on_frame = two.transport._on_frame = on_frame
        nursery.start_soon(sync, zero)
        until = trio.current_time() + 3
        while received < ANSWERS_MB << 20 if answers_to else trio.current_time() < until:
            stamp = struct.pack("d", time.perf_counter())
            zero.transport.send(1, of_lane(Lane.URGENT, bytes(180) + stamp))
            await trio.sleep(VOTE_S)
        nursery.cancel_scope.cancel()
    return sorted(took)


@pytest.mark.parametrize("paced", [False, True])
def test_bench_votes_while_a_peer_syncs(paced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Votes on a quiet mesh, while a third peer syncs, and while the same link carries answers."""
    if paced:
        _slow_links(monkeypatch)
    for name, answers_to in (("quiet", None), ("third peer syncs", 2), ("same link", 1)):
        took = trio.run(_vote_latency, answers_to)
        p50, p99 = took[len(took) // 2] * 1e3, took[len(took) * 99 // 100] * 1e3
        print(f"{name:17} paced={paced}: {len(took)} votes, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        assert p50 < 100
