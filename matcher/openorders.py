"""What open orders take from portfolio margin, scenario by scenario.

In each scenario an order adds, per lot,

    min(0, q (v - p) + f dampening (d(q v') - q v))        q = 1 for a buy, -1 for a sell

where p is its limit, v and v' the option's value now and in the scenario, and d the expiry's factor
for a positive or a negative value. An expiry's discounted value is concave in what it holds, so no
set of fills takes more than the sum over orders. A skew scenario, which counts the absolute change,
subtracts the larger |d(q v') - q v| over both factors; the basis contingency is treated likewise.

All but the limit is the same for all orders of one side: `OrderSide`. Units: value units per lot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matcher.portfolio import Orders, slope
from matcher.scenarios import SKEWS, Grid
from matcher.units import WAD, div_floor


class OrderSide(NamedTuple):
    """What one lot bought (or sold) for nothing would add per scenario, and to the basis."""

    buys: bool
    scenarios: tuple[int, ...]
    basis: int


def option_side(
    grid: Grid,
    row: Sequence[int],
    terms: tuple[int, int, int],
    one: int,
    factor: int,
    buys: bool,
) -> OrderSide:
    """Return the side of one option; each entry is rounded down.

    `row` is its value under every valuation, `terms` are gain, owed (in 1/`one`) and basis (WAD) of
    its expiry, `factor` is f.
    """
    gain, owed, basis = terms
    sign = 1 if buys else -1
    now = sign * row[0]
    found = []
    for scenario, lane in zip(grid.parameters.scenarios, grid.lanes, strict=True):
        value = sign * row[lane]
        if scenario.kind in SKEWS:
            change = -max(abs(value * gain - now * one), abs(value * owed - now * one))
        else:
            change = value * (gain if value >= 0 else owed) - now * one
        found.append(now + div_floor(factor * scenario.dampening * change, WAD * WAD * one))
    drop = min(sign * row[grid.basis_up] - now, sign * row[grid.basis_down] - now, 0)
    return OrderSide(buys, tuple(found), now + div_floor(factor * basis * drop, WAD * WAD))


def linear_side(
    grid: Grid, value: int, moving: int, one: int, factor: int, buys: bool
) -> OrderSide:
    """Return the side of a perpetual or future of `value` per lot, `moving` of it with spot."""
    now, exposure = (value, moving) if buys else (-value, -moving)
    found = [
        now
        + div_floor(
            factor * scenario.dampening * exposure * slope(scenario.factor, one, exposure),
            WAD * WAD * one,
        )
        for scenario in grid.parameters.scenarios
    ]
    return OrderSide(buys, tuple(found), now)


def added(orders: Sequence[tuple[OrderSide, int, int]], grid: Grid) -> Orders:
    """Return what orders of (side, limit per lot, lots) add to margin; all entries are <= 0."""
    scenarios, basis = [0] * len(grid.parameters.scenarios), 0
    for side, limit, lots in orders:
        paid = limit if side.buys else -limit
        for i, value in enumerate(side.scenarios):
            if value < paid:
                scenarios[i] += lots * (value - paid)
        basis += lots * min(0, side.basis - paid)
    return Orders(scenarios, basis)
