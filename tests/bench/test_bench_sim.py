"""Steps of the core per CPU-second under the simulator, audits included, and what a block costs.

Hashed signatures, so that what is measured is the core, its codec and the simulator, not Ed25519.
`pytest tests/bench/test_bench_sim.py -s` prints the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

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


@pytest.mark.parametrize("rate", [0, 40])
@pytest.mark.parametrize("nodes", [4, 5, 7, 10])
def test_bench_steps_of_a_quiet_network(benchmark: BenchmarkFixture, nodes: int, rate: int) -> None:
    """Ten seconds without commands and with 40 a second; the time of all replicas together."""
    started = process_time()
    report: Report = benchmark.pedantic(  # type: ignore[no-untyped-call]
        run, args=(plan(nodes, rate),), rounds=1, iterations=1
    )
    spent = process_time() - started
    assert report.held, report.violations
    print(
        f"\n{nodes} nodes, {rate} commands/s: {report.steps / spent:,.0f} steps/s, "
        f"{spent / nodes / report.height * 1_000:.2f} ms per block and node, "
        f"{spent / SECONDS / nodes:.3f} cores per node at {report.height / SECONDS:.0f} blocks/s"
    )
    assert report.steps / spent > STEPS_PER_S_MIN


def timed(inside: dict[str, float], part: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return `call`, adding the time of each to `inside[part]`."""

    def measured(*args: Any) -> Any:
        started = perf_counter()
        try:
            return call(*args)
        finally:
            inside[part] = inside.get(part, 0.0) + perf_counter() - started

    return measured


def test_bench_where_the_time_goes(
    benchmark: BenchmarkFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shares of core, admission and audits in a run of five with 40 commands a second."""
    world = World(plan(5))
    inside: dict[str, float] = {}
    for host in world.hosts:
        monkeypatch.setattr(host, "step", timed(inside, "core", host.step))
    edge, audits = world.carrier._edge, world.audits
    monkeypatch.setattr(edge, "admit", timed(inside, "codec and signatures", edge.admit))
    for watching, name in ((audits, "after_step"), (audits.words, "spoken")):
        monkeypatch.setattr(watching, name, timed(inside, "audits", getattr(watching, name)))
    monkeypatch.setattr(
        world.carrier, "_note_writes", timed(inside, "audits", world.carrier._note_writes)
    )
    started = perf_counter()
    benchmark.pedantic(world.run, rounds=1, iterations=1)  # type: ignore[no-untyped-call]
    spent = perf_counter() - started
    assert world.ledger.is_clean
    shares = ", ".join(f"{part} {of / spent:.0%}" for part, of in sorted(inside.items()))
    print(
        f"\n{world.steps} steps in {spent:.2f} s: {shares}, the rest loop, network, disk, clients"
    )
    assert sum(inside.values()) < spent
