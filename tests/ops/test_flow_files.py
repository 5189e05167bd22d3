"""Claims about reading order-flow files, good and bad."""

from __future__ import annotations

import gzip
import io
import lzma
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcher.book import OP_CANCEL, OP_LIMIT, OP_MARKET
from ops.flow import Chunk, FlowError, FlowEvent, bitstamp, chunks, plain, read

REAL = Path(__file__).parents[3] / "shared/data/bitstamp-btcusd-2015-05-01.csv.xz"

EVENTS = st.builds(
    FlowEvent,
    op=st.sampled_from([OP_LIMIT, OP_CANCEL, OP_MARKET]),
    id=st.integers(0, (1 << 62) - 1),
    side=st.integers(0, 1),
    price=st.integers(0, (1 << 62) - 1),
    qty=st.integers(1, (1 << 62) - 1),
    at_ms=st.just(0),
    instrument=st.just(0),
)


def plain_events(data: bytes) -> list[FlowEvent]:
    return list(plain.events(io.BytesIO(data)))


def as_read(event: FlowEvent) -> FlowEvent:
    return event._replace(side=0, price=0, qty=0) if event.op == OP_CANCEL else event


@given(st.lists(EVENTS, max_size=30), st.booleans(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read(events: list[FlowEvent], header: bool, last_newline: bool) -> None:
    data = ("op,id,side,price,qty\n" * header + "".join(map(plain.event_line, events))).encode()
    if not last_newline:
        data = data.removesuffix(b"\n")
    assert plain_events(data) == [as_read(event) for event in events]


@given(st.lists(EVENTS, min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_a_block_read_at_once_is_the_block_read_by_lines(events: list[FlowEvent]) -> None:
    block = "".join(map(plain.event_line, events)).encode()
    flat = plain._decode_block(block)
    assert flat is not None
    at_once, by_lines = Chunk(flat, 1), plain._read_lines(block, 1)
    for fast, slow in zip(at_once, by_lines, strict=True):
        assert fast[:2] == slow[:2] and (fast == slow or fast[0] == OP_CANCEL)
        assert at_once.line() == by_lines.line()


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_events_or_a_flow_error(data: bytes) -> None:
    for reader in (plain.events, bitstamp.events):
        line: int | None = 1
        try:
            list(reader(io.BytesIO(data)))
        except FlowError as error:
            line = error.line
        assert line is not None and 1 <= line <= data.count(b"\n") + 1


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"0,1,0,100", "5 fields"),
        (b"0,1,0,100,5,6", "5 fields"),
        (b"0,1,0,100,", "qty is not an integer"),
        (b"0,1,0,100.5,5", "price is not an integer: '100.5'"),
        (b"0,1,0,1e3,5", "price is not an integer"),
        (b"0,1_0,0,100,5", "id is not an integer"),
        (b"0,1,0,\xff,5", "price is not an integer"),
        (b"3,1,0,100,5", "op is 0"),
        (b"-1,1,0,100,5", "op is 0"),
        (b"0,-1,0,100,5", "id -1"),
        (b"0,1,2,100,5", "side is 0"),
        (b"0,1,-1,100,5", "side is 0"),
        (b"0,1,0,100,0", "no lots|qty 0"),
        (b"2,1,0,0,0", "no lots|qty 0"),
        (b"0,1,0,100,-5", "qty -5"),
        (b"0,1,0,100,4611686018427387904", "qty 4611686018427387904"),
        (b"0,1,0,4611686018427387904,5", "price 4611686018427387904"),
        (b"0,4611686018427387904,0,1,5", "id 4611686018427387904"),
        (b"0,1,0,99999999999999999999,5", "price is not an integer"),
        (b"0,1],0,100,5", "id is not an integer"),
        (b"LIMIT,1,0,100,5", "op is not an integer"),
        (b"op,id,side,price,qty", "op is not an integer"),
        (b"0" * 2000, "longer than|5 fields"),
    ],
)
@pytest.mark.parametrize("before", [b"0,7,0,100,5\n", b"0,7,0,100,5\n" * 20_000, b"1,7,0,0,0\n\n"])
def test_a_malformed_line_is_named(line: bytes, why: str, before: bytes) -> None:
    number = before.count(b"\n") + 1
    with pytest.raises(FlowError, match=why) as caught:
        plain_events(before + line + b"\n0,9,0,100,5\n")
    assert caught.value.line == number
    assert f"line {number}: " in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"0,1,0,100,5\r\n1,1,0,0,0\r\n",
        b"\xef\xbb\xbfop,id,side,price,qty\n0,1,0,100,5\n1,1,0,0,0",
        b'"op", "id", "side", "price", "qty"\n0,1,0,100,5\n\n1,1,0,0,0\n\n',
        b" 0, 1, 0, 100, 5\n1,1,7,-1,-1\n",
        b"0,01,0,0100,5\n1,1,0,0,0\n",
    ],
)
def test_harmless_variations_are_read(data: bytes) -> None:
    assert plain_events(data) == [FlowEvent(0, 1, 0, 100, 5), FlowEvent(1, 1, 0, 0, 0)]


