"""Portfolio margin's parameters, scenarios and shocks, per underlying.

Each scenario shocks spot, volatility or skew. Several scenarios (and the basis contingency) need
the same option values, so the `Grid` lists the distinct *valuations*: pairs of spot factor and
kind of volatility, first those without a shock, then skew, up and down. Source: Derive's PMRM 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from matcher.black76 import VOL_MAX, discount_factor, ln_ratio, root_years
from matcher.normal import CDF_BITS
from matcher.numeric import power, sqrt
from matcher.surface import SETTLING_MS
from matcher.units import WAD, clamp, div_ceil, div_floor

SCENARIOS_MAX: Final = 64
YEAR_MS: Final = 365 * 86_400_000
DAY_MS: Final = 86_400_000
TIME_MAX_MS: Final = 20 * YEAR_MS

NONE: Final = "none"
LINEAR: Final = "linear"
ABS: Final = "abs"
UP: Final = "up"
DOWN: Final = "down"
KINDS: Final = (NONE, LINEAR, ABS, UP, DOWN)
"""In the order in which valuations are listed."""
SKEWS: Final = (LINEAR, ABS)


class Scenario(NamedTuple):
    """One scenario. Units: WAD; `kind` is one of `KINDS`."""

    factor: int
    kind: str
    dampening: int


def _percent(*values: int) -> tuple[int, ...]:
    return tuple(value * WAD // 1_000 for value in values)


def _default_scenarios() -> tuple[Scenario, ...]:
    one = WAD
    middle = [
        Scenario(factor, kind, one)
        for factor in _percent(1135, 1090, 1045, 1000, 955, 910, 865)
        for kind in (DOWN, NONE, UP)
    ]
    tails = [
        Scenario(340 * one // 1_000, UP, 60 * one // 1_100),
        Scenario(670 * one // 1_000, UP, 120 * one // 1_100),
        Scenario(1_500 * one // 1_000, UP, 72 * one // 1_000),
        Scenario(2 * one, UP, 36 * one // 1_000),
        Scenario(3 * one, UP, 18 * one // 1_000),
        Scenario(4 * one, UP, 12 * one // 1_000),
    ]
    high, low = _percent(1180, 820)
    skews = [Scenario(one, LINEAR, one), Scenario(one, ABS, one)]
    return (Scenario(high, UP, one), *middle, Scenario(low, UP, one), *tails, *skews)


@dataclass(frozen=True, slots=True)
class PortfolioParameters:
    """The numbers of portfolio mode. Units: WAD, but `vol_floor_days`, WAD days."""

    vol_up: int = WAD // 2
    vol_down: int = 275 * WAD // 1_000
    vol_power_short: int = 3 * WAD // 10
    vol_power_long: int = 13 * WAD // 100
    vol_floor_days: int = WAD
    vol_min_shocked: int = 45 * WAD // 100
    im_factor: int = WAD
    mm_factor: int = 8 * WAD // 10
    short_rate_mult: int = WAD // 2
    long_rate_mult: int = WAD
    short_rate_add: int = 8 * WAD // 100
    long_rate_add: int = 8 * WAD // 100
    discount_long: int = WAD
    discount_short: int = 104 * WAD // 100
    basis_up: int = 1_045 * WAD // 1_000
    basis_down: int = 955 * WAD // 1_000
    basis_add: int = WAD // 2
    basis_mult: int = 2 * WAD
    peg_threshold: int = 98 * WAD // 100
    peg_factor: int = 2 * WAD
    confidence_threshold: int = 55 * WAD // 100
    confidence_factor: int = WAD
    perp_mm: int = 15 * WAD // 1_000
    perp_im: int = 5 * WAD // 1_000
    option_mm: int = 3 * WAD // 1_000
    option_im: int = 2 * WAD // 1_000
    skew_linear_cap: int = 15 * WAD // 100
    skew_linear_slope: int = -5 * WAD // 100
    skew_abs_cap: int = 15 * WAD // 100
    skew_abs_slope: int = -5 * WAD // 100
    skew_min_k: int = WAD // 100
    skew_width: int = 4 * WAD
    skew_vol_static: int = 6 * WAD // 10
    skew_vol_scale: int = -WAD // 10
    scenarios: tuple[Scenario, ...] = _default_scenarios()

    def margin_factor(self, initial: bool, stable: int) -> int:
        """Return f, which grows for initial margin while the stable coin is off its peg."""
        if not initial:
            return self.mm_factor
        off = max(0, self.peg_threshold - stable)
        return self.im_factor + div_ceil(self.peg_factor * off, WAD)


class Grid:
    """The distinct valuations behind a set of parameters.

    `valuations[i]` is (spot factor, kind); `lanes[j]` is the valuation of scenario j. Valuation 0
    is now, `basis_up` and `basis_down` are those of the basis contingency.
    """

    def __init__(self, parameters: PortfolioParameters) -> None:
        assert 0 < len(parameters.scenarios) <= SCENARIOS_MAX
        self.parameters = parameters
        first = [(WAD, NONE), (parameters.basis_up, NONE), (parameters.basis_down, NONE)]
        wanted = [(WAD if s.kind in SKEWS else s.factor, s.kind) for s in parameters.scenarios]
        ordered = first + [pair for kind in KINDS for pair in wanted if pair[1] == kind]
        self.valuations = tuple(dict.fromkeys(ordered))
        place = {pair: index for index, pair in enumerate(self.valuations)}
        self.lanes = tuple(place[pair] for pair in wanted)
        self.basis_up = place[first[1]]
        self.basis_down = place[first[2]]
        self.factors_of = {
            kind: tuple(factor for factor, other in self.valuations if other == kind)
            for kind in KINDS
        }


class Term(NamedTuple):
    """What an expiry's time and rate alone decide.

    Units: `tau` WAD years; `root` sqrt(tau) as a fraction of `CDF_BITS` bits; the rest WAD.
    `gain` and `owed` are the factors by which a scenario's value counts when it is positive and
    when it is negative: rounded down and up. `width_*`, `cap_*` are those of the skew scenarios.
    """

    tau: int
    root: int
    discount: int
    gain: int
    owed: int
    basis: int
    shock: int
    cap_linear: int
    cap_abs: int
    width: int


def term(parameters: PortfolioParameters, time_ms: int, rate: int) -> Term:
    """Return what time and rate decide; a negative rate counts as 0. Units: ms, WAD."""
    assert 0 <= time_ms <= TIME_MAX_MS
    p, rate = parameters, max(0, rate)
    tau = time_ms * WAD // YEAR_MS
    root = sqrt(tau)
    gain_rate = div_floor(p.long_rate_mult * rate, WAD) + p.long_rate_add
    owed_rate = div_floor(p.short_rate_mult * rate, WAD) + p.short_rate_add
    discount = max(1, discount_factor(rate, tau))
    owed = div_ceil(p.discount_short * WAD, max(1, discount_factor(owed_rate, tau)))
    ratio = 30 * DAY_MS * WAD * WAD // max(time_ms * WAD, p.vol_floor_days * DAY_MS, 1)
    exponent = p.vol_power_short if time_ms <= 30 * DAY_MS else p.vol_power_long
    width = p.skew_width * root // WAD * (p.skew_vol_static + p.skew_vol_scale * root // WAD) // WAD
    return Term(
        tau=tau,
        root=root_years(tau),
        discount=discount,
        gain=div_floor(p.discount_long * discount_factor(gain_rate, tau), WAD),
        owed=min(div_ceil(WAD * WAD, discount), owed),
        basis=p.basis_add + div_floor(p.basis_mult * tau, WAD),
        shock=power(ratio, exponent),
        cap_linear=p.skew_linear_cap + p.skew_linear_slope * root // WAD,
        cap_abs=p.skew_abs_cap + p.skew_abs_slope * root // WAD,
        width=max(p.skew_min_k, width),
    )


def shocked_vols(p: PortfolioParameters, of: Term, vol: int, k: int) -> dict[str, int]:
    """Return the volatility of each kind at log-moneyness `k`. Units: WAD, rounded down."""
    up = max(p.vol_min_shocked, vol * (WAD + p.vol_up * of.shock // WAD) // WAD)
    down = vol * max(0, WAD - p.vol_down * of.shock // WAD) // WAD
    linear = _skew(of.cap_linear, of.width, k)
    absolute = _skew(of.cap_abs, of.width, abs(k))
    return {
        NONE: vol,
        LINEAR: min(VOL_MAX, vol * max(0, WAD + linear) // WAD),
        ABS: min(VOL_MAX, vol * max(0, WAD + absolute) // WAD),
        UP: min(VOL_MAX, up),
        DOWN: down,
    }


def _skew(cap: int, width: int, k: int) -> int:
    """Return the relative change of volatility at log-moneyness `k`."""
    x = k * cap // width
    return min(cap, x) if k >= 0 else max(-cap, x)


def fixed_part(forward: int, time_ms: int, fixed: int | None) -> int:
    """Return the part of the forward that no scenario moves, the given one or the default.

    It is 0 until the settlement window opens. Units: WAD, ms.
    """
    if time_ms >= SETTLING_MS:
        return 0
    if fixed is None:
        return div_floor(forward * (SETTLING_MS - time_ms), SETTLING_MS)
    return clamp(fixed, 0, forward)


def shocked_forward(forward: int, fixed: int, factor: int) -> int:
    """Return the forward in a scenario. Units: WAD, rounded down."""
    return factor * (forward - fixed) // WAD + fixed


def ln_moneyness(strike: int, forward: int) -> int:
    """Return ln(strike / forward). Units: WAD, rounded down."""
    return ln_ratio(strike, forward) * WAD >> CDF_BITS
