"""The simulator finds every weakened rule, and the harm that it does; `-s` prints in how many runs.

Each mutation takes one rule out of a production class for the length of a test. What it breaks
is looked for under an adversary that fits it. What the audits would notice at once without any
harm done (a certificate of three, a vote before its data is durable) is ignored, so that what is
found is the harm. The long form is `python -m tests.sim.mutations`.
"""

from __future__ import annotations

from itertools import count

import pytest

from tests.sim.mutations import MUTATIONS
from tests.sim.runs import LONG_FORM

RUNS_MAX = 30


@pytest.mark.parametrize("name", [n for n, m in MUTATIONS.items() if LONG_FORM or not m.long])
def test_a_weakened_rule_is_found_and_the_rule_itself_holds(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation = MUTATIONS[name]
    mutation.watch(monkeypatch)
    with monkeypatch.context() as patch:
        mutation.weaken(patch)
        found = mutation.found(count(mutation.seed), RUNS_MAX)
    assert found is not None, f"not found in {RUNS_MAX} runs from seed {mutation.seed}"
    runs, seed, harm = found
    print(f"{name}: found in {runs} runs: {harm}")
    assert mutation.broken(seed) is None, f"the tree's own rules break at seed {seed} too"
