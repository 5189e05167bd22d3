"""Claims about the generator of order flow; each names its seed."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from itertools import islice, pairwise
from pathlib import Path
from types import GeneratorType

import pytest

from matcher.book import OP_CANCEL, OP_LIMIT, OP_MARKET, Book
from ops.flow import read
from ops.flow.generator import Market, generate
from ops.flow.plain import event_line

MARKETS = [Market(mid=600_000, weight=2), Market(mid=30_000, resting=50)]
FLOW = Path(__file__).parents[1] / "vectors/book/flow.csv"


def test_the_vector_is_what_seed_2026_generates() -> None:
    """The first 3,000 events, byte for byte: the same on any machine."""
    events = islice(generate(2026, [Market(mid=30_000)], 100), 3000)
    assert FLOW.read_text() == "op,id,side,price,qty\n" + "".join(map(event_line, events))
    assert sum(1 for _ in read(FLOW)) == 3000


def test_a_seed_gives_the_same_events_in_another_process() -> None:
    code = (
        "from tests.ops.test_flow_generator import *\n"
        "print(sha256(repr(list(islice(generate(7, MARKETS, 300), 2000))).encode()).hexdigest())"
    )
    root = Path(__file__).parents[2]
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True
    )
    here = sha256(repr(list(islice(generate(7, MARKETS, 300), 2000))).encode()).hexdigest()
    assert other.stdout.strip() == here
    assert list(islice(generate(8, MARKETS, 300), 50)) != list(
        islice(generate(7, MARKETS, 300), 50)
    )


def test_seed_1_looks_like_a_market() -> None:
    events = list(islice(generate(1, MARKETS, 300), 30_000))
    ops = Counter(event.op for event in events)
    assert min(ops.values()) > 1000 and set(ops) == {OP_LIMIT, OP_CANCEL, OP_MARKET}
    assert 1.8 < Counter(e.instrument for e in events)[0] / 10_000 < 2.2, "weights 2 and 1"
    assert all(a.at_ms <= b.at_ms for a, b in pairwise(events))
    assert 270 < 30_000_000 / events[-1].at_ms < 330, "300 events a second"

    seconds = Counter(event.at_ms // 1000 for event in events)
    counts = [seconds[n] for n in range(events[-1].at_ms // 1000)]
    mean = sum(counts) / len(counts)
    fano = sum((count - mean) ** 2 for count in counts) / len(counts) / mean
    assert fano > 3, "clustered: a Poisson process has 1"

    sizes = sorted(event.qty for event in events if event.op != OP_CANCEL)
    assert sizes[-1] > 100 * sizes[len(sizes) // 2], "heavy-tailed"
    assert len({event.id for event in events if event.op != OP_CANCEL}) == ops[0] + ops[2]


@pytest.mark.parametrize("instrument", [0, 1])
def test_cancels_name_resting_orders_and_prices_stay_near_the_mid(instrument: int) -> None:
    book = Book()
    start = MARKETS[instrument].mid
    depths: list[int] = []
    for event in islice(generate(3, MARKETS, 1000), 20_000):
        if event.instrument != instrument:
            continue
        if event.op == OP_CANCEL:
            assert event.id in book
        elif event.op == OP_LIMIT:
            assert abs(event.price - start) <= start * 20 // 1000 + (2 << 10)
        book.replay([event[:5]], lambda _: None)
        depths.append(len(book))
    settled = depths[len(depths) // 2 :]
    usual = MARKETS[instrument].resting
    assert usual / 3 < sum(settled) / len(settled) < usual * 3


def test_memory_is_bounded() -> None:
    """No part of the generator grows with the events drawn from it (seed 5)."""
    stream = generate(5, [Market(mid=5_000, resting=20)], 5_000)
    assert isinstance(stream, GeneratorType)
    for _ in islice(stream, 60_000):
        pass
    (instrument,) = inspect.getgeneratorlocals(stream)["instruments"]
    assert len(instrument.ids) <= 5_000
    assert len(instrument.book) < 200 and len(instrument.book._id) <= 1024


@pytest.mark.parametrize(
    ("markets", "rate"),
    [([], 100), (MARKETS, 0), (MARKETS, 10**6), ([Market(0)], 1), ([Market(9, half_spread=0)], 1)],
)
def test_impossible_parameters_are_refused(markets: list[Market], rate: int) -> None:
    with pytest.raises(ValueError, match=r"rate|market"):
        next(generate(1, markets, rate))
