"""The packed check: the same as with lists, current after every move, and quick to update."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matcher import portfolio, riskarrays
from matcher.riskarrays import LANE_BITS, ExpiryArray, Held, as_underlying, margin
from matcher.scenarios import DAY_MS
from matcher.units import WAD
from tests.matcher.risk_market import DAYS, LOTS_PER_UNIT, PACKED, account, array

SEED = 20_150_503
STRIKES = (1_500, 2_200, 2_600, 2_700, 3_500)


def slow(held: Held, initial: bool) -> int:
    return portfolio.assess(PACKED.grid, as_underlying(PACKED, held), initial).margin


def disagreements(count: int, lots_max: int) -> int:
    random, found = Random(SEED), 0
    for i in range(count):
        if i % 20 == 0:
            arrays = [array(random, days, STRIKES) for days in DAYS]
        held = account(random, random.sample(arrays, random.randrange(5)), lots_max)
        found += any(margin(PACKED, held, first) != slow(held, first) for first in (True, False))
    return found


def test_packed_lanes_and_lists_agree_to_the_last_unit() -> None:
    assert disagreements(400, 5_000) == 0


def test_the_largest_accounts_are_checked_with_lists() -> None:
    """Beyond a lane the lists take over; around the bound both are right."""
    assert disagreements(100, 1 << 36) == 0


def test_lanes_without_the_bound_would_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(riskarrays, "LANE_MAX", 1 << 300)
    with pytest.raises((AssertionError, OverflowError)):
        assert disagreements(40, 1 << 44) == 0


@given(st.lists(st.integers(0, (1 << (LANE_BITS - 1)) - 1), min_size=31, max_size=31))
def test_packing_gives_the_lanes_back(values: list[int]) -> None:
    row = PACKED.pack(values)
    assert PACKED.lanes(row) == values
    assert PACKED.lanes(-row) == [-value for value in values]


def test_only_what_moved_is_computed_again() -> None:
    random = Random(SEED)
    strikes = range(1_500, 3_900, 100)
    moved = ExpiryArray(PACKED, LOTS_PER_UNIT)
    for strike in strikes:
        moved.add_strike(strike * WAD)
    vols = [int(random.uniform(0.4, 0.9) * WAD) for _ in strikes]
    forward, time_ms = 2_600 * WAD, 7 * DAY_MS
    assert moved.move(time_ms, forward, 0, vols) == len(vols)
    assert moved.move(time_ms, forward, 0, vols) == 0
    vols[3] += 1
    vols[9] -= 1
    assert moved.move(time_ms, forward, 0, vols) == 2
    version = moved.version
    assert moved.move(time_ms, forward + 1, 0, vols) == len(vols)
    assert moved.version == version + 1
    fresh = ExpiryArray(PACKED, LOTS_PER_UNIT)
    for strike in strikes:
        fresh.add_strike(strike * WAD)
    fresh.move(time_ms, forward + 1, 0, vols)
    assert fresh.rows == moved.rows


def test_a_holding_stays_current_through_trades_and_moves() -> None:
    random = Random(SEED)
    of = array(random, 7, STRIKES)
    held = riskarrays.OptionsHeld()
    for step in range(300):
        held.trade(of, random.randrange(len(of.rows)), random.randint(-9, 9))
        if step % 7 == 0:
            vols = [int(random.uniform(0.4, 0.9) * WAD) for _ in STRIKES]
            of.move((700 - step) * DAY_MS // 100, (2_600 + step) * WAD, 0, vols)
        one = Held([(of, held)], portfolio.Underlying((), one=riskarrays.ONE))
        assert margin(PACKED, one, True) == slow(one, True)
        lots = held.lots
        assert 0 not in lots.values()
        assert held.gross == sum(abs(count) for count in lots.values())
        assert held.naked == sum(
            portfolio.naked_shorts(lots.get(2 * i, 0), lots.get(2 * i + 1, 0))
            for i in range(len(STRIKES))
        )


def test_puts_by_parity_are_the_puts_by_formula() -> None:
    """A put's row is within two units (1e-12 USDC per lot) of Black-76's own."""
    from matcher import black76
    from matcher.scenarios import NONE, term

    of = ExpiryArray(PACKED, LOTS_PER_UNIT)
    for strike in STRIKES:
        of.add_strike(strike * WAD)
    rate, vol, forward = WAD // 20, 7 * WAD // 10, 2_650 * WAD
    of.move(30 * DAY_MS, forward, rate, [vol] * len(STRIKES))
    times = term(PACKED.grid.parameters, 30 * DAY_MS, rate)
    for i, strike in enumerate(STRIKES):
        row = PACKED.lanes(of.rows[2 * i + 1])
        for lane, (factor, kind) in enumerate(PACKED.grid.valuations):
            if kind == NONE:
                put = black76.price(
                    forward * factor // WAD, strike * WAD, vol, times.tau, times.discount, False
                )
                assert abs(row[lane] - put // (10**6 * LOTS_PER_UNIT)) <= 2
