"""Integer functions, risk arrays and the portfolio check: CPU time per call, with references.

The references are what one would write without packing: floats through `math` for a price, and
lists of integers for the check. `pytest tests/bench/test_bench_margin.py -s -p no:xdist` prints
the figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import pairwise
from pathlib import Path
from random import Random
from time import process_time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from matcher import black76, normal, numeric, portfolio
from matcher.book import OP_LIMIT, Book, Trade
from matcher.riskarrays import ONE, ExpiryArray, Held, OptionsHeld, as_underlying, margin
from matcher.scenarios import DAY_MS
from matcher.units import WAD
from ops.flow import read
from tests.matcher.risk_market import LOTS_PER_UNIT, PACKED, SPOT_LOT, holding, perpetual
from tests.matcher.test_travel import Account, Market

REAL = Path(__file__).parents[3] / "shared/data/bitstamp-btcusd-2015-05-01.csv.xz"
TICK_MS = 500
TICKS = 2_400
ACCOUNTS = 10_000
EXPIRIES = 6
STRIKES = 25
POSITIONS = 64
FULL_MS_MAX = 70


def cpu_us(call: Callable[[], object], repeats: int = 1_000, rounds: int = 7) -> float:
    """The least CPU time of one call over some rounds. Units: microseconds."""
    best = math.inf
    for _ in range(rounds):
        started = process_time()
        for _ in range(repeats):
            call()
        best = min(best, process_time() - started)
    return best / repeats * 1e6


def chain() -> tuple[list[ExpiryArray], list[list[int]]]:
    """300 options: 25 strikes, calls and puts, in 6 expiries."""
    random, arrays = Random(1), []
    for _ in range(EXPIRIES):
        of = ExpiryArray(PACKED, LOTS_PER_UNIT)
        of.spot = SPOT_LOT
        for i in range(STRIKES):
            of.add_strike((1_500 + 100 * i) * WAD)
        arrays.append(of)
    vols = [[int(random.uniform(0.4, 1) * WAD) for _ in range(STRIKES)] for _ in arrays]
    move(arrays, vols, 0)
    return arrays, vols


def move(arrays: list[ExpiryArray], vols: list[list[int]], later_ms: int) -> int:
    """Let time pass for all expiries, so that everything has to be computed again."""
    return sum(
        of.move((e + 1) * 7 * DAY_MS - later_ms, (2_600 + 10 * e) * WAD, WAD // 25, vols[e])
        for e, of in enumerate(arrays)
    )


def float_price(forward: float, strike: float, vol: float, tau: float) -> float:
    s = vol * math.sqrt(tau)
    d = math.log(forward / strike) / s + s / 2
    first, second = (0.5 * math.erfc(-x / math.sqrt(2)) for x in (d, d - s))
    return forward * first - strike * second


@pytest.mark.bench
def test_bench_functions(benchmark: BenchmarkFixture) -> None:
    """One call of each integer function; the reference is the same price in floats."""
    forwards = [int(2_600 * WAD * (0.8 + 0.02 * i)) for i in range(20)]
    pairs = [(forward, black76.ln_ratio(forward, 2_700 * WAD)) for forward in forwards]
    case = (2_600 * WAD, 2_700 * WAD, 6 * WAD // 10, WAD // 20)
    figures = {
        "ln": cpu_us(lambda: numeric.ln(3 * WAD)),
        "exp": cpu_us(lambda: numeric.exp(-WAD // 3)),
        "sqrt": cpu_us(lambda: numeric.sqrt(3 * WAD)),
        "cdf": cpu_us(lambda: normal.cdf(WAD // 3)),
        "price": cpu_us(lambda: black76.price(*case, WAD, True)),
        "greeks": cpu_us(lambda: black76.greeks(*case, WAD // 25, True)),
        "a call of a chain": cpu_us(lambda: black76.calls(2_700 * WAD, 1 << 62, pairs)) / 20,
        "float price": cpu_us(lambda: float_price(2_600, 2_700, 0.6, 0.05)),
    }
    print("us: " + ", ".join(f"{name} {us:.2f}" for name, us in figures.items()))
    benchmark(black76.calls, 2_700 * WAD, 1 << 62, pairs)


@pytest.mark.bench
def test_bench_risk_arrays(benchmark: BenchmarkFixture) -> None:
    """300 options x 31 scenarios in full, one expiry, and one volatility."""
    arrays, vols = chain()
    clock = iter(range(1, 10**9))
    assert move(arrays, vols, next(clock)) == EXPIRIES * STRIKES
    full = cpu_us(lambda: move(arrays, vols, next(clock)), 5) / 1_000

    def one_expiry() -> None:
        arrays[2].move(20 * DAY_MS - next(clock), 2_620 * WAD, 0, vols[2])

    def one_vol() -> None:
        vols[2][7] += 1
        assert arrays[2].move(20 * DAY_MS, 2_620 * WAD, 0, vols[2]) == 1

    expiry = cpu_us(one_expiry, 20) / 1_000
    arrays[2].move(20 * DAY_MS, 2_620 * WAD, 0, vols[2])
    vol = cpu_us(one_vol, 100) / 1_000
    print(f"risk arrays: full {full:.2f} ms, one of 6 expiries {expiry:.2f}, one vol {vol:.3f}")
    assert full <= FULL_MS_MAX
    benchmark(lambda: move(arrays, vols, next(clock)))


def account(arrays: list[ExpiryArray], expiries: int) -> Held:
    """64 options over so many expiries (50 are all that one has), and a perpetual."""
    random = Random(2)
    options = [(of, holding(random, of, POSITIONS // expiries, 5_000)) for of in arrays[:expiries]]
    rest = portfolio.Underlying((), perpetual(-300, pnl=10**13), one=ONE)
    return Held(options, rest)


def forget(held: Held) -> None:
    """Let the account's sums be those of an older risk tick."""
    for _, options in held.options:
        options.version = -1


