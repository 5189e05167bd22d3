"""Frames come out as they went in, whatever the pieces; anything else breaks the stream cleanly."""

from __future__ import annotations

from itertools import pairwise
from time import process_time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2p import framing
from p2p.framing import (
    CONSENSUS,
    FRAME_MAX,
    HEARTBEAT,
    SETTLEMENT,
    FrameParser,
    MalformedFrame,
    channel_of,
    frame,
    pack,
    payload_of,
    piece,
)

_FRAMES = st.lists(
    st.builds(frame, st.sampled_from((CONSENSUS, SETTLEMENT)), st.binary(max_size=50)), max_size=10
)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(marks)]


@given(frames=_FRAMES, cuts=st.lists(st.integers(0, 10**6), max_size=20), beats=st.booleans())
def test_frames_survive_any_cutting(frames: list[bytes], cuts: list[int], beats: bool) -> None:
    between = HEARTBEAT if beats else b""
    stream = b"".join(pack(one) + between for one in frames)
    parser = FrameParser()
    found = [one for piece in _pieces(stream, cuts) for one in parser.feed(piece)]
    assert found == frames
    assert parser.held == 0


@given(st.lists(st.binary(max_size=300), max_size=8))
@example([b"\0\0\0\1", b"\7"])
@example([b"\xff"] * 5)
def test_hostile_bytes_raise_nothing_else(pieces: list[bytes]) -> None:
    """Whatever comes is frames, waiting, or MalformedFrame for good; never more is held."""
    parser = FrameParser()
    broken = False
    for part in pieces:
        try:
            for one in parser.feed(part):
                assert not broken
                assert channel_of(one) in (CONSENSUS, SETTLEMENT)
                assert len(one) <= FRAME_MAX
        except MalformedFrame:
            broken = True
            assert parser.held == 0
        assert parser.held <= FRAME_MAX + 4


def test_the_largest_frame_passes_and_one_byte_more_does_not() -> None:
    largest = bytes(FRAME_MAX)
    assert list(FrameParser().feed(pack(largest))) == [largest]
    parser = FrameParser()
    with pytest.raises(MalformedFrame, match="at most"):
        list(parser.feed((FRAME_MAX + 1).to_bytes(4, "big")))
    with pytest.raises(MalformedFrame, match="at most"):
        list(parser.feed(pack(b"\0fine")))


def test_an_oversize_frame_is_refused_before_its_body_comes() -> None:
    """In pieces of one byte too: nothing of a frame that will be refused is collected."""
    parser = FrameParser()
    announced = b"\xff\xff\xff\xff"
    for i in range(3):
        assert list(parser.feed(announced[i : i + 1])) == []
    with pytest.raises(MalformedFrame):
        list(parser.feed(announced[3:]))


def test_frames_before_the_malformed_one_are_delivered() -> None:
    frames = FrameParser().feed(pack(b"\0good") + pack(b"\x09bad") + pack(b"\0late"))
    assert next(frames) == b"\0good"
    with pytest.raises(MalformedFrame, match="unknown channel 9"):
        next(frames)


def test_without_its_bound_the_parser_would_hold_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "FRAME_MAX", 1 << 40)
    parser = FrameParser()
    assert list(parser.feed((1 << 27).to_bytes(4, "big") + bytes(1000))) == []
    assert parser.held == 1004


def test_a_frame_names_its_channel() -> None:
    one = frame(SETTLEMENT, b"share")
    assert (channel_of(one), payload_of(one)) == (SETTLEMENT, b"share")
    with pytest.raises(AssertionError):
        frame(7, b"")


def test_a_large_frame_in_small_pieces_costs_no_more_than_its_bytes() -> None:
    """Copying all that is held for every piece would move 8 GB here."""
    parser = FrameParser()
    stream = pack(bytes(FRAME_MAX))
    begun = process_time()
    for start in range(0, len(stream), 1024):
        found = list(parser.feed(stream[start : start + 1024]))
    assert [len(one) for one in found] == [FRAME_MAX]
    assert process_time() - begun < 0.5


@given(
    frames=st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=60)), max_size=8),
    choices=st.lists(st.integers(0, 1000), min_size=40, max_size=40),
    cuts=st.lists(st.integers(0, 10**6), max_size=20),
)
def test_pieces_of_several_lanes_may_come_in_between_each_other(
    frames: list[tuple[int, bytes]], choices: list[int], cuts: list[int]
) -> None:
    """Each lane's frames come out whole and in order, whatever the mix, heartbeats included."""
    waiting: list[list[bytes]] = [[] for _ in range(4)]
    for lane, data in frames:
        whole = frame(CONSENSUS, data)
        size = 1 + choices[len(waiting[lane]) % len(choices)] % 9
        for start in range(0, len(whole), size):
            end = start + size
            waiting[lane].append(piece(lane, whole[start:end], end < len(whole)))
    stream = b""
    for turn in range(10_000):
        ready = [queue for queue in waiting if queue]
        if not ready:
            break
        choice = choices[turn % len(choices)]
        stream += ready[choice % len(ready)].pop(0) + (HEARTBEAT if choice % 7 == 0 else b"")
    parser = FrameParser()
    found = [one for part in _pieces(stream, cuts) for one in parser.feed(part)]
    assert sorted(found) == sorted(frame(CONSENSUS, data) for _, data in frames)
    for lane in range(4):
        mine = [frame(CONSENSUS, data) for at, data in frames if at == lane]
        others = [frame(CONSENSUS, data) for at, data in frames if at != lane]
        if not set(mine) & set(others):
            assert [one for one in found if one in mine] == mine
    assert parser.held == 0
    assert not any(parser.unfinished())


def test_pieces_never_make_more_than_a_frame() -> None:
    """The bound is on the frame, not on the piece: in every lane at once."""
    parser = FrameParser()
    half = bytes(FRAME_MAX // 2)
    for lane in range(4):
        assert list(parser.feed(piece(lane, half, True) + piece(lane, half, True))) == []
    assert parser.held == 4 * 2 * len(half)
    with pytest.raises(MalformedFrame, match="more than"):
        list(parser.feed(piece(2, b"\0\0", True)))
    assert parser.held == 0


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ((4 << 28).to_bytes(4, "big"), "unknown lane 4"),
        (piece(0, b"", True), "empty piece"),
        (piece(1, b"\0x", True) + piece(1, b"", False), "empty piece"),
        (piece(1, b"\x07x", True) + piece(1, b"y", False), "unknown channel 7"),
    ],
)
def test_a_wrong_piece_breaks_the_stream(data: bytes, why: str) -> None:
    with pytest.raises(MalformedFrame, match=why):
        list(FrameParser().feed(data))


def test_the_parser_tells_which_frame_is_unfinished() -> None:
    parser = FrameParser()
    assert list(parser.feed(piece(1, b"\0a", True))) == []
    first = parser.unfinished()
    assert [bool(number) for number in first] == [False, True, False, False, False]
    assert list(parser.feed(piece(1, b"b", True) + b"\0\0")) == []
    assert parser.unfinished()[:4] == first[:4]
    assert parser.unfinished()[4]
    # Another frame of the lane has another number, so a busy lane never looks stuck.
    assert list(parser.feed(b"\0\0" + piece(1, b"c", False) + piece(1, b"\0d", True))) == [b"\0abc"]
    assert parser.unfinished()[1] not in (0, first[1])
