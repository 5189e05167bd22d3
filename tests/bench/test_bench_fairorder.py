"""CPU time of one block of fair order, at a steady backlog and over a long run.

T logs run ahead and the others lag by the backlog, so that many ids stay pending and compare;
neighbours change places in every log. `pytest tests/bench/test_bench_fairorder.py -s` prints the
figures, beside those of an order that compares everything anew in each block; the bounds here are
several times what an idle machine of two cores needs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import median
from time import process_time

import pytest

from consensus.fairorder import FairOrder, thresholds
from tests.consensus.fairorder_anew import FairOrder as OrderAnew

BLOCK_MS = 50
NEW_PER_BLOCK = 15
"""300 commands per second at 20 blocks per second."""


def lagging_logs(n: int, backlog: int, blocks: int, seed: int) -> list[list[list[bytes]]]:
    """Return the suffixes of each block: [block][log], after a first one with the whole backlog."""
    rng = random.Random(seed)
    total = backlog + blocks * NEW_PER_BLOCK
    ids = [
        ((k // NEW_PER_BLOCK) * BLOCK_MS + 60_000).to_bytes(8, "big") + rng.randbytes(32)
        for k in range(total)
    ]
    ahead, _ = thresholds(n, (n - 1) // 3)
    logs = []
    for _ in range(n):
        places = sorted(range(total), key=lambda k: k + rng.uniform(0, 12))
        logs.append([ids[k] for k in places])
    marks = [backlog + block * NEW_PER_BLOCK for block in range(blocks)]
    return [
        [
            log[(mark - NEW_PER_BLOCK if mark > backlog else 0) : mark]
            if i < ahead
            else log[max(0, mark - NEW_PER_BLOCK - backlog) : mark - backlog]
            for i, log in enumerate(logs)
        ]
        for mark in marks
    ]


Rule = type[FairOrder] | type[OrderAnew]


def spent_ms(
    n: int, backlog: int, blocks: int, rule: Rule = FairOrder
) -> tuple[list[float], FairOrder | OrderAnew]:
    """Return the milliseconds of CPU of each block after the backlog is there."""
    order = rule(n, (n - 1) // 3, deadline_ms=1 << 40)
    spent = []
    for height, suffixes in enumerate(lagging_logs(n, backlog, blocks + 1, seed=1), 1):
        started = process_time()
        order.commit(height, height * BLOCK_MS, bytes(32), suffixes)
        spent.append((process_time() - started) * 1e3)
    return sorted(spent[1:]), order


@pytest.mark.parametrize("n", [5, 7])
@pytest.mark.parametrize(("backlog", "blocks", "bound_ms"), [(100, 200, 5), (1_000, 40, 10)])
def test_bench_a_block_of_fair_order(n: int, backlog: int, blocks: int, bound_ms: float) -> None:
    spent, order = spent_ms(n, backlog, blocks)
    p50, p99 = spent[len(spent) // 2], spent[len(spent) * 99 // 100]
    anew, _ = spent_ms(n, backlog, min(blocks, 10), OrderAnew)
    print(
        f"\nn={n}, {len(order):,} pending: p50 {p50:.2f} ms, p99 {p99:.2f} ms of CPU per block, "
        f"anew {median(anew):.2f} ms"
    )
    assert backlog * 0.95 <= len(order) <= backlog * 1.05
    assert p50 <= bound_ms


@pytest.mark.parametrize("n", [5, 7, 9, 31])
def test_bench_5000_pending(n: int) -> None:
    spent, order = spent_ms(n, 5_000, 6)
    print(f"\nn={n}, {len(order):,} pending: p50 {median(spent):.2f} ms of CPU per block")
    assert median(spent) <= 200


def jittered(n: int, ids: list[bytes], seed: int) -> list[list[bytes]]:
    """Return logs in which neighbours change places."""
    rng = random.Random(seed)
    key = [[k + rng.uniform(0, 12) for k in range(len(ids))] for _ in range(n)]
    return [[ids[k] for k in sorted(range(len(ids)), key=row.__getitem__)] for row in key]


def rotated(n: int, ids: list[bytes], _: int) -> list[list[bytes]]:
    """Return logs of which each begins elsewhere in one circle: all ids are one batch."""
    return [ids[i * len(ids) // n :] + ids[: i * len(ids) // n] for i in range(n)]


@pytest.mark.parametrize("logs_of", [jittered, rotated])
@pytest.mark.parametrize(("n", "count", "bound_ms"), [(7, 1_000, 60), (7, 5_000, 500)])
def test_bench_all_ids_of_a_block_new_and_solid(
    logs_of: Callable[[int, list[bytes], int], list[list[bytes]]],
    n: int,
    count: int,
    bound_ms: float,
) -> None:
    """The most that one block can ask for: nothing is known yet, and everything is emitted."""
    rng = random.Random(4)
    ids = [(60_000).to_bytes(8, "big") + rng.randbytes(32) for _ in range(count)]
    spent: dict[str, float] = {}
    for name, rule in (("kept", FairOrder), ("anew", OrderAnew)):
        times = []
        for seed in range(5 if count <= 1_000 else 1):
            logs = logs_of(n, ids, seed)
            order = rule(n, (n - 1) // 3)
            started = process_time()
            order.commit(1, 50, bytes(32), logs)
            times.append((process_time() - started) * 1e3)
            assert not len(order)
        spent[name] = min(times)
    print(f"\nn={n}, {count:,} new ids: {spent['kept']:.1f} ms, anew {spent['anew']:.1f} ms")
    assert spent["kept"] <= bound_ms


@pytest.mark.parametrize("logs", [1, 3])
def test_bench_ids_that_never_become_solid(logs: int) -> None:
    """5,000 ids of one liar, or in T logs of seven, stay pending while others pass."""
    rng = random.Random(6)
    junk = [(1 << 40).to_bytes(8, "big") + rng.randbytes(32) for _ in range(5_000)]
    order = FairOrder(7, 2)
    order.commit(1, 50, bytes(32), [junk if i < logs else [] for i in range(7)])
    spent = []
    for height in range(2, 42):
        expires_ms = height * BLOCK_MS + 60_000
        ids = [expires_ms.to_bytes(8, "big") + rng.randbytes(32) for _ in range(NEW_PER_BLOCK)]
        started = process_time()
        order.commit(height, height * BLOCK_MS, bytes(32), [ids] * 7)
        spent.append((process_time() - started) * 1e3)
    print(f"\nn=7, 5,000 ids in {logs} logs: p50 {median(spent):.2f} ms of CPU per block")
    assert median(spent) <= 10


@pytest.mark.parametrize(("n", "per_block"), [(5, 15), (7, 15), (5, 150), (7, 150)])
def test_bench_a_rolling_load(n: int, per_block: int) -> None:
    """Commands arrive at each replica after a delay of its own; cuts lag by up to 60 ms."""
    rng = random.Random(2)
    blocks = 100
    total = per_block * blocks
    ids = [(200_000).to_bytes(8, "big") + rng.randbytes(32) for _ in range(total)]
    arrivals = [
        sorted((k * BLOCK_MS / per_block + rng.expovariate(1 / 8), k) for k in range(total))
        for _ in range(n)
    ]
    order, heads, spent, pending = FairOrder(n, (n - 1) // 3), [0] * n, [], 0
    for height in range(1, blocks + 1):
        suffixes = []
        for i, arrived in enumerate(arrivals):
            seen_ms, end = height * BLOCK_MS - rng.uniform(0, 60), heads[i]
            while end < total and arrived[end][0] <= seen_ms:
                end += 1
            suffixes.append([ids[k] for _, k in arrived[heads[i] : end]])
            heads[i] = end
        started = process_time()
        order.commit(height, height * BLOCK_MS, bytes(32), suffixes)
        spent.append((process_time() - started) * 1e3)
        pending = max(pending, len(order))
    spent.sort()
    print(
        f"\nn={n}, {per_block * 1_000 // BLOCK_MS:,} per second: p50 {median(spent):.2f} ms, "
        f"p99 {spent[-2]:.2f} ms of CPU per block, up to {pending:,} pending"
    )
    assert median(spent) <= (5 if per_block < 100 else 60)


def test_bench_a_block_in_which_nothing_changed() -> None:
    _, order = spent_ms(5, 1_000, 2)
    started = process_time()
    for height in range(1_000, 2_000):
        order.commit(height, 10_000, bytes(32), [[]] * 5)
    spent_us = (process_time() - started) * 1e3
    print(f"\n1,000 pending, nothing new: {spent_us:.1f} us of CPU per block")
    assert spent_us <= 100


def test_bench_the_cost_does_not_grow_with_the_chain() -> None:
    """Six minutes of block time at 300 commands per second; ids are remembered for a minute."""
    order = FairOrder(5, 1)
    rng = random.Random(3)
    minute = 60_000 // BLOCK_MS
    spent, digests = [], []
    for height in range(1, 6 * minute + 1):
        expires_ms = height * BLOCK_MS + 60_000
        ids = [expires_ms.to_bytes(8, "big") + rng.randbytes(32) for _ in range(NEW_PER_BLOCK)]
        started = process_time()
        order.commit(height, height * BLOCK_MS, bytes(32), [ids] * 5)
        between = process_time()
        spent.append(between - started)
        if height % 8 == 0:
            order.digest()
            digests.append(process_time() - between)
    second = median(spent[minute : 2 * minute]) * 1e3
    last = median(spent[-minute:]) * 1e3
    print(
        f"\nn=5, 300 per second: {second:.3f} ms of CPU per block in the second minute, "
        f"{last:.3f} in the sixth; digest {median(digests) * 1e3:.2f} ms every 8 blocks; "
        f"{len(order.export()):,} bytes of state"
    )
    assert last <= second * 2
