"""The engine's trades beside the naive book's: the same makers, prices and lots, in order."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from matcher.actions import CancelOrder
from matcher.outcome import Fill
from tests.matcher.market import World, ready, wallet
from tests.matcher.naive_book import NaiveBook

Trades = list[tuple[int, ...]]


def flow_through_both(seed: int, length: int) -> tuple[Trades, Trades]:
    """Random limits, IOCs, post-onlys and cancels; buyers and sellers are different wallets."""
    rng = Random(seed)
    world: World = ready(10_000_000, 10_000_000)
    naive = NaiveBook()
    ours: Trades = []
    theirs: Trades = []
    for _ in range(length):
        if rng.random() < 0.3 and world.state.next_order > 1:
            order_id = rng.randrange(1, world.state.next_order)
            for who in (0, 1):
                world.run(CancelOrder(wallet(who), 0, order_id))
            naive.cancel(order_id)
            continue
        side, price, qty = rng.randrange(2), 23_600 + rng.randint(-4, 4), rng.randint(1, 9)
        tif = rng.choice((0, 0, 0, 1))
        post_only = tif == 0 and rng.random() < 0.2
        order_id = world.state.next_order
        order = world.order(wallet(side), side, price, qty, tif=tif, post_only=post_only)
        events = world.block(world.command(order)).events
        ours += [
            (f.taker_order, f.maker_order, f.price, f.qty) for f in events if isinstance(f, Fill)
        ]
        best = [row.price for row in naive.side(1 - side)[:1]]
        if post_only and best and (price >= best[0] if side == 0 else price <= best[0]):
            continue
        for maker, _, at, lots in naive.match(side, price, qty):
            theirs.append((order_id, maker, at, lots))
            qty -= lots
        if qty and tif == 0:
            naive.place(order_id, side, side, price, qty)
    for side in (0, 1):
        book = world.state.markets[0].book
        assert book.depth(side, 100) == naive.depth(side, 100)
    return ours, theirs


@given(st.integers(0, 1 << 32), st.integers(1, 150))
@settings(max_examples=40, deadline=None)
def test_trades_equal_the_naive_books(seed: int, length: int) -> None:
    ours, theirs = flow_through_both(seed, length)
    assert ours == theirs
