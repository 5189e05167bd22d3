"""Matching: a taker against the book, each fill settled before the next.

Trades at the maker's price. Cash is normalised (`Account.cash`): q lots at price p move
q x (p x tick value - cumulative funding per lot) from buyer to seller, and whole lots change
hands, so neither a trade nor funding ever rounds. Fees round against whoever pays them.
"""

from __future__ import annotations

from typing import NamedTuple

from matcher import margin
from matcher.ledger import settle_trade
from matcher.outcome import CANCELLED, FILLED, PARTIALLY_FILLED, Fill, OrderUpdate
from matcher.state import Account, Market, Order, Position, State


class Taker(NamedTuple):
    """Who takes, how much at most, within which limit; liquidations pay no taker fee."""

    account: Account
    order_id: int
    side: int
    limit: int
    qty: int
    liquidation: bool = False


def execute(state: State, market: Market, taker: Taker) -> tuple[int, bool]:
    """Trade the taker against the book: return its lots, and whether a self-trade stopped it.

    Self-trade prevention: the taker stops at its own wallet's order. A liquidation cancels that
    order instead and goes on. Bounded by the orders in the book.
    """
    book = market.book
    account, _, side, limit, qty, liquidation = taker
    wallet = account.wallet
    other = 1 - side
    left = qty
    while left and book.crosses(side, limit):
        front = book.front(other)
        assert front is not None
        maker = state.orders[front.order_id]
        if maker.account.wallet is wallet:
            if not liquidation:
                return qty - left, True
            cancel(state, maker, "liquidation_self_trade")
            continue
        lots = left if left < maker.open else maker.open
        book.fill_front(other, lots)
        left -= lots
        _settle(state, market, taker, maker, lots)
    return qty - left, False


def _settle(state: State, market: Market, taker: Taker, maker: Order, lots: int) -> None:
    """Move lots, money and fees for one fill, and say so."""
    price = maker.price
    notional = lots * price * market.tick_value
    maker_fee = -(-notional * market.maker_num // market.maker_den)
    taker_fee = 0
    if not taker.liquidation:
        taker_fee = -(-notional * market.taker_num // market.taker_den)
    amount = notional - lots * market.funding
    account, owner = taker.account, maker.account
    taking = margin.position_of(account, market)
    making = owner.positions[market.id]
    if taker.side == 0:
        settle_trade(state, account, owner, amount, taker_fee, maker_fee)
        _move_lots(state, market, taking, making, lots)
    else:
        settle_trade(state, owner, account, amount, maker_fee, taker_fee)
        _move_lots(state, market, making, taking, lots)
    maker.open -= lots
    gone = maker.open == 0
    margin.order_closed(state, making, maker, lots, gone)
    if gone:
        _forget(state, maker)
        margin.drop_if_empty(owner, making)
    if account.tick == state.tick:
        margin.update(account, taking)
    state.margin_changed(owner)
    state.margin_changed(account)
    if lots >= market.spec.last_qty_min:
        market.last_price = price
    trade = state.next_trade
    state.next_trade = trade + 1
    state.events.append(
        Fill(
            trade, market.id, price, lots, taker.side, account.index, owner.index,
            taker.order_id, maker.id, taker_fee, maker_fee,
        )
    )  # fmt: skip
    state.events.append(
        OrderUpdate(
            maker.id, owner.index, market.id, maker.client_id,
            FILLED if gone else PARTIALLY_FILLED, None, maker.open,
        )
    )  # fmt: skip


def _move_lots(
    state: State, market: Market, buying: Position, selling: Position, lots: int
) -> None:
    """Give the seller's lots to the buyer, and keep the open interest (lots held long)."""
    before, after = buying.lots, buying.lots + lots
    buying.lots = after
    interest = market.open_interest
    if after > 0:
        interest += after - before if before > 0 else after
    before = selling.lots
    selling.lots = after = before - lots
    if before > 0:
        interest -= before - after if after > 0 else before
    market.open_interest = interest


def rest(
    state: State, account: Account, position: Position, order_id: int, client_id: int, side: int,
    price: int, qty: int, open_: int,
) -> None:  # fmt: skip
    """Put what is left of an order into the book."""
    market = position.market
    order = Order(order_id, account, market, client_id, side, price, qty, open_)
    market.book.place(order_id, account.index, side, price, open_)
    state.orders[order_id] = order
    account.orders[order_id] = order
    account.by_client[client_id] = order
    margin.order_opened(state, account, position, order)


def cancel(state: State, order: Order, reason: str) -> int:
    """Take a resting order out of the book, say so, and return what was open of it."""
    account = order.account
    market = order.market
    position = account.positions[market.id]
    left = market.book.cancel(order.id)
    assert left == order.open, f"order {order.id}: the book holds {left}, the engine {order.open}"
    margin.order_closed(state, position, order, left, True)
    _forget(state, order)
    margin.drop_if_empty(account, position)
    state.touch(account.wallet)
    state.events.append(
        OrderUpdate(order.id, account.index, market.id, order.client_id, CANCELLED, reason, left)
    )
    return left


def _forget(state: State, order: Order) -> None:
    del state.orders[order.id]
    del order.account.orders[order.id]
    del order.account.by_client[order.client_id]
