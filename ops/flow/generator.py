"""A seeded generator of order flow with the look of a real market.

Arrivals are a Hawkes process in steps of one millisecond: each event raises the rate of the next
ones, the raise fades with a time constant of `2**_FADE_SHIFT` ms, and `_CLUSTERED` of all events
are such echoes. Sizes and distances from the touch have power-law tails: each further octave has a
fixed probability (`_SIZE_OCTAVE` gives a tail exponent of 1.5, `_DISTANCE_OCTAVE` of 0.86).
Market orders come in runs of one side. The more orders rest, the likelier is a cancel, so a book
settles at about `resting` orders. The mid of each instrument walks at random within
`walk_permille` of where it began. Books are kept per instrument, so every cancel names an order
that rests when the events are matched in order.

Integers and `random.Random(seed)` only, so a seed gives the same events everywhere; memory is
bounded by `RESTING_MAX` orders per instrument.
Source: Hawkes 1971 (clustering); Gopikrishnan et al. 2000 (sizes); Zovko & Farmer 2002 and
Bouchaud et al. 2002 (distances); Lillo & Farmer 2004 (runs); Daniels et al. 2003 (cancels).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from matcher.book import BUY, OP_CANCEL, OP_LIMIT, OP_MARKET, SELL, Book
from ops.flow.event import FlowEvent

RESTING_MAX = 5_000
RATE_MAX = 100_000

_ONE = 1 << 32
_FADE_SHIFT = 6
_CLUSTERED = _ONE * 7 // 10
_SIZE_OCTAVE = 354
_SIZE_OCTAVES_MAX = 12
_DISTANCE_OCTAVE = 550
_DISTANCE_OCTAVES_MAX = 9
_CANCEL_PERMILLE = 430
_CANCEL_PERMILLE_MAX = 900
_MARKET_PERMILLE = 100
_CROSSING_PERMILLE = 60
_RUN_PERMILLE = 700
_STEP_PERMILLE = 50


@dataclass(frozen=True)
class Market:
    """How one instrument trades: where its mid begins and what is usual there.

    Units: `mid`, `half_spread` and `step` in ticks, `lots` in lots (the smallest size); `resting`
    orders; `weight` is the instrument's share of the events; the mid stays within `walk_permille`.
    """

    mid: int
    half_spread: int = 2
    step: int = 3
    lots: int = 10
    resting: int = 200
    weight: int = 1
    walk_permille: int = 20


class _Instrument:
    """One instrument's book, mid and the ids that may be cancelled."""

    def __init__(self, market: Market) -> None:
        room = market.mid * market.walk_permille // 1000
        self.market = market
        self.mid = market.mid
        self.low, self.high = market.mid - room, market.mid + room
        self.book = Book()
        self.ids: list[int] = []
        self.run_side = BUY

    def walk(self, rng: Random) -> None:
        if rng.randrange(1000) < _STEP_PERMILLE:
            step = rng.randint(1, self.market.step)
            self.mid += step if rng.getrandbits(1) else -step
            self.mid = min(max(self.mid, self.low), self.high)

    def limit(self, rng: Random, order_id: int) -> FlowEvent:
        side = rng.getrandbits(1)
        away = _heavy(rng, self.market.half_spread, _DISTANCE_OCTAVE, _DISTANCE_OCTAVES_MAX)
        if rng.randrange(1000) < _CROSSING_PERMILLE:
            away = -away
        price = max(1, self.mid - away if side == BUY else self.mid + away)
        qty = _heavy(rng, self.market.lots, _SIZE_OCTAVE, _SIZE_OCTAVES_MAX)
        left = qty - sum(fill.qty for fill in self.book.match(side, price, qty))
        if left:
            self.book.place(order_id, 0, side, price, left)
            self.ids.append(order_id)
        return FlowEvent(OP_LIMIT, order_id, side, price, qty)

    def trade(self, rng: Random, order_id: int) -> FlowEvent:
        if rng.randrange(1000) >= _RUN_PERMILLE:
            self.run_side = SELL - self.run_side
        qty = _heavy(rng, self.market.lots, _SIZE_OCTAVE, _SIZE_OCTAVES_MAX)
        self.book.match(self.run_side, None, qty)
        return FlowEvent(OP_MARKET, order_id, self.run_side, 0, qty)

    def cancel(self, rng: Random) -> FlowEvent | None:
        """Cancel any resting order, or return None when none rests; forget traded ones met."""
        while self.ids:
            chosen = rng.randrange(len(self.ids))
            order_id, self.ids[chosen] = self.ids[chosen], self.ids[-1]
            self.ids.pop()
            if self.book.cancel(order_id) is not None:
                return FlowEvent(OP_CANCEL, order_id, 0, 0, 0)
        return None

    def event(self, rng: Random, order_id: int) -> FlowEvent:
        """Return the next event; a limit or market order gets `order_id`."""
        self.walk(rng)
        pull = min(_CANCEL_PERMILLE * len(self.book) // self.market.resting, _CANCEL_PERMILLE_MAX)
        if rng.randrange(1000) < pull or len(self.ids) >= RESTING_MAX:
            cancelled = self.cancel(rng)
            if cancelled is not None:
                return cancelled
        if rng.randrange(1000) < _MARKET_PERMILLE:
            return self.trade(rng, order_id)
        return self.limit(rng, order_id)


def generate(seed: int, markets: Sequence[Market], rate_per_s: int) -> Iterator[FlowEvent]:
    """Yield events over `markets` without end, `rate_per_s` of them a second on average.

    Units: `at_ms` from 0; `instrument` is an index into `markets`; ids from 1, over all of them.
    Errors: ValueError for no markets, or a rate or weight out of bounds.
    """
    if not 1 <= rate_per_s <= RATE_MAX:
        raise ValueError(f"rate {rate_per_s} is not in 1..{RATE_MAX}")
    if not markets or any(_least(m) < 1 for m in markets):
        raise ValueError("each number of a market is at least 1, but walk_permille may be 0")
    rng = Random(seed)
    instruments = [_Instrument(market) for market in markets]
    turns = [n for n, market in enumerate(markets) for _ in range(market.weight)]
    next_id = 1
    for at_ms in _arrivals(rng, rate_per_s):
        n = turns[rng.randrange(len(turns))]
        event = instruments[n].event(rng, next_id)
        if event.op != OP_CANCEL:
            next_id += 1
        yield event._replace(at_ms=at_ms, instrument=n)


def _least(market: Market) -> int:
    return min(
        *(market.mid, market.half_spread, market.step, market.lots, market.resting),
        *(market.weight, market.walk_permille + 1),
    )


def _arrivals(rng: Random, rate_per_s: int) -> Iterator[int]:
    """Yield the millisecond of each event, in order."""
    base = rate_per_s * (_ONE - _CLUSTERED) // 1000
    jump = _CLUSTERED >> _FADE_SHIFT
    # Begin at the long-run level, so that the first second is like any other.
    excited = rate_per_s * _CLUSTERED // 1000
    at_ms = 0
    while True:
        whole, part = divmod(base + excited, _ONE)
        count = whole + (rng.getrandbits(32) < part)
        excited += count * jump - (excited >> _FADE_SHIFT)
        for _ in range(count):
            yield at_ms
        at_ms += 1


def _heavy(rng: Random, smallest: int, octave_permille: int, octaves_max: int) -> int:
    """Return `smallest` or more, each doubling with probability `octave_permille`."""
    octave = 0
    while octave < octaves_max and rng.randrange(1000) < octave_permille:
        octave += 1
    low = smallest << octave
    return low + rng.randrange(low)
