"""Portfolio margin of one underlying, scenario by scenario.

    margin = MtM + f x min(basis, min over scenarios of PnL) - contingencies

without cash, which counts once per account. Everything here is in *value units*: the caller
chooses what a value per lot is counted in, and sums, spot values and results are in the same
unit. Each result is rounded against the account, once. Source: Derive's PMRM 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from matcher.scenarios import SKEWS, Grid, PortfolioParameters
from matcher.units import WAD, div_ceil, div_floor


class Expiry(NamedTuple):
    """The options that an account holds in one expiry.

    `sums[i]` is lots x value, summed, under the grid's valuation i. `gain` and `owed` are the
    term's factors as fractions of `Underlying.one`, `basis` is WAD; `confidence` is the lowest of
    forward, rate and volatility. `gross` is the spot value of all options, `naked` that of naked
    shorts; with open orders both at their largest.
    """

    sums: Sequence[int]
    gain: int
    owed: int
    basis: int
    confidence: int
    gross: int
    naked: int


class Linear(NamedTuple):
    """A perpetual or future: `exposure` is what a spot factor of 2 would gain.

    `spot_value` is |lots| x spot, with open orders at its largest; `pnl` unrealised, with funding.
    """

    exposure: int
    spot_value: int
    pnl: int
    confidence: int


class Collateral(NamedTuple):
    """Collateral of `value` (amount x price / stable). Units: value unit, then WAD."""

    value: int
    confidence: int
    mm_haircut: int
    im_haircut: int
    risk_cancelling: bool


class Orders(NamedTuple):
    """What open orders add, each <= 0: per scenario, and to the basis contingency."""

    scenarios: Sequence[int]
    basis: int


@dataclass(frozen=True, slots=True)
class Underlying:
    """All that an account holds in one underlying. `one` is the unit of the discount factors."""

    expiries: Sequence[Expiry]
    perp: Linear | None = None
    futures: Sequence[Linear] = ()
    collateral: Sequence[Collateral] = ()
    spot_confidence: int = WAD
    stable: int = WAD
    one: int = WAD


class Result(NamedTuple):
    """Margin without cash, and what it is made of. Units: the value unit; `factor` WAD."""

    mtm: int
    scenarios: tuple[int, ...]
    basis: int
    factor: int
    contingencies: int
    margin: int

    @property
    def worst(self) -> int:
        """Return the index of the first scenario with the lowest PnL."""
        return self.scenarios.index(min(self.scenarios))


def scenario_pnls(grid: Grid, held: Underlying) -> tuple[int, ...]:
    """Return the PnL of every scenario, rounded down."""
    one = held.one
    _, exposure = linear_parts(held)
    found = []
    for scenario, lane in zip(grid.parameters.scenarios, grid.lanes, strict=True):
        total = 0
        for expiry in held.expiries:
            value = expiry.sums[lane]
            change = value * (expiry.gain if value >= 0 else expiry.owed) - expiry.sums[0] * one
            total += -abs(change) if scenario.kind in SKEWS else change
        total += exposure * slope(scenario.factor, one, exposure)
        found.append(div_floor(scenario.dampening * total, one * WAD))
    return tuple(found)


def slope(factor: int, one: int, exposure: int) -> int:
    """Return spot factor - 1 as a multiple of 1/`one`, rounded against an exposure of that sign."""
    moved = (factor - WAD) * one
    return div_floor(moved, WAD) if exposure >= 0 else div_ceil(moved, WAD)


def basis_contingency(grid: Grid, held: Underlying) -> int:
    """Return the basis contingency, at most 0, rounded down."""
    total = 0
    for expiry in held.expiries:
        now, up, down = (expiry.sums[i] for i in (0, grid.basis_up, grid.basis_down))
        total += min(up - now, down - now, 0) * expiry.basis
    return div_floor(total, WAD)


def contingencies(
    parameters: PortfolioParameters,
    held: Underlying,
    naked: int,
    gross: Sequence[tuple[int, int]],
    initial: bool,
) -> int:
    """Return the static contingencies, at least 0, rounded up.

    `naked` is the spot value of all naked short options, `gross` the pairs of confidence and spot
    value of all options of an expiry; the expiries of `held` are not looked at.
    """
    p = parameters
    perps = sum([linear.spot_value for linear in held.futures])
    if held.perp is not None:
        perps += held.perp.spot_value
    total = p.perp_mm * perps + p.option_mm * naked
    if held.collateral:
        total += sum(c.mm_haircut * c.value for c in held.collateral)
    if initial:
        total += p.perp_im * perps + p.option_im * naked
        if held.collateral:
            total += sum(c.im_haircut * c.value for c in held.collateral)
        doubted = _distrusted(p, held, gross)
        if doubted:
            total += div_ceil(p.confidence_factor * doubted, WAD)
    return div_ceil(total, WAD)


def _distrusted(p: PortfolioParameters, held: Underlying, gross: Sequence[tuple[int, int]]) -> int:
    """Return what low confidences put in doubt. Units: value unit x WAD."""
    least, spot = p.confidence_threshold, held.spot_confidence
    trust, doubted = spot, 0
    if held.perp is not None and held.perp.spot_value:
        trust = min(spot, held.perp.confidence)
        if trust < least:
            doubted += (WAD - trust) * held.perp.spot_value
    for confidence, value in gross:
        if confidence < least or trust < least:
            doubted += (WAD - min(trust, confidence)) * value
    for future in held.futures:
        if min(spot, future.confidence) < least:
            doubted += (WAD - min(spot, future.confidence)) * future.spot_value
    for collateral in held.collateral:
        if min(spot, collateral.confidence) < least:
            doubted += (WAD - min(spot, collateral.confidence)) * collateral.value
    return doubted


def linear_parts(held: Underlying) -> tuple[int, int]:
    """Return mark to market and exposure to spot of all that is not an option."""
    mtm = exposure = 0
    if held.perp is not None:
        exposure, _, mtm, _ = held.perp
    for future in held.futures:
        exposure += future.exposure
        mtm += future.pnl
    for collateral in held.collateral:
        mtm += collateral.value
        if collateral.risk_cancelling:
            exposure += collateral.value
    return mtm, exposure


def assess(grid: Grid, held: Underlying, initial: bool, orders: Orders | None = None) -> Result:
    """Return initial or maintenance margin of one underlying, without cash.

    The parts of the result are those of the positions; `margin` counts open orders too.
    """
    p = grid.parameters
    factor = p.margin_factor(initial, held.stable)
    mtm = linear_parts(held)[0] + sum(expiry.sums[0] for expiry in held.expiries)
    pnls = scenario_pnls(grid, held)
    basis = basis_contingency(grid, held)
    naked = sum(expiry.naked for expiry in held.expiries)
    gross = [(expiry.confidence, expiry.gross) for expiry in held.expiries]
    apart = contingencies(p, held, naked, gross, initial)
    if orders is None:
        worst = div_floor(factor * min(basis, *pnls), WAD)
    else:
        worst = div_floor(factor * basis, WAD) + orders.basis
        for pnl, added in zip(pnls, orders.scenarios, strict=True):
            worst = min(worst, div_floor(factor * pnl, WAD) + added)
    return Result(mtm, pnls, basis, factor, apart, mtm + worst - apart)


def naked_shorts(calls: int, puts: int) -> int:
    """Return the naked shorts at one strike, from the signed lots of its call and its put."""
    return max(0, -calls - max(0, puts)) + max(0, -puts - max(0, calls))
