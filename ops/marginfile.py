"""Portfolios from a file, and their margin: what `fairlane margin` computes.

A portfolio is a JSON object of decimal strings (docs/protocol/markets.md has the fields). Sizes and
prices are read to 1e-18 and multiplied exactly, so values count in 1e-36 USDC until the results are
rounded down to 1e-18.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final

from matcher import portfolio, standard, strikes
from matcher.black76 import VOL_MAX, price
from matcher.scenarios import (
    KINDS,
    SCENARIOS_MAX,
    TIME_MAX_MS,
    Grid,
    PortfolioParameters,
    Scenario,
    fixed_part,
    term,
)
from matcher.standard import StandardParameters
from matcher.surface import SETTLING_MS
from matcher.units import WAD
from ops.fields import no_doubles

FILE_MAX: Final = 64 << 20
OBJECT_MAX: Final = 1 << 20
OBJECTS_MAX: Final = 100_000
EXPIRIES_MAX: Final = 64
OPTIONS_MAX: Final = 1_024
COLLATERAL_MAX: Final = 64
AMOUNT_MAX: Final = 10**15
PRICE_MAX: Final = 10**12
RATE_MAX: Final = 1
PARAMETER_MAX: Final = 1_000
POWER_MAX: Final = 2
FACTOR_MAX: Final = 1_000
_TEXT_MAX: Final = 64
_MESSAGE_MAX: Final = 200
_DECIMAL: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")
_EXACT: Final = Context(prec=120)

TOP: Final = frozenset(
    {"mode", "name", "spot", "spot_confidence", "stable", "cash", "perp", "collateral", "expiries"}
    | {"options", "parameters"}
)
PERP: Final = frozenset({"size", "price", "confidence", "unrealised_pnl", "unrealised_funding"})
COLLATERAL: Final = frozenset(
    {"amount", "price", "confidence", "mm_haircut", "im_haircut", "risk_cancelling"}
)
EXPIRY: Final = frozenset(
    {"seconds", "forward", "forward_confidence", "rate", "rate_confidence", "vol_confidence"}
    | {"fixed"}
)
OPTION: Final = frozenset({"expiry", "strike", "call", "size", "mark_vol"})

Answer = dict[str, Any]


class MarginFileError(ValueError):
    """A portfolio cannot be read; the text names the field and the reason."""


class Fields:
    """One JSON object whose fields are read by name, each fault told with its path."""

    def __init__(self, value: object, path: str, known: frozenset[str]) -> None:
        if not isinstance(value, dict):
            raise MarginFileError(f"{path or 'the portfolio'}: not an object")
        self._value: dict[str, Any] = value
        self._path = path
        for name in value:
            if name not in known:
                raise MarginFileError(f"{self.at(name[:_TEXT_MAX])}: no such field")

    def at(self, name: str) -> str:
        """Return the path of a field."""
        return f"{self._path}.{name}" if self._path else name

    def decimal(
        self, name: str, default: str | None = None, low: int | None = 0, high: int = PRICE_MAX
    ) -> int:
        """Return a WAD within low..high (None: -high..high)."""
        raw = self._value.get(name, default)
        if raw is None:
            raise MarginFileError(f"{self.at(name)}: missing")
        return wad(raw, self.at(name), -high if low is None else low, high)

    def positive(self, name: str, default: str | None = None, high: int = PRICE_MAX) -> int:
        """Return a WAD above 0."""
        value = self.decimal(name, default, 0, high)
        if value == 0:
            raise MarginFileError(f"{self.at(name)}: has to be above 0")
        return value

    def whole(self, name: str, high: int) -> int:
        """Return an integer within 0..high."""
        value = self._value.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= high:
            raise MarginFileError(f"{self.at(name)}: not an integer within 0..{high}")
        return value

    def flag(self, name: str, default: bool | None = None) -> bool:
        """Return true or false."""
        value = self._value.get(name, default)
        if not isinstance(value, bool):
            raise MarginFileError(f"{self.at(name)}: neither true nor false")
        return value

    def has(self, name: str) -> bool:
        """Say whether the field is there and not null."""
        return self._value.get(name) is not None

    def objects(self, name: str, count_max: int, known: frozenset[str]) -> list[Fields]:
        """Return a list of objects, empty if it is not there."""
        value = self._value.get(name, [])
        if not isinstance(value, list):
            raise MarginFileError(f"{self.at(name)}: not a list")
        if len(value) > count_max:
            raise MarginFileError(f"{self.at(name)}: more than {count_max} entries")
        return [Fields(entry, f"{self.at(name)}[{i}]", known) for i, entry in enumerate(value)]

    def raw(self, name: str, default: object) -> Any:
        """Return the field as it stands."""
        return self._value.get(name, default)


def wad(raw: object, where: str, low: int, high: int) -> int:
    """Return a decimal as WAD, to the nearest 1e-18. Errors: MarginFileError."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        raw = str(raw) if abs(raw) < 10**_TEXT_MAX else "1e999"
    if not isinstance(raw, str) or len(raw) > _TEXT_MAX or not _DECIMAL.fullmatch(raw):
        raise MarginFileError(f"{where}: not a decimal number")
    value = Decimal(raw)
    if not low <= value <= high:
        raise MarginFileError(f"{where}: {raw} is not within {low}..{high}")
    return int(value.scaleb(18, _EXACT).to_integral_value(ROUND_HALF_EVEN, _EXACT))


