"""How far marks may move until an account has to be checked again: portfolio mode.

Maintenance margin is a sum of minima of sums, so it falls by no more than its terms move. When one
lot's values go from V to V' it loses at most

    |dV0| + f max(max_j damp_j (owed |dV_j| + |dV0|), basis (max(|dVup|, |dVdown|) + |dV0|))

where V0 is the value now and j runs over the scenarios. `Travel.total` adds up the largest such
loss of all rows of an expiry, tick by tick: a path length. An account with slack m over k kinds of
risk is safe while each kind travels at most (m - roundings)/(k weight), the weight being its gross
lots there. So no tick looks at every account, whatever moved: spot, forwards, volatilities,
rates or time. Confidences do not enter maintenance margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul, sub
from typing import Final

from matcher.scenarios import Grid
from matcher.units import WAD, div_ceil, div_floor

ROUNDING: Final = 8
"""Value units by which roundings may lower a margin from one check to the next."""


class Travel:
    """One expiry's path length. Units: value units per lot, `one` that of the discount factors."""

    def __init__(self, grid: Grid, one: int) -> None:
        self.total = 0
        self._one = one
        self._factor = grid.parameters.mm_factor
        weights = [0] * len(grid.valuations)
        for scenario, lane in zip(grid.parameters.scenarios, grid.lanes, strict=True):
            weights[lane] = max(weights[lane], scenario.dampening)
        self._weights = tuple(weights)
        self._top = max(weights)
        self._up, self._down = grid.basis_up, grid.basis_down

    def loss(self, old: Sequence[int], new: Sequence[int], owed: int, basis: int) -> int:
        """Return what one lot of a row can lose by this move, rounded up.

        `owed` and `basis` are the larger of before and after.
        """
        moved: list[int] = list(map(abs, map(sub, new, old)))
        now = moved[0]
        worst = div_ceil(max(map(mul, moved, self._weights)) * owed, self._one) + now * self._top
        skewed = (max(moved[self._up], moved[self._down]) + now) * basis
        return now + div_ceil(self._factor * max(worst, skewed), WAD * WAD) + 1

    def drift(self, values: Sequence[int], factor: int, basis: int) -> int:
        """Return what one lot worth at most `values` can lose by a move of the factors alone.

        `factor` and `basis` are by how much discount and basis factors moved.
        """
        worst = div_ceil(max(map(mul, values, self._weights)) * factor, self._one)
        skewed = 2 * max(values[self._up], values[self._down], values[0]) * basis
        return div_ceil(self._factor * max(worst, skewed), WAD * WAD) + 1


def linear_weight(grid: Grid) -> int:
    """Return what a lot of exposure loses at most per unit of its price, rounded up. Units: WAD."""
    p = grid.parameters
    # Slopes are rounded to the unit of the discount factors, at least 2**-40.
    steepest = max((abs(s.factor - WAD) + (WAD >> 40)) * s.dampening for s in p.scenarios)
    return WAD + div_ceil(p.mm_factor * steepest, WAD * WAD) + 1


def allowances(slack: int, weights: Sequence[int]) -> list[int]:
    """Return how far each kind of risk may travel, by its weight (lots), until slack may be gone.

    Units: `slack` value units, of maintenance margin, at least 0; the results value units per lot,
    rounded down. A kind without lots may travel for ever: -1.
    """
    held = sum(weight > 0 for weight in weights)
    left = max(0, slack - ROUNDING * (held + 1))
    return [div_floor(left, held * weight) if weight else -1 for weight in weights]
