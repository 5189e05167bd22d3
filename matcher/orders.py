"""Placing and cancelling: every rule between a well-formed action and the book.

An order is accepted only if initial margin, with all of it open at its limit price and its taker
fee paid, stays >= 0. Trading at better prices only helps, so margin also holds right after the
fills. Below initial margin a subaccount may still reduce: see `_may_reduce`.
"""

from __future__ import annotations

from matcher import margin
from matcher.actions import (
    ANY_INSTRUMENT,
    ANY_SIDE,
    FOK,
    GTC,
    LIMIT,
    MARKET,
    CancelAll,
    CancelOrder,
    PlaceOrder,
)
from matcher.genesis import POSITIONS_MAX
from matcher.outcome import (
    CANCELLED,
    DONE,
    FILLED,
    PARTIALLY_FILLED,
    REJECTED,
    RESTING,
    ActionResult,
)
from matcher.state import Account, Market, Position, State
from matcher.trading import Taker, cancel, execute, rest


def _rejected(reason: str) -> ActionResult:
    return ActionResult(REJECTED, reason)


def place(state: State, account: Account, action: PlaceOrder) -> ActionResult:
    """Place one order of an authorised, bounded action."""
    market = state.markets[action.instrument]
    reason = account.client_ids.refusal(action.client_id)
    if reason is not None:
        return _rejected(reason)
    if not state.is_live(market):
        return _rejected("oracle_stale")
    if account.liquidation is not None:
        return _rejected("in_liquidation")
    side = action.side
    price, resting = action.price, action.kind == LIMIT and action.tif == GTC
    if action.kind == MARKET:
        price = market.band_low if side else market.band_high
    elif not market.band_low <= price <= market.band_high:
        return _rejected("price_band")
    qty = action.qty
    if qty > market.qty_max:
        return _rejected("bad_qty")
    position = account.positions.get(market.id)
    if action.reduce_only:
        if resting:
            return _rejected("reduce_only_resting")
        qty = min(qty, _reducible(position, side))
        if qty == 0:
            return _rejected("reduce_only")
    if action.post_only and market.book.crosses(side, price):
        return _rejected("would_cross")
    reason = _refusal(state, account, market, position, side, price, qty, resting)
    if reason is not None:
        return _rejected(reason)
    account.client_ids.add(action.client_id)
    order_id = state.next_order
    state.next_order = order_id + 1
    state.touch(account.wallet)
    taker = Taker(account, order_id, side, price, qty)
    if action.tif == FOK and not _fillable(state, market, taker):
        return ActionResult(CANCELLED, "fill_or_kill", order_id)
    return _trade_and_rest(state, account, market, taker, action, resting)


def _trade_and_rest(
    state: State, account: Account, market: Market, taker: Taker, action: PlaceOrder, resting: bool
) -> ActionResult:
    order_id, qty = taker.order_id, taker.qty
    filled, stopped = 0, False
    if market.book.crosses(taker.side, taker.limit):
        filled, stopped = execute(state, market, taker)
        position = account.positions.get(market.id)
        if position is not None:
            margin.drop_if_empty(account, position)
    if filled == qty:
        return ActionResult(FILLED, None, order_id, filled)
    if stopped or not resting:
        return ActionResult(
            CANCELLED, "self_trade" if stopped else "no_liquidity", order_id, filled
        )
    position = margin.position_of(account, market)
    left = qty - filled
    rest(state, account, position, order_id, action.client_id, taker.side, taker.limit, qty, left)
    return ActionResult(PARTIALLY_FILLED if filled else RESTING, None, order_id, filled, left)


def _reducible(position: Position | None, side: int) -> int:
    """Return how many lots an order of `side` could take off the position."""
    if position is None:
        return 0
    return max(0, position.lots if side else -position.lots)


def _refusal(
    state: State, account: Account, market: Market, position: Position | None, side: int,
    price: int, qty: int, resting: bool,
) -> str | None:  # fmt: skip
    """Return why limits or margin do not allow the order, or None."""
    if resting and len(account.orders) >= state.genesis.open_orders_max:
        return "too_many_orders"
    if position is None and len(account.positions) >= POSITIONS_MAX:
        return "too_many_positions"
    if account.tick != state.tick:
        margin.refresh(state, account)
    if position is None:
        lots = buys = sells = loss = held = 0
    else:
        lots, buys, sells = position.lots, position.buys, position.sells
        loss, held = position.loss, position.contribution
    value = price * market.tick_value
    ahead = value - market.lot_mark if side == 0 else market.lot_mark - value
    if ahead > 0:
        loss += ahead * qty
    # Each fill's fee rounds up by itself: at most one micro-USDC a fill more than the whole's.
    fee = min(qty, len(market.book)) - (-value * qty * market.taker_num // market.taker_den)
    if side == 0:
        after = margin.initial_contribution(market, lots, buys + qty, sells, loss)
    else:
        after = margin.initial_contribution(market, lots, buys, sells + qty, loss)
    if account.cash + account.free - held + after - fee >= 0:
        return None
    if position is not None and _may_reduce(state, account, position, side, price, qty, fee):
        loses = resting and margin.maintenance_margin(state, account) < max(0, ahead) * qty
        return "insufficient_margin" if loses else None
    return "insufficient_margin"


def _may_reduce(
    state: State, account: Account, position: Position, side: int, price: int, qty: int, fee: int
) -> bool:
    """Say whether an order is safe although initial margin is short: it can only reduce.

    With what is open on its side it stays within the position, and its fill at the limit price,
    fee included, leaves maintenance margin no lower than it is, and that is at least 0: so not
    even closing everything there can leave a deficit. What rests counts its loss against mark
    until it fills: the caller sees to that.
    """
    open_ = position.sells if side else position.buys
    if open_ + qty > _reducible(position, side):
        return False
    before = margin.maintenance_margin(state, account)
    market = position.market
    signed = -qty if side else qty
    cash = -signed * (price * market.tick_value - market.funding) - fee
    args = (position.lots, position.buys, position.sells, position.loss)
    held = margin.maintenance_contribution(market, *args)
    after = margin.maintenance_contribution(market, position.lots + signed, *args[1:])
    return before >= 0 and cash + after - held >= 0


def _fillable(state: State, market: Market, taker: Taker) -> bool:
    """Say whether the book fills the whole taker before it meets its own wallet's order."""
    left = taker.qty
    for resting in market.book.orders(1 - taker.side):
        within = resting.price <= taker.limit if taker.side == 0 else resting.price >= taker.limit
        maker = state.orders[resting.order_id]
        if not within or maker.account.wallet is taker.account.wallet:
            return False
        left -= resting.qty
        if left <= 0:
            return True
    return False


def cancel_one(state: State, account: Account, action: CancelOrder) -> ActionResult:
    """Cancel one live order of the account; a dead or foreign one is `unknown_order`."""
    if action.order_id:
        order = account.orders.get(action.order_id)
    else:
        order = account.by_client.get(action.client_id)
    if order is None:
        return _rejected("unknown_order")
    return ActionResult(CANCELLED, "user", order.id, 0, cancel(state, order, "user"))


def cancel_all(state: State, account: Account, action: CancelAll) -> ActionResult:
    """Cancel what the filter names, by order id; nothing to cancel is a success too."""
    chosen = [
        order
        for _, order in sorted(account.orders.items())
        if action.instrument in (ANY_INSTRUMENT, order.market.id)
        and action.side in (ANY_SIDE, order.side)
    ]
    lots = sum(cancel(state, order, "user") for order in chosen)
    return ActionResult(DONE, None, len(chosen), 0, lots)
