"""All Twins scenarios of a size: leaders x partitions in each of the first rounds.

Source: Bano et al., "Twins: BFT Systems Made Robust" (arXiv 2004.10617), section 4: scenario
generator.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from math import factorial

from ops.sim.twins.scenario import NAMED_ROUNDS_MAX, BadScenario, Scenario, Setting

CHOICES_MAX = 100_000
"""Ways in which one round may go."""
EXHAUSTIVE_MAX = 20_000_000
"""Scenarios that may be enumerated; beyond that they are sampled."""
RENAMED_MAX = 6
"""More honest nodes than these are not renamed: the renamings themselves would be too many."""

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """How one round may go: its leaders, one replica's nodes, and who hears whom."""

    leaders: tuple[int, ...]
    groups: Groups


def set_partitions(size: int, groups_max: int) -> Iterator[Groups]:
    """Yield each way to put `size` nodes into at most `groups_max` groups, none empty."""

    def place(node: int, groups: list[list[int]]) -> Iterator[Groups]:
        if node == size:
            yield tuple(map(tuple, groups))
            return
        for k in range(len(groups)):
            groups[k].append(node)
            yield from place(node + 1, groups)
            groups[k].pop()
        if len(groups) < groups_max:
            groups.append([node])
            yield from place(node + 1, groups)
            groups.pop()

    yield from place(0, [])


class Space:
    """Every scenario of `rounds` rounds, by number; and which are alike up to names.

    Honest nodes are interchangeable in the named rounds: renaming them renames the run. They are
    not in the rounds after, which replica (round mod n) leads whatever its name was before. So a
    class of scenarios alike up to names has one course of its named rounds, but each member goes
    on under another order of leaders. `representatives` gives one member a class, drawn by seed,
    so that all orders come up over a campaign; only `everything` runs each course with each.
    The two nodes of one key are never interchanged: they hear different batches.
    """

    def __init__(self, setting: Setting, rounds: int, groups_max: int) -> None:
        """Errors: BadScenario."""
        setting.check()
        if not 1 <= rounds <= NAMED_ROUNDS_MAX:
            raise BadScenario(f"{rounds} rounds; 1 to {NAMED_ROUNDS_MAX} can be named")
        self.setting, self.rounds = setting, rounds
        self.choices: list[Choice] = []
        for groups in set_partitions(setting.size, groups_max):
            for replica in range(setting.nodes):
                leaders = tuple(i for i in range(setting.size) if setting.replica(i) == replica)
                self.choices.append(Choice(leaders, groups))
            if len(self.choices) > CHOICES_MAX:
                raise BadScenario(f"a round may go in more than {CHOICES_MAX} ways")
        self._renamings = self._tables()

    @property
    def total(self) -> int:
        """How many scenarios there are."""
        return int(len(self.choices) ** self.rounds)

    @property
    def classes(self) -> int:
        """How many there are up to names of honest nodes. Source: Burnside's lemma."""
        fixed = (sum(k == to for k, to in enumerate(table)) for table in self._renamings)
        return sum(int(count**self.rounds) for count in fixed) // len(self._renamings)

    def _tables(self) -> list[list[int]]:
        """Return for each renaming of honest nodes which choice becomes which."""
        honest = self.setting.honest
        number = {choice: k for k, choice in enumerate(self.choices)}
        tables: list[list[int]] = []
        if factorial(len(honest)) > factorial(RENAMED_MAX):
            return [list(range(len(self.choices)))]
        for renamed in permutations(honest):
            name = dict(zip(honest, renamed, strict=True))
            tables.append([number[_renamed(choice, name)] for choice in self.choices])
        return tables

    def scenario(self, course: Sequence[int]) -> Scenario:
        """Return the scenario in which round k + 1 goes as choice `course[k]`."""
        chosen = [self.choices[k] for k in course]
        return Scenario(
            leaders={r: choice.leaders for r, choice in enumerate(chosen, 1)},
            partitions={r: choice.groups for r, choice in enumerate(chosen, 1)},
        )

    def everything(self) -> Iterator[tuple[int, ...]]:
        """Yield every course. Errors: BadScenario when there are too many."""
        if self.total > EXHAUSTIVE_MAX:
            raise BadScenario(f"{self.total} scenarios; sample some with --sample K")
        return product(range(len(self.choices)), repeat=self.rounds)

    def representatives(self, seed: int) -> Iterator[tuple[int, ...]]:
        """Yield one course a class, under names drawn from `seed`. Errors: as `everything`."""
        rng = random.Random(f"twins names {seed}")
        tables = self._renamings
        return (
            tuple(drawn[k] for k in course)
            for course in self.everything()
            if all(tuple(table[k] for k in course) >= course for table in tables)
            for drawn in (rng.choice(tables),)
        )

    def sample(self, count: int, seed: int, cut_percent: int = 0) -> Iterator[Scenario]:
        """Yield `count` scenarios, each drawn from all.

        With `cut_percent`, nodes also fail to hear others of their group, each pair in so many of
        a hundred cases: in some rounds none, in some twice as many. Voting rules are tried where
        only one node knows a thing in time.
        """
        rng = random.Random(f"twins {seed}")
        for _ in range(count):
            course = [rng.randrange(len(self.choices)) for _ in range(self.rounds)]
            scenario = self.scenario(course)
            if cut_percent:
                rounds = range(1, self.rounds + 1)
                firewall = {r: self._cuts(rng, rng.randrange(3) * cut_percent) for r in rounds}
                scenario = replace(scenario, firewall=firewall)
            yield scenario

    def _cuts(self, rng: random.Random, percent: int) -> dict[int, tuple[int, ...]]:
        nodes = range(self.setting.size)
        return {
            sender: tuple(i for i in nodes if i != sender and rng.randrange(100) < percent)
            for sender in nodes
        }


def _renamed(choice: Choice, name: dict[int, int]) -> Choice:
    groups = sorted(tuple(sorted(name.get(i, i) for i in group)) for group in choice.groups)
    return Choice(tuple(sorted(name.get(i, i) for i in choice.leaders)), tuple(groups))
