"""The inbox is bounded for each peer and serves all in turn: a flood harms only the flooder."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from p2p.framing import FRAME_MAX
from p2p.inbox import BYTES_MAX, Inbox


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=30)) | st.integers(1, 5)))
def test_each_peer_keeps_its_order_and_its_bounds(
    steps: list[tuple[int, bytes] | int],
) -> None:
    inbox = Inbox(4, frames_max=5, bytes_max=60)
    kept: list[list[bytes]] = [[] for _ in range(4)]
    for step in steps:
        if isinstance(step, int):
            for peer, frame in inbox.take(step):
                assert kept[peer].pop(0) == frame
        else:
            peer, frame = step
            room = len(kept[peer]) < 5 and sum(map(len, kept[peer])) + len(frame) <= 60
            before = inbox.dropped[peer]
            assert inbox.put(peer, frame) is room
            assert inbox.dropped[peer] == before + (not room)
            if room:
                kept[peer].append(frame)
    assert len(inbox) == sum(map(len, kept))
    rest = inbox.take(1000)
    assert [[f for p, f in rest if p == peer] for peer in range(4)] == kept
    assert inbox.take(1) == []


def test_a_flood_neither_displaces_nor_delays_the_others() -> None:
    inbox = Inbox(4, frames_max=100)
    for i in range(1_000):
        inbox.put(0, bytes((i % 256,)))
    for peer in (1, 2, 3):
        assert inbox.put(peer, b"quiet")
    assert {peer for peer, _ in inbox.take(4)} == {0, 1, 2, 3}
    assert inbox.dropped == [900, 0, 0, 0]


def test_the_largest_frame_fits_into_an_empty_queue() -> None:
    assert FRAME_MAX <= BYTES_MAX
    assert Inbox(1).put(0, bytes(FRAME_MAX))


async def test_waiting_ends_with_the_first_frame() -> None:
    inbox = Inbox(2)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inbox.wait)
            await trio.testing.wait_all_tasks_blocked()
            inbox.put(1, b"x")
        await inbox.wait()
    assert inbox.take(5) == [(1, b"x")]
