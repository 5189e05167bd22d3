"""The plain order-flow file: `op,id,side,price,qty`, one event a line.

op 0 is a limit order, 1 a cancel (only `id` counts), 2 a market order (`price` does not count);
side 0 is buy, 1 sell; decimal integers. The first line may be the header. Lines end with LF or
CRLF; blank lines say nothing.

A block of well-formed lines is decoded at once, as one JSON list; any other block is read line by
line, which defines the format and names what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, BinaryIO

import msgspec

from matcher.book import OP_CANCEL, OP_LIMIT, OP_MARKET, PRICE_MAX, QTY_MAX, SELL, Trade
from ops.flow.event import FIELDS, LINE_BYTES_MAX, Chunk, FlowError, FlowEvent

HEADER = b"op,id,side,price,qty"
BLOCK_BYTES = 1 << 16
ID_MAX = (1 << 62) - 1

_BOM = b"\xef\xbb\xbf"
_DIGITS = b"0123456789"
_ROW_SHAPE = b",,,,\n"
_INTEGER = re.compile(rb"-?[0-9]{1,19}")
_BLOCK = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]])
_NUMBER_MAX = min(PRICE_MAX, QTY_MAX, ID_MAX)
assert _NUMBER_MAX == (1 << 62) - 1, "the block decoder's bound is every field's"


def chunks(stream: BinaryIO) -> Iterator[Chunk]:
    """Yield the rows of a plain file, a block at a time.

    A limit or market order of no lots may be among them; the book refuses it.
    Errors: FlowError.
    """
    line = 1
    for block in _blocks(stream):
        if line == 1:
            block, line = _without_header(block)
        flat = _decode_block(block)
        chunk = _read_lines(block, line) if flat is None else Chunk(flat, line)
        # Only the rows of a decoded block are as many as its lines.
        line += block.count(b"\n") if flat is None else chunk.rows
        yield chunk


def events(stream: BinaryIO) -> Iterator[FlowEvent]:
    """Yield the events of a plain file.

    Errors: FlowError.
    """
    for chunk in chunks(stream):
        for op, order_id, side, price, qty in chunk:
            if op == OP_CANCEL:
                yield FlowEvent(op, order_id, 0, 0, 0)
            elif qty == 0:
                raise FlowError(chunk.line(), "an order of no lots")
            else:
                yield FlowEvent(op, order_id, side, price, qty)


def event_line(event: FlowEvent) -> str:
    """Return the line, with its newline, that a plain file has for `event`."""
    return f"{event.op},{event.id},{event.side},{event.price},{event.qty}\n"


def trade_lines(trades: Iterable[Trade]) -> bytes:
    """Return `taker_id,maker_id,price,qty` for each trade, each with its newline."""
    rows = msgspec.json.encode(list(trades))
    return rows[2:-2].replace(b"],[", b"\n") + b"\n" if len(rows) > 2 else b""


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield runs of whole lines, each line with its LF; a line too long is the end of the last."""
    rest = b""
    while block := stream.read(BLOCK_BYTES):
        block = rest + block
        end = block.rfind(b"\n") + 1
        block, rest = block[:end], block[end:]
        if block:
            yield block.replace(b"\r\n", b"\n") if b"\r" in block else block
        if len(rest) > LINE_BYTES_MAX:
            break
    if rest:
        yield rest + b"\n"


def _without_header(block: bytes) -> tuple[bytes, int]:
    """Return the first block without its header, and the number of the line it now begins with."""
    block = block.removeprefix(_BOM)
    head, _, tail = block.partition(b"\n")
    if head.translate(None, b' "\r').lower() == HEADER:
        return tail, 2
    return block, 1


def _decode_block(block: bytes) -> list[int] | None:
    """Return the fields of a block of nothing but plain rows, or None: it must be read slowly."""
    shape = block.translate(None, _DIGITS)
    if not shape or shape != _ROW_SHAPE * (len(shape) // len(_ROW_SHAPE)):
        return None
    try:
        flat = _BLOCK.decode(b"[" + block[:-1].replace(b"\n", b",") + b"]")
    except msgspec.MsgspecError:
        return None
    if max(flat[0::FIELDS]) > OP_MARKET or max(flat[2::FIELDS]) > SELL:
        return None
    return flat


def _read_lines(block: bytes, first_line: int) -> Chunk:
    flat: list[int] = []
    lines: list[int] = []
    for line, text in enumerate(block.split(b"\n")[:-1], first_line):
        if text.strip():
            flat += _read_line(line, text)
            lines.append(line)
    return Chunk(flat, lines)


def _read_line(line: int, text: bytes) -> tuple[int, ...]:
    if len(text) > LINE_BYTES_MAX:
        raise FlowError(line, f"longer than {LINE_BYTES_MAX} bytes")
    fields = [field.strip() for field in text.split(b",")]
    if len(fields) != FIELDS:
        raise FlowError(line, f"{FIELDS} fields op,id,side,price,qty wanted, {len(fields)} found")
    for name, field in zip(HEADER.decode().split(","), fields, strict=True):
        if not _INTEGER.fullmatch(field):
            shown = field[:20].decode("ascii", "backslashreplace")
            raise FlowError(line, f"{name} is not an integer: {shown!r}")
    op, order_id, side, price, qty = (int(field) for field in fields)
    if op not in (OP_LIMIT, OP_CANCEL, OP_MARKET):
        raise FlowError(line, f"op is 0 (limit), 1 (cancel) or 2 (market), not {op}")
    if not 0 <= order_id <= ID_MAX:
        raise FlowError(line, f"id {order_id} is not in 0..{ID_MAX}")
    if op == OP_CANCEL:
        return op, order_id, 0, 0, 0
    if side not in (0, SELL):
        raise FlowError(line, f"side is 0 (buy) or 1 (sell), not {side}")
    if not 1 <= qty <= QTY_MAX:
        raise FlowError(line, f"qty {qty} is not in 1..{QTY_MAX}")
    if op == OP_LIMIT and not -PRICE_MAX <= price <= PRICE_MAX:
        raise FlowError(line, f"price {price} is not within {PRICE_MAX} of 0")
    return op, order_id, side, price, qty
