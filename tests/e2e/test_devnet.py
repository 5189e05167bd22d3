"""Whole networks of processes, through the command that a user runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN_S = 300
"""A run that hangs is ended; nothing is judged by time."""


def devnet(*arguments: str) -> dict[str, Any]:
    """Run `fairlane devnet --json` and return its last line; its exit status must be 0."""
    command = [sys.executable, "-m", "ops", "devnet", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def check(summary: dict[str, Any], nodes: int, submitted: int) -> None:
    """Nothing lost, nothing twice, one state, settled on chain."""
    assert summary["faults"] == []
    assert summary["nodes"] == nodes
    assert summary["submitted"] == summary["executed"] == submitted
    assert summary["trades"] > 0
    assert summary["agree"] is True
    assert len(summary["state_digest"]) == 66
    assert summary["deposits_credited"] == 50
    assert summary["withdrawals_claimed"] == 1
    assert summary["checkpoints"] >= 3


@pytest.mark.e2e
def test_a_killed_node_returns_with_everything() -> None:
    summary = devnet("--events", "600", "--rate", "40", "--kill", "1")
    check(summary, 5, 600)
    assert summary["kills"] == 1


@pytest.mark.e2e
def test_two_of_five_killed_stop_the_network_and_their_return_resumes_it() -> None:
    summary = devnet("--events", "300", "--rate", "30", "--kill", "2", "--seed", "2")
    check(summary, 5, 300)
    assert summary["kills"] == 2


@pytest.mark.e2e
def test_four_nodes_trade_and_settle() -> None:
    check(devnet("--nodes", "4", "--events", "200", "--rate", "40", "--seed", "3"), 4, 200)


@pytest.mark.e2e
def test_an_interrupt_leaves_no_process_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [sys.executable, "-m", "ops", "devnet", "--seconds", "600", "--home", str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("height"):
                break
        assert len(_running(home)) == 1 + 5, "the devnet itself and its nodes"
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(RUN_S) == 130
    assert _running(home) == []


def _running(home: Path) -> list[str]:
    """Return the command lines of processes that name `home`. Source: proc(5)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(home) in line and "ops" in line:
                found.append(line)
    return found