def test_a_price_may_be_negative() -> None:
    assert plain_events(b"0,1,0,-100,5\n") == [FlowEvent(0, 1, 0, -100, 5)]


def test_an_endless_line_is_refused_before_it_is_held() -> None:
    with pytest.raises(FlowError, match="line 2: longer"):
        plain_events(b"0,1,0,100,5\n" + b"1" * 10_000_000)


def test_trade_lines_are_one_line_each() -> None:
    trades = [(1, 2, 3, 4), (5, 6, -7, 1 << 61)]
    assert plain.trade_lines(trades) == b"1,2,3,4\n5,6,-7,%d\n" % (1 << 61)
    assert plain.trade_lines([]) == b""


BITSTAMP = b"""id,timestamp,exchange.timestamp,price,volume,action,direction
11,1000,0,236.47,200000000,created,bid
11,1005,0,236.47,178855669,changed,bid
12,1006,0,236.4,5,created,ask
13,1006,0,236,7,created,ask
11,1007,0,236.47,178855669,deleted,bid
12,1008,0,236.40,0,deleted,ask
"""


def test_bitstamp_events_are_orders_and_cancels() -> None:
    assert list(bitstamp.events(io.BytesIO(BITSTAMP))) == [
        FlowEvent(OP_LIMIT, 11, 0, 23647, 200000000, 1000),
        FlowEvent(OP_LIMIT, 12, 1, 23640, 5, 1006),
        FlowEvent(OP_LIMIT, 13, 1, 23600, 7, 1006),
        FlowEvent(OP_CANCEL, 11, 0, 0, 0, 1007),
    ]
    rows = [row for chunk in bitstamp.chunks(io.BytesIO(BITSTAMP)) for row in chunk]
    assert rows == [event[:5] for event in bitstamp.events(io.BytesIO(BITSTAMP))]


@pytest.mark.parametrize(
    "line",
    [
        b"14,1,0,236.475,5,created,bid",
        b"14,1,0,236.47,0,created,bid",
        b"14,1,0,-1.00,5,created,bid",
        b"14,1,0,236.47,5,made,bid",
        b"14,1,0,236.47,5,created,bid,1",
        b"14,1,0,236.47,1e9,created,bid",
        b"x" * 5000,
    ],
)
def test_a_malformed_bitstamp_line_is_named(line: bytes) -> None:
    with pytest.raises(FlowError, match="line 8: "):
        list(bitstamp.events(io.BytesIO(BITSTAMP + line + b"\n")))


def test_a_bitstamp_chunk_knows_its_lines() -> None:
    (chunk,) = bitstamp.chunks(io.BytesIO(BITSTAMP))
    assert [chunk.line() for _ in chunk] == [2, 4, 5, 6]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_format_and_compression_are_detected(tmp_path: Path, pack: type[bytes]) -> None:
    path = tmp_path / "flow"
    path.write_bytes(pack(BITSTAMP))
    assert [event.id for event in read(path)] == [11, 12, 13, 11]
    path.write_bytes(pack(b"0,1,0,100,5\n"))
    assert list(read(path)) == [FlowEvent(0, 1, 0, 100, 5)]
    path.write_bytes(pack(b""))
    assert list(read(path)) == [] == list(chunks(path))


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_damaged_archive_is_a_flow_error(tmp_path: Path, pack: type[bytes]) -> None:
    path = tmp_path / "flow"
    whole = pack(b"".join(b"0,%d,0,%d,5\n" % (n, n * 7919 % 1009) for n in range(20_000)))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FlowError, match="damaged"):
        list(read(path))


@pytest.mark.skipif(not REAL.exists(), reason=f"no real order flow at {REAL}")
def test_the_real_file_is_whole_and_in_time() -> None:
    events = list(read(REAL))
    assert len(events) == 24_894 + 24_338
    assert sum(event.op == OP_LIMIT for event in events) == 24_894
    assert all(a.at_ms <= b.at_ms for a, b in pairwise(events))
