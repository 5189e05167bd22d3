"""Funding: the stated rate, exactly accrued, paid by one side and received by the other."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcher import funding
from matcher.fixed import exp_negative
from matcher.funding import EIGHT_HOURS_MS, rate_8h
from matcher.units import WAD
from tests.matcher import naive_margin as naive
from tests.matcher.market import BUY, USDC, World, changed_instruments, free_genesis, ready, wallet

SELL = 1
SPEC = free_genesis().instruments[0]


def wad(text: str) -> int:
    return int(Fraction(text) * WAD)


@pytest.mark.parametrize(
    ("premium", "rate"),
    [
        ("0", "0.0001"),  # the interest alone
        ("0.0004", "0.0001"),  # within the clamp the interest wins
        ("-0.0003", "0.0001"),
        ("0.0006", "0.0001"),  # the clamp's edge
        ("0.001", "0.0005"),  # beyond it the premium less the clamp
        ("-0.001", "-0.0005"),
        ("0.9", "0.06"),  # 4 x (6.5 % - 5 %), that is .75 % an hour
        ("-0.9", "-0.06"),
    ],
)
def test_the_rate_for_eight_hours(premium: str, rate: str) -> None:
    market = ready().state.markets[0]
    assert rate_8h(market, wad(premium)) == wad(rate)


def quoted(bid: int, ask: int, qty: int = 100_000) -> World:
    """Return a world whose first wallet quotes both sides and third holds what the second sold."""
    world = ready(10_000_000, 100_000, 100_000)
    world.place(wallet(1), SELL, 23_600, 1_000)
    world.place(wallet(2), BUY, 23_600, 1_000)
    world.place(wallet(0), BUY, bid, qty)
    world.place(wallet(0), SELL, ask, qty)
    return world


def test_longs_pay_a_book_above_the_index_and_shorts_get_exactly_that() -> None:
    world = quoted(23_700, 23_710)
    state = world.state
    before = [naive.equity(state, account) for account in state.accounts]
    market = state.markets[0]
    for _ in range(600):
        world.block(after_ms=5_000)
    assert market.funding_rate > 0 and market.funding > 0
    values = {a.index: p.lots for a in state.accounts for p in a.positions.values() if p.lots}
    long, short = (state.wallets[wallet(n)].accounts[0] for n in (2, 1))
    assert values == {long.index: 1_000, short.index: -1_000}
    moved = 1_000 * (market.lot_mark - 23_600 - market.funding)
    after = [naive.equity(state, account) for account in state.accounts]
    assert after[long.index] - before[long.index] - moved == -(
        after[short.index] - before[short.index] + moved
    )
    assert sum(after) == sum(before)
    naive.check_money(state, world.deposited)


def accrued(world: World, rates: list[tuple[int, int, int]]) -> Fraction:
    """The exact integral: sum of mark x rate x time over eight hours."""
    return sum(
        (Fraction(mark * rate * ms, WAD * EIGHT_HOURS_MS) for mark, rate, ms in rates),
        Fraction(0),
    )


def integral_and_engine(spots: list[tuple[int, int]]) -> tuple[Fraction, int, int]:
    """Run prices through an engine beside the exact integral of the stated rule."""
    world = quoted(23_500, 23_700)
    market = world.state.markets[0]
    exact = Fraction(market.funding_acc, WAD * EIGHT_HOURS_MS)
    for spot, after in spots:
        index, mark = market.feed.value, market.lot_mark
        bid = max(0, 23_500 * 10_000 - index)
        ask = max(0, index - 23_700 * 10_000)
        premium = floor(Fraction(bid - ask, index) * WAD)
        pending = market.premium_ms, market.premium_sum
        ticks = (world.now + after) // 500 > world.state.tick_ms // 500
        world.spot[0] = spot
        world.block(after_ms=after)
        if ticks:
            elapsed = pending[0] + after
            mean = (pending[1] + premium * after) // elapsed
            rate = mean + min(max(WAD // 10_000 - mean, -5 * WAD // 10_000), 5 * WAD // 10_000)
            rate = min(max(rate, -6 * WAD // 100), 6 * WAD // 100)
            exact += Fraction(mark * rate * elapsed, WAD * EIGHT_HOURS_MS)
    return exact, market.funding, market.premium_ms


moves = st.lists(
    st.tuples(st.integers(230_000_000, 242_000_000), st.integers(1, 9_000)), max_size=40
)


@given(moves)
@settings(max_examples=40, deadline=None)
def test_cumulative_funding_is_the_exact_integral_rounded_down(
    spots: list[tuple[int, int]],
) -> None:
    exact, engine, _ = integral_and_engine(spots)
    assert engine == floor(exact)


def test_dropping_the_fraction_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutation: forget the fraction of a micro-USDC at every tick."""
    spots = [(232_000_000 + 100_000 * (i % 7), 500) for i in range(400)]
    exact, engine, _ = integral_and_engine(spots)
    assert engine == floor(exact) and exact > 1
    real = funding.apply

    def forgetful(market: object) -> None:
        real(market)  # type: ignore[arg-type]
        market.funding_acc = market.funding * funding.ACCUMULATOR_SCALE  # type: ignore[attr-defined]

    monkeypatch.setattr(funding, "apply", forgetful)
    exact, engine, _ = integral_and_engine(spots)
    assert engine != floor(exact)


def test_nothing_accrues_while_the_index_is_stale() -> None:
    world = quoted(23_700, 23_710)
    world.quiet = True
    world.block(after_ms=10_000)
    world.block(after_ms=500)
    settled = world.state.markets[0].funding_acc
    assert settled > 0
    for _ in range(20):
        world.block(after_ms=60_000)
    assert world.state.markets[0].funding_acc == settled


def test_a_thin_side_has_no_premium() -> None:
    world = quoted(23_700, 23_710, qty=40_000)
    market = world.state.markets[0]
    assert funding.impact_price(market, 0) is None, "948 USDC are less than 1,000"
    assert funding.premium(market) == 0
    world.place(wallet(0), BUY, 23_650, 40_000)
    assert funding.impact_price(market, 0) is not None
    assert funding.premium(market) == 0, "the other side is still thin"


def test_the_impact_price_is_the_mean_over_levels() -> None:
    world = ready(
        10_000_000, genesis=changed_instruments(free_genesis(), impact_notional=1000 * USDC)
    )
    world.place(wallet(0), BUY, 23_600, 20_000)  # 472 USDC
    world.place(wallet(0), BUY, 23_000, 100_000)
    market = world.state.markets[0]
    lots = 20_000 + -(-(1_000 * USDC - 472 * USDC) // 23_000)
    paid = 20_000 * 23_600 + (lots - 20_000) * 23_000
    assert funding.impact_price(market, 0) == paid * 10_000 // lots


@given(st.integers(0, 60 * WAD))
def test_exp_is_within_its_error(x: int) -> None:
    with localcontext() as context:
        context.prec = 60
        exact = (-Decimal(x) / WAD).exp() * WAD
    assert -2 < exp_negative(x) - exact <= 0
