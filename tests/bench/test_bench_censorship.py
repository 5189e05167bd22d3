"""How long censored commands wait: the table of docs/protocol/fair-order.md.

`FAIRLANE_CENSORSHIP_SEEDS=20 pytest tests/bench/test_bench_censorship.py -s` prints it.
"""

from __future__ import annotations

import os

from ops.sim.delays import table

SIZES = (5, 7, 9)


def test_bench_delay_under_censorship() -> None:
    """None to f censors at n = 5, 7 and 9, the same seeds for each."""
    seeds = range(1, 1 + int(os.environ.get("FAIRLANE_CENSORSHIP_SEEDS", "3")))
    print(f"\nseeds {seeds.start} to {seeds.stop - 1}\n{table(SIZES, seeds)}")
