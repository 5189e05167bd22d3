"""Integer exp, ln, square root and power of WAD arguments, with stated errors.

Inside, everything is a binary fraction of `BITS` bits, so that a rounding costs 2**-120 and only
the last step, to WAD, shows. The series run over arguments that tables have made small.
"""

from __future__ import annotations

from math import isqrt
from typing import Final

from matcher.units import WAD

BITS: Final = 120
ONE: Final = 1 << BITS
LN2: Final = 235865763225513294137944142764154484399 >> (128 - BITS)
"""floor(ln 2 x 2**BITS)."""

EXP_MAX: Final = 135 * WAD
"""exp of more is refused: its WAD would come near 2**255."""
EXP_MIN: Final = -43 * WAD
"""exp of less is 0 to within half a unit of 1e-18."""
LN_MAX: Final = 1 << 255

_STEP_BITS: Final = 7
_STEPS: Final = 1 << _STEP_BITS
_EXP_TERMS: Final = 13
_LN_TERMS: Final = 7


def _exp_series(r: int, terms: int) -> int:
    """Return e**r for a small fraction r; the error is r**terms / terms!."""
    total = term = ONE
    for k in range(1, terms):
        term = (term * r >> BITS) // k
        total += term
    return total


def _atanh_twice(z: int, terms: int) -> int:
    """Return 2 atanh z, which is ln((1 + z)/(1 - z)), for a small fraction z."""
    square = z * z >> BITS
    total, power = z, z
    for k in range(1, terms):
        power = power * square >> BITS
        total += power // (2 * k + 1)
    return 2 * total


# e**(i ln 2 / 128), and ln((128 + i) / 128): with them the series above see less than 1/128.
_POWERS: Final = tuple(_exp_series(LN2 * i // _STEPS, 34) for i in range(_STEPS))
_LOGS: Final = tuple(_atanh_twice((i << BITS) // (2 * _STEPS + i), 40) for i in range(_STEPS))


def exp_fraction(x: int) -> tuple[int, int]:
    """Return (mantissa, k) with e**x = mantissa x 2**k, the mantissa in [1, 2).

    Units: x and mantissa are fractions of `BITS` bits. Error: |k| + 40 units of the last bit.
    """
    k, rest = divmod(x, LN2)
    index = (rest * _STEPS) // LN2
    rest -= LN2 * index // _STEPS
    return _POWERS[index] * _exp_series(rest, _EXP_TERMS) >> BITS, k


def exp(x: int) -> int:
    """Return e**x, rounded to the nearest.

    Units: WAD to WAD. Error: at most 2e-18 x max(1, e**x) (measured: 0.51e-18). The argument is at
    most `EXP_MAX`.
    """
    assert x <= EXP_MAX
    if x < EXP_MIN:
        return 0
    mantissa, k = exp_fraction((x << BITS) // WAD)
    shift = BITS - k
    return (mantissa * WAD + (1 << (shift - 1))) >> shift if shift > 0 else mantissa * WAD << -shift


def ln_fraction(numerator: int, denominator: int) -> int:
    """Return ln(numerator / denominator), both > 0, as a fraction of `BITS` bits.

    Error: below 2**-108 over the whole range of arguments below `LN_MAX`.
    """
    assert 0 < numerator < LN_MAX and 0 < denominator < LN_MAX
    exponent = numerator.bit_length() - denominator.bit_length()
    if (numerator << max(0, -exponent)) < (denominator << max(0, exponent)):
        exponent -= 1
    shift = BITS - exponent
    ratio = (numerator << max(0, shift)) // (denominator << max(0, -shift))
    index = (ratio >> (BITS - _STEP_BITS)) - _STEPS
    near = (_STEPS + index) << (BITS - _STEP_BITS)
    z = ((ratio - near) << BITS) // (ratio + near)
    return exponent * LN2 + _LOGS[index] + _atanh_twice(z, _LN_TERMS)


def ln(x: int) -> int:
    """Return ln x for 0 < x < `LN_MAX`, rounded to the nearest.

    Units: WAD to WAD. Error: at most 2e-18 (measured: 0.51e-18).
    """
    return (ln_fraction(x, WAD) * WAD + (ONE >> 1)) >> BITS


def sqrt(x: int) -> int:
    """Return the square root of x >= 0, rounded down. Units: WAD to WAD. Error: below 1e-18."""
    return isqrt(x * WAD)


def power(base: int, exponent: int) -> int:
    """Return base**exponent for base > 0, rounded to the nearest.

    Units: WAD, WAD to WAD. Error: at most 2e-18 x max(1, result), while exponent x ln(base) is
    within `EXP_MIN`..`EXP_MAX`; above, it is refused.
    """
    scaled = ln_fraction(base, WAD) * exponent // WAD
    assert scaled * WAD <= EXP_MAX << BITS
    if scaled * WAD < EXP_MIN << BITS:
        return 0
    mantissa, k = exp_fraction(scaled)
    shift = BITS - k
    return (mantissa * WAD + (1 << (shift - 1))) >> shift if shift > 0 else mantissa * WAD << -shift
