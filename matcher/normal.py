"""The normal distribution in integers: one table of short polynomials for the CDF.

A cell is 1/256 wide; around its middle the CDF is its Taylor polynomial of degree 5, whose first
term left out is below 2**-62. The table is computed when the module is loaded, from `numeric`.
"""

from __future__ import annotations

from math import isqrt
from typing import Final

from matcher.numeric import BITS, ONE, exp_fraction
from matcher.units import WAD

CDF_BITS: Final = 64
"""Arguments and values of the table are fractions of this many bits."""
CELL_BITS: Final = CDF_BITS - 8
CELL_MASK: Final = (1 << CELL_BITS) - 1
CELL_HALF: Final = 1 << (CELL_BITS - 1)
CELLS: Final = 2_176
"""Cells on either side of 0; beyond, at 8.5, the CDF is 0 or 1 to within 1e-17."""
CDF_ONE: Final = 1 << CDF_BITS

Cell = tuple[int, int, int, int, int, int]


def _arctan_inverse(k: int) -> int:
    total, term, n = 0, ONE // k, 0
    while term:
        total += term // (2 * n + 1) if n % 2 == 0 else -(term // (2 * n + 1))
        term //= k * k
        n += 1
    return total


PI: Final = 4 * (4 * _arctan_inverse(5) - _arctan_inverse(239))
"""pi, as a fraction of `BITS` bits, by Machin's formula."""
_INV_ROOT_2PI: Final = isqrt((ONE << (2 * BITS)) // (2 * PI))


def _density(x: int) -> int:
    """Return the density at x; both are fractions of `BITS` bits."""
    mantissa, k = exp_fraction(-(x * x >> (BITS + 1)))
    return (mantissa * _INV_ROOT_2PI >> BITS) >> -k


def _derivatives(x: int, count: int) -> list[int]:
    """Return the first `count` Taylor coefficients of the CDF around x, without the constant.

    The (k+1)-th derivative is (-1)**k He_k(x) times the density, He_k the Hermite polynomials.
    """
    density = _density(x)
    before, here = 0, ONE
    terms, factorial = [], 1
    for k in range(count):
        factorial *= k + 1
        term = (here * density >> BITS) // factorial
        terms.append(-term if k % 2 else term)
        before, here = here, (x * here >> BITS) - k * before
    return terms


def _table() -> tuple[Cell, ...]:
    """Return the cells from -8.5 to 8.5."""
    half = ONE >> 9
    drop = BITS - CDF_BITS
    right: list[Cell] = []
    value = ONE >> 1  # the CDF at the left edge of the cell
    for cell in range(CELLS):
        terms = _derivatives((2 * cell + 1) * half, 10)
        rise = fall = 0  # to the right and to the left edge
        for term in reversed(terms):
            rise = (rise + term) * half >> BITS
            fall = (fall + term) * -half >> BITS
        middle = value - fall
        value = middle + rise
        a, b, c, d, e = ((term + (1 << (drop - 1))) >> drop for term in terms[:5])
        right.append(((middle + (1 << (drop - 1))) >> drop, a, b, c, d, e))
    left = [(CDF_ONE - m, a, -b, c, -d, e) for m, a, b, c, d, e in reversed(right)]
    return (*left, *right)


TABLE: Final = _table()


def cdf_fraction(x: int) -> int:
    """Return the normal CDF. Units: fractions of `CDF_BITS` bits. Error: below 1e-18 + saturation.

    Beyond +-8.5 the answer is 0 or 1, which is within 1e-17.
    """
    cell = (x >> CELL_BITS) + CELLS
    if cell < 0:
        return 0
    if cell >= 2 * CELLS:
        return CDF_ONE
    t = (x & CELL_MASK) - CELL_HALF
    m, a, b, c, d, e = TABLE[cell]
    acc = (e * t >> CDF_BITS) + d
    acc = (acc * t >> CDF_BITS) + c
    acc = (acc * t >> CDF_BITS) + b
    acc = (acc * t >> CDF_BITS) + a
    return (acc * t >> CDF_BITS) + m


def cdf(x: int) -> int:
    """Return the normal CDF of x. Units: WAD to WAD. Error: at most 1e-16 (measured: 1e-17)."""
    return (cdf_fraction((x << CDF_BITS) // WAD) * WAD + (CDF_ONE >> 1)) >> CDF_BITS


def pdf_fraction(x: int) -> int:
    """Return the normal density. Units: fractions of `CDF_BITS` bits. Error: below 2**-63."""
    if x >= CDF_ONE << 4 or x <= -(CDF_ONE << 4):
        return 0
    return _density(x << (BITS - CDF_BITS)) >> (BITS - CDF_BITS)


def pdf(x: int) -> int:
    """Return the normal density at x. Units: WAD to WAD. Error: at most 1e-18."""
    return (pdf_fraction((x << CDF_BITS) // WAD) * WAD + (CDF_ONE >> 1)) >> CDF_BITS
