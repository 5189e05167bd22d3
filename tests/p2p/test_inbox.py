"""The inbox is bounded for each peer and lane and serves all in turn: a flood harms only itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from p2p.framing import FRAME_MAX
from p2p.inbox import TURN_FRAMES_MAX, Inbox
from p2p.lanes import LANE_RULES, Lane, lane_of
from tests.p2p.kinds import LANE_KINDS, of_lane

SMALL = {lane: replace(rule, frames_max=5, bytes_max=90) for lane, rule in LANE_RULES.items()}
PUT = st.tuples(st.integers(0, 3), st.sampled_from(list(Lane)), st.binary(max_size=30))


@given(st.lists(PUT | st.integers(1, 5)))
def test_each_lane_of_a_peer_keeps_its_order_and_its_bounds(
    steps: list[tuple[int, Lane, bytes] | int],
) -> None:
    inbox = Inbox(4, SMALL)
    kept: dict[tuple[int, Lane], list[bytes]] = {(p, lane): [] for p in range(4) for lane in Lane}
    dropped = [0] * 4
    for step in steps:
        if isinstance(step, int):
            for peer, frame in inbox.take(step):
                assert kept[peer, lane_of(frame)].pop(0) == frame
            continue
        peer, lane, data = step
        frame, queue = of_lane(lane, data), kept[peer, lane]
        full = False
        while len(queue) >= 5 or sum(map(len, queue)) + len(frame) > 90:
            dropped[peer] += 1
            full = not SMALL[lane].drops_oldest or not queue
            if full:
                break
            queue.pop(0)
        assert inbox.put(peer, frame) is not full
        if not full:
            queue.append(frame)
        assert inbox.dropped == dropped
    assert len(inbox) == sum(map(len, kept.values()))
    for lane in Lane:
        frames = [frame for (_, at), queue in kept.items() if at is lane for frame in queue]
        stats = inbox.stats()[lane]
        assert (stats.queued_frames, stats.queued_bytes) == (len(frames), sum(map(len, frames)))
    assert sum(stats.dropped for stats in inbox.stats().values()) == sum(dropped)
    rest = []
    while taken := inbox.take():
        rest += taken
    for (peer, lane), queue in kept.items():
        assert [f for p, f in rest if p == peer and lane_of(f) is lane] == queue


@pytest.mark.parametrize("lane", Lane)
def test_a_flood_neither_displaces_nor_delays_the_others(lane: Lane) -> None:
    inbox = Inbox(4)
    frames_max = LANE_RULES[lane].frames_max
    for i in range(frames_max + 900):
        inbox.put(0, of_lane(lane, bytes((i % 256,))))
    for peer in (1, 2, 3):
        assert inbox.put(peer, of_lane(lane, b"quiet"))
    assert {peer for peer, _ in inbox.take(4)} == {0, 1, 2, 3}
    assert inbox.dropped == [900, 0, 0, 0]


def test_a_flood_of_one_lane_leaves_the_other_lanes_their_part_of_every_turn() -> None:
    for flooded in Lane:
        inbox = Inbox(2)
        for _ in range(4_000):
            inbox.put(0, of_lane(flooded, b"flood"))
        for lane in Lane:
            inbox.put(1, of_lane(lane, b"quiet"))
        taken = inbox.take()
        assert {lane_of(frame) for peer, frame in taken if peer == 1} == set(Lane), flooded
        assert len(taken) <= TURN_FRAMES_MAX


def test_a_turn_takes_a_bounded_number_of_bytes_of_every_lane() -> None:
    inbox = Inbox(5)
    for lane in Lane:
        for peer in range(5):
            for _ in range(3):
                inbox.put(peer, of_lane(lane, bytes(1 << 20)))
    taken = inbox.take()
    for lane in Lane:
        size = sum(len(frame) for _, frame in taken if lane_of(frame) is lane)
        assert size < LANE_RULES[lane].turn_bytes_max + (1 << 20) + 64
    assert taken[0][1][:30] == of_lane(Lane.URGENT, bytes(1 << 20))[:30]


def test_the_newest_vote_supersedes_the_oldest_and_the_oldest_batch_stays() -> None:
    for lane, expected in ((Lane.URGENT, b"new"), (Lane.LOGS, b"old")):
        inbox = Inbox(1, SMALL)
        inbox.put(0, of_lane(lane, b"old"))
        for _ in range(4):
            inbox.put(0, of_lane(lane, b"mid"))
        inbox.put(0, of_lane(lane, b"new"))
        kept = [frame for _, frame in inbox.take()]
        assert len(kept) == 5
        assert of_lane(lane, expected) in kept
        assert len(inbox) == 0


def test_the_largest_frame_fits_into_an_empty_queue() -> None:
    for lane in LANE_KINDS:
        frame = of_lane(lane, b"")
        assert Inbox(1).put(0, frame + bytes(FRAME_MAX - len(frame)))


async def test_waiting_ends_with_the_first_frame() -> None:
    inbox = Inbox(2)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inbox.wait)
            await trio.testing.wait_all_tasks_blocked()
            inbox.put(1, b"\0x")
        await inbox.wait()
    assert inbox.take(5) == [(1, b"\0x")]
