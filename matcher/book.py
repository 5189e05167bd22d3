"""A price-time order book: an array-linked ladder.

Orders and price levels are rows of the same parallel lists. A level is the sentinel of a circular
doubly linked list of its orders, oldest first, so adding, cancelling and filling touch a handful
of cells and never search. The levels of a side hang on a sorted list of keys, the best last; a
level that empties below the best stays until it becomes the best or until empty levels outnumber
orders. Freed rows are used again, last freed first.

A key is the price for a buy and minus the price for a sell: the best key is the largest on both
sides, and a taker's key crosses a maker's when their sum is not negative.

The caller matches before it places; `place` never trades, and a call auction may cross the book.
Breaking a precondition is our own fault: an assertion.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

BUY = 0
SELL = 1

PRICE_MAX = (1 << 62) - 1
"""No price is further from zero. Units: ticks."""

QTY_MAX = (1 << 62) - 1
"""No order is larger. Units: lots."""

OP_LIMIT = 0
OP_CANCEL = 1
OP_MARKET = 2

Row = tuple[int, int, int, int, int]
"""One line of plain order flow: op, order id, side, price, qty."""

Trade = tuple[int, int, int, int]
"""Taker's order id, maker's order id, price, qty."""

_ANY_PRICE = PRICE_MAX
_EMPTY = -(1 << 63)
_ROWS_MIN = 64
_EMPTY_LEVELS_MAX = 64


class BookError(ValueError):
    """The rows given to `Book.restore` are not what `Book.export` writes."""


class BadRow(ValueError):
    """A line of order flow that no book can follow: a resting id again, or no quantity."""


class Fill(NamedTuple):
    """One trade against a resting order, at that order's price."""

    order_id: int
    owner: int
    price: int
    qty: int


class Resting(NamedTuple):
    """One resting order; `qty` is what remains of it."""

    order_id: int
    owner: int
    side: int
    price: int
    qty: int


