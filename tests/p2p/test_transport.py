"""The mesh blames, cuts off and takes back; it outlives silent peers, bugs and its own library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock as Clock

from p2p.errors import HostCrashed, PortInUse
from p2p.framing import HEARTBEAT, pack, piece
from p2p.transport import (
    FRAME_MAX_S,
    PENALTY_FIRST_S,
    PENALTY_FORGOTTEN_S,
    PENALTY_MAX_S,
    SILENCE_MAX_S,
    TURN_FRAMES_MAX,
    Transport,
)
from tests.p2p.fakes import FakeNetwork, FakeStream

PEERS = [(bytes(32), "127.0.0.1", 4000 + i) for i in range(3)]


class Bench:
    """Replica 0's transport over a fake network, and all that it reported."""

    def __init__(self) -> None:
        self.network = FakeNetwork()
        self.network.known = True
        self.frames: list[tuple[int, bytes]] = []
        self.blamed: list[tuple[int, str]] = []
        self.room = True
        self.error: Exception | None = None
        self.on_first: Callable[[], None] | None = None
        self.transport = Transport(
            bytes(32),
            0,
            PEERS,
            ("127.0.0.1", 4000),
            self._on_frame,
            on_malformed=lambda peer, why: self.blamed.append((peer, why)),
            network=self.network.make,
        )
        self._nursery: trio.Nursery

    def _on_frame(self, peer: int, frame: bytes) -> bool:
        if self.error is not None:
            raise self.error
        if not self.frames and self.on_first is not None:
            self.on_first()
        self.frames.append((peer, frame))
        return self.room

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self.transport.run)
            await trio.testing.wait_all_tasks_blocked()
            yield
            self._nursery.cancel_scope.cancel()

    async def inbound(self, peer: int) -> FakeStream:
        """Let `peer` open a stream to us."""
        stream = FakeStream()
        assert self.network.on_stream is not None
        self._nursery.start_soon(self.network.on_stream, peer, stream)
        await trio.testing.wait_all_tasks_blocked()
        return stream


async def _settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_a_broadcast_reaches_all_others(autojump_clock: Clock) -> None:
    bench = Bench()
    async with bench.running():
        assert bench.transport.broadcast(b"\1all") == 2
        assert bench.transport.send(2, b"\1one")
        await trio.sleep(0.1)
        written = sorted(stream.written for stream in bench.network.streams)
        assert written == sorted([pack(b"\1all"), pack(b"\1all") + pack(b"\1one")])


async def test_frames_come_with_their_peer(autojump_clock: Clock) -> None:
    bench = Bench()
    async with bench.running():
        one, two = await bench.inbound(1), await bench.inbound(2)
        one.feed(pack(b"\0a") + HEARTBEAT + pack(b"\1b")[:3])
        two.feed(pack(b"\0c"))
        await _settle()
        one.feed(pack(b"\1b")[3:])
        await _settle()
        assert sorted(bench.frames) == [(1, b"\0a"), (1, b"\1b"), (2, b"\0c")]
        stats = bench.transport.stats()
        assert [stats[1].received_frames, stats[2].received_frames] == [2, 1]


async def test_a_malformed_frame_is_blamed_and_cut_off(autojump_clock: Clock) -> None:
    bench = Bench()
    async with bench.running():
        stream = await bench.inbound(1)
        stream.feed(pack(b"\x05bad") + pack(b"\0late"))
        await trio.sleep(0.01)
        assert bench.blamed == [(1, "unknown channel 5")]
        assert bench.network.aborted == [1]
        assert bench.frames == []
        assert bench.transport.stats()[1].malformed == 1
        assert not bench.network.admits(1)
        assert bench.network.admits(2)
        refused = await bench.inbound(1)
        refused.feed(pack(b"\0again"))
        await _settle()
        assert bench.frames == []
        await trio.sleep(PENALTY_FIRST_S)
        assert bench.network.admits(1)


async def test_each_time_takes_longer_up_to_a_bound_and_is_forgotten(
    autojump_clock: Clock,
) -> None:
    bench = Bench()
    delays = []
    async with bench.running():
        for pause in [0.0] * 9 + [PENALTY_FORGOTTEN_S]:
            await trio.sleep(pause)
            bench.transport.drop(1, "test")
            begun = trio.current_time()
            while not bench.network.admits(1):  # noqa: ASYNC110  It is asked, it does not tell.
                await trio.sleep(0.25)
            delays.append(round(trio.current_time() - begun))
    assert delays == [1, 2, 4, 8, 16, 32, PENALTY_MAX_S, PENALTY_MAX_S, PENALTY_MAX_S, 1]


