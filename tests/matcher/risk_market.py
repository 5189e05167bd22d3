"""A small market of risk arrays and random accounts in it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from matcher import portfolio
from matcher.riskarrays import ONE, VALUE_UNIT, ExpiryArray, Held, OptionsHeld, Packed
from matcher.scenarios import DAY_MS, Grid, PortfolioParameters
from matcher.units import WAD

LOTS_PER_UNIT = 100
SPOT = 2_600
SPOT_LOT = SPOT * VALUE_UNIT // LOTS_PER_UNIT
PACKED = Packed(Grid(PortfolioParameters()))
DAYS = (0.01, 1, 7, 30, 90, 300)


def array(random: Random, days: float, strikes: Sequence[int]) -> ExpiryArray:
    """An expiry with these strikes (in dollars) and random forward, rate, volatilities, trust."""
    made = ExpiryArray(PACKED, LOTS_PER_UNIT)
    for strike in strikes:
        made.add_strike(strike * WAD)
    made.spot = SPOT_LOT
    made.confidence = random.choice((WAD, WAD // 3))
    vols = [int(random.uniform(0.2, 1.5) * WAD) for _ in strikes]
    forward = int(SPOT * random.uniform(0.97, 1.05) * WAD)
    made.move(int(days * DAY_MS), forward, int(random.choice((0, 0.05)) * WAD), vols)
    return made


def holding(random: Random, of: ExpiryArray, count: int, lots_max: int) -> OptionsHeld:
    held = OptionsHeld()
    for index in random.sample(range(len(of.rows)), min(count, len(of.rows))):
        held.trade(of, index, random.choice((-1, 1)) * random.randint(1, lots_max))
    return held


def perpetual(lots: int, worst: int | None = None, pnl: int = 0) -> portfolio.Linear:
    """A perpetual at spot; `worst` is the largest |lots| that open orders can make."""
    at_most = abs(lots) if worst is None else worst
    return portfolio.Linear(lots * SPOT_LOT, at_most * SPOT_LOT, pnl, WAD // 2)


def account(random: Random, arrays: Sequence[ExpiryArray], lots_max: int = 5_000) -> Held:
    options = [(of, holding(random, of, random.randrange(6), lots_max)) for of in arrays]
    perp = None
    if random.random() < 0.7:
        perp = perpetual(random.randint(-lots_max, lots_max), pnl=random.randrange(10**15))
    rest = portfolio.Underlying(
        (),
        perp,
        stable=random.choice((WAD, 95 * WAD // 100)),
        spot_confidence=random.choice((WAD, WAD // 4)),
        one=ONE,
    )
    return Held(options, rest)
