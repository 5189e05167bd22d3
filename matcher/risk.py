"""The risk tick: funding, marks, and which accounts fell below maintenance margin.

Marks, rates and bands move only here, every `risk_tick_ms` of block time. No tick looks at every
account: a check proves for how long it holds. `Market.travelled` is the path length of mark plus
funding; a position with weight w = |lots| + worst + open lots lowers margin by at most w per unit
of travel (the requirement's slope is at most `worst`: rates are at most 1/3, and the size factor
at most 1.5 where the proof is used), so an account with slack m over k positions is safe while
each market travels at most (m - k) / (k w), a unit per position being kept for rounding.
`Market.due` is a heap of (travel, account, number of the check).
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from matcher import funding, liquidation, margin, prices
from matcher.fixed import exp_negative
from matcher.outcome import MarkMoved
from matcher.state import Account, Market, State
from matcher.units import PRICE_MAX, WAD, clamp, div_ceil, div_floor

_DUE_SLACK = 1_024


def tick(state: State) -> None:
    """Run one risk tick at block time."""
    state.tick += 1
    state.tick_ms = state.time_ms
    for market in state.markets:
        funding.apply(market)
    for market in state.markets:
        if market.feed.fresh:
            _move_mark(state, market)
        _move_rates(state, market)
    for account in _failing(state):
        liquidation.step(state, account)


def mark_price(market: Market, elapsed_ms: int) -> int:
    """Return the new mark, and move the basis' average by `elapsed_ms`.

    The mark is the median of index + average basis, the mid and the last trade, the latter two
    within index x (1 +- mark_clamp); without both sides of the book the mid counts as the index,
    without a last trade so does that. The basis is this mid - index. Units: micro-USDC per unit.
    """
    index, spec = market.feed.value, market.spec
    reach = div_floor(index * spec.mark_clamp, WAD)
    bid, ask = market.book.best(0), market.book.best(1)
    mid = last = index
    if bid is not None and ask is not None:
        mid = clamp(div_floor((bid + ask) * spec.tick_size, 2), index - reach, index + reach)
    if market.last_price:
        last = clamp(market.last_price * spec.tick_size, index - reach, index + reach)
    kept = exp_negative(div_floor(WAD * elapsed_ms, spec.basis_ema_ms))
    basis = (mid - index) * WAD
    market.basis_wad = basis + div_floor((market.basis_wad - basis) * kept, WAD)
    smoothed = index + div_floor(market.basis_wad, WAD)
    return sorted((smoothed, mid, last))[1]


def _move_mark(state: State, market: Market) -> None:
    mark = mark_price(market, state.time_ms - market.mark_ms)
    market.mark_ms = state.time_ms
    lot_mark = max(1, div_floor(mark, market.lot_units))
    market.travelled += abs(lot_mark - market.lot_mark)
    market.mark = mark
    market.lot_mark = lot_mark
    market.value = lot_mark - market.funding
    band, tick_size = market.spec.price_band, WAD * market.spec.tick_size
    market.band_low = max(1, div_ceil(mark * (WAD - band), tick_size))
    market.band_high = min(PRICE_MAX, div_floor(mark * (WAD + band), tick_size))
    state.events.append(
        MarkMoved(
            market.id, mark, market.feed.value, market.value, market.funding, market.funding_rate
        )
    )


def _move_rates(state: State, market: Market) -> None:
    """Set the initial rate by open interest and the surcharge by confidence."""
    spec, genesis = market.spec, state.genesis
    rate = spec.initial_rate
    over = market.open_interest - spec.open_interest_low
    if over > 0:
        width = spec.open_interest_high - spec.open_interest_low
        rate = min(WAD, rate + div_ceil((WAD - rate) * over, width))
    market.set_initial_rate(rate)
    trust = prices.confidence(genesis, market.feed, state.time_ms)
    market.surcharge_num, market.surcharge_den = 0, 1
    if trust < genesis.confidence_min:
        market.surcharge_num = genesis.confidence_factor * (WAD - trust) * market.feed.value
        market.surcharge_den = WAD * WAD * market.lot_units


def _failing(state: State) -> list[Account]:
    """Return the accounts to liquidate, by index: below maintenance, or being liquidated."""
    due: dict[int, Account] = {account.index: account for account in state.margins_stale}
    state.margins_stale.clear()
    for market in state.markets:
        heap = market.due
        while heap and heap[0][0] < market.travelled:
            _, index, check = heappop(heap)
            account = state.accounts[index]
            if account.check == check:
                due[index] = account
    due.update(state.liquidating)
    failing = []
    for index in sorted(due):
        account = due[index]
        account.margin_stale = False
        if _check(state, account):
            continue
        if not all(state.is_live(position.market) for position in account.positions.values()):
            state.margin_changed(account)
        else:
            failing.append(account)
    return failing


def _check(state: State, account: Account) -> bool:
    """Say whether the account is safe; if so, note how far markets may travel until it is not."""
    account.check += 1
    slack = margin.maintenance_margin(state, account)
    if slack < 0 or account.liquidation is not None:
        return False
    count = len(account.positions)
    for position in account.positions.values():
        market = position.market
        worst = max(position.lots + position.buys, position.sells - position.lots)
        weight = abs(position.lots) + worst + position.buys + position.sells
        allowed = 0
        if worst * market.lot_mark <= market.size_base and slack > count:
            allowed = min((slack - count) // (count * weight), market.lot_mark // 2)
        if len(market.due) > 2 * len(state.accounts) + _DUE_SLACK:
            market.due = [e for e in market.due if state.accounts[e[1]].check == e[2]]
            heapify(market.due)
        heappush(market.due, (market.travelled + allowed, account.index, account.check))
    return True
