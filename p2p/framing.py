"""How frames lie in a stream of bytes: in pieces, each with four bytes before it.

Of those four bytes the highest bit says that more pieces of the frame follow, the next three are
its lane, the rest is the piece's length. The pieces of one lane follow each other; those of other
lanes may come in between. A frame is one byte of channel, then the payload. An empty piece is a
heartbeat. The parser is pure: bytes in, frames out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from consensus.codec import FRAME_BYTES_MAX

CONSENSUS: Final = 0
SETTLEMENT: Final = 1
CHANNELS: Final = frozenset((CONSENSUS, SETTLEMENT))

FRAME_MAX: Final = FRAME_BYTES_MAX + 1
"""The largest frame: a channel byte and the largest message."""
HEADER_BYTES: Final = 4
HEARTBEAT: Final = bytes(HEADER_BYTES)
LANES: Final = 4
_MORE: Final = 1 << 31
_LANE_SHIFT: Final = 28
_LENGTH_MASK: Final = (1 << _LANE_SHIFT) - 1


class MalformedFrame(ValueError):
    """The peer sent what no correct node sends; the stream cannot be read any further."""


def frame(channel: int, payload: bytes) -> bytes:
    """Return the frame that carries `payload`."""
    assert channel in CHANNELS, channel
    return bytes((channel,)) + payload


def channel_of(frame_: bytes) -> int:
    """Return the channel of a frame that the parser let through, or that `frame` made."""
    return frame_[0]


def payload_of(frame_: bytes) -> bytes:
    """Return what a frame carries."""
    return frame_[1:]


def header(lane: int, length: int, more: bool) -> bytes:
    """Return what comes before a piece of a frame; `more` says that others follow."""
    value = (_MORE if more else 0) | lane << _LANE_SHIFT | length
    return value.to_bytes(HEADER_BYTES, "big")


def piece(lane: int, data: bytes, more: bool) -> bytes:
    """Return the bytes that put a piece of a frame on a stream."""
    return header(lane, len(data), more) + data


def pack(frame_: bytes) -> bytes:
    """Return the bytes that put a whole frame on the first lane of a stream."""
    return piece(0, frame_, False)


class FrameParser:
    """Cuts one stream into frames, however its bytes arrive.

    It holds at most one unfinished frame of each lane, FRAME_MAX each, and an unfinished piece
    of one of them, plus the last data fed.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._lanes: list[bytearray | None] = [None] * LANES
        self._numbers = [0] * LANES
        self._pieces = 1
        self._broken: str | None = None

    @property
    def held(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return len(self._rest) + sum(len(begun) for begun in self._lanes if begun is not None)

    def unfinished(self) -> tuple[int, ...]:
        """Return a number for the frame begun in each lane, and for the piece begun in any.

        Numbers rise with each frame and piece; 0 where nothing has begun.
        """
        frames = (
            number if begun is not None else 0
            for number, begun in zip(self._numbers, self._lanes, strict=True)
        )
        return (*frames, self._pieces if self._rest else 0)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that `data` completes, in order; heartbeats are left out.

        The caller must take them all before it feeds again. Errors: MalformedFrame, and after
        it for ever, whatever the bytes are.
        """
        if self._broken is not None:
            raise MalformedFrame(self._broken)
        if self._rest:
            self._rest += data
            data = bytes(self._rest) if self._complete() else b""
            if not data:
                return
            self._rest.clear()
        position, end = 0, len(data)
        while end - position >= HEADER_BYTES:
            more, lane, length = self._header(data, position)
            start = position + HEADER_BYTES
            if end - start < length:
                break
            position = start + length
            self._pieces += 1
            if not more and self._lanes[lane] is None:
                if length:
                    yield self._checked(data[start:position])
                continue
            found = self._joined(lane, memoryview(data)[start:position], more)
            if found is not None:
                yield found
        self._rest += data[position:]

    def _complete(self) -> bool:
        """Say whether a piece is whole; it spares copying the rest for every part of it."""
        held = len(self._rest)
        return held >= HEADER_BYTES and held - HEADER_BYTES >= self._header(self._rest, 0)[2]

    def _header(self, data: bytes | bytearray, position: int) -> tuple[bool, int, int]:
        header = int.from_bytes(data[position : position + HEADER_BYTES], "big")
        length, lane = header & _LENGTH_MASK, header >> _LANE_SHIFT & 7
        if lane >= LANES:
            raise self._break(f"unknown lane {lane}")
        if length > FRAME_MAX:
            raise self._break(f"frame of {length} bytes, at most {FRAME_MAX}")
        return header >= _MORE, lane, length

    def _joined(self, lane: int, data: memoryview, more: bool) -> bytes | None:
        """Add a piece to the frame that its lane has begun; return the frame when it is whole."""
        begun = self._lanes[lane]
        if not data:
            if more or lane:
                raise self._break("empty piece")
            return None  # A heartbeat between the pieces of the first lane.
        if begun is None:
            begun = self._lanes[lane] = bytearray()
            self._numbers[lane] += 1
        begun += data
        if len(begun) > FRAME_MAX:
            raise self._break(f"frame of more than {FRAME_MAX} bytes")
        if more:
            return None
        self._lanes[lane] = None
        return self._checked(bytes(begun))

    def _checked(self, found: bytes) -> bytes:
        if found[0] not in CHANNELS:
            raise self._break(f"unknown channel {found[0]}")
        return found

    def _break(self, why: str) -> MalformedFrame:
        self._broken = why
        self._rest.clear()
        self._lanes = [None] * LANES
        return MalformedFrame(why)
