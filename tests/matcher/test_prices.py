"""Prices from the logs: medians that liars cannot move, and when they are not to be used."""

from __future__ import annotations

from fractions import Fraction
from statistics import median_low

from hypothesis import assume, given
from hypothesis import strategies as st

from matcher.outcome import FeedChanged
from matcher.prices import confidence
from matcher.state import Feed
from matcher.units import WAD
from tests.matcher.market import World, free_genesis, ready, wallet

NOW = 1_000_000
honest = st.integers(100_000_000, 300_000_000)
lies = st.tuples(st.integers(-5, 1 << 63), st.integers(NOW - 30_000, NOW + 30_000))


@given(st.data())
def test_f_liars_cannot_move_the_price_out_of_the_honest_range(data: st.DataObject) -> None:
    f = data.draw(st.integers(1, 3))
    n = data.draw(st.integers(3 * f + 1, 3 * f + 3))
    values = data.draw(st.lists(honest, min_size=n - f, max_size=n - f))
    liars = data.draw(st.lists(lies, min_size=f, max_size=f))
    world = World(n=n, f=f)
    logs = [((0, value, NOW),) for value in values] + [((0, *lie),) for lie in liars]
    world.block(observations=tuple(data.draw(st.permutations(logs))))
    feed = world.state.feeds[0]
    assert min(values) <= feed.value <= max(values)
    assert feed.fresh and feed.time_ms <= NOW
    assert feed.dispersion <= max(values) - min(values)


@given(st.lists(st.tuples(honest, st.integers(-15_000, 5_000)), max_size=9))
def test_the_price_is_the_lower_median_of_the_fresh(seen: list[tuple[int, int]]) -> None:
    world = World(n=9, f=2)
    world.block(observations=tuple(((0, value, NOW + off),) for value, off in seen))
    fresh = [(value, off) for value, off in seen if -10_000 <= off <= 2_000]
    feed = world.state.feeds[0]
    if len(fresh) < 5:
        assert feed.value == 0 and not feed.fresh
        return
    ordered = sorted(value for value, _ in fresh)
    assert feed.value == median_low(ordered)
    assert feed.dispersion == ordered[-3] - ordered[2]
    behind = [off for _, off in fresh if min(NOW, NOW + off) >= feed.time_ms]
    assert len(behind) >= 5, "2f+1 observations are at least as new as the price claims"


def test_a_silent_oracle_ages_until_it_is_stale_and_comes_back() -> None:
    world = ready(100)
    price = world.state.feeds[0].value
    world.quiet = True
    assert not [e for e in world.block(after_ms=10_000).events if isinstance(e, FeedChanged)]
    assert world.state.feeds[0].fresh and world.state.feeds[0].value == price
    gone = world.block(after_ms=1).events
    assert FeedChanged(0, False) in gone and FeedChanged(1, False) in gone
    world.quiet = False
    back = world.block(after_ms=1).events
    assert FeedChanged(0, True) in back


def test_too_few_fresh_logs_do_not_move_it() -> None:
    world = ready(100)
    price = world.state.feeds[0].value
    three = tuple(((0, 999, world.now + 10),) for _ in range(2))
    world.block(after_ms=10, observations=three)
    assert world.state.feeds[0].value == price
    world.block(after_ms=10, observations=(*three, ((0, 999, world.now + 10),)))
    assert world.state.feeds[0].value == 999


def test_one_log_counts_once_with_its_newest() -> None:
    world = World()
    log = ((0, 5, NOW - 1), (0, 7, NOW), (0, 9, NOW), (9, 1, NOW), (-1, 1, NOW))
    world.block(observations=(log,) * 2)
    assert world.state.feeds[0].value == 0, "two logs are not three"
    world.block(observations=(log,) * 3)
    assert world.state.feeds[0].value == 7


@given(st.integers(0, 20_000), st.integers(0, 30_000_000), honest)
def test_confidence_is_the_stated_product_rounded_down(age: int, wide: int, value: int) -> None:
    assume(value > 0)
    genesis = free_genesis()
    feed = Feed()
    feed.value, feed.dispersion, feed.time_ms = value, wide, NOW
    by_age = max(Fraction(0), 1 - Fraction(age, genesis.oracle_max_age_ms))
    by_width = max(Fraction(0), 1 - Fraction(wide, value) / Fraction(genesis.dispersion_max, WAD))
    exact = by_age * by_width * WAD
    assert exact - 3 <= confidence(genesis, feed, NOW + age) <= exact


def test_after_silence_nothing_trades_until_the_mark_has_followed() -> None:
    world = ready(1_000)
    world.quiet = True
    world.block(after_ms=20_000)
    assert world.place(wallet(0), 0, 23_600, 1).reason == "oracle_stale"
    world.quiet = False
    world.spot[0] = 300_000_000
    world.now += 1
    assert world.place(wallet(0), 0, 23_600, 1).reason == "oracle_stale", "the mark is old"
    world.block(after_ms=500)
    assert world.place(wallet(0), 0, 23_600, 1).reason == "price_band"
    assert world.place(wallet(0), 0, 30_000, 1).status == "resting"
