"""Frames near good ones: damaged bytes, and good MessagePack with damaged values.

Most single-byte damage dies in the decoder. What gets further is the canonical encoding of
something that is nearly a message, so the other half of the work is done on values: decoded without
a type, changed at any depth, encoded again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec

FRAME_MAX = 1 << 16
SEED_MAX = 1 << 13
"""What is repeated hundreds of times must be small, or the mutator itself takes the memory."""
INTEGERS = (
    0, 1, 2, 3, 4, 5, 127, 128, 255, 256, 65_535, 65_536, (1 << 31) - 1, 1 << 31, 1 << 32,
    (1 << 53) + 1, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
    -1, -2, -32, -33, -128, -129, -(1 << 31), -(1 << 63),
)  # fmt: skip
TOKENS = (
    b"\xc0", b"\xc1", b"\xc2", b"\xc3",
    b"\xca\x7f\xc0\x00\x00", b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",  # NaN
    b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00", b"\xcb\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\xcf\x00\x00\x00\x00\x00\x00\x00\x01", b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7),
    b"\xd4\x01\x00", b"\xd8\xff" + bytes(16), b"\xc7\x00\x05", b"\xc9\xff\xff\xff\xff\x01",
    b"\xd7\xff" + b"\xff" * 8, b"\xd6\xff\x00\x00\x00\x00",  # timestamps
    b"\xdd\xff\xff\xff\xff", b"\xdd\x00\x3f\xff\xff", b"\xdc\xff\xff",
    b"\xdf\xff\xff\xff\xff", b"\x82\xa1a\x01\xa1a\x02", b"\x81\x90\x90",  # maps, keys twice
    b"\xc6\xff\xff\xff\xff", b"\xc6\x00\x40\x00\x00", b"\xdb\xff\xff\xff\xff",
    b"\xa3\xed\xa0\x80", b"\xa1\xff", b"\xa4vote", b"\xd9\x04vote", b"\xa5\xed\xa0\x80\xed\xb0",
    b"\x91" * 64, b"\x81" * 64, b"\x91" * 12_000, b"\x81\xa1a" * 12_000,  # deep
)  # fmt: skip


def mutated(rng: random.Random, seeds: Sequence[bytes], prefix: int = 0) -> bytes:
    """Return a frame that is near one of `seeds`, or near nothing.

    Of each seed `prefix` bytes come before what is MessagePack; one time in four they change.
    """
    seed = rng.choice(seeds)
    head, rest = seed[:prefix], seed[prefix:]
    if prefix and rng.random() < 0.25:
        head = rng.randbytes(1) + head[1:]
    choice = rng.random()
    if choice < 0.4:
        return head + damaged(rng, rest, seeds)
    if choice < 0.95:
        return head + rewritten(rng, rest, [each[prefix:] for each in rng.choices(seeds, k=3)])
    return head + (rng.randbytes(rng.randrange(64)) if choice < 0.97 else _nested(rng))


def damaged(rng: random.Random, seed: bytes, seeds: Sequence[bytes]) -> bytes:
    """Return `seed` with a few bytes flipped, cut, put in, or taken from elsewhere."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(7):
            case 0 if data:
                data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[min(at, len(data) - 1)] = rng.randrange(256)
            case 2:
                del data[at:]
            case 3:
                del data[at : at + rng.randrange(1, 40)]
            case 4:
                data[at:at] = rng.choice(TOKENS)
            case 5:
                token = rng.choice(TOKENS)
                data[at : at + len(token)] = token
            case _:
                other = rng.choice(seeds)
                start = rng.randrange(len(other) + 1)
                data[at : at + rng.randrange(40)] = other[start : start + rng.randrange(80)]
    return bytes(data[:FRAME_MAX])


def rewritten(rng: random.Random, seed: bytes, seeds: Sequence[bytes]) -> bytes:
    """Return the encoding of what `seed` says with a few values changed, at any depth."""
    try:
        value = msgspec.msgpack.decode(seed[:SEED_MAX])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return damaged(rng, seed, seeds)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _changed(rng, value, seeds)
    try:
        return msgspec.msgpack.encode(value)[:FRAME_MAX]
    except (OverflowError, RecursionError, TypeError, ValueError):
        return seed


def _changed(rng: random.Random, value: Any, seeds: Sequence[bytes]) -> Any:
    """Walk down at random and change what is there."""
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        if rng.random() < 0.8:
            return [*value[:at], _changed(rng, value[at], seeds), *value[at + 1 :]]
        match rng.randrange(5):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                times = rng.choice((2, 3, 70, 300)) if len(value) < 64 else 2
                return value[:at] + [value[at]] * times + value[at + 1 :]
            case 2:
                other = rng.randrange(len(value))
                swapped = list(value)
                swapped[at], swapped[other] = swapped[other], swapped[at]
                return swapped
            case 3:
                return value[: at + 1]
            case _:
                return [*value[:at], _any(rng, seeds), *value[at:]]
    match value:
        case bool():
            return not value
        case int() if rng.random() < 0.5:
            return value + rng.choice((-1, 1, 2, 1 << 40))
        case int():
            return rng.choice(INTEGERS)
        case bytes() if value and rng.random() < 0.6:
            at = rng.randrange(len(value))
            return value[:at] + bytes((value[at] ^ 1 << rng.randrange(8),)) + value[at + 1 :]
        case bytes():
            return rng.choice((b"", value[:-1], value + b"\0", value * 2, value[:200] * 40))
        case str():
            return rng.choice((value + "x", value[:-1], "", value.upper(), "\u2028", 0))
    return _any(rng, seeds)


def _any(rng: random.Random, seeds: Sequence[bytes]) -> Any:
    match rng.randrange(8):
        case 0:
            return rng.choice(INTEGERS)
        case 1:
            return rng.randbytes(rng.choice((0, 1, 20, 31, 32, 33, 40, 64, 65, 5_000)))
        case 2:
            return None
        case 3:
            return []
        case 4:
            return rng.choice((float("nan"), float("inf"), 0.5, -0.0, True, False))
        case 5:
            return {"a": 1, "b": []} if rng.random() < 0.5 else msgspec.msgpack.Ext(5, b"ext")
        case 6:
            return rng.choice(("vote", "batch", "tc", "", "\x00", "é"))
        case _:
            try:
                return msgspec.msgpack.decode(rng.choice(seeds))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return b"seed"


def _nested(rng: random.Random) -> bytes:
    opener = rng.choice(
        (b"\x91", b"\x92\x01", b"\x81\x01", b"\xdc\x00\x01", b"\xdd\x00\x00\x00\x01")
    )
    return opener * rng.choice((10, 900, 2_000, 12_000)) + rng.choice((b"\x90", b"", b"\xc0"))
