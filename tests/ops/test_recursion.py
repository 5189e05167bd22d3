"""Deep nesting is an error, never the end of the process, whatever libraries are loaded."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEEP = """
import json, msgspec, sys, threading
import py_ecc, web3, eth

def attempt(name, call):
    try:
        call()
    except (RecursionError, ValueError):
        print(name, "refused", flush=True)

def all_of_them():
    attempt("json", lambda: json.loads("[" * 1_000_000))
    attempt("msgspec json", lambda: msgspec.json.decode(b'{"a":' * 1_000_000))
    attempt("msgpack", lambda: msgspec.msgpack.decode(bytes([0x91]) * 1_000_000 + b"0"))

all_of_them()
thread = threading.Thread(target=all_of_them)
thread.start()
thread.join()
print("limit", sys.getrecursionlimit())
"""
CAPPED = "from ops.recursion import cap_recursion; cap_recursion()\n"
BY_THE_COMMAND = (
    "import sys; from ops import cli; sys.argv[1:] = ['--version']\n"
    "try: cli.main()\nexcept SystemExit: pass\n"
)


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("start", [CAPPED, BY_THE_COMMAND], ids=["capped", "command"])
def test_deep_nesting_is_refused_in_every_thread(start: str) -> None:
    done = run(start + DEEP)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused") == 6
    assert "limit 10240" in done.stdout


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="3.12 bounds recursion in C by itself")
def test_mutation_without_the_cap_the_process_dies() -> None:
    done = run(DEEP)
    assert done.returncode == -signal.SIGSEGV
    assert "limit" not in done.stdout


def test_the_tests_run_capped() -> None:
    import py_ecc  # noqa: F401  # raises the limit when loaded

    assert sys.getrecursionlimit() <= 10_240
