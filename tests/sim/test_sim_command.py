"""`fairlane sim`: its exit status, its lists, and the line that repeats a failed run."""

from __future__ import annotations

import json
import shlex

import pytest
from click.testing import CliRunner, Result

from ops.commands.sim import command, repeat_line
from ops.sim.liars import LIARS
from ops.sim.scenarios import SCENARIOS
from tests.sim import mutants

QUICK = ["--nodes", "4", "--seconds", "0.5", "--round-timer", "150"]


def sim(*words: str) -> Result:
    return CliRunner().invoke(command, list(words))


def test_a_run_that_holds_exits_with_0_and_says_what_it_came_to() -> None:
    done = sim(*QUICK, "--seed", "3", "--byzantine", "1:reverse", "--loss", "0.1")
    assert done.exit_code == 0, done.output
    assert "invariants   held" in done.output
    assert "trace" in done.output


def test_json_is_one_object_a_run() -> None:
    done = sim(*QUICK, "--seeds", "2", "--json")
    reports = [json.loads(line) for line in done.output.splitlines()]
    assert [report["seed"] for report in reports] == [1, 2]
    assert all(report["held"] and report["executed"] > 0 for report in reports)


def test_every_disturbance_can_be_asked_for_together() -> None:
    done = sim(
        *QUICK, "--seconds", "1.5", "--crash", "2", "--crash", "1:0.3:0.2", "--power-loss", "0.8",
        "--partition", "0.2-0.5:0,1|2,3", "--repeat", "0.05", "--slow", "0.05", "--storm", "0.1",
        "--delay", "2-9", "--skew", "200", "--byzantine", "3:stuff", "--rate", "20",
    )  # fmt: skip
    assert done.exit_code == 0, done.output


def test_a_run_that_breaks_exits_with_1_and_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weakened quorum forks; the printed line runs the same seed to the same violation."""
    monkeypatch.setattr("consensus.committee.quorum", mutants.quorum_2f1)
    words = ["--nodes", "5", "--seconds", "0.5", "--byzantine", "1:twin", "--seeds", "20"]
    first = sim(*words, "--seed", "4")
    assert first.exit_code == 1
    assert "BROKEN" in first.output
    line = next(x for x in first.output.splitlines() if x.startswith("repeat with: "))
    again = shlex.split(line.removeprefix("repeat with: "))
    assert again[:2] == ["fairlane", "sim"]
    second = sim(*again[2:])
    assert second.exit_code == 1
    violation = next(x for x in first.output.splitlines() if x.startswith("  ["))
    assert violation in second.output


def test_the_repeat_line_keeps_all_but_the_seeds() -> None:
    args = ["--seed=9", "--loss", "0.1", "--seeds", "50", "--json", "--partition", "0-1:0|1,2,3"]
    assert repeat_line(args, 17) == "fairlane sim --loss 0.1 --partition '0-1:0|1,2,3' --seed 17"


def test_the_list_names_every_behaviour_and_scenario() -> None:
    done = sim("--list")
    assert done.exit_code == 0
    for name in (*LIARS, *SCENARIOS):
        assert f"  {name} " in done.output


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--byzantine", "1:nonsense"), "1:nonsense"),
        (("--byzantine", "9:mute"), "not all among 4"),
        (("--byzantine", "1:mute", "--byzantine", "2:mute"), "2 liars among 4"),
        (("--crash", "7:0.1:0.1"), "node 7 cannot crash"),
        (("--crash", "1:0.4:5"), "ends after the calm"),
        (("--partition", "0-1:0,1"), "names each node once"),
        (("--partition", "x"), "no FROM-UNTIL"),
        (("--delay", "9-2"), "no delay"),
        (("--loss", "1.5"), "1.5"),
        (("--nodes", "3"), "3"),
        (("--seconds", "61"), "61"),
    ],
)
def test_a_run_that_makes_no_sense_is_refused_with_the_reason(
    words: tuple[str, ...], why: str
) -> None:
    done = sim(*QUICK, *words)
    assert done.exit_code == 2
    assert why in done.output
    assert "Traceback" not in done.output
