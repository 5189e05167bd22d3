"""What every source of order flow yields."""

from __future__ import annotations

from collections.abc import Iterator
from operator import length_hint
from typing import NamedTuple

from matcher.book import Row

FIELDS = 5
LINE_BYTES_MAX = 1 << 10
"""No line of a flow file is longer."""


class FlowError(ValueError):
    """A flow file says something that no order flow says, at `line` if that is known."""

    def __init__(self, line: int | None, why: str) -> None:
        super().__init__(why if line is None else f"line {line}: {why}")
        self.line = line


class FlowEvent(NamedTuple):
    """One order event: op 0 limit, 1 cancel, 2 market; side 0 buy, 1 sell.

    Units: `price` in ticks and `qty` in lots of the source (a Bitstamp file: cents and satoshi);
    `at_ms` as the source counts, never falling, 0 throughout when it has no times; `instrument`
    is the index of one of the source's instruments, 0 when it has one. A cancel names only `id`;
    its side, price and qty are 0.
    """

    op: int
    id: int
    side: int
    price: int
    qty: int
    at_ms: int = 0
    instrument: int = 0


class Chunk:
    """A run of rows of a flow file, to be iterated once, that knows which line it is at.

    `flat` holds the rows' fields one after the other; `lines` the number of each row's line, or of
    the first one's when the lines follow each other.
    """

    __slots__ = ("_fields", "_lines", "rows")

    def __init__(self, flat: list[int], lines: int | list[int]) -> None:
        self._fields = iter(flat)
        self._lines = range(lines, lines + len(flat) // FIELDS) if isinstance(lines, int) else lines
        self.rows = len(flat) // FIELDS

    def __iter__(self) -> Iterator[Row]:
        return zip(*[self._fields] * FIELDS, strict=False)

    def line(self) -> int:
        """Return the number of the line of the row last taken."""
        return self._lines[self.rows - 1 - length_hint(self._fields) // FIELDS]
