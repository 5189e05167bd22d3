"""Integer functions of WAD arguments, with stated errors."""

from __future__ import annotations

from typing import Final

from matcher.units import WAD

_BITS: Final = 128
_ONE: Final = 1 << _BITS
_LN2: Final = 235865763225513294137944142764154484399
"""floor(ln 2 x 2**128)."""
_TERMS: Final = 40


def exp_negative(x: int) -> int:
    """Return e**(-x / WAD) for x >= 0, rounded down.

    Units: WAD. Error: less than 2e-18. Range reduction by ln 2, then a Taylor series with 128
    fractional bits: the remainder is below ln 2, so 40 terms leave less than 2**-128.
    """
    assert x >= 0
    if x > 50 * WAD:
        return 0
    scaled = (x << _BITS) // WAD
    halvings, rest = divmod(scaled, _LN2)
    total = term = _ONE
    for k in range(1, _TERMS):
        term = -(term * rest >> _BITS) // k
        total += term
    return (total * WAD >> _BITS) >> halvings
