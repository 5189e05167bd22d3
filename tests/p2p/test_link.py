"""A link bounds what waits, joins what it writes, and comes back for ever; all in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise

import pytest
import trio
import trio.testing
from trio.testing import MockClock as Clock

from p2p.framing import CONSENSUS, FRAME_MAX, HEARTBEAT, FrameParser, frame, pack
from p2p.lanes import LANE_RULES, Lane
from p2p.link import (
    GIVE_WAY_S,
    HEARTBEAT_S,
    HOLD_S,
    REDIAL_MAX_S,
    STEADY_S,
    WRITE_TIMEOUT_S,
    Link,
)
from p2p.outbox import WRITE_BYTES_MAX, WRITE_BYTES_TARGET
from tests.p2p.fakes import FakeNetwork, FakeStream

LOG = b"\x9a\xa5batch"
BULK_BYTES_MAX = LANE_RULES[Lane.BULK].bytes_max


class Bench:
    """A link, its fake network, and what it reported."""

    def __init__(self, gives_way: bool = False) -> None:
        self.network = FakeNetwork()
        self.events: list[str] = []
        self.link = Link(
            1,
            self.network,
            gives_way,
            lambda peer: self.events.append(f"up {peer}"),
            lambda peer: self.events.append(f"down {peer}"),
        )

    @property
    def stream(self) -> FakeStream:
        return self.network.streams[-1]

    def received(self) -> list[bytes]:
        return list(FrameParser().feed(self.stream.written))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.link.run)
            await trio.testing.wait_all_tasks_blocked()
            yield
            nursery.cancel_scope.cancel()


async def test_frames_arrive_in_order_and_joined(autojump_clock: Clock) -> None:
    bench = Bench()
    frames = [frame(CONSENSUS, LOG + i.to_bytes(2, "big")) for i in range(1000)]
    async with bench.running():
        assert all(bench.link.send(frame) for frame in frames)
        await trio.sleep(0.01)
        assert bench.received() == frames
        assert len(bench.stream.writes) == 1
        stats = bench.link.stats
        assert (stats.sent_frames, stats.queued_bytes, stats.dropped_out) == (1000, 0, 0)
    assert bench.events == ["up 1", "down 1"]
    assert bench.stream.closed


async def test_no_write_is_larger_than_its_bound(autojump_clock: Clock) -> None:
    bench = Bench()
    async with bench.running():
        bench.link.send(bytes(FRAME_MAX))
        bench.link.send(b"\0after")
        await trio.sleep(0.01)
        assert max(map(len, bench.stream.writes)) <= WRITE_BYTES_MAX
        assert bench.received() == [bytes(FRAME_MAX), b"\0after"]
        assert min(map(len, bench.stream.writes[:-1])) >= WRITE_BYTES_TARGET


async def test_a_full_lane_of_answers_drops_the_newest_and_counts_it(autojump_clock: Clock) -> None:
    """What is kept is a prefix: the peer misses nothing in the middle."""
    bench = Bench()
    bench.network.stuck = True
    frames = [i.to_bytes(4, "big") + bytes(60_000) for i in range(200)]
    async with bench.running():
        kept = [frame for frame in frames if bench.link.send(frame)]
        assert frames[: len(kept)] == kept
        assert bench.link.stats.queued_bytes <= BULK_BYTES_MAX
        assert bench.link.stats.dropped_out == len(frames) - len(kept) > 0
        room = BULK_BYTES_MAX - bench.link.stats.queued_bytes
        assert not bench.link.send(bytes(60_000))
        assert bench.link.send(bytes(room))  # A smaller one may still fit.


async def test_the_lanes_bounds_are_what_bounds_them(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LANE_RULES, Lane.BULK, replace(LANE_RULES[Lane.BULK], bytes_max=1 << 40))
    bench = Bench()
    bench.network.stuck = True
    async with bench.running():
        assert all(bench.link.send(bytes(1 << 20)) for _ in range(20))
        assert bench.link.stats.queued_bytes > BULK_BYTES_MAX


async def test_a_peer_that_never_reads_is_dialled_less_and_less(autojump_clock: Clock) -> None:
    bench = Bench()
    bench.network.stuck = True
    async with bench.running():
        for _ in range(600):
            bench.link.send(bytes(200_000))
            await trio.sleep(0.5)
        assert bench.link.stats.queued_bytes <= BULK_BYTES_MAX
        gaps = [b - a for a, b in pairwise(bench.network.dials)]
        assert gaps[0] < WRITE_TIMEOUT_S + 0.5
        assert min(gaps[8:]) >= WRITE_TIMEOUT_S + REDIAL_MAX_S - 0.1


async def test_a_steady_link_that_breaks_is_dialled_again_at_once(autojump_clock: Clock) -> None:
    bench = Bench()
    async with bench.running():
        for _ in range(5):
            await trio.sleep(STEADY_S + 1)
            bench.stream.end()
            await trio.sleep(0.3)
            assert bench.link.stats.connected


async def test_a_quiet_link_sends_heartbeats(autojump_clock: Clock) -> None:
    bench = Bench()
    async with bench.running():
        await trio.sleep(10.5 * HEARTBEAT_S)
        assert bench.stream.writes == [HEARTBEAT] * 10
        assert bench.link.stats.sent_frames == 0


async def test_a_peer_that_does_not_read_is_cut_off_in_time(autojump_clock: Clock) -> None:
    bench = Bench()
    bench.network.stuck = True
    async with bench.running():
        bench.link.send(b"\0x")
        await trio.sleep(WRITE_TIMEOUT_S - 0.1)
        assert bench.network.aborted == []
        bench.network.stuck = False
        await trio.sleep(0.2)
        assert bench.network.aborted == [1]
        await trio.sleep(0.5)
        assert bench.received() == [b"\0x"]  # Not lost: it had not left for sure.


async def test_frames_in_an_interrupted_write_keep_their_place(autojump_clock: Clock) -> None:
    bench = Bench()
    bench.network.stuck = True
    async with bench.running():
        bench.link.send(b"\0one")
        await trio.testing.wait_all_tasks_blocked()
        bench.link.send(b"\0two")
        bench.network.stuck = False
        bench.stream.end()
        await trio.sleep(0.5)
        assert bench.received() == [b"\0one", b"\0two"]
        assert bench.link.stats.queued_bytes == 0


async def test_the_end_of_the_stream_is_noticed_at_once(autojump_clock: Clock) -> None:
    bench = Bench()
    async with bench.running():
        bench.stream.end()
        await trio.sleep(0.2)
        assert bench.events == ["up 1", "down 1", "up 1"]
        assert bench.link.stats.reconnects == 1


async def test_a_peer_that_talks_on_our_stream_is_let_go(autojump_clock: Clock) -> None:
    bench = Bench()
    async with bench.running():
        bench.stream.feed(b"?")
        await trio.sleep(0.01)
        assert bench.events == ["up 1", "down 1"]


async def test_it_redials_for_ever_with_a_bounded_delay(autojump_clock: Clock) -> None:
    bench = Bench()
    bench.network.reachable = False
    async with bench.running():
        await trio.sleep(600)
        gaps = [b - a for a, b in pairwise(bench.network.dials)]
        assert all(b > a - 0.001 for a, b in pairwise(gaps))
        assert gaps[0] < 0.3
        assert REDIAL_MAX_S <= max(gaps) < REDIAL_MAX_S + 0.2
        bench.network.reachable = True
        await trio.sleep(REDIAL_MAX_S + 0.2)
        assert bench.events == ["up 1"]
        assert bench.link.stats.dial_failures == len(gaps) + 1


async def test_a_poke_shortens_the_wait_and_never_makes_a_busy_loop(autojump_clock: Clock) -> None:
    bench = Bench()
    bench.network.reachable = False
    async with bench.running():
        await trio.sleep(60)
        bench.network.reachable = True
        bench.link.poke()
        await trio.sleep(0.1)
        assert bench.events == ["up 1"]
    bench = Bench()
    bench.network.reachable = False
    async with bench.running():
        for _ in range(1000):
            bench.link.poke()
            await trio.sleep(0.001)
        assert len(bench.network.dials) <= 25


async def test_a_peer_that_always_hangs_up_makes_no_busy_loop(autojump_clock: Clock) -> None:
    bench = Bench()
    async with bench.running():
        for _ in range(200):
            bench.stream.end()
            await trio.sleep(0.005)
        assert len(bench.network.dials) <= 12


async def test_of_two_peers_the_lower_index_dials_first(autojump_clock: Clock) -> None:
    bench = Bench(gives_way=True)
    async with bench.running():
        await trio.sleep(GIVE_WAY_S * 0.9)
        assert bench.network.dials == []
        bench.network.known = True  # The other one has dialled.
        bench.link.poke()
        await trio.sleep(0.1)
        assert bench.events == ["up 1"]


async def test_but_a_lower_index_that_does_not_dial_is_dialled(autojump_clock: Clock) -> None:
    bench = Bench(gives_way=True)
    async with bench.running():
        await trio.sleep(3)
        assert bench.events == ["up 1"]


async def test_frames_wait_a_moment_for_a_link_that_is_down_but_not_for_ever(
    autojump_clock: Clock,
) -> None:
    bench = Bench()
    bench.network.reachable = False
    async with bench.running():
        await trio.sleep(HOLD_S / 2)
        assert bench.link.send(b"\0soon")
        await trio.sleep(HOLD_S)
        assert not bench.link.send(b"\0late")
        assert bench.link.stats.dropped_out == 2
        assert bench.link.stats.queued_bytes == 0
        bench.network.reachable = True
        await trio.sleep(REDIAL_MAX_S)
        assert bench.received() == []
        assert bench.link.send(b"\0fresh")
        await trio.sleep(0.01)
        assert bench.received() == [b"\0fresh"]


async def test_a_short_outage_loses_nothing(autojump_clock: Clock) -> None:
    bench = Bench()
    async with bench.running():
        bench.network.reachable = False
        bench.stream.end()
        await trio.sleep(0.3)
        assert bench.link.send(b"\0meanwhile")
        bench.network.reachable = True
        await trio.sleep(1)
        assert bench.received() == [b"\0meanwhile"]
        assert bench.link.stats.dropped_out == 0


async def test_a_punished_peer_is_neither_dialled_nor_queued_for(autojump_clock: Clock) -> None:
    bench = Bench()
    async with bench.running():
        bench.link.send(b"\0never")
        bench.link.punish(20)
        bench.stream.end()
        await trio.sleep(19)
        assert len(bench.network.dials) == 1
        assert bench.link.punished
        await trio.sleep(2)
        assert not bench.link.punished
        assert len(bench.network.dials) == 2
        assert bench.received() == []


async def test_what_cannot_be_a_frame_is_our_own_fault(autojump_clock: Clock) -> None:
    link = Bench().link
    for wrong in (b"", bytes(FRAME_MAX + 1)):
        with pytest.raises(AssertionError):
            link.send(wrong)
    assert pack(b"\0") == b"\0\0\0\1\0"
