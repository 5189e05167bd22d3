"""Twins: two nodes with one key. Scenarios hold, act on the core, and find weakened rules.

The long form runs every class of three rounds: `fairlane twins --generate --run`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from itertools import permutations

import pytest
from click.testing import CliRunner, Result

from ops.commands.twins import command
from ops.sim.twins import (
    BadScenario,
    Outcome,
    Scenario,
    Setting,
    Space,
    play,
    read_file,
    run_all,
    write_file,
)
from ops.sim.twins.arena import Arena
from ops.sim.twins.generate import Choice, set_partitions
from tests.sim import mutants

FOUR = Setting(nodes=4, twins=1)
SAMPLED = 5_000
SAMPLED_AT_ONCE = 1_000


def twins(*words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(command, list(words), input=stdin)


def document(*scenarios: object, nodes: int = 4, twins: int = 1) -> str:
    return json.dumps({"num_of_nodes": nodes, "num_of_twins": twins, "scenarios": list(scenarios)})


PUBLISHED = {
    "a partition and a firewall": document(
        {
            "round_leaders": {"3": [0]},
            "round_partitions": {"3": [[0, 1, 4], [2, 3]]},
            "firewall": {"5": {"1": [0, 2, 3]}},
        }
    ),
    "both twins lead": document(
        {
            "round_leaders": {"1": [0, 4], "2": [0, 4]},
            "round_partitions": {"1": [[0, 3, 4], [1, 2]], "2": [[0, 1, 4], [2, 3]]},
        },
        {
            "round_leaders": {"1": [0, 4], "2": [0, 4]},
            "round_partitions": {"1": [[0, 1], [2, 3, 4]], "2": [[0], [1, 2, 3, 4]]},
        },
    ),
    "no twins, one node deaf after the other": document(
        {
            "round_leaders": {str(r): [r % 3] for r in range(3, 12)},
            "round_partitions": {
                str(r): [[0, 2, 3], [1]] if r % 2 else [[0, 1, 3], [2]] for r in range(6, 12)
            },
            "firewall": {"5": {"1": [0, 2, 3]}, "7": {"2": [0, 1, 3]}, "9": {"1": [0, 2, 3]}},
        },
        twins=0,
    ),
    "two of seven are there twice": document(
        {
            "round_leaders": {"1": [0, 7], "2": [1, 8], "3": [8]},
            "round_partitions": {"1": [[0, 1, 2, 3, 4], [5, 6, 7, 8]], "3": [[0, 1, 2], [3, 4]]},
        },
        nodes=7,
        twins=2,
    ),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_scenarios_in_the_published_format_hold(name: str) -> None:
    done = twins("-", "--json", stdin=PUBLISHED[name])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.output)
    assert figures["held"] and figures["run"] == figures["scenarios"]
    assert figures["blocks"] > 0


@pytest.mark.parametrize("part", range(SAMPLED // SAMPLED_AT_ONCE))
@pytest.mark.slow
def test_sampled_scenarios_of_three_rounds_hold(part: int) -> None:
    space = Space(FOUR, rounds=3, groups_max=2)
    tally = run_all(FOUR, space.sample(SAMPLED_AT_ONCE, seed=part))
    print(f"{tally.run} of {space.total}: {tally.equivocations} lies proved, "
          f"{1_000 * tally.cpu_s / tally.run:.1f} ms each")  # fmt: skip
    assert tally.failed == 0, tally.failures
    assert tally.run == SAMPLED_AT_ONCE
    assert tally.equivocations > SAMPLED_AT_ONCE // 2
    assert tally.executed > SAMPLED_AT_ONCE // 2
    assert tally.broken_twins == 0


@pytest.mark.parametrize(("nodes", "twins_"), [(5, 1), (7, 2)])
def test_sampled_scenarios_of_larger_networks_with_deaf_pairs_hold(nodes: int, twins_: int) -> None:
    setting = Setting(nodes, twins_)
    tally = run_all(setting, Space(setting, 5, 2).sample(100, seed=nodes, cut_percent=20))
    assert tally.failed == 0, tally.failures


# -- that the scenario acts on the core


def committed_rounds(scenario: Scenario) -> tuple[Arena, set[int]]:
    arena = Arena(FOUR, scenario)
    outcome = arena.run()
    assert outcome.held, outcome.violations
    core = arena.nodes[1].core
    block, rounds = core.tip[0], set[int]()
    while block.height:
        rounds.add(block.round)
        parent = core.ctx.tree.parent(block)
        assert parent is not None
        block = parent
    return arena, rounds


def test_a_round_without_a_quorum_in_any_group_commits_nothing_and_ends() -> None:
    _, rounds = committed_rounds(Scenario(partitions={2: ((0, 1, 4), (2, 3))}))
    assert {1, 3} <= rounds
    assert 2 not in rounds


def test_the_named_leader_proposes_and_nobody_else() -> None:
    """Round 1 is 1's turn; 3 is named, and deaf-mute: so the round fails."""
    silent = Scenario(leaders={1: (3,)}, firewall={1: {3: (0, 1, 2, 4)}})
    _, rounds = committed_rounds(silent)
    assert 1 not in rounds
    _, rounds = committed_rounds(Scenario(firewall={1: {3: (0, 1, 2, 4)}}))
    assert 1 in rounds