def parse(text: str) -> Answer:
    """Return a portfolio as JSON, its numbers as text or integers. Errors: MarginFileError."""
    try:
        found = json.loads(
            text, parse_float=str, parse_int=_bounded_int, object_pairs_hook=no_doubles
        )
    except RecursionError:
        raise MarginFileError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise MarginFileError(f"not JSON: {error}") from None
    except ValueError as error:
        raise MarginFileError(str(error)[:_MESSAGE_MAX]) from None
    if not isinstance(found, dict):
        raise MarginFileError("not a JSON object")
    return found


def _bounded_int(text: str) -> int:
    if len(text) > _TEXT_MAX:
        raise ValueError(f"{text[:20]}..: a number too long")
    return int(text)


def evaluate(source: object) -> Answer:
    """Return the margin of one portfolio. Errors: MarginFileError."""
    top = Fields(source, "", TOP)
    mode = top.raw("mode", None)
    if mode == "portfolio":
        return _portfolio(top)
    if mode == "standard":
        return _standard(top)
    raise MarginFileError("mode: neither portfolio nor standard")


class _Held:
    """What both modes read alike. Units: WAD, but values 1e-36."""

    def __init__(self, top: Fields) -> None:
        self.spot = top.positive("spot")
        self.trust = top.decimal("spot_confidence", "1", 0, 1)
        self.stable = top.positive("stable", "1", FACTOR_MAX)
        self.cash = top.decimal("cash", "0", None, AMOUNT_MAX) * WAD
        perp = Fields(top.raw("perp", None) or {}, "perp", PERP)
        self.perp_size = perp.decimal("size", "0", None, AMOUNT_MAX)
        self.perp_price = perp.decimal("price", "0")
        self.perp_trust = perp.decimal("confidence", "1", 0, 1)
        self.perp_pnl = perp.decimal("unrealised_pnl", "0", None, AMOUNT_MAX) * WAD
        self.perp_pnl += perp.decimal("unrealised_funding", "0", None, AMOUNT_MAX) * WAD
        if self.perp_size and not self.perp_price:
            raise MarginFileError("perp.price: has to be above 0 for a size")
        self.expiries = [_Expiry(f) for f in top.objects("expiries", EXPIRIES_MAX, EXPIRY)]
        for option in top.objects("options", OPTIONS_MAX, OPTION):
            place = option.whole("expiry", max(0, len(self.expiries) - 1))
            if not self.expiries:
                raise MarginFileError(f"{option.at('expiry')}: there are no expiries")
            self.expiries[place].options.append(_Option(option))


