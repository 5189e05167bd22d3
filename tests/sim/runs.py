"""Short simulated runs, and hunts over seeds.

`FAIRLANE_SIM_SEEDS=K` gives every scenario and liar K seeds instead of one or two: the long form.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace

from consensus.committee import Parameters
from ops.sim.plan import NetworkDials, Plan
from ops.sim.report import Report, run
from ops.sim.scenarios import shape

LONG_FORM = "FAIRLANE_SIM_SEEDS" in os.environ
QUICK = Parameters(
    batch_interval_ms=20,
    block_interval_ms=30,
    empty_block_ms=80,
    round_timer_ms=200,
    round_timer_max_ms=800,
    order_deadline_ms=500,
)
"""The simulator's dials with shorter timers, so that a run to its end takes under a second."""


def seeds(few: int) -> range:
    """Return the seeds to run: `few`, or as many as the environment asks for."""
    return range(int(os.environ.get("FAIRLANE_SIM_SEEDS", few)))


def quick(
    scenario: str,
    nodes: int,
    seed: int,
    liars: Mapping[int, str] | None = None,
    parameters: Parameters = QUICK,
    network: NetworkDials | None = None,
) -> Plan:
    """Return a short run of a named scenario; `liars` take the place of the scenario's own."""
    plan = Plan(nodes=nodes, seed=seed, duration_ms=3_000, parameters=parameters)
    if network is not None:
        plan = replace(plan, network=network)
    plan = shape(scenario, plan)
    return plan if liars is None else replace(plan, liars=liars).with_calm()


def assert_held(report: Report) -> None:
    """Every invariant held; otherwise show which did not, and the run's size and seed."""
    assert report.held, f"n={report.nodes} seed={report.seed}: {'; '.join(report.violations)}"


def hunt(plans: Iterable[Plan], kinds: Iterable[str], ignored: Iterable[str] = ()) -> Report | None:
    """Run `plans` until one breaks an invariant of `kinds`; others but `ignored` end a run too."""
    wanted = tuple(f"[{kind}]" for kind in kinds)
    for plan in plans:
        report = run(plan, frozenset(ignored))
        if any(violation.startswith(wanted) for violation in report.violations):
            return report
    return None
