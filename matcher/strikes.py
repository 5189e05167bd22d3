"""Option values of one expiry under every valuation of a grid.

Only calls are computed; puts follow by parity. Values are multiples of a *value unit* per lot:
WAD / `per`, so that one lot of 10**-d units counted in 1e-12 USDC has `per` = 10**(6 + d).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matcher.black76 import LN_SHIFT, calls
from matcher.normal import CDF_BITS
from matcher.numeric import ln_fraction
from matcher.scenarios import KINDS, Grid, Term, shocked_forward, shocked_vols
from matcher.units import WAD

_SCALE_BITS: Final = 96


def ln_price(price: int) -> int:
    """Return ln of a WAD price as a fraction of `CDF_BITS` bits."""
    return ln_fraction(price, WAD) >> LN_SHIFT


class Shocked:
    """An expiry's forward under every valuation, ready for a chain of strikes.

    Units: `forward` and `fixed` (the part that no scenario moves) WAD; `leg[i]` is the value of one
    lot of the discounted forward under valuation i.
    """

    def __init__(self, grid: Grid, of: Term, forward: int, fixed: int, per: int = 1) -> None:
        self.grid, self.term, self.forward = grid, of, forward
        self._scale = (of.discount << _SCALE_BITS) // (WAD * per)
        self._shift = _SCALE_BITS + CDF_BITS
        self._ln_forward = ln_price(forward)
        self._forwards: dict[str, list[tuple[int, int]]] = {}
        leg = []
        for kind in KINDS:
            shocked = [max(1, shocked_forward(forward, fixed, f)) for f in grid.factors_of[kind]]
            self._forwards[kind] = [(price, ln_price(price)) for price in shocked]
            leg += shocked
        self.leg: Sequence[int] = [price * self._scale >> _SCALE_BITS for price in leg]

    def call_row(self, strike: int, ln_strike: int, vol: int) -> list[int]:
        """Return one lot's call under every valuation, rounded down.

        Units: `strike` and `vol` WAD, `ln_strike` from `ln_price`.
        """
        k = (ln_strike - self._ln_forward) * WAD >> CDF_BITS
        vols = shocked_vols(self.grid.parameters, self.term, vol, k)
        root, row = self.term.root, []
        for kind, forwards in self._forwards.items():
            if forwards:
                moved = [(forward, ln_forward - ln_strike) for forward, ln_forward in forwards]
                row += calls(strike, vols[kind] * root // WAD, moved)
        scale, shift = self._scale, self._shift
        return [value * scale >> shift for value in row]

    def strike_leg(self, strike: int) -> int:
        """Return the value of one lot of the discounted strike."""
        return strike * self._scale >> _SCALE_BITS

    def put_row(self, call_row: Sequence[int], strike: int) -> list[int]:
        """Return one lot's put under every valuation, from the call's by parity."""
        paid = self.strike_leg(strike)
        return [value - leg + paid for value, leg in zip(call_row, self.leg, strict=True)]