class _Expiry:
    def __init__(self, source: Fields) -> None:
        self.time_ms = source.decimal("seconds", None, 0, TIME_MAX_MS // 1_000) // (WAD // 1_000)
        self.forward = source.positive("forward")
        self.forward_trust = source.decimal("forward_confidence", "1", 0, 1)
        self.rate = source.decimal("rate", "0", -RATE_MAX, RATE_MAX)
        self.rate_trust = source.decimal("rate_confidence", "1", 0, 1)
        self.vol_trust = source.decimal("vol_confidence", "1", 0, 1)
        fixed = source.decimal("fixed") if source.has("fixed") else None
        if fixed is not None and self.time_ms < SETTLING_MS and fixed > self.forward:
            raise MarginFileError(f"{source.at('fixed')}: more than the forward")
        self.fixed = fixed_part(self.forward, self.time_ms, fixed)
        self.options: list[_Option] = []


class _Option:
    def __init__(self, source: Fields) -> None:
        self.strike = source.positive("strike")
        self.call = source.flag("call")
        self.size = source.decimal("size", None, None, AMOUNT_MAX)
        self.vol = source.decimal("mark_vol", None, 0, VOL_MAX // WAD)


def _parameters(top: Fields, known: PortfolioParameters | StandardParameters) -> dict[str, Any]:
    names = frozenset(field.name for field in fields(known))
    source = Fields(top.raw("parameters", None) or {}, "parameters", names)
    given: dict[str, Any] = {}
    for name in sorted(names):
        if name == "scenarios":
            if source.has(name):
                given[name] = _scenarios(source.raw(name, None))
        elif source.has(name):
            low = None if name.endswith(("_slope", "_scale")) else 0
            given[name] = source.decimal(name, None, low, _high(name))
    return given


def _high(name: str) -> int:
    if name.startswith("vol_power"):
        return POWER_MAX
    amount = name == "size_base" or name.startswith("open_interest")
    return AMOUNT_MAX if amount else PARAMETER_MAX


def _scenarios(source: object) -> tuple[Scenario, ...]:
    where = "parameters.scenarios"
    if not isinstance(source, list) or not 0 < len(source) <= SCENARIOS_MAX:
        raise MarginFileError(f"{where}: not a list of 1 to {SCENARIOS_MAX} scenarios")
    found = []
    for i, entry in enumerate(source):
        if not isinstance(entry, list) or len(entry) != 3 or entry[1] not in KINDS:
            raise MarginFileError(f"{where}[{i}]: not [spot factor, kind, dampening]")
        factor = wad(entry[0], f"{where}[{i}][0]", 0, FACTOR_MAX)
        found.append(Scenario(factor, entry[1], wad(entry[2], f"{where}[{i}][2]", 0, FACTOR_MAX)))
    return tuple(found)


def _portfolio(top: Fields) -> Answer:
    held = _Held(top)
    parameters = replace(PortfolioParameters(), **_parameters(top, PortfolioParameters()))
    if not parameters.skew_min_k:
        raise MarginFileError("parameters.skew_min_k: has to be above 0")
    grid = Grid(parameters)
    under = portfolio.Underlying(
        expiries=[_expiry_sums(grid, held, expiry) for expiry in held.expiries],
        perp=portfolio.Linear(
            held.perp_size * held.perp_price,
            abs(held.perp_size) * held.spot,
            held.perp_pnl,
            held.perp_trust,
        ),
        collateral=[
            portfolio.Collateral(
                c.decimal("amount", None, 0, AMOUNT_MAX) * c.decimal("price") * WAD // held.stable,
                c.decimal("confidence", "1", 0, 1),
                c.decimal("mm_haircut", "0", 0, 1),
                c.decimal("im_haircut", "0", 0, 1),
                c.flag("risk_cancelling", False),
            )
            for c in top.objects("collateral", COLLATERAL_MAX, COLLATERAL)
        ],
        spot_confidence=held.trust,
        stable=held.stable,
    )
    initial = portfolio.assess(grid, under, initial=True)
    maintenance = portfolio.assess(grid, under, initial=False)
    rows = [
        {
            "spot": decimal(scenario.factor),
            "volatility": scenario.kind,
            "dampening": decimal(scenario.dampening),
            "pnl": money(pnl),
        }
        for scenario, pnl in zip(parameters.scenarios, initial.scenarios, strict=True)
    ]
    return {
        "mode": "portfolio",
        "mtm": money(initial.mtm),
        "equity": money(held.cash + initial.mtm),
        "initial_margin": money(held.cash + initial.margin),
        "maintenance_margin": money(held.cash + maintenance.margin),
        "worst_scenario": {"index": initial.worst, **rows[initial.worst]},
        "basis": money(initial.basis),
        "initial_factor": decimal(initial.factor),
        "maintenance_factor": decimal(maintenance.factor),
        "initial_contingencies": money(initial.contingencies),
        "maintenance_contingencies": money(maintenance.contingencies),
        "scenarios": rows,
    }


def _expiry_sums(grid: Grid, held: _Held, expiry: _Expiry) -> portfolio.Expiry:
    of = term(grid.parameters, expiry.time_ms, expiry.rate)
    shocked = strikes.Shocked(grid, of, expiry.forward, expiry.fixed)
    sums = [0] * len(grid.valuations)
    lots: dict[int, list[int]] = {}
    gross = 0
    for option in expiry.options:
        row = shocked.call_row(option.strike, strikes.ln_price(option.strike), option.vol)
        if not option.call:
            row = shocked.put_row(row, option.strike)
        sums = [total + option.size * value for total, value in zip(sums, row, strict=True)]
        lots.setdefault(option.strike, [0, 0])[0 if option.call else 1] += option.size
        gross += abs(option.size) * held.spot
    naked = sum(portfolio.naked_shorts(call, put) for call, put in lots.values())
    trust = min(expiry.forward_trust, expiry.rate_trust, expiry.vol_trust)
    return portfolio.Expiry(sums, of.gain, of.owed, of.basis, trust, gross, naked * held.spot)


def _standard(top: Fields) -> Answer:
    held = _Held(top)
    if top.raw("collateral", None):
        raise MarginFileError("collateral: standard mode has none")
    given = _parameters(top, StandardParameters())
    if "size_base" in given:
        given["size_base"] *= WAD  # a notional counts in 1e-36
    p = replace(StandardParameters(), **given)
    perp = standard.LinearHeld(
        held.perp_size,
        held.perp_price,
        held.spot,
        held.perp_pnl,
        min(held.trust, held.perp_trust),
        p.initial_rate(abs(held.perp_size)),
    )
    expiries, marks = [], 0
    for expiry in held.expiries:
        of = term(PortfolioParameters(), expiry.time_ms, expiry.rate)
        options = []
        for option in expiry.options:
            mark = price(
                expiry.forward, option.strike, option.vol, of.tau, of.discount, option.call
            )
            marks += option.size * mark
            options.append(standard.OptionHeld(option.call, option.strike, mark, option.size))
        trust = min(held.trust, expiry.forward_trust, expiry.vol_trust)
        expiries.append(standard.Options(options, held.spot, expiry.forward, trust))
    mtm = held.perp_pnl + marks
    parts = [
        {
            "expiry": i,
            **{
                f"{name}_{part}": money(value)
                for name, initial in (("initial", True), ("maintenance", False))
                for part, value in standard.options_requirement(p, of, initial)._asdict().items()
            },
        }
        for i, of in enumerate(expiries)
    ]
    answer = {
        "mode": "standard",
        "mtm": money(mtm),
        "equity": money(held.cash + mtm),
        "initial_margin": money(held.cash + standard.standard_margin(p, [perp], expiries, True)),
        "maintenance_margin": money(
            held.cash + standard.standard_margin(p, [perp], expiries, False)
        ),
        "worst_scenario": None,
        "scenarios": [],
        "perp_initial": money(standard.linear_requirement(p, perp, True)),
        "perp_maintenance": money(standard.linear_requirement(p, perp, False)),
        "requirements": parts,
    }
    return answer


def decimal(value: int) -> str:
    """Return a WAD as a decimal string without trailing zeros."""
    whole, rest = divmod(abs(value), WAD)
    digits = f"{rest:018d}".rstrip("0")
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"


def money(value: int) -> str:
    """Return a value in 1e-36 as a decimal string, rounded down to 1e-18."""
    return decimal(value // WAD)
