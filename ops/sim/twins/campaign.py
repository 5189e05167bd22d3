"""Many Twins scenarios, on one processor or several: how many held, and which did not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice

from ops.sim.twins.arena import play
from ops.sim.twins.scenario import Scenario, Setting

CHUNK = 64
FAILURES_MAX = 20
"""Failed scenarios kept whole; more are counted."""

Numbered = tuple[int, Scenario]


@dataclass(frozen=True, slots=True)
class Failure:
    """A scenario that broke an invariant, by its number in the campaign."""

    number: int
    scenario: Scenario
    violations: tuple[str, ...]


@dataclass(slots=True)
class Tally:
    """What a campaign came to so far."""

    run: int = 0
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)
    steps: int = 0
    blocks: int = 0
    executed: int = 0
    equivocations: int = 0
    broken_twins: int = 0
    cpu_s: float = 0.0

    def add(self, other: Tally) -> None:
        """Take in what another part of the campaign came to."""
        self.run += other.run
        self.failed += other.failed
        self.failures += other.failures
        self.failures.sort(key=lambda failure: failure.number)
        del self.failures[FAILURES_MAX:]
        self.steps += other.steps
        self.blocks += other.blocks
        self.executed += other.executed
        self.equivocations += other.equivocations
        self.broken_twins += other.broken_twins
        self.cpu_s += other.cpu_s


def run_chunk(setting: Setting, scenarios: Iterable[Numbered]) -> Tally:
    """Run some scenarios in this process."""
    tally = Tally()
    began = time.process_time()
    for number, scenario in scenarios:
        outcome = play(setting, scenario)
        tally.run += 1
        tally.steps += outcome.steps
        tally.blocks += outcome.height
        tally.executed += outcome.executed
        tally.equivocations += outcome.equivocations
        tally.broken_twins += outcome.broken_twins
        if not outcome.held:
            tally.failed += 1
            if len(tally.failures) < FAILURES_MAX:
                tally.failures.append(Failure(number, scenario, outcome.violations))
    tally.cpu_s = time.process_time() - began
    return tally


def run_all(
    setting: Setting,
    scenarios: Iterable[Scenario],
    jobs: int = 1,
    progress: Callable[[Tally], None] = lambda _: None,
) -> Tally:
    """Run every scenario, `jobs` chunks at a time."""
    total = Tally()
    chunks = _chunks(enumerate(scenarios, 1))
    if jobs <= 1:
        for chunk in chunks:
            total.add(run_chunk(setting, chunk))
            progress(total)
        return total
    with ProcessPoolExecutor(jobs) as pool:
        running: set[Future[Tally]] = set()
        for chunk in chunks:
            running.add(pool.submit(run_chunk, setting, chunk))
            if len(running) > 2 * jobs:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                _collect(total, done, progress)
        _collect(total, running, progress)
    return total


def _collect(
    total: Tally, done: Iterable[Future[Tally]], progress: Callable[[Tally], None]
) -> None:
    for each in done:
        total.add(each.result())
        progress(total)


def _chunks(scenarios: Iterator[Numbered]) -> Iterator[list[Numbered]]:
    while chunk := list(islice(scenarios, CHUNK)):
        yield chunk
