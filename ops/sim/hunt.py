"""Many seeds, on one processor or several: what was run, and which seeds broke something.

A seed's run is the same wherever it runs; processes only divide the seeds among themselves.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from time import monotonic, process_time

from msgspec import Struct

from ops.sim.plan import Plan
from ops.sim.report import Report, run

FAILURES_MAX = 20
"""So many failing seeds end a hunt: more say nothing new."""
_ENDINGS = (signal.SIGINT, signal.SIGTERM)
SEEDS_IN_FLIGHT = 3
"""Seeds given to each process ahead of time."""

MakePlan = Callable[[int], Plan]
"""Returns the run of a seed. A module's function, or a partial of one: processes get it too."""


class Outcome(Struct, frozen=True):
    """What one seed came to."""

    seed: int
    nodes: int
    liars: int
    steps: int
    blocks: int
    executed: int
    cpu_s: float
    violations: tuple[str, ...]


@dataclass(slots=True)
class Hunt:
    """What a hunt came to so far."""

    blocks_min: int = 0
    seeds: int = 0
    steps: int = 0
    blocks: int = 0
    executed: int = 0
    cpu_s: float = 0.0
    seconds: float = 0.0
    interrupted: bool = False
    by_nodes: dict[int, int] = field(default_factory=dict)
    liars: int = 0
    blocks_least: int | None = None
    failures: list[Outcome] = field(default_factory=list)
    """Seeds that broke an invariant, or committed fewer blocks than were asked for."""

    def add(self, outcome: Outcome) -> None:
        """Take one seed's outcome in."""
        self.seeds += 1
        self.steps += outcome.steps
        self.blocks += outcome.blocks
        self.executed += outcome.executed
        self.cpu_s += outcome.cpu_s
        self.liars += outcome.liars
        self.by_nodes[outcome.nodes] = self.by_nodes.get(outcome.nodes, 0) + 1
        if self.blocks_least is None or outcome.blocks < self.blocks_least:
            self.blocks_least = outcome.blocks
        if outcome.violations or outcome.blocks < self.blocks_min:
            self.failures.append(outcome)

    @property
    def held(self) -> bool:
        """Whether no seed failed."""
        return not self.failures

    @property
    def steps_per_cpu_s(self) -> int:
        return round(self.steps / self.cpu_s) if self.cpu_s else 0

    def line(self) -> str:
        """Return one line of progress."""
        rate = self.seeds / self.seconds if self.seconds else 0.0
        return (
            f"{self.seconds:.0f} s: {self.seeds} seeds, {self.steps} steps, {self.blocks} blocks, "
            f"{rate:.1f} seeds/s, {self.steps_per_cpu_s} steps/CPU-s, "
            f"{len(self.failures)} violations"
        )

    def as_json(self) -> dict[str, object]:
        """Return the summary as plain JSON values."""
        return {
            "held": self.held,
            "interrupted": self.interrupted,
            "seeds": self.seeds,
            "by_nodes": {str(n): count for n, count in sorted(self.by_nodes.items())},
            "liars": self.liars,
            "steps": self.steps,
            "blocks": self.blocks,
            "blocks_least": self.blocks_least or 0,
            "blocks_min": self.blocks_min,
            "executed": self.executed,
            "seconds": round(self.seconds, 1),
            "cpu_s": round(self.cpu_s, 1),
            "steps_per_cpu_s": self.steps_per_cpu_s,
            "failures": [
                {
                    "seed": each.seed,
                    "nodes": each.nodes,
                    "blocks": each.blocks,
                    "violations": list(each.violations),
                }
                for each in self.failures
            ],
        }


def run_seed(make_plan: MakePlan, seed: int) -> Outcome:
    """Run one seed. Errors: BadPlan."""
    started = process_time()
    plan = make_plan(seed)
    report: Report = run(plan)
    return Outcome(
        seed=seed,
        nodes=plan.nodes,
        liars=len(plan.liars),
        steps=report.steps,
        blocks=report.height,
        executed=report.executed,
        cpu_s=process_time() - started,
        violations=report.violations,
    )


def search(
    make_plan: MakePlan,
    seeds: Iterable[int],
    jobs: int,
    seconds: float | None = None,
    blocks_min: int = 0,
    on_progress: Callable[[Hunt], None] = lambda _: None,
) -> Hunt:
    """Run seeds until they, or the time, are used up, or enough of them failed.

    An interrupt from the keyboard, or SIGTERM, ends it like the time does. Errors: BadPlan.
    """
    hunt = Hunt(blocks_min=blocks_min)
    gc.freeze()  # What is there now stays: a collection after each run need not look at it.
    started = monotonic()
    outcomes = _in_turn(make_plan, seeds) if jobs == 1 else _in_processes(make_plan, seeds, jobs)
    # Also where a shell has set them aside, as for what it starts in the background.
    before = {each: signal.signal(each, signal.default_int_handler) for each in _ENDINGS}
    try:
        for outcome in outcomes:
            hunt.add(outcome)
            hunt.seconds = monotonic() - started
            on_progress(hunt)
            if seconds is not None and hunt.seconds >= seconds:
                break
            if len(hunt.failures) >= FAILURES_MAX:
                break
    except KeyboardInterrupt:
        hunt.interrupted = True
    finally:
        outcomes.close()
        for each, handler in before.items():
            signal.signal(each, handler)
    hunt.seconds = monotonic() - started
    return hunt


def _in_turn(make_plan: MakePlan, seeds: Iterable[int]) -> Generator[Outcome, None, None]:
    for seed in seeds:
        yield run_seed(make_plan, seed)


def _in_processes(
    make_plan: MakePlan, seeds: Iterable[int], jobs: int
) -> Generator[Outcome, None, None]:
    """Yield outcomes as they come; what is still running at the end is waited for, not told."""
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("fork"), initializer=_ignore_interrupts)
    try:
        waiting = iter(seeds)
        flying: set[Future[Outcome]] = set()
        while True:
            while len(flying) < SEEDS_IN_FLIGHT * jobs:
                seed = next(waiting, None)
                if seed is None:
                    break
                flying.add(pool.submit(run_seed, make_plan, seed))
            if not flying:
                return
            done, flying = wait(flying, return_when=FIRST_COMPLETED)
            for each in done:
                yield each.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupts() -> None:
    """An interrupt is for the process that gives out the seeds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def kinds(outcome: Outcome) -> str:
    """Return what is wrong with a failed seed in a word."""
    first = outcome.violations[0].partition("]")[0].lstrip("[") if outcome.violations else None
    return first or f"only {outcome.blocks} blocks"
