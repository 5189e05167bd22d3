"""One seed, one run, to the byte: in this process, in others, under any hash seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from ops.sim.report import run
from tests.sim.runs import quick

LINE = ["-m", "ops", "sim", "--crash", "3", "--loss", "0.1", "--seconds", "1", "--json"]
LINE += ["--nodes", "4", "--seed", "9", "--byzantine", "1:shuffle", "--round-timer", "150"]


def test_the_same_seed_gives_the_same_trace() -> None:
    assert run(quick("mixed", 4, 3)) == run(quick("mixed", 4, 3))


def test_another_seed_gives_another_trace() -> None:
    assert run(quick("plain", 4, 1)).trace != run(quick("plain", 4, 2)).trace


def test_the_hash_seed_of_the_process_changes_nothing() -> None:
    reports = []
    for hash_seed in ("0", "4242"):
        done = subprocess.run(
            [sys.executable, *LINE],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        )
        reports.append(json.loads(done.stdout))
    assert reports[0] == reports[1]
