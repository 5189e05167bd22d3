"""CPU time of one block of fair order, at a steady backlog and over a long run.

T logs run ahead and the others lag by the backlog, so that many ids stay pending and compare;
neighbours change places in every log. `pytest tests/bench/test_bench_fairorder.py -s` prints the
figures; the bounds here are several times what an idle machine of two cores needs.
"""

from __future__ import annotations

import random
from statistics import median
from time import process_time

import pytest

from consensus.fairorder import FairOrder, thresholds

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


def spent_ms(n: int, backlog: int, blocks: int, seed: int = 1) -> tuple[list[float], FairOrder]:
    """Return the milliseconds of CPU of each block after the backlog is there."""
    order = FairOrder(n, (n - 1) // 3, deadline_ms=1 << 40)
    spent = []
    for height, suffixes in enumerate(lagging_logs(n, backlog, blocks + 1, seed), 1):
        started = process_time()
        order.commit(height, height * BLOCK_MS, bytes(32), suffixes)
        spent.append((process_time() - started) * 1e3)
    return sorted(spent[1:]), order


@pytest.mark.parametrize("n", [5, 7])
@pytest.mark.parametrize(("backlog", "blocks", "bound_ms"), [(100, 200, 5), (1_000, 40, 40)])
def test_bench_a_block_of_fair_order(n: int, backlog: int, blocks: int, bound_ms: float) -> None:
    spent, order = spent_ms(n, backlog, blocks)
    p50, p99 = spent[len(spent) // 2], spent[len(spent) * 99 // 100]
    print(f"\nn={n}, {len(order):,} pending: p50 {p50:.2f} ms, p99 {p99:.2f} ms of CPU per block")
    assert backlog * 0.95 <= len(order) <= backlog * 1.05
    assert p50 <= bound_ms


@pytest.mark.parametrize("n", [5, 7])
def test_bench_5000_pending(n: int) -> None:
    spent, order = spent_ms(n, 5_000, 6)
    print(f"\nn={n}, {len(order):,} pending: p50 {spent[len(spent) // 2]:.1f} ms of CPU per block")
    assert spent[len(spent) // 2] <= 600


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
