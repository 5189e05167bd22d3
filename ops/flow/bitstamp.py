"""Bitstamp's order events as the R package ob-analytics keeps them.

Columns: `id,timestamp,exchange.timestamp,price,volume,action,direction`; times in milliseconds
since the epoch, price in USD with two decimals, volume in satoshi remaining after the event.
An order that is `created` is a limit order; one `deleted` with volume left was cancelled. What
`changed`, and what was deleted with nothing left, are results of matching: the matcher makes
them itself. Orders from before the file are cancelled in it all the same.
Source: phil8192/ob-analytics, `inst/extdata`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

from matcher.book import BUY, OP_CANCEL, OP_LIMIT, SELL
from ops.flow.event import LINE_BYTES_MAX, Chunk, FlowError, FlowEvent

HEADER = b"id,timestamp,exchange.timestamp,price,volume,action,direction"
CHUNK_ROWS = 4096

_LINE = re.compile(
    rb"(\d{1,18}),(\d{1,18}),\d{1,18},(\d{1,15})(?:\.(\d\d?))?,(\d{1,18}),"
    rb"(created|changed|deleted),(bid|ask)"
)


def events(stream: BinaryIO) -> Iterator[FlowEvent]:
    """Yield the orders and cancels of a Bitstamp file, prices in cents and quantities in satoshi.

    Errors: FlowError.
    """
    for _, event in _numbered(stream):
        yield event


def chunks(stream: BinaryIO) -> Iterator[Chunk]:
    """Yield the same as rows of plain order flow.

    Errors: FlowError.
    """
    numbered = _numbered(stream)
    while batch := list(islice(numbered, CHUNK_ROWS)):
        yield Chunk([field for _, event in batch for field in event[:5]], [n for n, _ in batch])


def _numbered(stream: BinaryIO) -> Iterator[tuple[int, FlowEvent]]:
    line = 0
    while text := stream.readline(LINE_BYTES_MAX):
        line += 1
        text = text.rstrip(b"\r\n")
        if line == 1:
            if text != HEADER:
                raise FlowError(line, f"the header {HEADER.decode()} is missing")
            continue
        event = _event(line, text) if text else None
        if event is not None:
            yield line, event


def _event(line: int, text: bytes) -> FlowEvent | None:
    found = _LINE.fullmatch(text)
    if found is None:
        shown = text[:60].decode("ascii", "backslashreplace")
        raise FlowError(line, f"not an order event: {shown!r}")
    order_id, at_ms, whole, cents, volume, action, direction = found.groups()
    side = BUY if direction == b"bid" else SELL
    price = int(whole) * 100 + int((cents or b"").ljust(2, b"0"))
    qty = int(volume)
    if action == b"created":
        if qty == 0:
            raise FlowError(line, "an order of no satoshi")
        return FlowEvent(OP_LIMIT, int(order_id), side, price, qty, int(at_ms))
    if action == b"deleted" and qty:
        return FlowEvent(OP_CANCEL, int(order_id), 0, 0, 0, int(at_ms))
    return None
