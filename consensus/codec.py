"""The one codec: frozen msgspec structs as canonical MessagePack.

Wire messages and stored records are `msgspec.Struct(frozen=True, array_like=True)`. Integers on
the wire fit in 64 bits; anything wider travels as big-endian bytes.
Source: ADR-0002.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

FRAME_BYTES_MAX = 4 << 20
"""No encoded message is larger; a longer frame is refused before it is read."""


REASON_CHARS_MAX = 200
"""The decoder may quote the bytes in its reason, megabytes of them; a reason is a line."""


class CodecError(ValueError):
    """The bytes are not the canonical encoding of the wanted type."""


_ENCODER = msgspec.msgpack.Encoder()


def encode(value: object) -> bytes:
    """Return the canonical encoding of `value`.

    Errors: OverflowError for an integer beyond 64 bits, which is our own fault.
    """
    return _ENCODER.encode(value)


class Shape(Generic[T]):
    """One type on the wire, with its decoder made once: for unions and for hot paths."""

    def __init__(self, type_: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(type_)

    def decode(self, data: bytes, bytes_max: int = FRAME_BYTES_MAX) -> T:
        """Return the value whose canonical encoding is exactly `data`.

        Errors: CodecError, and nothing else, whatever the bytes are.
        """
        if len(data) > bytes_max:
            raise CodecError(f"{len(data)} bytes, at most {bytes_max}")
        try:
            value = self._decoder.decode(data)
            canonical = _ENCODER.encode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
            raise CodecError(str(error)[:REASON_CHARS_MAX]) from None
        if canonical != data:
            raise CodecError("not canonical")
        return value


_shape: Callable[[Any], Shape[Any]] = cache(Shape)


def decode(type_: type[T], data: bytes, bytes_max: int = FRAME_BYTES_MAX) -> T:
    """Return the value of `type_` behind `data`; see `Shape.decode`. Errors: CodecError."""
    value: T = _shape(type_).decode(data, bytes_max)
    return value
