"""Every Byzantine behaviour against the core: it lies, is seen to, and breaks nothing.

`FAIRLANE_SIM_SEEDS=K` is the long form: every behaviour on every scene, with K seeds.
"""

from __future__ import annotations

import random

import pytest

from consensus.messages import StateObjects
from ops.sim.liars import LIARS
from ops.sim.liars.answers import BadState
from ops.sim.report import Report, finish, run
from ops.sim.world import World
from tests.sim.runs import LONG_FORM, assert_held, quick, seeds

SCENES = ("plain", "loss", "crash", "partition", "storm")
NEEDS = {"drip": "long-down", "turncoat": "storm", "seen-low": "loss", "seen-high": "loss"}
"""Behaviours that have something to lie about only when the network is so disturbed."""
NEEDS |= {"boast": "loss", "ghost": "loss", "bodyless": "loss", "resign": "loss"}
EVIDENCE = {
    "fork": "log_fork",
    "hydra": "log_fork",
    "twin": "vote",
    "two-votes": "vote",
}
"""What honest replicas must be able to prove against a liar who signs two things."""
REFUSED = {
    "babble": "malformed",
    "echo": "sent by another",
    "epoch": "another epoch",
    "forge-qc": "certificate without a quorum",
    "introduce": "introduces too many commands",
    "mirror": "vote sent by another than its voter",
}
"""What the door says of frames that no honest replica sends."""
BLAMED = {
    "leave-out": "left out",
    "stale": "does not follow from its certificates",
    "wrong-state": "executed",
}
"""What voters say of a leader whose proposal they refuse."""
ALONE_UNSEEN = frozenset({"bad-state"})
"""Tested by itself below: short runs never ask for a snapshot."""


def liar_world(kind: str, seed: int, scene: str, nodes: int) -> tuple[World, Report, int]:
    liar = (seed + len(kind)) % nodes
    world = World(quick(scene, nodes, seed, {liar: kind}))
    report = finish(world)
    assert_held(report)
    assert not report.broken_liars, report.broken_liars
    return world, report, liar


@pytest.mark.skipif(not LONG_FORM, reason="the long form")
@pytest.mark.parametrize("kind", sorted(LIARS))
def test_no_liar_breaks_an_invariant_anywhere(kind: str) -> None:
    for seed in seeds(1):
        for scene in SCENES:
            for nodes in (4, 5, 7):
                liar_world(kind, seed, scene, nodes)


@pytest.mark.parametrize("kind", sorted(set(LIARS) - ALONE_UNSEEN))
def test_every_liar_lies_is_seen_and_breaks_nothing(kind: str) -> None:
    """One scene each: one where the lie shows, else by the liar's place in the list."""
    shows = kind in EVIDENCE | REFUSED | BLAMED
    scene = NEEDS.get(kind, "plain" if shows else SCENES[sorted(LIARS).index(kind) % len(SCENES)])
    world, report, liar = liar_world(kind, 0, scene, 5)
    host = world.hosts[liar].liar
    assert host is not None and host.lies > 0
    carrier = world.carrier
    if kind in EVIDENCE:
        assert f"{EVIDENCE[kind]}:{liar}" in report.evidence
    if kind in REFUSED:
        assert any(p == liar and REFUSED[kind] in why for p, why in carrier.refused)
    if kind in BLAMED:
        assert any(p == liar and BLAMED[kind] in why for p, why in carrier.blamed)


def test_bad_state_is_not_what_was_asked_for() -> None:
    world = World(quick("plain", 4, 0, {1: "bad-state"}))
    liar = world.hosts[1].liar
    assert isinstance(liar, BadState)
    truth = StateObjects(7, (b"chunk", b"", b"another"))
    [(_, told)] = liar.say(0, truth)
    assert isinstance(told, StateObjects)
    assert told.objects != truth.objects
    assert [len(each) for each in told.objects] == [5, 0, 7]


def test_every_behaviour_says_what_it_does_in_a_line() -> None:
    for name, kind in LIARS.items():
        assert name == kind.name
        assert 10 < len(kind.about) <= 80, kind.about


def test_rolling_cycles_make_batches_of_many() -> None:
    """Without the client who makes them hardly any ids are tied together."""

    def tied(kind: str) -> int:
        world = World(quick("plain", 5, 1, {2: kind}))
        assert_held(finish(world))
        numbers = [number for number, _ in world.chain.emission]
        return len(numbers) - len(set(numbers))

    assert tied("cycle") > 30 > 5 * tied("mute")


@pytest.mark.parametrize("nodes", [7, 10])
def test_as_many_different_liars_as_can_be_borne(nodes: int) -> None:
    for seed in seeds(1):
        rng = random.Random(seed)
        kinds = rng.sample(sorted(LIARS), (nodes - 1) // 3)
        chosen = rng.sample(range(nodes), len(kinds))
        assert_held(run(quick("plain", nodes, seed, dict(zip(chosen, kinds, strict=True)))))
