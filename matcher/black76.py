"""Black-76: European options on a forward, and their greeks, in integers.

With x = ln(F/K) and s = vol sqrt(tau), d1 = x/s + s/2 and d2 = d1 - s,

    call = D (F N(d1) - K N(d2))        put = call - D (F - K)

A rounding of x/s moves d1 and d2 alike, and there the price does not change in first order, so the
error is that of the two CDFs. Source: F. Black, The pricing of commodity contracts (1976).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Final, NamedTuple

from matcher.normal import (
    CDF_BITS,
    CELL_BITS,
    CELL_HALF,
    CELL_MASK,
    CELLS,
    TABLE,
    cdf_fraction,
    pdf_fraction,
)
from matcher.numeric import BITS, exp, ln_fraction
from matcher.units import WAD

LN_SHIFT: Final = BITS - CDF_BITS
CELLS_ALL: Final = 2 * CELLS
VOL_MAX: Final = 100 * WAD
"""No volatility is above this: 10,000 % a year."""
TAU_MAX: Final = 20 * WAD
"""No option lives longer. Units: years of 365 days, WAD."""


class Greeks(NamedTuple):
    """An option's price and its derivatives.

    Units: WAD; `delta` and `gamma` to the forward, `vega` for a volatility change of 1 (100 %),
    `theta` per year of time passing with forward and rate fixed, `rho` for a rate change of 1
    with the forward fixed.
    """

    price: int
    delta: int
    gamma: int
    vega: int
    theta: int
    rho: int


def ln_ratio(forward: int, strike: int) -> int:
    """Return ln(forward / strike), both > 0. Units: a fraction of `CDF_BITS` bits."""
    return ln_fraction(forward, strike) >> LN_SHIFT


def root_years(tau: int) -> int:
    """Return sqrt(tau). Units: WAD years to a fraction of `CDF_BITS` bits, rounded down."""
    return isqrt((tau << (2 * CDF_BITS)) // WAD)


def calls(strike: int, deviation: int, forwards: Sequence[tuple[int, int]]) -> list[int]:
    """Return the undiscounted calls at one strike and deviation, for many forwards.

    Units: `forwards` are pairs of (forward, ln(forward/strike) as a fraction of `CDF_BITS` bits);
    `deviation` is vol x sqrt(tau), a fraction too; results are in the unit of forward and strike
    times 2**CDF_BITS. A call is never below max(0, forward - strike).
    """
    found: list[int] = []
    add = found.append
    if not deviation:
        return [max(0, forward - strike) << CDF_BITS for forward, _ in forwards]
    table, half = TABLE, deviation >> 1
    for forward, x in forwards:
        d = (x << 64) // deviation + half
        cell = (d >> CELL_BITS) + CELLS
        if cell < 0:
            add(0)
            continue
        floor = (forward - strike) << 64
        if cell < CELLS_ALL:
            t = (d & CELL_MASK) - CELL_HALF
            m, a, b, c, e, f = table[cell]
            acc = (((f * t >> 64) + e) * t >> 64) + c
            acc = ((acc * t >> 64) + b) * t >> 64
            value = forward * (((acc + a) * t >> 64) + m)
        else:
            value = forward << 64
        d -= deviation
        cell = (d >> CELL_BITS) + CELLS
        if cell >= CELLS_ALL:
            add(floor)
            continue
        if cell >= 0:
            t = (d & CELL_MASK) - CELL_HALF
            m, a, b, c, e, f = table[cell]
            acc = (((f * t >> 64) + e) * t >> 64) + c
            acc = ((acc * t >> 64) + b) * t >> 64
            value -= strike * (((acc + a) * t >> 64) + m)
        if value < floor:
            value = floor
        add(value if value > 0 else 0)
    return found


def price(forward: int, strike: int, vol: int, tau: int, discount: int, call: bool) -> int:
    """Return the value of one option for one unit of the underlying, rounded down.

    Units: WAD all, `tau` in years. `forward` and `strike` > 0, `vol` <= `VOL_MAX`, `tau` <=
    `TAU_MAX`. Error: at most 1e-15 x max(forward, strike).
    """
    assert 0 <= vol <= VOL_MAX and 0 <= tau <= TAU_MAX
    deviation = vol * root_years(tau) // WAD
    (value,) = calls(strike, deviation, ((forward, ln_ratio(forward, strike)),))
    if not call:
        value -= (forward - strike) << CDF_BITS
    return (value * discount // WAD) >> CDF_BITS


def greeks(forward: int, strike: int, vol: int, tau: int, rate: int, call: bool) -> Greeks:
    """Return price and greeks for one unit of the underlying.

    Units: as in `Greeks`. `forward`, `strike`, `vol` and `tau` > 0; a negative `rate` is 0. Error:
    delta 1e-15, vega, theta and rho 1e-15 x max(forward, strike) x max(1, their time factor).
    """
    assert 0 < vol <= VOL_MAX and 0 < tau <= TAU_MAX
    rate = max(0, rate)
    discount = discount_factor(rate, tau)
    root = root_years(tau)
    deviation = max(1, vol * root // WAD)
    d1 = (ln_ratio(forward, strike) << CDF_BITS) // deviation + (deviation >> 1)
    density = pdf_fraction(d1) * discount  # WAD x 2**CDF_BITS
    inside = cdf_fraction(d1) - (0 if call else 1 << CDF_BITS)
    value = price(forward, strike, vol, tau, discount, call)
    vega = (forward * density // WAD * root) >> (2 * CDF_BITS)
    decay = (forward * density // WAD * vol // (2 * root)) // WAD
    return Greeks(
        price=value,
        delta=inside * discount >> CDF_BITS,
        gamma=density * WAD // (forward * deviation),
        vega=vega,
        theta=rate * value // WAD - decay,
        rho=-(tau * value // WAD),
    )


def discount_factor(rate: int, tau: int) -> int:
    """Return e**(-rate x tau), a negative rate counting as 0. Units: WAD."""
    return exp(-(max(0, rate) * tau // WAD))
