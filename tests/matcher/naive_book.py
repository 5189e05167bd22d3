"""The obviously correct book: one list, searched from end to end for everything.

An oracle for `matcher.book`: it shares no code and no idea with it but the rules (better price
first, then earlier arrival; a trade is at the maker's price).
"""

from __future__ import annotations

from dataclasses import dataclass

Trade = tuple[int, int, int, int]
"""Taker id, maker id, price, qty."""


@dataclass
class Order:
    order_id: int
    owner: int
    side: int
    price: int
    qty: int
    arrival: int


class NaiveBook:
    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.arrivals = 0

    def side(self, side: int) -> list[Order]:
        """The orders of `side` in the order in which they trade."""
        sign = -1 if side == 0 else 1
        mine = [order for order in self.orders if order.side == side]
        return sorted(mine, key=lambda order: (sign * order.price, order.arrival))

    def find(self, order_id: int) -> Order | None:
        found = [order for order in self.orders if order.order_id == order_id]
        return found[0] if found else None

    def place(self, order_id: int, owner: int, side: int, price: int, qty: int) -> None:
        self.orders.append(Order(order_id, owner, side, price, qty, self.arrivals))
        self.arrivals += 1

    def cancel(self, order_id: int) -> int | None:
        order = self.find(order_id)
        if order is None:
            return None
        self.orders = [other for other in self.orders if other is not order]
        return order.qty

    def reduce(self, order_id: int, by: int) -> int | None:
        order = self.find(order_id)
        if order is None:
            return None
        order.qty -= by
        self.orders = [other for other in self.orders if other.qty > 0]
        return order.qty

    def match(self, side: int, limit: int | None, qty: int) -> list[tuple[int, int, int, int]]:
        """Fills as (maker id, maker owner, price, qty)."""
        fills: list[tuple[int, int, int, int]] = []
        for maker in self.side(1 - side):
            if limit is not None and (maker.price > limit if side == 0 else maker.price < limit):
                break
            traded = min(qty, maker.qty)
            if traded == 0:
                break
            maker.qty -= traded
            qty -= traded
            fills.append((maker.order_id, maker.owner, maker.price, traded))
        self.orders = [order for order in self.orders if order.qty > 0]
        return fills

    def depth(self, side: int, levels_max: int) -> list[tuple[int, int]]:
        prices = {order.price for order in self.side(side)}
        best_first = sorted(prices, reverse=side == 0)
        return [
            (price, sum(order.qty for order in self.side(side) if order.price == price))
            for price in best_first[:levels_max]
        ]


def replay(rows: list[tuple[int, int, int, int, int]]) -> list[Trade]:
    """The trades of a plain stream `op, id, side, price, qty` (0 limit, 1 cancel, 2 market)."""
    book = NaiveBook()
    trades: list[Trade] = []
    for op, order_id, side, price, qty in rows:
        if op == 1:
            book.cancel(order_id)
            continue
        fills = book.match(side, None if op == 2 else price, qty)
        trades += [(order_id, maker, at, traded) for maker, _, at, traded in fills]
        left = qty - sum(traded for *_, traded in fills)
        if op == 0 and left:
            book.place(order_id, 0, side, price, left)
    return trades
