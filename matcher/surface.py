"""Volatility nodes and forwards of one expiry, and the removal of arbitrage between nodes.

Volatility is observed at a few log-moneynesses k = ln(K/F). In between, the *total variance*
w = vol**2 tau is linear in k, outside the nodes it is flat. `without_arbitrage` makes w
non-decreasing from expiry to expiry and the call prices at the nodes non-increasing and convex in
the strike, so that no calendar spread and no butterfly between nodes has a negative price: the
prices become their greatest convex minorant, which never undercuts the earlier expiry's. Source:
J. Gatheral, A. Jacquier, Arbitrage-free SVI volatility surfaces (2014), for the two conditions.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import isqrt
from typing import Final

from matcher.black76 import calls
from matcher.normal import CDF_BITS
from matcher.numeric import exp
from matcher.units import WAD, div_ceil, div_floor

NODES_MAX: Final = 9
VARIANCE_ONE: Final = WAD * WAD
"""Total variances are multiples of 1e-36: near expiry they are small."""
SETTLING_MS: Final = 1_800_000
"""The settlement price is the mean index of this time before expiry."""


def node_medians(observed: Sequence[Sequence[int]]) -> list[int]:
    """Return the lower median of each node's volatilities; at least one row. Units: WAD."""
    middle = (len(observed) - 1) // 2
    return [sorted(column)[middle] for column in zip(*observed, strict=True)]


def total_variance(vol: int, tau: int) -> int:
    """Return vol**2 tau, rounded up so that `vol_at` finds `vol` again.

    Units: WAD, WAD years, to 1e-36.
    """
    return div_ceil(vol * vol * tau, WAD)


def variance_at(nodes: Sequence[int], variances: Sequence[int], k: int) -> int:
    """Return the total variance at log-moneyness `k`: linear between nodes, flat outside.

    Units: nodes (ascending) and k WAD; variances and the result 1e-36, rounded down.
    """
    right = bisect_right(nodes, k)
    if right == 0:
        return variances[0]
    if right == len(nodes):
        return variances[-1]
    left = right - 1
    rise = (variances[right] - variances[left]) * (k - nodes[left])
    return variances[left] + div_floor(rise, nodes[right] - nodes[left])


def vol_at(nodes: Sequence[int], variances: Sequence[int], k: int, tau: int) -> int:
    """Return the volatility at log-moneyness `k`, rounded down; `tau` > 0.

    Units: WAD (tau in years); variances 1e-36.
    """
    return isqrt(variance_at(nodes, variances, k) * WAD // tau)


def without_arbitrage(nodes: Sequence[int], surface: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the total variances of all expiries, ascending, free of arbitrage at the nodes.

    Units: nodes WAD, variances 1e-36. What is free of it already comes back as it is.
    """
    assert len(nodes) <= NODES_MAX
    strikes = [exp(node) for node in nodes]
    found: list[list[int]] = []
    before: Sequence[int] = [0] * len(nodes)
    for row in surface:
        raised = [max(pair) for pair in zip(row, before, strict=True)]
        before = _convex(nodes, strikes, raised, before)
        found.append(list(before))
    return found


def _deviation(variance: int) -> int:
    return isqrt((variance << (2 * CDF_BITS)) // VARIANCE_ONE)


def _call(node: int, strike: int, deviation: int) -> int:
    """Return the call on a forward of 1. Units: WAD x 2**CDF_BITS."""
    return calls(strike, deviation, ((WAD, -(node << CDF_BITS) // WAD),))[0]


def _convex(
    nodes: Sequence[int], strikes: Sequence[int], variances: Sequence[int], least: Sequence[int]
) -> list[int]:
    """Return the variances with the prices moved down to their greatest convex minorant."""
    prices = [
        _call(node, strike, _deviation(variance))
        for node, strike, variance in zip(nodes, strikes, variances, strict=True)
    ]
    falling, lowest = [], WAD << CDF_BITS
    for price in prices:
        lowest = min(lowest, price)
        falling.append(lowest)
    targets = _hull(strikes, falling)
    return [
        variance if target == price else max(floor, _implied(node, strike, target, variance))
        for node, strike, variance, price, target, floor in zip(
            nodes, strikes, variances, prices, targets, least, strict=True
        )
    ]


def _hull(strikes: Sequence[int], prices: Sequence[int]) -> list[int]:
    """Return the lower convex hull through (0, 1) at each strike, rounded down."""
    corners = [(0, WAD << CDF_BITS)]
    for point in zip(strikes, prices, strict=True):
        while len(corners) > 1:
            (ax, ay), (bx, by) = corners[-2:]
            if (by - ay) * (point[0] - bx) < (point[1] - by) * (bx - ax):
                break
            corners.pop()
        corners.append(point)
    found, corner = [], 0
    for strike in strikes:
        while corners[corner + 1][0] < strike:
            corner += 1
        (ax, ay), (bx, by) = corners[corner], corners[corner + 1]
        found.append(by if strike == bx else ay + div_floor((by - ay) * (strike - ax), bx - ax))
    return found


def _implied(node: int, strike: int, target: int, variance: int) -> int:
    """Return the largest total variance up to `variance` whose call is worth at most `target`."""
    low, high = 0, _deviation(variance)
    while low < high:
        middle = (low + high + 1) >> 1
        if _call(node, strike, middle) <= target:
            low = middle
        else:
            high = middle - 1
    return low * low * VARIANCE_ONE >> (2 * CDF_BITS)


def settling_forward(mean: int, index: int, left_ms: int) -> tuple[int, int]:
    """Return (forward, its fixed part) in the settlement window.

    `mean` is the time-weighted index of the window so far; `left_ms` the time to expiry, 0 to
    `SETTLING_MS`. Units: WAD, rounded down.
    """
    fixed = div_floor(mean * (SETTLING_MS - left_ms), SETTLING_MS)
    return fixed + div_floor(index * left_ms, SETTLING_MS), fixed
