"""Volatility nodes: interpolation as written, and no arbitrage left between nodes."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matcher import surface
from matcher.surface import (
    NODES_MAX,
    SETTLING_MS,
    node_medians,
    settling_forward,
    total_variance,
    vol_at,
    without_arbitrage,
)
from matcher.units import WAD
from tests.matcher.test_numeric import EXACT, exact

NODES = tuple(WAD * k // 10 for k in (-5, -3, -2, -1, 0, 1, 2, 3, 5))
TAUS = (WAD // 365, WAD // 52, WAD // 12, WAD // 4, WAD)
HAIR = EXACT.mpf("1e-15")
VOLS = st.lists(st.integers(WAD // 20, 3 * WAD), min_size=9, max_size=9)


@given(VOLS, st.integers(WAD // 10**6, WAD), st.integers(-WAD, WAD))
def test_total_variance_is_linear_between_nodes_and_flat_outside(
    vols: list[int], tau: int, k: int
) -> None:
    found = exact(vol_at(NODES, [total_variance(vol, tau) for vol in vols], k, tau))
    squares = [exact(vol) ** 2 for vol in vols]
    at = [exact(node) for node in NODES]
    here = min(max(exact(k), at[0]), at[-1])
    i = max(i for i in range(9) if at[i] <= here)
    right = squares[i]
    if i < 8:
        right += (squares[i + 1] - squares[i]) * (here - at[i]) / (at[i + 1] - at[i])
    assert abs(found - EXACT.sqrt(right)) < HAIR


@given(VOLS, st.integers(WAD // 10**9, 10 * WAD))
def test_a_node_gives_its_own_volatility_back(vols: list[int], tau: int) -> None:
    variances = [total_variance(vol, tau) for vol in vols]
    assert [vol_at(NODES, variances, node, tau) for node in NODES] == vols


def prices(row: list[int]) -> list[EXACT.mpf]:
    """Calls on a forward of 1 at the nodes, by the textbook."""
    found = []
    for node, variance in zip(NODES, row, strict=True):
        strike, s = EXACT.exp(exact(node)), EXACT.sqrt(EXACT.mpf(variance)) / WAD
        if s == 0:
            found.append(max(0, 1 - strike))
            continue
        d = -exact(node) / s + s / 2
        found.append(EXACT.ncdf(d) - strike * EXACT.ncdf(d - s))
    return found


def butterflies(row: list[int]) -> list[EXACT.mpf]:
    """By how much each slope of the call prices falls short of the one before (0 is fair)."""
    strikes = [EXACT.mpf(0)] + [EXACT.exp(exact(node)) for node in NODES]
    points = list(zip(strikes, [EXACT.mpf(1), *prices(row)], strict=True))
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(points)] + [EXACT.mpf(0)]
    return [a - b for a, b in pairwise(slopes)]


def random_surface(random: Random) -> list[list[int]]:
    smiles = [[int(random.uniform(0.1, 1.5) * WAD) for _ in NODES] for _ in TAUS]
    return [
        [total_variance(vol, tau) for vol in vols] for vols, tau in zip(smiles, TAUS, strict=True)
    ]


def test_no_calendar_spread_and_no_butterfly_is_left() -> None:
    random, changed = Random(7), 0
    for _ in range(25):
        before = random_surface(random)
        after = without_arbitrage(NODES, before)
        changed += after != before
        for row in after:
            assert max(butterflies(row)) < HAIR
        for earlier, later in pairwise(after):
            assert all(a <= b for a, b in zip(earlier, later, strict=True))
    assert changed == 25


def test_a_fair_surface_comes_back_unchanged() -> None:
    smile = [6 * WAD // 10 + node * node // WAD // 8 for node in NODES]
    fair = [[total_variance(vol, tau) for vol in smile] for tau in TAUS]
    assert without_arbitrage(NODES, fair) == fair
    assert without_arbitrage(NODES, without_arbitrage(NODES, fair)) == fair


def test_what_the_repair_does_not_do_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface, "_hull", lambda strikes, prices: list(prices))
    after = without_arbitrage(NODES, random_surface(Random(7)))
    assert max(max(butterflies(row)) for row in after) > HAIR


def test_the_median_is_taken_node_by_node_and_is_the_lower() -> None:
    assert node_medians([[5, 1], [3, 9], [4, 2], [1, 8]]) == [3, 2]
    assert len(NODES) == NODES_MAX


def test_the_forward_settles_into_the_mean() -> None:
    mean, index = 2_600 * WAD, 2_700 * WAD
    assert settling_forward(0, index, SETTLING_MS) == (index, 0)
    assert settling_forward(mean, index, 0) == (mean, mean)
    assert settling_forward(mean, index, SETTLING_MS // 2) == (2_650 * WAD, 1_300 * WAD)
