"""Standard margin of one underlying, options included.

    margin = PnL and funding of perpetuals and futures - requirements

without cash, which counts once per account. Option marks are not added: a long option is no
collateral, and a short one's mark is in its requirement. Values are in *value units* per lot of
the caller's choice; each requirement is rounded up, once.

Open orders: linear positions count at their larger side with each order's loss against mark;
options with all sells and no buys filled. A sell that opens a short lends its premium, up to the
mark value, to the isolated sum only: the other branch may not rise with a sell, and a premium not
yet received would then be margin out of nothing (ADR-0021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from matcher.units import WAD, div_ceil


@dataclass(frozen=True, slots=True)
class StandardParameters:
    """The numbers of standard mode.

    Units: WAD; `size_base` the value unit of a notional, `open_interest_*` lots; 0 means none.
    """

    perp_im: int = 65 * WAD // 1_000
    perp_mm: int = 5 * WAD // 100
    size_base: int = 0
    open_interest_low: int = 0
    open_interest_high: int = 0
    option_im: int = 15 * WAD // 100
    option_im_min: int = WAD // 10
    option_mm: int = 75 * WAD // 1_000
    put_im_mult: int = 105 * WAD // 100
    unpaired_im: int = 12 * WAD // 10
    unpaired_mm: int = 11 * WAD // 10
    confidence_threshold: int = 4 * WAD // 10
    confidence_factor: int = 4 * WAD // 10

    def initial_rate(self, open_interest: int) -> int:
        """Return the initial rate, rising to 1 between the open-interest caps, rounded up."""
        width = self.open_interest_high - self.open_interest_low
        over = open_interest - self.open_interest_low
        if width <= 0 or over <= 0:
            return self.perp_im
        return min(WAD, self.perp_im + div_ceil((WAD - self.perp_im) * over, width))


class LinearHeld(NamedTuple):
    """A perpetual or future with its open orders.

    Units: lots, and value units per lot for `mark` and `spot`; `pnl` (with funding) and `loss`
    (that of the open orders against mark) value units; `rate` is the instrument's initial rate.
    """

    lots: int
    mark: int
    spot: int
    pnl: int
    confidence: int
    rate: int
    buys: int = 0
    sells: int = 0
    loss: int = 0

    @property
    def worst(self) -> int:
        """Return the larger of |lots + buys| and |lots - sells|."""
        return max(abs(self.lots + self.buys), abs(self.lots - self.sells))


class OptionHeld(NamedTuple):
    """An option with its open sell orders (price per lot, lots).

    Units: lots, and value units per lot for strike, mark and prices.
    """

    call: bool
    strike: int
    mark: int
    lots: int
    sells: Sequence[tuple[int, int]] = ()

    @property
    def after(self) -> int:
        """Return the lots with all sells filled."""
        return self.lots - sum(lots for _, lots in self.sells)


class Options(NamedTuple):
    """All options of one expiry. Units: value units per lot, confidence WAD."""

    held: Sequence[OptionHeld]
    spot: int
    forward: int
    confidence: int
    premiums: int = 0
    """What open buys would pay."""


class Requirement(NamedTuple):
    """An expiry's requirement and its parts, in value units."""

    isolated: int
    loss: int
    unpaired: int
    doubt: int
    total: int


def linear_requirement(p: StandardParameters, held: LinearHeld, initial: bool) -> int:
    """Return the requirement of one perpetual or future with its open orders, rounded up."""
    notional = held.worst * held.mark
    rate = held.rate if initial else p.perp_mm
    if p.size_base and notional > p.size_base:
        need = div_ceil(notional * notional * rate, p.size_base * WAD)
    else:
        need = div_ceil(notional * rate, WAD)
    return need + _doubt(p, held.confidence, held.worst * held.spot, initial) + held.loss


def isolated(p: StandardParameters, option: OptionHeld, spot: int, initial: bool) -> int:
    """Return the isolated requirement of one short lot. Units: value unit x WAD**2."""
    mark = option.mark * WAD
    if option.call:
        maintenance = mark + p.option_mm * spot
    else:
        maintenance = mark + p.option_mm * max(spot, option.mark)
    if not initial:
        return maintenance * WAD
    out = max(0, option.strike - spot if option.call else spot - option.strike)
    first = mark + max(p.option_im * spot - out * WAD, p.option_im_min * spot)
    return first * WAD if option.call else max(first * WAD, p.put_im_mult * maintenance)


def worst_loss(held: Sequence[OptionHeld]) -> int:
    """Return -min(0, payoff at 0 and at each strike), all sells filled."""
    payoff = sum(option.after * option.strike for option in held if not option.call)
    slope = -sum(option.after for option in held if not option.call)
    lowest, at = min(0, payoff), 0
    for option in sorted(held, key=_strike):
        payoff += slope * (option.strike - at)
        at = option.strike
        slope += option.after
        lowest = min(lowest, payoff)
    return -lowest


def credit(option: OptionHeld) -> int:
    """Return the premium that open sells lend: of what opens a short, up to its mark value.

    What closes a long comes first and takes the dearest orders, so this is the least that any
    order of fills brings.
    """
    opening = max(0, -option.after) - max(0, -option.lots)
    total = 0
    for price, lots in sorted(option.sells):
        taken = min(lots, opening)
        total += taken * min(price, option.mark)
        opening -= taken
    return total


def options_requirement(p: StandardParameters, of: Options, initial: bool) -> Requirement:
    """Return one expiry's requirement, min(isolated, loss + unpaired), rounded up."""
    alone, shorts, lent = 0, 0, 0
    for option in of.held:
        short = max(0, -option.after)
        if short:
            alone += short * isolated(p, option, of.spot, initial)
            shorts += short
        lent += credit(option)
    apart = div_ceil(alone, WAD * WAD) - lent
    loss = worst_loss(of.held)
    net = max(0, -sum(option.after for option in of.held if option.call))
    multiple = p.unpaired_im if initial else p.unpaired_mm
    unpaired = div_ceil(net * of.forward * multiple, WAD)
    doubt = _doubt(p, of.confidence, shorts * of.spot, initial)
    total = min(apart, loss + unpaired) + doubt + of.premiums
    return Requirement(apart, loss, unpaired, doubt, total)


def standard_margin(
    p: StandardParameters,
    linears: Sequence[LinearHeld],
    options: Sequence[Options],
    initial: bool,
) -> int:
    """Return initial or maintenance margin of one underlying, without cash."""
    total = sum(held.pnl - linear_requirement(p, held, initial) for held in linears)
    return total - sum(options_requirement(p, of, initial).total for of in options)


def _doubt(p: StandardParameters, confidence: int, spot_value: int, initial: bool) -> int:
    """Return what a low confidence adds to the initial requirement, rounded up."""
    if not initial or confidence >= p.confidence_threshold:
        return 0
    return div_ceil(p.confidence_factor * (WAD - confidence) * spot_value, WAD * WAD)


def _strike(option: OptionHeld) -> int:
    return option.strike
