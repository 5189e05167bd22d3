"""Funding: longs and shorts pay each other for the distance between book and index.

The premium of a market stands from block to block and counts by block time. At each risk tick
the rate for 8 hours is P + clamp(interest - P, +-clamp), P the premium's time-weighted mean,
within +-4 x (initial - maintenance), that is (initial - maintenance)/2 an hour. The cumulative
funding per lot moves by mark x rate x time; it is part of the market's value, so no account is
touched. Only whole micro-USDC per lot are ever applied, the exact fraction stays in the
accumulator: what longs pay is what shorts get, to the last micro-USDC, and nothing is lost.
Nothing accrues while the index is stale.
"""

from __future__ import annotations

from typing import Final

from matcher.state import Market, State
from matcher.units import WAD, clamp, div_floor

EIGHT_HOURS_MS: Final = 28_800_000
ACCUMULATOR_SCALE: Final = WAD * EIGHT_HOURS_MS
"""The accumulator counts micro-USDC per lot in units of one over this."""
IMPACT_LEVELS_MAX: Final = 64
"""A side that needs more levels than this for the impact notional is too thin."""


def impact_price(market: Market, side: int) -> int | None:
    """Return the mean price at which `impact_notional` would trade against `side`.

    Units: micro-USDC per whole unit, rounded down; None when the side is too thin.
    """
    wanted = market.spec.impact_notional
    paid = lots = 0
    for price, qty in market.book.depth(side, IMPACT_LEVELS_MAX):
        level = price * market.tick_value
        take = min(qty, -(-(wanted - paid) // level))
        paid += take * level
        lots += take
        if paid >= wanted:
            return div_floor(paid * market.lot_units, lots)
    return None


def premium(market: Market) -> int:
    """Return (max(0, impact bid - index) - max(0, index - impact ask)) / index. Units: WAD."""
    bid = impact_price(market, 0)
    ask = impact_price(market, 1)
    if bid is None or ask is None:
        return 0
    index = market.feed.value
    return div_floor(WAD * (max(0, bid - index) - max(0, index - ask)), index)


def accumulate(state: State, until_ms: int) -> None:
    """Count the premium that stood since the last block, while the index was fresh.

    Call it before anything of the new block changes book or index.
    """
    for market in state.markets:
        feed = market.feed
        if not feed.fresh:
            continue
        fresh_until = min(until_ms, feed.time_ms + state.genesis.oracle_max_age_ms)
        elapsed = fresh_until - state.time_ms
        if elapsed > 0:
            market.premium_sum += premium(market) * elapsed
            market.premium_ms += elapsed


def rate_8h(market: Market, mean: int) -> int:
    """Return the funding rate for 8 hours at the mean premium. Units: WAD."""
    spec = market.spec
    rate = mean + clamp(spec.funding_interest - mean, -spec.funding_clamp, spec.funding_clamp)
    cap = 4 * (spec.initial_rate - spec.maintenance_rate)
    return clamp(rate, -cap, cap)


def apply(market: Market) -> None:
    """Move the cumulative funding by what accrued since the last risk tick."""
    elapsed = market.premium_ms
    if elapsed == 0:
        return
    rate = rate_8h(market, div_floor(market.premium_sum, elapsed))
    market.funding_rate = rate
    market.funding_acc += market.lot_mark * rate * elapsed
    market.premium_sum = market.premium_ms = 0
    funding = div_floor(market.funding_acc, ACCUMULATOR_SCALE)
    market.travelled += abs(funding - market.funding)
    market.funding = funding
    market.value = market.lot_mark - funding
