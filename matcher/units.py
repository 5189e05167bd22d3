"""Scales, bounds and the only two divisions: integers in, integers out.

Units: money is micro-USDC, prices ticks, quantities lots, rates and ratios WAD, times
milliseconds of block time.
"""

from __future__ import annotations

from math import gcd
from typing import Final

WAD: Final = 10**18
"""One, for rates, ratios, volatilities."""

PRICE_MAX: Final = 1 << 40
"""No order's price is above this. Units: ticks."""
QTY_MAX: Final = 1 << 40
"""No order and no instrument's `qty_max` is above this. Units: lots."""
TICK_VALUE_MAX: Final = 1 << 32
"""Units: micro-USDC per tick per lot. With the two above, a notional stays below 2**112."""
FEED_VALUE_MAX: Final = 1 << 52
"""No oracle value is above this. Units: micro-USDC per whole unit of the underlying."""
AMOUNT_MAX: Final = (1 << 63) - 1
"""The largest amount that an action or one deposit may move. Units: micro-USDC."""
NET_MAX: Final = 1 << 62
"""Deposits that would take the net total beyond this wait in suspense. Units: micro-USDC."""
TIME_MAX_MS: Final = (1 << 63) - 1
ID_MAX: Final = (1 << 63) - 1
"""Client ids and order ids are 0..ID_MAX."""


def div_floor(numerator: int, denominator: int) -> int:
    """Return the quotient rounded towards minus infinity; `denominator` > 0."""
    assert denominator > 0
    return numerator // denominator


def div_ceil(numerator: int, denominator: int) -> int:
    """Return the quotient rounded towards plus infinity; `denominator` > 0."""
    assert denominator > 0
    return -(-numerator // denominator)


def reduced(rate: int) -> tuple[int, int]:
    """Return the WAD `rate` as numerator and denominator without common factors.

    The value is the same exactly; small factors keep the products of the hot path small.
    """
    common = gcd(rate, WAD)
    return rate // common, WAD // common


Wide = int | bytes
"""An integer on the codec: as itself within 64 bits, else as shortest signed big-endian bytes."""


def wide(value: int) -> Wide:
    """Return how an integer of any size travels."""
    if -(1 << 63) <= value < 1 << 63:
        return value
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def narrow(value: Wide) -> int:
    """Return the integer that `wide` wrote."""
    return value if isinstance(value, int) else int.from_bytes(value, "big", signed=True)


def clamp(value: int, low: int, high: int) -> int:
    """Return `value` moved into low..high."""
    return low if value < low else high if value > high else value
