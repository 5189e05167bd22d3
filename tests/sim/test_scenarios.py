"""Every scenario at n = 4, 5 and 7: all invariants at every step, recovery and order at the end.

`FAIRLANE_SIM_SEEDS=K` is the long form with K seeds for each.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from ops.sim.report import run
from ops.sim.scenarios import SCENARIOS
from tests.sim.runs import LONG_FORM, assert_held, quick, seeds

SIZES = (4, 5, 7)


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_every_invariant_holds(scenario: str) -> None:
    """One size each in the short form, by the scenario's place in the list."""
    place = sorted(SCENARIOS).index(scenario)
    sizes = SIZES if LONG_FORM else (SIZES[place % 3],)
    for nodes in sizes:
        for seed in seeds(1):
            assert_held(run(quick(scenario, nodes, seed)))


def test_a_machine_that_was_down_for_hundreds_of_blocks_catches_up_by_the_chain() -> None:
    """It asks for committed blocks with a proof, not for proposals one by one."""
    report = run(quick("long-down", 4, 3))
    assert_held(report)
    assert report.height > 250
    assert report.lost > 0


def test_real_signatures_make_the_same_network() -> None:
    plan = quick("crash", 4, 2)
    hashed, real = run(plan), run(replace(plan, real_keys=True))
    assert_held(real)
    assert (hashed.height, hashed.executed, hashed.steps) == (
        real.height,
        real.executed,
        real.steps,
    )
    assert hashed.trace != real.trace
