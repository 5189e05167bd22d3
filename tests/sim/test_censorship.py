"""Censors among the replicas hardly delay a command that an honest replica has logged.

The long form, and the table of docs/protocol/fair-order.md: tests/bench/test_bench_censorship.py.
"""

from __future__ import annotations

import pytest

from consensus.committee import faults
from ops.sim.delays import Delays, measure

ROUNDS_MORE_MAX = 2
SEEDS = range(1, 3)


@pytest.mark.parametrize("nodes", [5, 7])
def test_f_censors_cost_a_command_two_rounds_at_most(nodes: int) -> None:
    alone = measure(nodes, 0, SEEDS)
    censored = measure(nodes, faults(nodes), SEEDS)
    print(alone, censored)
    assert min(alone.commands, censored.commands) > 30
    assert_bound(alone, censored)


def assert_bound(alone: Delays, censored: Delays) -> None:
    """At the mean, at the 99th percentile, and for the command that waited longest."""
    assert censored.rounds_mean <= alone.rounds_mean + ROUNDS_MORE_MAX
    assert censored.rounds_p99 <= alone.rounds_p99 + ROUNDS_MORE_MAX
    assert censored.rounds_max <= alone.rounds_max + ROUNDS_MORE_MAX


def test_the_measure_sees_what_a_missing_rule_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas that do not echo before the commit log a command a round or more later."""
    echoed = measure(5, 1, SEEDS)
    monkeypatch.setattr("consensus.logkeeper.LogKeeper._echo", lambda self, sealed: None)
    assert measure(5, 1, SEEDS).rounds_mean > echoed.rounds_mean + 0.5
