"""The store's size on RocksDB over many times the retention, compaction included.

`FAIRLANE_BENCH_BLOCKS=30000` is the long form.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from consensus import effects as core
from consensus import prune
from consensus.command import command_id, encode_command
from consensus.committee import Committee
from ops import store as store_module
from ops.sim.keys import real_keys, sign_command
from tests.bench.test_bench_statesync import NETWORK, START_MS, STEP_MS, Node

BLOCKS = int(os.environ.get("FAIRLANE_BENCH_BLOCKS", 3_000))
RETAIN = BLOCKS // 20
LIFE_MS = 5_000


def submit(node: Node, now_ms: int, number: int) -> None:
    """A command of about 600 bytes; the engine refuses it, which is as good here."""
    payload = number.to_bytes(8, "big") + os.urandom(500)
    command = sign_command(NETWORK, now_ms + LIFE_MS, bytes(20), payload)
    event = core.Submitted(command_id(NETWORK, command), encode_command(command))
    node.step(now_ms, event)


def test_bench_prune(
    benchmark: BenchmarkFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest size in the last quarter beside that of the second, and the longest step."""
    # As much is written here in a minute as in a day: files as small turn over as often.
    monkeypatch.setattr(store_module, "MEMTABLE_BYTES", 1 << 20)
    monkeypatch.setattr(prune, "PRUNE_EVERY", 16)
    benchmark.pedantic(fill_and_prune, (tmp_path,), rounds=1)  # type: ignore[no-untyped-call]


def fill_and_prune(tmp_path: Path) -> None:
    """Run one replica over many times its retention, and print what its store takes."""
    committee = Committee(NETWORK, 1, real_keys(NETWORK, 1).publics)
    node = Node(committee, 0, tmp_path / "store", 1_000)
    node.replica.ctx.retain_blocks = RETAIN
    now_ms = START_MS
    node.step(now_ms, core.Start())
    sizes: list[int] = []
    written = 0
    while node.replica.height < BLOCKS:
        now_ms += STEP_MS
        for number in range(4):
            submit(node, now_ms, number + 4 * now_ms)
            written += 1
        node.tick(now_ms)
        node.sent.clear()
        if node.replica.height > len(sizes) * BLOCKS // 40:
            sizes.append(node.store.size_bytes())
    early, late = max(sizes[10:20]), max(sizes[30:])
    pruned = node.replica.ctx.counters["records_pruned"]
    print(
        f"\n{BLOCKS:,} blocks, {written:,} commands, {RETAIN:,} kept: {early / 1e6:.1f} MB in "
        f"the second quarter, {late / 1e6:.1f} MB in the last; {pruned:,} records pruned; "
        f"{node.cpu_s / BLOCKS * 1e3:.2f} ms a block, longest {node.longest_s * 1e3:.0f} ms"
    )
    assert late < 1.6 * early
    node.store.close()
