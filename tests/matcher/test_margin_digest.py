"""Prices, arrays and margins are the same bits under any hash seed and on any Python found here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

from tests.matcher.margin_digest import digest

ROOT = Path(__file__).parents[2]


def answer(python: str, seed: str) -> str:
    environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    command = [python, "-P", str(ROOT / "tests/matcher/margin_digest.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("seed", ["0", "4242"])
def test_the_hash_seed_changes_nothing(seed: str) -> None:
    assert answer(sys.executable, seed) == digest()


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_every_python_gives_the_same_bits(version: str) -> None:
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places = [*sorted(map(str, versions.glob(f"{version}.*/bin/python"))), f"python{version}"]
    for python in filter(which, places):
        if subprocess.run([python, "--version"], capture_output=True).returncode == 0:
            assert answer(python, "random") == digest()
            return
    pytest.skip(f"no Python {version} here")
