"""An outbox bounds what waits, lane by lane, and how much may stand before a vote."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p import outbox as outbox_module
from p2p.framing import FRAME_MAX, SETTLEMENT, FrameParser, frame
from p2p.lanes import LANE_RULES, Lane, lane_of
from p2p.outbox import PIECE_BYTES_MAX, WRITE_BYTES_MAX, Outbox
from tests.p2p.kinds import of_lane


def drained(outbox: Outbox) -> list[bytes]:
    """Return the writes until nothing waits."""
    writes = []
    while blob := outbox.take():
        writes.append(blob)
        outbox.done()
    assert (len(outbox), outbox.size) == (0, 0)
    return writes


def frames_of(writes: list[bytes]) -> list[bytes]:
    parser = FrameParser()
    return [one for blob in writes for one in parser.feed(blob)]


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Lane)), st.sampled_from((0, 10, 20_000, 90_000))),
        max_size=25,
    ),
    st.integers(0, 1000),
)
def test_all_arrives_in_the_order_of_its_lane_in_bounded_writes(
    sent: list[tuple[Lane, int]], seed: int
) -> None:
    """Also when streams break: then some come again, and none is torn or out of order."""
    rng = random.Random(seed)
    outbox, parser, found = Outbox(), FrameParser(), list[bytes]()
    frames = [
        of_lane(lane, number.to_bytes(2, "big") + bytes(size))
        for number, (lane, size) in enumerate(sent)
    ]
    pending = list(frames)
    while pending or len(outbox):
        for one in pending[: rng.randint(0, 3)]:
            assert outbox.put(one)
            del pending[0]
        blob = outbox.take()
        assert len(blob) <= WRITE_BYTES_MAX
        if rng.random() < 0.2:
            # The stream breaks somewhere in the write; the next one starts afresh.
            found += parser.feed(blob[: rng.randint(0, len(blob))])
            parser = FrameParser()
            outbox.undo()
        else:
            found += parser.feed(blob)
            outbox.done()
    for lane in Lane:
        mine = [one for one in frames if lane_of(one) is lane]
        got = [one for one in found if lane_of(one) is lane]
        assert list(dict.fromkeys(got)) == mine
    assert outbox.size == 0


def test_a_vote_waits_for_no_more_than_one_write() -> None:
    outbox = Outbox()
    for lane in (Lane.BULK, Lane.FETCH, Lane.LOGS):
        for _ in range(4):
            outbox.put(of_lane(lane, bytes(1 << 20)))
    outbox.take()
    vote = of_lane(Lane.URGENT, b"mine")
    assert outbox.put(vote)
    outbox.done()
    blob = outbox.take()
    assert blob[4 : 4 + len(vote)] == vote


def test_without_pieces_a_vote_would_wait_for_all_of_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox_module, "PIECE_BYTES_MAX", FRAME_MAX)
    outbox = Outbox()
    outbox.put(of_lane(Lane.BULK, bytes(1 << 20)))
    assert len(outbox.take()) > WRITE_BYTES_MAX


def test_no_lane_starves_while_others_are_full() -> None:
    """Votes and batches without end, and the answer arrives all the same."""
    outbox, parser = Outbox(), FrameParser()
    answer = of_lane(Lane.BULK, bytes(1 << 20))
    outbox.put(answer)
    found: list[bytes] = []
    for _ in range((1 << 20) // PIECE_BYTES_MAX + 2):
        for lane in (Lane.URGENT, Lane.LOGS, Lane.FETCH):
            for _ in range(10):
                outbox.put(of_lane(lane, bytes(9_000)))
        found += parser.feed(outbox.take())
        outbox.done()
    assert answer in found


@pytest.mark.parametrize("lane", Lane)
def test_a_full_lane_drops_by_its_rule_and_nobody_elses_frames(lane: Lane) -> None:
    rule, outbox = LANE_RULES[lane], Outbox()
    others = [other for other in Lane if other is not lane]
    for other in others:
        assert outbox.put(of_lane(other, b"stays"))
    frames = [of_lane(lane, number.to_bytes(4, "big")) for number in range(rule.frames_max + 50)]
    kept = [outbox.put(one) for one in frames]
    assert outbox.dropped(lane) == 50
    assert outbox.waiting(lane)[0] == rule.frames_max
    arrived = frames_of(drained(outbox))
    mine = [one for one in arrived if lane_of(one) is lane]
    if rule.drops_oldest:
        assert all(kept)
        assert mine == frames[50:]
    else:
        assert kept == [True] * rule.frames_max + [False] * 50
        assert mine == frames[: rule.frames_max]
    assert {lane_of(one) for one in arrived} == set(Lane)


@pytest.mark.parametrize("lane", Lane)
def test_a_lane_is_bounded_in_bytes_too(lane: Lane) -> None:
    rule, outbox = LANE_RULES[lane], Outbox()
    for number in range(100):
        outbox.put(of_lane(lane, bytes((number,)) + bytes(300_000)))
        assert outbox.waiting(lane)[1] <= rule.bytes_max
    assert outbox.dropped(lane) > 0


def test_what_is_under_way_is_not_superseded() -> None:
    """Else the receiver would get a frame made of two."""
    outbox = Outbox()
    big = [of_lane(Lane.URGENT, bytes((n,)) + bytes(3 << 20)) for n in range(4)]
    outbox.put(big[0])
    first = outbox.take()
    outbox.put(big[1])
    assert outbox.put(big[2])  # In place of the second, not of the first.
    outbox.done()
    assert outbox.put(big[3])
    assert frames_of([first, *drained(outbox)]) == [big[0], big[3]]


def test_every_kind_has_its_lane_and_unknown_ones_are_bulk() -> None:
    for lane in Lane:
        assert lane_of(of_lane(lane, b"rest")) is lane
    assert lane_of(frame(SETTLEMENT, b"")) is Lane.URGENT
    for odd in (
        b"",
        b"\x99",
        b"\x99\xa4vot",
        b"\x99\xbf",
        b"\xdc\0",
        b"\x99\xa7unknown",
        b"\0" * 50,
    ):
        assert lane_of(frame(0, odd)) is Lane.BULK
    assert lane_of(frame(0, b"\xdc\0\x20\xa4vote")) is Lane.URGENT
