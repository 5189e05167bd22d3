"""Steps of the core per CPU-second under the simulator, audits included, and what a block costs.

Hashed signatures, so that what is measured is the core, its codec and the simulator, not Ed25519.
`pytest tests/bench/test_bench_sim.py -s` prints the figures.
"""

from __future__ import annotations

from time import process_time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ops.sim.plan import Plan
from ops.sim.report import Report, run
from ops.sim.world import World

SECONDS = 10
STEPS_PER_S_MIN = 2_000
"""A tenth of what an idle core of 2024 does: below it something became quadratic."""


def plan(nodes: int, rate: int = 40) -> Plan:
    return Plan(nodes=nodes, seed=1, duration_ms=SECONDS * 1_000, commands_per_s=rate)


@pytest.mark.parametrize("nodes", [4, 5, 7, 10])
def test_bench_steps_of_a_quiet_network(benchmark: BenchmarkFixture, nodes: int) -> None:
    """Ten seconds of 40 commands a second; the time of all replicas together."""
    started = process_time()
    report: Report = benchmark.pedantic(  # type: ignore[no-untyped-call]
        run, args=(plan(nodes),), rounds=1, iterations=1
    )
    spent = process_time() - started
    assert report.held, report.violations
    print(
        f"\n{nodes} nodes: {report.steps / spent:,.0f} steps/s, "
        f"{spent / nodes / report.height * 1_000:.2f} ms per block and node, "
        f"{spent / SECONDS / nodes:.3f} cores per node at {report.height / SECONDS:.0f} blocks/s"
    )
    assert report.steps / spent > STEPS_PER_S_MIN


def test_bench_the_core_alone(benchmark: BenchmarkFixture) -> None:
    """The share of the replicas' own `step` in a run of five with 200 commands a second."""
    world = World(plan(5, rate=200))
    inside = 0.0

    def timed() -> None:
        nonlocal inside
        for host in world.hosts:
            step = host.step

            def measured(now_us: int, event: object, step: object = step) -> object:
                nonlocal inside
                started = process_time()
                effects = step(now_us, event)  # type: ignore[operator]
                inside += process_time() - started
                return effects

            host.step = measured  # type: ignore[assignment,method-assign]
        world.run()

    started = process_time()
    benchmark.pedantic(timed, rounds=1, iterations=1)  # type: ignore[no-untyped-call]
    spent = process_time() - started
    assert world.ledger.is_clean
    print(
        f"\n5 nodes, 200 commands/s: core {inside / spent:.0%} of {spent:.1f} s, "
        f"{inside / 5 / SECONDS:.3f} cores per node, {inside / world.steps * 1e6:.0f} us per step"
    )
