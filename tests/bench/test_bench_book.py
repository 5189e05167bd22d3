"""Events per CPU-second through the book, beside a dict-and-deque reference in the same run.

The stream is `ops.flow.generator`'s with seed 11; real order flow is added where it is at hand.
`pytest tests/bench/test_bench_book.py -s` prints the figures.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from time import process_time

import pytest

from matcher.book import OP_CANCEL, OP_LIMIT, OP_MARKET, Book, Row, Trade
from ops.commands.book import replay
from ops.flow import read
from ops.flow.generator import Market, generate
from ops.flow.plain import event_line

EVENTS = 60_000
REPEATS = 5
REAL = Path(__file__).parents[3] / "shared/data/bitstamp-btcusd-2015-05-01.csv.xz"


def reference(rows: list[Row]) -> list[Trade]:
    """The usual quick book: a deque of [id, qty] per price, sorted prices, cancels by search."""
    levels: tuple[dict[int, deque[list[int]]], ...] = ({}, {})
    keys: tuple[list[int], list[int]] = ([], [])
    index: dict[int, tuple[int, int]] = {}
    trades: list[Trade] = []
    for op, order_id, side, price, qty in rows:
        if op == OP_CANCEL:
            if order_id in index:
                at_side, key = index.pop(order_id)
                level = levels[at_side][key]
                level.remove(next(order for order in level if order[0] == order_id))
                if not level:
                    del levels[at_side][key]
                    del keys[at_side][bisect_left(keys[at_side], key)]
            continue
        key = -price if side else price
        other = 1 - side
        while qty and keys[other] and (op == OP_MARKET or key + keys[other][-1] >= 0):
            best = keys[other][-1]
            level = levels[other][best]
            maker = level[0]
            traded = min(qty, maker[1])
            trades.append((order_id, maker[0], best if side else -best, traded))
            qty -= traded
            maker[1] -= traded
            if not maker[1]:
                level.popleft()
                del index[maker[0]]
                if not level:
                    del levels[other][keys[other].pop()]
        if qty and op == OP_LIMIT:
            if key not in levels[side]:
                levels[side][key] = deque()
                insort(keys[side], key)
            levels[side][key].append([order_id, qty])
            index[order_id] = (side, key)
    return trades


def ladder(rows: list[Row]) -> list[Trade]:
    trades: list[Trade] = []
    Book().replay(rows, trades.append)
    return trades


def calls(rows: list[Row]) -> list[Trade]:
    """The same book by the calls that an engine makes."""
    book, trades = Book(), list[Trade]()
    for op, order_id, side, price, qty in rows:
        if op == OP_CANCEL:
            book.cancel(order_id)
            continue
        limit = price if op == OP_LIMIT else None
        for maker, _, at, traded in book.match(side, limit, qty):
            trades.append((order_id, maker, at, traded))
            qty -= traded
        if qty and op == OP_LIMIT:
            book.place(order_id, 0, side, price, qty)
    return trades


def timed(work: Callable[[list[Row]], list[Trade]], rows: list[Row]) -> tuple[float, list[Trade]]:
    """Return the least CPU seconds of a few runs, and the trades."""
    spent: list[float] = []
    trades: list[Trade] = []
    for _ in range(REPEATS):
        started = process_time()
        trades = work(rows)
        spent.append(process_time() - started)
    return min(spent), trades


def compare(name: str, rows: list[Row]) -> float:
    """Print events per CPU-second of each book; return the ladder's over the reference's."""
    usual, expected = timed(reference, rows)
    ours, trades = timed(ladder, rows)
    by_calls, also = timed(calls, rows)
    assert trades == expected == also
    print(
        f"\n{name}: {len(rows)} events, {len(trades)} trades; events per CPU-second: "
        f"replay {len(rows) / ours:,.0f}, calls {len(rows) / by_calls:,.0f}, "
        f"dict and deque {len(rows) / usual:,.0f}; replay over reference {usual / ours:.2f}"
    )
    return usual / ours


def generated() -> list[Row]:
    stream = generate(11, [Market(mid=600_000, resting=2_000)], 1000)
    return [event[:5] for event in islice(stream, EVENTS)]


def test_the_ladder_is_no_slower_than_the_reference() -> None:
    assert compare("generated, seed 11", generated()) > 0.9


def test_deep_levels_cost_the_ladder_nothing() -> None:
    """Every order at one of two prices, cancelled from the middle: a search per cancel loses."""
    rows: list[Row] = [(OP_LIMIT, n, n % 2, 100 + n % 2, 1) for n in range(4_000)]
    rows += [(OP_CANCEL, (n * 1_999) % 4_000, 0, 0, 0) for n in range(4_000)]
    assert compare("deep levels", rows) > 3


@pytest.mark.skipif(not REAL.exists(), reason=f"no real order flow at {REAL}")
def test_real_order_flow() -> None:
    assert compare("Bitstamp BTC/USD 2015-05-01", [event[:5] for event in read(REAL)]) > 0.9


def test_a_file_from_disk_to_digest(tmp_path: Path) -> None:
    """What `fairlane book` does: reading, matching and hashing, the file 60,000 lines long."""
    path = tmp_path / "flow.csv"
    with path.open("w") as out:
        out.writelines(map(event_line, islice(generate(11, [Market(600_000)], 1000), EVENTS)))
    done = max((replay(path) for _ in range(REPEATS)), key=lambda one: one.events_per_s)
    print(f"\nfile: {done.events} events, {done.events_per_s:,} per CPU-second, all included")
    assert done.events == EVENTS and done.trades > 1000
