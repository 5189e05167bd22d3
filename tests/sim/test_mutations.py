"""The simulator catches weakened protocols within few seeds; `-s` prints in how many.

Each mutation takes one rule out of a production class for the length of a test. What it breaks
is looked for under an adversary that fits it. What the audits would notice at once without any
harm done (a certificate of three, a vote before its data is durable) is ignored, so that what is
found is the harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec
import pytest

from ops.sim.liars.base import Shameless
from ops.sim.plan import NetworkDials, Plan
from ops.sim.report import run
from tests.sim import mutants
from tests.sim.runs import QUICK, assert_held, hunt, quick

SEEDS_MAX = 30
FORKS = ("agreement", "order", "state", "halt")
STOPS = ("liveness", "recovery")
RESTLESS = NetworkDials(slow=0.2, slow_max_ms=500, storm=0.4, storm_ms=80, repeat=0.05)


def caught(plan: Callable[[int], Plan], kinds: tuple[str, ...], ignored: tuple[str, ...]) -> Plan:
    """Return the run on which the mutation shows; the test fails if none does."""
    plans: Iterator[Plan] = (plan(seed) for seed in range(SEEDS_MAX))
    report = hunt(plans, kinds, ignored)
    assert report is not None, f"not caught in {SEEDS_MAX} seeds"
    print(f"caught in {report.seed + 1} seeds: {report.violations[0]}")
    return plan(report.seed)


def restless(liar: str) -> Callable[[int], Plan]:
    def plan(seed: int) -> Plan:
        calm = quick("plain", 5, seed, {seed % 5: liar}, network=RESTLESS)
        return replace(calm, calm_ms=3_000).with_calm()

    return plan


@pytest.mark.parametrize("liar", ["twin", "equivocate"])
def test_a_quorum_of_2f1_forks_at_five_replicas(monkeypatch: pytest.MonkeyPatch, liar: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("consensus.committee.quorum", mutants.quorum_2f1)
        plan = caught(restless(liar), FORKS, ignored=("certificate",))
    assert_held(run(plan))


def test_a_lock_raised_only_with_a_commit_vote_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(seed: int) -> Plan:
        return quick("storm", 4, seed, network=RESTLESS)

    with monkeypatch.context() as patch:
        patch.setattr("consensus.recovery.Safety", mutants.LockOnlyWithCommitVote)
        shown = caught(plan, STOPS, ignored=("durability",))
    assert_held(run(shown))


def test_votes_without_durable_batches_and_bodies_stop_after_a_power_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def plan(seed: int) -> Plan:
        liar = next(iter(quick("power-liar", 5, seed).liars))
        return quick("power-liar", 5, seed, {liar: "withhold"})

    with monkeypatch.context() as patch:
        patch.setattr("consensus.recovery.Context", mutants.ForgetsData)
        shown = caught(plan, STOPS, ignored=("durability",))
    assert_held(run(shown))


def test_a_commit_vote_after_a_timeout_contradicts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(seed: int) -> Plan:
        return quick("storm", 4, seed, network=RESTLESS)

    with monkeypatch.context() as patch:
        patch.setattr("consensus.recovery.Safety", mutants.NoTimeoutCheck)
        shown = caught(plan, ("two-statements", "blame", *FORKS), ignored=("durability",))
    assert_held(run(shown))


def test_a_forgotten_last_vote_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(seed: int) -> Plan:
        return quick("power", 4, seed)

    with monkeypatch.context() as patch:
        patch.setattr("consensus.recovery.Safety", mutants.ForgetsVotes)
        # Else it would hear of its vote from its peers, and be silent: tests/sim/test_guard.py.
        patch.setattr("consensus.replica.Guard", Shameless)
        shown = caught(plan, ("two-statements", "blame", *FORKS), ignored=("durability",))
    assert_held(run(shown))


def test_without_echo_after_commits_receipts_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """All lose power while an id is in one log, and in the others' queues for the next batch."""

    def plan(seed: int) -> Plan:
        slow_batches = msgspec.structs.replace(QUICK, batch_interval_ms=150)
        return replace(quick("power", 4, seed, parameters=slow_batches), commands_per_s=200)

    with monkeypatch.context() as patch:
        patch.setattr("consensus.replica.LogKeeper", mutants.NoRelog)
        shown = caught(plan, STOPS, ignored=())
    assert_held(run(shown))


def test_without_answers_and_certificates_in_timeouts_a_network_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each alone keeps a network going, since timeouts are repeated; both gone, none does."""

    def plan(seed: int) -> Plan:
        return quick("loss", 5, seed)

    with monkeypatch.context() as patch:
        patch.setattr("consensus.replica.Rounds", mutants.NoAnswers)
        shown = caught(plan, STOPS, ignored=())
    assert_held(run(shown))