async def test_a_silent_peer_is_cut_off_and_a_talking_one_is_not(autojump_clock: Clock) -> None:
    bench = Bench()
    async with bench.running():
        await bench.inbound(1)
        talking = await bench.inbound(2)
        for _ in range(int(SILENCE_MAX_S) + 2):
            talking.feed(HEARTBEAT)
            await trio.sleep(1)
        assert set(bench.network.aborted) == {1}
        stats = bench.transport.stats()
        assert (stats[1].silences, stats[2].silences) == (1, 0)


async def test_a_newer_stream_of_a_peer_ends_the_older(autojump_clock: Clock) -> None:
    bench = Bench()
    async with bench.running():
        older, newer = await bench.inbound(1), await bench.inbound(1)
        newer.feed(pack(b"\0new"))
        older.feed(pack(b"\0old"))
        await _settle()
        assert bench.frames == [(1, b"\0new")]


async def test_frames_without_room_are_counted_per_peer(autojump_clock: Clock) -> None:
    bench = Bench()
    bench.room = False
    async with bench.running():
        stream = await bench.inbound(2)
        stream.feed(pack(b"\0x") * 10)
        await _settle()
        assert bench.transport.stats()[2].dropped_in == 10
        assert bench.transport.stats()[1].dropped_in == 0


async def test_an_error_of_ours_in_the_handler_costs_no_link(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    async with bench.running():
        stream = await bench.inbound(1)
        bench.error = KeyError("ours")
        stream.feed(pack(b"\0x"))
        await _settle()
        bench.error = None
        stream.feed(pack(b"\0y"))
        await _settle()
        assert bench.frames == [(1, b"\0y")]
        assert bench.transport.stats()[1].handler_errors == 1
    assert "KeyError" in caplog.text


async def test_a_flood_of_frames_lets_others_have_their_turn(autojump_clock: Clock) -> None:
    bench = Bench()
    async with bench.running():
        flood, quiet = await bench.inbound(1), await bench.inbound(2)
        bench.on_first = lambda: quiet.feed(pack(b"\0q"))
        flood.feed(pack(b"\0f") * 10_000)
        await _settle()
        assert len(bench.frames) == 10_001
        assert bench.frames.index((2, b"\0q")) <= 2 * TURN_FRAMES_MAX


async def test_a_crash_of_the_library_is_survived(autojump_clock: Clock) -> None:
    bench = Bench()
    async with bench.running():
        bench.network.stop(HostCrashed("KeyError"))
        await trio.sleep(5)
        assert bench.network.runs == 2
        assert bench.transport.crashes == 1
        stream = await bench.inbound(1)
        stream.feed(pack(b"\0after"))
        await _settle()
        assert bench.frames == [(1, b"\0after")]


async def test_a_port_in_use_stops_the_start(autojump_clock: Clock) -> None:
    bench = Bench()
    bench.network.crash = PortInUse("port 4000")
    with pytest.raises(PortInUse, match="port 4000"):
        await bench.transport.run()


async def test_other_errors_are_not_hidden(autojump_clock: Clock) -> None:
    bench = Bench()
    bench.network.crash = ZeroDivisionError("ours")
    with pytest.raises(BaseExceptionGroup) as caught:
        await bench.transport.run()
    assert caught.group_contains(ZeroDivisionError)


async def test_a_frame_that_drips_is_cut_off_in_time(autojump_clock: Clock) -> None:
    """One byte a second keeps a peer from being silent; a frame must end all the same."""
    bench = Bench()
    async with bench.running():
        drip, steady = await bench.inbound(1), await bench.inbound(2)
        data = pack(bytes(1_000))
        for second in range(int(FRAME_MAX_S) + 3):
            drip.feed(data[second : second + 1])
            # The other one always has a frame begun too, but each of them ends.
            steady.feed(piece(3, b"\0x", False) if second % 2 else piece(3, b"\0", True))
            steady.feed(HEARTBEAT)
            await trio.sleep(1)
        stats = bench.transport.stats()
        assert (stats[1].stalls, stats[2].stalls) == (1, 0)
        assert not bench.network.admits(1) or stats[1].malformed == 0
        assert bench.network.aborted == [1]


async def test_a_drip_between_votes_is_cut_off_too(autojump_clock: Clock) -> None:
    bench = Bench()
    async with bench.running():
        drip = await bench.inbound(1)
        for _ in range(int(FRAME_MAX_S) + 3):
            drip.feed(piece(3, b"\0", True) + pack(b"\1vote"))
            await trio.sleep(1)
        assert bench.transport.stats()[1].stalls == 1
        assert len(bench.frames) > 20
