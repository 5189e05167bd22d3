"""What a step's writes cost on disk, beside a plain append and fdatasync in the same run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from consensus.effects import Write
from ops.store import MEMTABLE_BYTES, Store

STEPS = 300
RECORD = os.urandom(300)


def _timed(step: Callable[[int], None]) -> tuple[float, float]:
    """Return the median and the 99th percentile of a step, in microseconds."""
    times = []
    for i in range(STEPS):
        begun = time.perf_counter()
        step(i)
        times.append((time.perf_counter() - begun) * 1e6)
    times.sort()
    return times[STEPS // 2], times[STEPS * 99 // 100]


def _step(store: Store, i: int) -> None:
    """What a block costs: a safety record and twenty others, durable."""
    writes = [Write("safety", b"votes", RECORD)]
    writes += [Write("bodies", i.to_bytes(4, "big") + bytes((j,)), RECORD) for j in range(20)]
    store.apply(writes, sync=True)


def test_bench_sync(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """One durable step of 21 records of 300 bytes, and the same bytes appended to a file."""
    store = Store.open(tmp_path / "store")
    with (tmp_path / "plain").open("wb", buffering=0) as file:

        def plain(_: int) -> None:
            file.write(RECORD * 21)
            os.fdatasync(file.fileno())

        reference = _timed(plain)
    ours = benchmark.pedantic(_timed, (lambda i: _step(store, i),), rounds=1)  # type: ignore[no-untyped-call]
    store.close()
    benchmark.extra_info.update(p50_us=ours[0], p99_us=ours[1], ratio=ours[0] / reference[0])
    print(f"durable step p50/p99 us: ours {ours[0]:.0f}/{ours[1]:.0f}", end=" ")
    print(f"plain {reference[0]:.0f}/{reference[1]:.0f} ratio {ours[0] / reference[0]:.2f}")
    assert ours[0] < 50_000


def _records_per_cpu_s(store: Store) -> float:
    batches, each = 400, 500
    assert batches * each * len(RECORD) > 3 * MEMTABLE_BYTES  # Flushing and compaction included.
    begun = time.process_time()
    for i in range(batches):
        writes = [Write("bodies", (i * each + j).to_bytes(8, "big"), RECORD) for j in range(each)]
        store.apply(writes, sync=False)
    return batches * each / (time.process_time() - begun)


def test_bench_records(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """200,000 records of 300 bytes, 500 to a batch, then all of them read back in order."""
    store = Store.open(tmp_path)
    rate = benchmark.pedantic(_records_per_cpu_s, (store,), rounds=1)  # type: ignore[no-untyped-call]
    begun = time.process_time()
    read = sum(1 for _ in store.scan("bodies"))
    scan = read / (time.process_time() - begun)
    begun = time.process_time()
    for i in range(0, 200_000, 10):
        assert store.get("bodies", i.to_bytes(8, "big")) == RECORD
    get = 20_000 / (time.process_time() - begun)
    store.close()
    benchmark.extra_info.update(write_per_cpu_s=rate, scan_per_cpu_s=scan, get_per_cpu_s=get)
    print(f"records a CPU-second: written {rate:.0f}, scanned {scan:.0f}, got {get:.0f}")
    assert read == 200_000
