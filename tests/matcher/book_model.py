"""What holds of a book at any time, and a driver that holds it against the naive book."""

from __future__ import annotations

from random import Random

from matcher.book import BUY, OP_CANCEL, OP_LIMIT, OP_MARKET, SELL, Book, Row
from tests.matcher.naive_book import NaiveBook


def check_structure(book: Book) -> None:
    """Every row is an order, a level or free, once; links, sums and best prices agree."""
    used: list[int] = list(book._free)
    resting: dict[int, int] = {}
    for side in (BUY, SELL):
        keys, levels = book._keys[side], book._levels[side]
        assert keys == sorted(levels), "a side's keys are its levels, the best last"
        assert book._best[side] == (keys[-1] if keys else -(1 << 63))
        for key, level in levels.items():
            used.append(level)
            assert (book._key[level], book._side[level]) == (key, side)
            total, last, row = 0, level, book._next[level]
            while row != level:
                assert book._prev[row] == last and book._level[row] == level
                assert book._qty[row] > 0
                used.append(row)
                resting[book._id[row]] = row
                total += book._qty[row]
                last, row = row, book._next[row]
            assert book._prev[level] == last
            assert book._qty[level] == total, "a level's sum is its orders'"
        if keys:
            assert book._qty[levels[keys[-1]]] > 0, "the best level has an order"
    assert resting == book._index
    assert sorted(used) == list(range(len(book._id))), "a row is in one place"


def check(book: Book, naive: NaiveBook) -> None:
    """Everything the book says is what the naive book says."""
    for side in (BUY, SELL):
        wanted = [(o.order_id, o.owner, o.side, o.price, o.qty) for o in naive.side(side)]
        assert [tuple(order) for order in book.orders(side)] == wanted, "priority"
        assert book.front(side) == (wanted[0] if wanted else None)
        assert book.best(side) == (wanted[0][3] if wanted else None), "best price"
        assert book.depth(side, 3) == naive.depth(side, 3), "depth"
        assert book.open_qty(side) == sum(order[4] for order in wanted)
        for order in wanted:
            assert book.order(order[0]) == order and order[0] in book
    assert len(book) == len(naive.orders)
    bid, ask = book.best(BUY), book.best(SELL)
    assert bid is None or ask is None or bid < ask, "the book is crossed"
    check_structure(book)


def drive(book: Book, naive: NaiveBook, rows: list[Row], rng: Random) -> None:
    """Put `rows` through both books by every way to trade and to shrink, checking after each."""
    for op, order_id, side, price, qty in rows:
        owner = rng.randrange(5)
        if op == OP_CANCEL:
            resting = book.order(order_id)
            if resting is not None and rng.random() < 0.4:
                by = rng.randint(1, resting.qty)
                assert book.reduce(order_id, by) == naive.reduce(order_id, by)
            else:
                assert book.cancel(order_id) == naive.cancel(order_id)
        else:
            limit = None if op == OP_MARKET else price
            expected = naive.match(side, limit, qty)
            assert book.fillable(side, limit, qty) == sum(fill[3] for fill in expected)
            assert limit is None or book.crosses(side, limit) == bool(expected)
            if rng.random() < 0.5:
                assert [tuple(fill) for fill in book.match(side, limit, qty)] == expected
            else:
                assert [tuple(book.fill_front(1 - side, fill[3])) for fill in expected] == expected
            left = qty - sum(fill[3] for fill in expected)
            if left and op == OP_LIMIT:
                book.place(order_id, owner, side, price, left)
                naive.place(order_id, owner, side, price, left)
        check(book, naive)


def random_rows(rng: Random, count: int) -> list[Row]:
    """Order flow around a fixed mid: most limits rest, most cancels hit, some markets sweep."""
    rows: list[Row] = []
    for order_id in range(count):
        kind = rng.random()
        if kind < 0.35 and order_id:
            rows.append((OP_CANCEL, rng.randrange(max(0, order_id - 60), order_id), 0, 0, 0))
        elif kind < 0.45:
            rows.append((OP_MARKET, order_id, rng.randrange(2), 0, rng.randint(1, 60)))
        else:
            side = rng.randrange(2)
            away = rng.randint(-2, 12)
            price = 1000 - away if side == BUY else 1000 + away
            rows.append((OP_LIMIT, order_id, side, price, rng.randint(1, 25)))
    return rows
