"""Every scenario file is one test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.matcher.scenarios.runner import paths, run_scenario
from tests.matcher.scenarios.text import load

SCENARIOS_MIN = 40


@pytest.mark.parametrize("path", paths(), ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    deviation = run_scenario(load(path))
    if deviation is not None:
        pytest.xfail(deviation)


def test_all_files_are_found() -> None:
    assert len(paths()) >= SCENARIOS_MIN
    titles = [load(path).title for path in paths()]
    assert len(set(titles)) == len(titles), "each scenario has its own title"