def test_a_twin_that_is_not_named_as_a_leader_keeps_quiet() -> None:
    lone, _ = committed_rounds(Scenario(leaders=dict.fromkeys(range(1, 6), (0,))))
    both, _ = committed_rounds(Scenario(leaders=dict.fromkeys(range(1, 6), (0, 4))))
    kinds = [{kind for kind, _, _ in arena._evidence} for arena in (lone, both)]
    assert "proposal" not in kinds[0]
    assert "proposal" in kinds[1], "two leaders with one key propose different blocks"


def test_a_firewall_cuts_one_direction_only() -> None:
    """Nobody hears 1 in round 3: its vote is missing there, it hears the others'."""
    arena = Arena(FOUR, Scenario(firewall={2: {1: (0, 2, 3, 4)}}))
    assert arena.run().held
    votes_heard = arena.nodes[2].core.rounds._votes._votes[2]
    assert 1 not in votes_heard and 3 in votes_heard
    assert 2 in arena.nodes[1].core.rounds._votes._votes[2]


def test_the_same_scenario_runs_the_same() -> None:
    [scenario] = Space(FOUR, 4, 2).sample(1, seed=5, cut_percent=20)
    assert play(FOUR, scenario) == play(FOUR, scenario)


# -- enumeration


def test_three_rounds_of_four_nodes_and_a_twin_are_as_many_as_in_the_paper() -> None:
    space = Space(FOUR, 3, 2)
    assert len(space.choices) == 4 * 16
    assert space.total == 262_144
    assert space.classes == 45_760


@pytest.mark.parametrize(
    ("size", "groups_max", "count"), [(5, 1, 1), (5, 2, 16), (5, 3, 41), (6, 2, 32), (4, 4, 15)]
)
def test_set_partitions_are_as_many_as_stirling_says(
    size: int, groups_max: int, count: int
) -> None:
    found = list(set_partitions(size, groups_max))
    assert len(found) == len(set(found)) == count
    assert all(sorted(i for g in groups for i in g) == list(range(size)) for groups in found)


def test_representatives_are_one_of_each_class() -> None:
    """Against a slow enumeration of the classes by renaming whole scenarios."""
    space = Space(FOUR, 2, 2)
    classes = {alike(space, course) for course in space.everything()}
    chosen = [alike(space, course) for course in space.representatives(seed=3)]
    assert len(chosen) == len(set(chosen)) == len(classes) == space.classes
    assert set(chosen) == classes


def alike(space: Space, course: Iterable[int]) -> frozenset[tuple[object, ...]]:
    honest = space.setting.honest
    chosen = [space.choices[k] for k in course]
    every: set[tuple[object, ...]] = set()
    for names in permutations(honest):
        name = {
            **{i: i for i in range(space.setting.size)},
            **dict(zip(honest, names, strict=True)),
        }
        every.add(tuple(_named(choice, name) for choice in chosen))
    return frozenset(every)


def _named(choice: Choice, name: dict[int, int]) -> tuple[object, ...]:
    leaders = frozenset(name[i] for i in choice.leaders)
    return leaders, frozenset(frozenset(name[i] for i in group) for group in choice.groups)


def test_a_written_file_is_read_back() -> None:
    scenarios = list(Space(FOUR, 3, 2).sample(20, seed=1, cut_percent=30))
    setting, again = read_file(write_file(FOUR, scenarios))
    assert setting == FOUR
    assert again == scenarios


def test_more_processors_come_to_the_same() -> None:
    scenarios = list(Space(FOUR, 3, 2).sample(100, seed=8))
    one, two = run_all(FOUR, scenarios, jobs=1), run_all(FOUR, scenarios, jobs=2)
    one.cpu_s = two.cpu_s = 0.0
    assert one == two


# -- weakened rules


def hunt(space: Space, seed: int, runs_max: int, cut_percent: int) -> tuple[int, Outcome]:
    """Return in how many scenarios a fork was found; what announces one is passed over."""
    ignored = frozenset({"certificate", "blame", "refused", "liveness"})
    scenarios = space.sample(runs_max, seed, cut_percent)
    for number, scenario in enumerate(scenarios, 1):
        outcome = play(space.setting, scenario, ignored)
        if not outcome.held:
            assert "agreement" in outcome.violations[0] or "halt" in outcome.violations[0]
            return number, outcome
    pytest.fail(f"no fork in {runs_max} scenarios")


