"""Prices from the order logs: medians that no f liars can move, and how much to trust them.

Source: docs/protocol/markets.md, "Prices"; the lower median of at least 2f+1 fresh
observations lies between honest ones whenever at most f of them lie.
"""

from __future__ import annotations

from matcher.genesis import MarketGenesis
from matcher.outcome import FeedChanged
from matcher.state import Feed, State
from matcher.units import FEED_VALUE_MAX, WAD, clamp, div_floor

Observations = tuple[tuple[tuple[int, int, int], ...], ...]
"""Per order log, its latest (feed, value, time_ms) triples."""


def observe(state: State, observations: Observations) -> None:
    """Take in what the logs say as of this block, and age what they do not."""
    now = state.time_ms
    found = latest(state.genesis, len(state.feeds), now, observations)
    for number, (feed, seen) in enumerate(zip(state.feeds, found, strict=True)):
        if len(seen) >= 2 * state.f + 1:
            move(feed, seen, state.f, now)
        fresh = feed.value > 0 and now - feed.time_ms <= state.genesis.oracle_max_age_ms
        if fresh != feed.fresh:
            feed.fresh = fresh
            state.events.append(FeedChanged(number, fresh))


def latest(
    genesis: MarketGenesis, feeds: int, now: int, observations: Observations
) -> list[list[tuple[int, int]]]:
    """Return per feed the fresh (value, time) pairs, at most one a log: the newest, first given.

    Ignored: unknown feeds, values out of range, times older than the maximum age or further
    ahead of block time than `oracle_ahead_max_ms`.
    """
    oldest = now - genesis.oracle_max_age_ms
    newest = now + genesis.oracle_ahead_max_ms
    found: list[list[tuple[int, int]]] = [[] for _ in range(feeds)]
    for log in observations:
        best: dict[int, tuple[int, int]] = {}
        for feed, value, time in log:
            if not (0 <= feed < feeds and 0 < value <= FEED_VALUE_MAX and oldest <= time <= newest):
                continue
            if feed not in best or time > best[feed][1]:
                best[feed] = (value, time)
        for feed, seen in best.items():
            found[feed].append(seen)
    return found


def move(feed: Feed, seen: list[tuple[int, int]], f: int, now: int) -> None:
    """Set value, dispersion and time from at least 2f+1 fresh (value, time) pairs.

    The time is the (2f+1)-th newest, at most `now`: as of it, 2f+1 logs stood behind the price.
    """
    values = sorted(value for value, _ in seen)
    times = sorted((time for _, time in seen), reverse=True)
    feed.value = values[(len(values) - 1) // 2]
    feed.dispersion = values[-1 - f] - values[f]
    feed.time_ms = max(feed.time_ms, min(now, times[2 * f]))


def confidence(genesis: MarketGenesis, feed: Feed, now: int) -> int:
    """Return (1 - age/max age) x (1 - dispersion/(dispersion_max x median)), each in 0..1, as WAD.

    Rounded down: less trust, more margin.
    """
    if feed.value == 0:
        return 0
    age = clamp(now - feed.time_ms, 0, genesis.oracle_max_age_ms)
    by_age = div_floor(WAD * (genesis.oracle_max_age_ms - age), genesis.oracle_max_age_ms)
    widest = genesis.dispersion_max * feed.value
    by_width = div_floor(WAD * max(0, widest - WAD * feed.dispersion), widest)
    return div_floor(by_age * by_width, WAD)
