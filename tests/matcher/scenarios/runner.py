"""A scenario from its file to its verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.matcher.scenarios.checks import ScenarioFailed, check
from tests.matcher.scenarios.steps import Run
from tests.matcher.scenarios.text import Scenario, load

FILES: Final = Path(__file__).with_name("files")


class UnexpectedSuccess(AssertionError):
    """A table marked as an expected failure holds: take the mark away."""


def paths() -> list[Path]:
    """Return every scenario file, by name."""
    return sorted(FILES.glob("*.txt"))


def run_scenario(scenario: Scenario) -> str | None:
    """Play a scenario to its end; return why it deviates where that is expected, else None.

    Errors: ScenarioFailed, UnexpectedSuccess, ScenarioError, AssertionError of an invariant.
    """
    run = Run(scenario)
    deviation = None
    for section in scenario.sections:
        if section.heading.startswith("when"):
            run.happen(section)
        elif section.deviation is not None:
            try:
                check(run, section)
            except ScenarioFailed:
                deviation = section.deviation
                break
            raise UnexpectedSuccess(
                f"{scenario.path}:{section.line}: {section.heading} holds, but a failure is "
                f"expected: {section.deviation}"
            )
        elif section.heading.startswith("then"):
            check(run, section)
    run.exchange.check_snapshot()
    return deviation


def play(name: str) -> str | None:
    """Run one file of `FILES` by its name without `.txt`."""
    return run_scenario(load(FILES / f"{name}.txt"))