@pytest.mark.parametrize("name", sorted(mutants.TWINS))
def test_twins_find_a_weakened_rule(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = mutants.TWINS[name]
    space = Space(Setting(mutant.nodes, 1), mutant.rounds, mutant.groups_max)
    if mutant.twins_lead:
        led = [choice for choice in space.choices if 0 in choice.leaders]
        space.choices = led * mutant.twins_lead + space.choices
    with monkeypatch.context() as patch:
        mutant.weaken(patch)
        number, outcome = hunt(space, mutant.seed, mutant.runs_max, mutant.cut_percent)
    print(f"{name}: found in {number} scenarios: {outcome.violations[0]}")


@pytest.mark.parametrize("name", sorted(mutants.DIRECTED))
def test_a_scenario_made_for_a_rule_forks_without_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weaken, scenario = mutants.DIRECTED[name]
    with monkeypatch.context() as patch:
        weaken(patch)
        outcome = play(FOUR, scenario, frozenset({"blame", "liveness"}))
        assert outcome.violations and "[agreement]" in outcome.violations[0]
    assert play(FOUR, scenario).held


def test_a_scenario_that_breaks_exits_with_1_and_is_repeated_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("consensus.committee.quorum", mutants.quorum_2f1)
        words = ("--generate", "--nodes", "5", "--rounds", "4", "--sample", "250", "--run")
        first = twins(*words)
        assert first.exit_code == 1, first.output
        assert "BROKEN" in first.output
        line = next(x for x in first.output.splitlines() if x.startswith("repeat with: "))
        said = shlex.split(line.removeprefix("repeat with: "))
        assert said[0] == "printf" and said[-3:] == ["fairlane", "twins", "-"]
        again = twins("-", stdin=said[2])
        assert again.exit_code == 1
        assert "1 run, 1 failed" in again.output
        violation = next(x for x in first.output.splitlines() if x.startswith("  ["))
        assert violation in again.output
    assert twins("-", stdin=said[2]).exit_code == 0, "the tree's own rules hold on it"


# -- files and words that make no sense


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "truncated"),
        ("[1]", "Expected `object`"),
        ('{"num_of_nodes":4,"num_of_twins":1}', "missing required field `scenarios`"),
        (document(), "`scenarios` is empty"),
        (document({}, nodes=3), "num_of_nodes is 3"),
        (document({}, nodes=32), "num_of_nodes is 32"),
        (document({}, twins=4), "num_of_twins is 4"),
        (document({"round_leader": {}}), "unknown field `round_leader`"),
        (document({"round_leaders": {"x": [0]}}), "Expected `int`"),
        (document({"round_leaders": {"1": [5]}}), "scenario 1: leaders of round 1: there is no"),
        (document({}, {"round_leaders": {"1": []}}), "scenario 2: leaders of round 1: nobody"),
        (document({"round_leaders": {"1": [0, 1]}}), "[0, 1] are not twins"),
        (document({"round_partitions": {"1": [[0, 1], [1]]}}), "a node stands twice"),
        (document({"firewall": {"1": {"7": [0]}}}), "there is no node 7"),
        (document({"firewall": {"1": {"0": [-1]}}}), "there is no node -1"),
        (document({"round_leaders": {"0": [0]}}), "round 0; rounds are 1 to 1000"),
        (document({"round_leaders": {str(r): [0] for r in range(1, 70)}}), "69 rounds are named"),
        ("[" * 5_000, "Expected `object`"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_the_reason(text: str, why: str) -> None:
    done = twins("-", stdin=text)
    assert done.exit_code == 2, done.output
    assert why in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "either a FILE or --generate"),
        (("-", "--generate"), "either a FILE or --generate"),
        (("--generate", "--nodes", "3"), "num_of_nodes is 3"),
        (("--generate", "--twins", "9"), "num_of_twins is 9"),
        (("--generate", "--rounds", "0"), "0 rounds"),
        (("--generate", "--rounds", "9", "--run"), "sample some with --sample K"),
        (("--generate", "--nodes", "31", "--twins", "10"), "may go in more than"),
        (("--generate", "--cuts", "10"), "only with --sample"),
    ],
)
def test_words_that_make_no_sense_are_refused(words: tuple[str, ...], why: str) -> None:
    done = twins(*words, stdin="{}")
    assert done.exit_code == 2, done.output
    assert why in " ".join(done.output.split())


def test_generated_scenarios_can_be_written_and_run_from_the_file(tmp_path: object) -> None:
    path = f"{tmp_path}/some.json"
    done = twins("--generate", "--rounds", "2", "--sample", "30", "--out", path)
    assert done.exit_code == 0
    assert "total            4096" in done.output
    again = twins(path, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.output)["run"] == 30


def test_a_setting_beyond_the_bounds_is_no_setting() -> None:
    with pytest.raises(BadScenario):
        Setting(4, -1).check()