class Book:
    """The resting orders of one instrument, by price and then by arrival.

    Units: prices in ticks, quantities in lots. Sides: 0 buy, 1 sell.
    """

    __slots__ = (
        "_best",
        "_free",
        "_id",
        "_index",
        "_key",
        "_keys",
        "_level",
        "_levels",
        "_next",
        "_owner",
        "_prev",
        "_qty",
        "_side",
    )

    def __init__(self) -> None:
        # Per row. An order uses id, owner, qty and level; a level uses key, side and qty (its sum).
        self._id: list[int] = []
        self._owner: list[int] = []
        self._qty: list[int] = []
        self._level: list[int] = []
        self._key: list[int] = []
        self._side: list[int] = []
        self._next: list[int] = []
        self._prev: list[int] = []
        self._free: list[int] = []
        self._index: dict[int, int] = {}
        # Per side.
        self._levels: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self._keys: tuple[list[int], list[int]] = ([], [])
        self._best: list[int] = [_EMPTY, _EMPTY]

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, order_id: int) -> bool:
        return order_id in self._index

    def best(self, side: int) -> int | None:
        """Return the best price of `side`, or None when nothing rests there."""
        key = self._best[side]
        if key == _EMPTY:
            return None
        return -key if side else key

    def order(self, order_id: int) -> Resting | None:
        """Return the resting order `order_id`, or None."""
        row = self._index.get(order_id)
        return None if row is None else self._resting(row)

    def front(self, side: int) -> Resting | None:
        """Return the order of `side` that trades next, or None."""
        key = self._best[side]
        if key == _EMPTY:
            return None
        return self._resting(self._next[self._levels[side][key]])

    def orders(self, side: int) -> Iterator[Resting]:
        """Yield the orders of `side` in the order in which they would trade.

        The book must not change meanwhile.
        """
        levels = self._levels[side]
        for key in reversed(self._keys[side]):
            level = levels[key]
            row = self._next[level]
            while row != level:
                yield self._resting(row)
                row = self._next[row]

    def depth(self, side: int, levels_max: int) -> list[tuple[int, int]]:
        """Return the best `levels_max` levels of `side` as (price, quantity), the best first."""
        found: list[tuple[int, int]] = []
        levels = self._levels[side]
        for key in reversed(self._keys[side]):
            if len(found) >= levels_max:
                break
            qty = self._qty[levels[key]]
            if qty:
                found.append((-key if side else key, qty))
        return found

    def open_qty(self, side: int) -> int:
        """Return the sum of what rests on `side`."""
        return sum(self._qty[level] for level in self._levels[side].values())

    def crosses(self, side: int, price: int) -> bool:
        """Return whether a taker of `side` limited to `price` would trade at once."""
        return (-price if side else price) + self._best[1 - side] >= 0

    def fillable(self, side: int, limit: int | None, qty: int) -> int:
        """Return how much of `qty` a taker of `side` would trade within `limit` (None: any price).

        Counts every owner's orders; a caller that prevents self-trades walks `orders` instead.
        """
        taker_key = _taker_key(side, limit)
        other = 1 - side
        levels = self._levels[other]
        found = 0
        for key in reversed(self._keys[other]):
            if taker_key + key < 0 or found >= qty:
                break
            found += self._qty[levels[key]]
        return min(found, qty)

    def place(self, order_id: int, owner: int, side: int, price: int, qty: int) -> None:
        """Rest an order behind all others of its side and price. It trades nothing."""
        assert order_id not in self._index, f"order {order_id} rests already"
        assert 0 < qty <= QTY_MAX, f"order {order_id} of {qty} lots"
        assert -PRICE_MAX <= price <= PRICE_MAX, f"order {order_id} at {price}"
        key = -price if side else price
        level = self._levels[side].get(key)
        if level is None:
            level = self._open_level(side, key)
        if not self._free:
            self._grow()
        row = self._free.pop()
        self._id[row] = order_id
        self._owner[row] = owner
        self._qty[row] = qty
        self._level[row] = level
        last = self._prev[level]
        self._next[last] = row
        self._prev[row] = last
        self._next[row] = level
        self._prev[level] = row
        self._qty[level] += qty
        self._index[order_id] = row

    def cancel(self, order_id: int) -> int | None:
        """Take an order out and return what remained of it, or None when it does not rest."""
        row = self._index.pop(order_id, None)
        if row is None:
            return None
        qty = self._qty[row]
        self._qty[self._level[row]] -= qty
        self._unlink(row)
        return qty

    def reduce(self, order_id: int, by: int) -> int | None:
        """Make an order smaller, keeping its place; return what remains, 0 when it is gone.

        None when the order does not rest. `by` is at least 1 and at most what remains.
        """
        row = self._index.get(order_id)
        if row is None:
            return None
        self._take(row, by)
        return self._qty[row] if order_id in self._index else 0

    def fill_front(self, side: int, qty: int) -> Fill:
        """Trade `qty` against the front order of `side`, at most what remains of it."""
        level = self._levels[side][self._best[side]]
        row = self._next[level]
        fill = Fill(self._id[row], self._owner[row], self._price(level), qty)
        self._take(row, qty)
        return fill

    def match(self, side: int, limit: int | None, qty: int) -> list[Fill]:
        """Trade up to `qty` for a taker of `side` within `limit` (None: any); return the fills.

        Whatever is left of the taker is `qty` minus the fills, the caller's to place or discard.
        """
        taker_key = _taker_key(side, limit)
        other = 1 - side
        fills: list[Fill] = []
        while qty and taker_key + self._best[other] >= 0:
            row = self._next[self._levels[other][self._best[other]]]
            fill = self.fill_front(other, min(qty, self._qty[row]))
            qty -= fill.qty
            fills.append(fill)
        return fills

    def replay(self, rows: Iterable[Row], trade: Callable[[Trade], None]) -> None:
        """Trade and rest plain order flow, handing each trade to `trade` as it happens.

        A limit order trades and then rests, what is left of a market order is discarded, and the
        cancel of an order that does not rest is ignored. The caller bounds ops, sides and numbers.
        The same as `match`, `place` and `cancel` row by row, written out: it is the hot loop.
        Errors: BadRow, with every earlier row done.
        """
        index, free, best, ladders = self._index, self._free, self._best, self._levels
        qtys, level_of, before, after = self._qty, self._level, self._prev, self._next
        ids, owners = self._id, self._owner
        for op, order_id, side, price, qty in rows:
            if op == OP_CANCEL:
                row = index.pop(order_id, None)
                if row is None:
                    continue
                qtys[level_of[row]] -= qtys[row]
                left, right = before[row], after[row]
                after[left] = right
                before[right] = left
                free.append(row)
                if left == right and self._key[left] == best[self._side[left]]:
                    self._drop_best(self._side[left])
                continue
            if order_id in index or qty <= 0:
                raise BadRow(f"order {order_id} of {qty} lots: no quantity, or it rests already")
            key = _ANY_PRICE if op == OP_MARKET else -price if side else price
            if key + best[1 - side] >= 0:
                qty = self._sweep(order_id, 1 - side, key, qty, trade)
                if not qty:
                    continue
            if op == OP_MARKET:
                continue
            level = ladders[side].get(key)
            if level is None:
                level = self._open_level(side, key)
            if not free:
                self._grow()
            index[order_id] = row = free.pop()
            ids[row], owners[row], qtys[row], level_of[row] = order_id, 0, qty, level
            left = before[level]
            after[left] = before[level] = row
            before[row], after[row] = left, level
            qtys[level] += qty

    def export(self) -> tuple[Resting, ...]:
        """Return every order: buys then sells, the best price first, the oldest first.

        Two books with the same orders in the same priority export the same, whatever their past.
        """
        return (*self.orders(BUY), *self.orders(SELL))

    @classmethod
    def restore(cls, rows: Iterable[Resting]) -> Book:
        """Return the book whose `export` is `rows`.

        Errors: BookError when no book exports `rows`.
        """
        wanted = tuple(rows)
        book = cls()
        for row in wanted:
            if row.side not in (BUY, SELL) or not 0 < row.qty <= QTY_MAX:
                raise BookError(f"bad order {row}")
            if row.order_id in book or not -PRICE_MAX <= row.price <= PRICE_MAX:
                raise BookError(f"bad order {row}")
            book.place(row.order_id, row.owner, row.side, row.price, row.qty)
        if book.export() != wanted:
            raise BookError("orders are not in the order of their priority")
        return book

    def _price(self, level: int) -> int:
        return -self._key[level] if self._side[level] else self._key[level]

    def _resting(self, row: int) -> Resting:
        level = self._level[row]
        return Resting(
            self._id[row], self._owner[row], self._side[level], self._price(level), self._qty[row]
        )

    def _take(self, row: int, qty: int) -> None:
        left = self._qty[row] - qty
        assert qty > 0 and left >= 0, f"took {qty} lots of order {self._id[row]}, {left} left"
        self._qty[self._level[row]] -= qty
        if left:
            self._qty[row] = left
        else:
            del self._index[self._id[row]]
            self._unlink(row)

    def _sweep(
        self, taker: int, side: int, taker_key: int, qty: int, trade: Callable[[Trade], None]
    ) -> int:
        """Trade `qty` against the front orders of `side`; return what is left of it."""
        index, free, after, before = self._index, self._free, self._next, self._prev
        ids, qtys, best = self._id, self._qty, self._best
        while taker_key + best[side] >= 0:
            level = self._levels[side][best[side]]
            price = self._price(level)
            row = after[level]
            wanted = qty
            while row != level:
                resting = qtys[row]
                if resting > qty:
                    trade((taker, ids[row], price, qty))
                    qtys[row] = resting - qty
                    qty = 0
                    break
                trade((taker, ids[row], price, resting))
                qty -= resting
                del index[ids[row]]
                free.append(row)
                row = after[row]
                if not qty:
                    break
            after[level] = row
            before[row] = level
            qtys[level] -= wanted - qty
            if row == level:
                self._drop_best(side)
            if not qty:
                break
        return qty

    def _unlink(self, row: int) -> None:
        before, after = self._prev[row], self._next[row]
        self._next[before] = after
        self._prev[after] = before
        self._free.append(row)
        if before == after and self._key[before] == self._best[self._side[before]]:
            self._drop_best(self._side[before])

    def _drop_best(self, side: int) -> None:
        """Drop the empty levels at the best end of `side`."""
        keys, levels = self._keys[side], self._levels[side]
        while keys:
            level = levels[keys[-1]]
            if self._next[level] != level:
                break
            self._free.append(level)
            del levels[keys.pop()]
        self._best[side] = keys[-1] if keys else _EMPTY

    def _open_level(self, side: int, key: int) -> int:
        """Return a new, empty level; it is the best at once if its key is."""
        keys, levels = self._keys[side], self._levels[side]
        if len(keys) > 2 * len(self._index) + _EMPTY_LEVELS_MAX:
            self._drop_empty(side)
        if key > self._best[side]:
            keys.append(key)
            self._best[side] = key
        else:
            insort(keys, key)
        if not self._free:
            self._grow()
        level = self._free.pop()
        levels[key] = level
        self._key[level] = key
        self._side[level] = side
        self._qty[level] = 0
        self._next[level] = self._prev[level] = level
        return level

    def _drop_empty(self, side: int) -> None:
        """Drop every empty level of `side`: paid for by the operations that emptied them."""
        keys, levels = self._keys[side], self._levels[side]
        kept: list[int] = []
        for key in keys:
            level = levels[key]
            if self._next[level] == level:
                self._free.append(level)
                del levels[key]
            else:
                kept.append(key)
        keys[:] = kept

    def _grow(self) -> None:
        """Double the rows."""
        rows = len(self._id)
        more = max(rows, _ROWS_MIN)
        for column in (
            *(self._id, self._owner, self._qty, self._level),
            *(self._key, self._side, self._next, self._prev),
        ):
            column.extend([0] * more)
        self._free.extend(range(rows + more - 1, rows - 1, -1))


def _taker_key(side: int, limit: int | None) -> int:
    if limit is None:
        return _ANY_PRICE
    return -limit if side else limit
