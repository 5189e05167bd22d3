"""The voting rules as a formal model: all states of small networks, and each rule taken away.

`make model` prints the counts, `make model ARGS=--long` searches larger ones.
"""

from __future__ import annotations

import pytest

from tests.consensus.safety_search import Search
from tests.formal.spin import BROKEN, SOUND, Check, missing, run, size

LACKING = missing()
pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))


@pytest.mark.parametrize("name", SOUND)
def test_every_reachable_state_keeps_what_is_claimed(name: str) -> None:
    verdict = run(SOUND[name])
    print(f"{name}: {verdict}")
    assert verdict.whole
    assert not verdict.failed, "\n".join(verdict.steps)


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_taken_away_gives_a_counterexample(name: str) -> None:
    verdict = run(BROKEN[name])
    print(f"{name}: {verdict}", *verdict.steps, sep="\n  ")
    assert verdict.failed
    assert verdict.steps, "a counterexample that can be read"


def test_symmetry_keeps_one_state_of_up_to_six() -> None:
    """Three honest replicas have six orders: the reduction loses nothing else."""
    apart = run(SOUND["two rounds, two proposals each"])
    alike = run(SOUND["two rounds, two proposals each, one state of those alike"])
    assert alike.states < apart.states <= 6 * alike.states


@pytest.mark.parametrize(("n", "slots"), [(4, 1), (4, 2), (5, 1)])
def test_the_model_and_the_code_have_the_same_states(n: int, slots: int) -> None:
    """Two searches that share no line: one of Promela, one of the production class."""
    model = run(Check(size(2, slots, "SYMMETRY", f"HONEST={n - 1}")))
    code = Search(2, slots, n=n, reduced=True).run(100_000)
    print(f"n={n}, {slots} proposals a round: {model.states} and {code.states} states")
    assert model.whole and code.whole
    assert model.states == code.states
