"""Hunts: seeds over processes, a planted bug found, shortened and repeated, a clean end."""

from __future__ import annotations

import json
import os
import shlex
import signal
from itertools import count

import msgspec
import pytest
from click.testing import CliRunner, Result

from ops.commands.sim import command
from ops.sim.hunt import Hunt, search
from ops.sim.options import Asked, campaign_plan
from ops.sim.plan import SHORT_DIALS, Plan
from ops.sim.planfile import read_plan
from ops.sim.report import run
from ops.sim.shrink import kind_of, shrink, weight
from tests.sim import mutants

CI_SEEDS = 200
QUIET = ["--seconds", "0.5", "--round-timer", "150"]


HASTY = msgspec.structs.replace(
    SHORT_DIALS, round_timer_ms=80, round_timer_max_ms=160, order_deadline_ms=100
)


def sim(*words: str) -> Result:
    return CliRunner().invoke(command, list(words))


def line_of(done: Result, start: str) -> list[str]:
    """Return the words of the command that the line beginning with `start` prints."""
    line = next(x for x in done.output.splitlines() if x.startswith(start))
    words = shlex.split(line.removeprefix(start))
    assert words[:2] == ["fairlane", "sim"]
    return words[2:]


def quiet_plan(seed: int) -> Plan:
    return Plan(nodes=4, seed=seed, duration_ms=0, parameters=HASTY, commands_per_s=20).with_calm()


def test_processes_only_divide_the_seeds() -> None:
    alone = search(quiet_plan, range(4), jobs=1)
    together = search(quiet_plan, range(4), jobs=2)
    assert alone.seeds == together.seeds == 4
    for name in ("steps", "blocks", "executed", "by_nodes", "blocks_least", "liars"):
        assert getattr(alone, name) == getattr(together, name)
    assert alone.held
    assert "4 seeds" in alone.line()


def test_a_seed_with_too_few_blocks_fails_and_enough_failures_end_a_hunt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ops.sim.hunt.FAILURES_MAX", 3)
    hunt = search(quiet_plan, range(1_000), jobs=1, blocks_min=10_000)
    assert hunt.seeds == len(hunt.failures) == 3
    assert not hunt.held


def test_a_planted_bug_is_found_shortened_and_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """2f+1 votes fork at n = 5: found among random liars, and shown by a shorter run."""
    monkeypatch.setattr("consensus.committee.quorum", mutants.quorum_2f1)
    words = ["--hunt", "5", "--nodes", "5", "--seed", "1", "--jobs", "1", "--shrink-seconds", "20"]
    monkeypatch.setattr("ops.sim.hunt.FAILURES_MAX", 1)
    done = sim(*words)
    assert done.exit_code == 1, done.output
    violation = next(x for x in done.output.splitlines() if x.startswith("    ["))
    again = sim(*line_of(done, "repeat with: "), "--no-shrink")
    assert again.exit_code == 1
    assert violation.strip() in again.output
    shorter = line_of(done, "shorter: ")
    assert weight(read_plan(shorter[1])) < weight(read_plan(line_of(done, "repeat with: ")[1]))
    shown = sim(*shorter, "--no-shrink")
    assert shown.exit_code == 1
    kind = violation.strip().partition("]")[0] + "]"
    assert kind in shown.output


def test_shrinking_drops_what_has_no_part_in_the_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit vote after a timeout needs slow links; most of a mixed run has no part in it."""
    monkeypatch.setattr("consensus.recovery.Safety", mutants.NoTimeoutCheck)
    plans = (campaign_plan(Asked(nodes=5), seed) for seed in range(40))
    plan, report = next((p, r) for p in plans if not (r := run(p)).held)
    shrunk = shrink(plan, report, seconds=8)
    assert kind_of(shrunk.report) == kind_of(report) == kind_of(run(shrunk.plan))
    assert weight(shrunk.plan) < weight(plan)
    assert len(shrunk.plan.faults) < len(plan.faults)


def test_json_tells_all_that_was_counted() -> None:
    done = sim("--campaign", "3", "--jobs", "1", "--json", *QUIET, "--nodes", "4")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.output)
    assert summary["held"] and summary["seeds"] == 3 and summary["by_nodes"] == {"4": 3}
    assert summary["steps"] > 0 and summary["steps_per_cpu_s"] > 0 and not summary["failures"]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupt_ends_a_hunt_with_its_summary(ending: signal.Signals, jobs: int) -> None:
    before = signal.getsignal(ending)

    def interrupt(hunt: Hunt) -> None:
        if hunt.seeds == 2:
            os.kill(os.getpid(), ending)

    hunt = search(quiet_plan, count(), jobs=jobs, on_progress=interrupt)
    assert hunt.interrupted and hunt.seeds >= 2
    assert hunt.as_json()["interrupted"] is True
    assert signal.getsignal(ending) == before


def short_form(seed: int) -> Plan:
    """As the campaign, with fewer of the larger networks: they cost three times as much."""
    nodes = 7 if seed % 10 == 0 else 5 if seed % 10 in (3, 6, 9) else 4
    return campaign_plan(Asked(nodes=nodes), seed)


@pytest.mark.slow
def test_two_hundred_seeds_of_everything_at_once_hold() -> None:
    """The short form of the campaign: f liars of random kinds, and all that can go wrong."""
    hunt: Hunt = search(short_form, range(CI_SEEDS), jobs=1, blocks_min=30)
    print(hunt.line())
    assert hunt.seeds == CI_SEEDS
    assert hunt.held, hunt.failures
