"""One value, one encoding: bytes decode to what encodes to them again, or not at all."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.codec import CodecError, decode, encode
from consensus.messages import (
    GetBatches,
    Head,
    LogBatch,
    Message,
    Proposal,
    RoundTC,
    decode_message,
)
from tests.consensus.samples import Sample

SAMPLE = Sample()
ID, BODY = SAMPLE.command(b"codec")
BLOCK = SAMPLE.block(2, SAMPLE.qc(1, bytes(32)), height=2)
FRAMES = [
    encode(message)
    for message in (
        SAMPLE.batch(1, None, (ID,), (BODY,)),
        SAMPLE.proposal(BLOCK),
        RoundTC(1, SAMPLE.tc(3)),
        SAMPLE.timeout(1, 4, None, SAMPLE.tc(3)),
        GetBatches(1, 1, Head(3, bytes(32)), None),
    )
]


def only_canonical(frame: bytes) -> None:
    """The claim: a CodecError, and nothing else, or a value whose encoding is the frame."""
    try:
        value = decode_message(frame)
    except CodecError:
        return
    assert encode(value) == frame


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_canonical(frame: bytes) -> None:
    only_canonical(frame)


@given(st.sampled_from(FRAMES), st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_damaged_frames_are_refused_or_canonical(frame: bytes, rng: random.Random) -> None:
    data = bytearray(frame)
    for _ in range(rng.randint(1, 4)):
        match rng.randrange(4):
            case 0:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1:
                del data[rng.randrange(len(data)) :]
            case 2:
                at = rng.randrange(len(data) + 1)
                data[at:at] = rng.randbytes(rng.randint(1, 5))
            case _:
                at = rng.randrange(len(data))
                data[at : at + 3] = b"\xd9\xff\xc1"[: rng.randint(1, 3)]
        if not data:
            break
    only_canonical(bytes(data))


def wide(value: int) -> bytes:
    """Return an integer in nine bytes, however small it is."""
    return b"\xcf" + value.to_bytes(8, "big")


@given(st.integers(0, 1 << 62))
def test_only_the_shortest_form_of_an_integer_passes(value: int) -> None:
    short = encode(value)
    assert decode(int, short) == value
    if short != wide(value):
        with pytest.raises(CodecError):
            decode(int, wide(value))


@pytest.mark.parametrize(
    "frame",
    [
        b"\x93\xc0\xc0\xc0",
        b"\x80",
        b"\x81\xa1a\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 100_000,
        b"\xff" * 10,
        b"",
        FRAMES[0] + b"\x00",
        FRAMES[0][:-1],
    ],
    ids=["no-tag", "map", "map-1", "huge-array", "huge-bytes", "deep", "minus", "empty", "more",
         "less"],
)  # fmt: skip
def test_hostile_frames_are_refused(frame: bytes) -> None:
    with pytest.raises(CodecError):
        decode_message(frame)


def test_a_frame_beyond_the_bound_is_refused_before_it_is_read() -> None:
    with pytest.raises(CodecError, match="at most"):
        decode(bytes, encode(bytes(100)), bytes_max=50)


def test_a_message_of_another_kind_is_no_value_of_this_one() -> None:
    assert isinstance(decode_message(FRAMES[0]), LogBatch)
    with pytest.raises(CodecError):
        decode(Proposal, FRAMES[0])
    tags = [kind.__struct_config__.tag for kind in Message.__args__]
    assert len(dict.fromkeys(tags)) == len(tags)


def test_a_number_beyond_64_bits_is_our_own_fault() -> None:
    with pytest.raises(OverflowError):
        encode(1 << 64)
    assert msgspec.msgpack.decode(encode((1 << 64) - 1)) == (1 << 64) - 1
