"""Liquidation: cancel, then reduce through the book; the insurance fund covers a deficit.

Stage 1 cancels the account's orders. Stage 2 takes at most `liquidation_share` of the opening
notional (at least `liquidation_min`) per window off the book, the largest requirement first,
until initial margin is met; its limit is the better of the bankruptcy price and mark -+ half the
maintenance rate. Stage 3, where auctions and auto-deleveraging will stand: once stage 2 had its
time, or equity is below a third of the requirement, the limit widens to the band's edge, but only
as far as the insurance fund can pay for. What the fund cannot cover stays as the account's
negative cash, visible and counted; no money is made.
"""

from __future__ import annotations

from matcher import ledger, margin
from matcher.outcome import InsurancePaid, Liquidation
from matcher.state import Account, LiquidationState, Position, State
from matcher.trading import Taker, cancel, execute
from matcher.units import PRICE_MAX, WAD, clamp, div_ceil, div_floor


def step(state: State, account: Account) -> None:
    """Take an account below maintenance, or already in liquidation, one step on."""
    for _, order in sorted(account.orders.items()):
        cancel(state, order, "liquidation")
    state.touch(account.wallet)
    current = account.liquidation
    if current is None:
        if margin.maintenance_margin(state, account) >= 0:
            state.margin_changed(account)
            return
        opening = sum(abs(p.lots) * p.market.lot_mark for p in account.positions.values())
        current = LiquidationState(state.time_ms, opening, state.time_ms, 0)
        account.liquidation = current
        state.liquidating[account.index] = account
        state.events.append(Liquidation(account.index, "started", 0, 0, 0))
    _reduce(state, account, current)
    if not account.positions and account.cash < 0:
        _cover(state, account)
    if margin.initial_margin(state, account) >= 0:
        account.liquidation = None
        del state.liquidating[account.index]
        state.margin_changed(account)
        state.events.append(Liquidation(account.index, "ended", 0, 0, 0))


def _need(position: Position) -> int:
    """Return the position's maintenance requirement; the account has no orders."""
    market, lots = position.market, abs(position.lots)
    return margin.requirement(market, lots, market.maintenance_num, market.maintenance_den)


def _reduce(state: State, account: Account, current: LiquidationState) -> None:
    """Reduce position by position, the largest requirement first, within the window's share."""
    genesis = state.genesis
    if state.time_ms - current.window_ms >= genesis.liquidation_step_ms:
        current.window_ms = state.time_ms
        current.window_used = 0
    share = div_floor(current.opening * genesis.liquidation_share, WAD)
    allowed = max(share, genesis.liquidation_min)
    by_need = sorted(account.positions.values(), key=lambda p: (-_need(p), p.market.id))
    for position in by_need:
        short = -margin.initial_margin(state, account)
        left = allowed - current.window_used
        if short <= 0 or left <= 0:
            return
        market = position.market
        lots = min(abs(position.lots), max(1, left // market.lot_mark), _enough(position, short))
        if lots:
            current.window_used += _close(state, account, position, lots, current)


def _enough(position: Position, short: int) -> int:
    """Return how many lots, sold at mark -+ half the maintenance rate, free `short` of margin."""
    market = position.market
    per_lot = market.lot_mark * (2 * market.initial_rate - market.spec.maintenance_rate)
    return div_ceil(short * 2 * WAD, max(per_lot, 1)) + 1


def _limit(state: State, account: Account, position: Position, current: LiquidationState) -> int:
    """Return the limit price in ticks for reducing the position now."""
    market, lots = position.market, abs(position.lots)
    total = sum(_need(p) for p in account.positions.values())
    worth = margin.equity(account)
    held = div_floor(worth * _need(position), total)
    half = market.spec.maintenance_rate
    near = market.lot_mark * (2 * WAD - half if position.lots > 0 else 2 * WAD + half)
    patience = state.time_ms - current.since_ms >= state.genesis.liquidation_patience_ms
    wide = patience or 3 * worth < total
    if wide:
        held += max(0, state.insurance.cash)
    give = div_floor(held, lots)
    tick = market.tick_value
    if position.lots > 0:
        bankruptcy = div_ceil(market.lot_mark - give, tick)
        bound = market.band_low if wide else div_ceil(near, 2 * WAD * tick)
        return clamp(max(bankruptcy, bound), 1, PRICE_MAX)
    bankruptcy = div_floor(market.lot_mark + give, tick)
    bound = market.band_high if wide else div_floor(near, 2 * WAD * tick)
    return clamp(min(bankruptcy, bound), 0, PRICE_MAX)


def _close(
    state: State, account: Account, position: Position, lots: int, current: LiquidationState
) -> int:
    """Close up to `lots` through the book; return the notional closed, at mark."""
    market = position.market
    limit = _limit(state, account, position, current)
    side = 1 if position.lots > 0 else 0
    if not market.book.crosses(side, limit):
        return 0
    order_id = state.next_order
    state.next_order = order_id + 1
    taker = Taker(account, order_id, side, limit, lots, liquidation=True)
    filled, _ = execute(state, market, taker)
    if not filled:
        return 0
    margin.drop_if_empty(account, position)
    notional = filled * market.lot_mark
    fee = div_ceil(notional * state.genesis.liquidation_fee, WAD)
    fee = min(fee, max(0, margin.equity(account)))
    ledger.transfer(state, account, state.insurance, fee)
    state.events.append(Liquidation(account.index, "reduced", market.id, filled, fee))
    return notional


def _cover(state: State, account: Account) -> None:
    """Let the insurance fund pay the deficit of an account without positions, as far as it can."""
    paid = min(-account.cash, max(0, state.insurance.cash))
    if paid:
        ledger.transfer(state, state.insurance, account, paid)
        state.events.append(InsurancePaid(account.index, paid, -account.cash))
