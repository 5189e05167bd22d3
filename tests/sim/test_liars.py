"""Every Byzantine behaviour against the core, alone and in company, on good and bad networks."""

from __future__ import annotations

import pytest

from ops.sim.liars import LIARS
from ops.sim.report import Report, run
from tests.sim.runs import LONG_FORM, assert_held, quick, seeds

SCENES = ("plain", "loss", "crash", "partition", "storm")
EVIDENCE = {
    "fork": "log_fork",
    "hydra": "log_fork",
    "two-votes": "vote",
}
"""What honest replicas must be able to prove against a liar who signs two things."""


def liar_run(kind: str, seed: int, scene: str, nodes: int) -> Report:
    liar = (seed + len(kind)) % nodes
    plan = quick(scene, nodes, seed, {liar: kind})
    report = run(plan)
    assert_held(report)
    assert not report.broken_liars, report.broken_liars
    return report


@pytest.mark.parametrize("kind", sorted(LIARS))
def test_no_liar_breaks_an_invariant(kind: str) -> None:
    """One scene each in the short form, by the liar's place in the list; all in the long one."""
    place = sorted(LIARS).index(kind)
    for seed in seeds(1):
        scenes = SCENES if LONG_FORM else (SCENES[place % len(SCENES)],)
        for scene in scenes:
            liar_run(kind, seed, scene, (4, 5)[place % 2])


@pytest.mark.parametrize("kind", sorted(EVIDENCE))
def test_who_signs_two_things_is_proved_to_be_a_liar(kind: str) -> None:
    report = liar_run(kind, 0, "plain", 5)
    found = {name.split(":")[0] for name in report.evidence}
    assert EVIDENCE[kind] in found


def test_two_different_liars_among_seven() -> None:
    for seed in seeds(1):
        assert_held(run(quick("liars", 7, seed)))
