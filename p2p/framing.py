"""How frames lie in a stream of bytes: four bytes of length, one of channel, then the payload.

An empty frame (length 0) is a heartbeat. The parser is pure: bytes in, frames out.
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
LENGTH_BYTES: Final = 4
HEARTBEAT: Final = bytes(LENGTH_BYTES)


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


def pack(frame_: bytes) -> bytes:
    """Return the bytes that put a frame on a stream."""
    return len(frame_).to_bytes(LENGTH_BYTES, "big") + frame_


class FrameParser:
    """Cuts one stream into frames, however its bytes arrive.

    It holds at most one unfinished frame: FRAME_MAX and four bytes, plus the last piece fed.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._broken: str | None = None

    @property
    def held(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return len(self._rest)

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
        while end - position >= LENGTH_BYTES:
            length = self._length(data, position)
            start = position + LENGTH_BYTES
            if end - start < length:
                break
            position = start + length
            if length:
                yield self._checked(data[start:position])
        self._rest += data[position:]

    def _complete(self) -> bool:
        """Say whether a frame is whole; it spares copying the rest for every piece of it."""
        held = len(self._rest)
        return held >= LENGTH_BYTES and held - LENGTH_BYTES >= self._length(self._rest, 0)

    def _length(self, data: bytes | bytearray, position: int) -> int:
        length = int.from_bytes(data[position : position + LENGTH_BYTES], "big")
        if length > FRAME_MAX:
            raise self._break(f"frame of {length} bytes, at most {FRAME_MAX}")
        return length

    def _checked(self, found: bytes) -> bytes:
        if found[0] not in CHANNELS:
            raise self._break(f"unknown channel {found[0]}")
        return found

    def _break(self, why: str) -> MalformedFrame:
        self._broken = why
        self._rest.clear()
        return MalformedFrame(why)