@pytest.mark.bench
def test_bench_portfolio_check(benchmark: BenchmarkFixture) -> None:
    """64 positions: after a risk tick, after a trade, and the reference with lists."""
    arrays, _ = chain()
    for expiries in (2, 4, 6):
        held = account(arrays, expiries)
        size = sum(len(options.lots) for _, options in held.options)
        of, mine = held.options[0]

        def ticked(held: Held = held) -> None:
            forget(held)
            margin(PACKED, held, True)

        def traded(held: Held = held, of: ExpiryArray = of, mine: OptionsHeld = mine) -> None:
            mine.trade(of, 1, 1)
            margin(PACKED, held, True)

        rows = [
            (PACKED.lanes(of.rows[i]), lots) for of, o in held.options for i, lots in o.lots.items()
        ]

        def listed(rows: list[tuple[list[int], int]] = rows) -> list[int]:
            sums = [0] * PACKED.count
            for row, lots in rows:
                sums = [total + lots * value for total, value in zip(sums, row, strict=True)]
            return sums

        assert (
            margin(PACKED, held, True)
            == portfolio.assess(PACKED.grid, as_underlying(PACKED, held), True).margin
        )
        print(
            f"check of {size} positions in {expiries} expiries: after a tick {cpu_us(ticked):.1f} "
            f"us, after a trade {cpu_us(traded):.1f}, lists' sums alone {cpu_us(listed, 100):.1f}"
        )
    held = account(arrays, 2)
    benchmark(lambda: (forget(held), margin(PACKED, held, True)))


def traded_prices() -> Iterator[int]:
    """The last traded price at each risk tick of the real order flow."""
    book, trades = Book(), list[Trade]()
    due = last = 0
    for event in read(REAL):
        due = due or event.at_ms
        while event.at_ms >= due:
            due += TICK_MS
            if last:
                yield last
        op, order_id, side, price, qty = event[:5]
        book.replay([(op, order_id, side, price, qty)], trades.append)
        if op == OP_LIMIT and trades:
            last = trades[-1][2]
        trades.clear()


def taken(heaps: list[list[tuple[int, int]]], paths: list[int]) -> list[int]:
    """The accounts, in order, for which some kind of risk has travelled too far."""
    due = set()
    for heap, path in zip(heaps, paths, strict=True):
        while heap and heap[0][0] < path:
            due.add(heappop(heap)[1])
    return sorted(due)


@pytest.mark.bench
@pytest.mark.skipif(not REAL.exists(), reason=f"no real order flow at {REAL}")
def test_bench_rechecks_on_a_real_price_path(benchmark: BenchmarkFixture) -> None:
    """10,000 portfolio accounts on twenty minutes of real prices, a risk tick every 500 ms.

    Accounts hold up to three options in each of two expiries and a perpetual; their slack is 2 to
    50 % of what they hold. Volatilities stand still, time does not.
    """
    prices = list(traded_prices())[:TICKS]
    random = Random(3)
    market = Market(random)
    market.spot = 2_600.0
    accounts = [Account(market, 500, random.choice((0.02, 0.1, 0.5))) for _ in range(ACCOUNTS)]
    heaps: list[list[tuple[int, int]]] = [[] for _ in accounts[0].until]
    for i, account in enumerate(accounts):
        for heap, until in zip(heaps, account.until, strict=True):
            if until is not None:
                heap.append((until, i))
    for heap in heaps:
        heapify(heap)
    checks = failing = 0

    def ticks() -> None:
        nonlocal checks, failing
        for price in prices:
            market.spot = 2_600.0 * price / prices[0]
            market.left_ms = [left - TICK_MS for left in market.left_ms]
            market.move()
            for i in taken(heaps, market.travelled()):
                accounts[i].check()
                checks += 1
                failing += accounts[i].cash + accounts[i].margin() < 0
                for heap, until in zip(heaps, accounts[i].until, strict=True):
                    if until is not None:
                        heappush(heap, (until, i))

    started = process_time()
    benchmark.pedantic(ticks, rounds=1, iterations=1)
    spent = process_time() - started
    path = sum(abs(b - a) for a, b in pairwise(prices)) / prices[0]
    print(
        f"rechecks: {checks:,} of {len(prices) * ACCOUNTS:,} "
        f"({100 * checks / len(prices) / ACCOUNTS:.2f} %) in {len(prices)} ticks; a price path of "
        f"{100 * path:.1f} %; {failing} below zero; {spent / len(prices) * 1e3:.1f} ms a tick"
    )
    assert checks < len(prices) * ACCOUNTS // 20
