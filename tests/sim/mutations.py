"""Weakened rules, and the runs in which the simulator finds the harm that they do.

Those that fork only when several QCs stay hidden are left to Twins: `mutants.TWINS`, `DIRECTED`.

`python -m tests.sim.mutations [--seed S] [--runs K] [NAME ...]` searches each from random seeds and
prints a table: the long form of `test_mutations.py`.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import pytest

from consensus.committee import Parameters
from ops.sim.plan import NetworkDials, Plan
from ops.sim.report import finish
from ops.sim.world import World
from tests.consensus.test_fairorder_fairness import (
    CopelandAlone,
    DeadlineWithAllAncestors,
    ShadedBeforeTheLastSolid,
)
from tests.sim import mutants
from tests.sim.runs import QUICK, quick

RUNS_MAX = 20_000
FORKS = ("agreement", "order", "state", "halt")
STOPS = ("liveness", "recovery")
RESTLESS = NetworkDials(slow=0.2, slow_max_ms=500, storm=0.4, storm_ms=80, repeat=0.05)
SLOW = NetworkDials(slow=0.3, slow_max_ms=300, storm=0.4, storm_ms=80)
TORN = NetworkDials(slow=0.5, slow_max_ms=600, storm=0.6, storm_ms=60, storm_max_ms=600, loss=0.1)

Weaken = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True)
class Mutation:
    """A rule taken away, runs that fit it, and the harm that must show.

    `watch` is a check that stays on while the rule is back; `harm` looks at a finished run for
    what the audits do not hold against it. `seed` is where the short form begins;
    what is `long` is left to the long one.
    """

    weaken: Weaken
    plan: Callable[[int], Plan]
    kinds: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    seed: int = 0
    long: bool = False
    watch: Weaken = lambda _: None
    harm: Callable[[World], str | None] = lambda _: None

    def broken(self, seed: int) -> str | None:
        """Run one seed; say what harm it shows."""
        world = World(self.plan(seed), frozenset(self.ignored))
        report = finish(world)
        wanted = tuple(f"[{kind}]" for kind in self.kinds)
        shown = [v for v in report.violations if v.startswith(wanted)]
        return shown[0] if shown else self.harm(world)

    def found(self, seeds: Iterator[int], runs_max: int) -> tuple[int, int, str] | None:
        """Return (runs, seed, harm) of the first run that shows it; the rule is away already."""
        for runs in range(1, runs_max + 1):
            seed = next(seeds)
            harm = self.broken(seed)
            if harm is not None:
                return runs, seed, harm
        return None


# -- runs


def scene(name: str, nodes: int, *liars: str, **dials: object) -> Callable[[int], Plan]:
    """Return runs of a scenario with these liars, at places that the seed decides."""
    parameters = msgspec.structs.replace(QUICK, **dials)

    def plan(seed: int) -> Plan:
        drawn = random.Random(seed).sample(range(nodes), len(liars))
        chosen = dict(zip(drawn, liars, strict=True)) if liars else None
        return quick(name, nodes, seed, chosen, parameters)

    return plan


def restless(nodes: int, *liars: str) -> Callable[[int], Plan]:
    """Return runs on a network whose links are slow by turns, to the end of the attack."""

    def plan(seed: int) -> Plan:
        drawn = random.Random(seed).sample(range(nodes), len(liars))
        chosen = dict(zip(drawn, liars, strict=True))
        calm = quick("plain", nodes, seed, chosen, network=RESTLESS)
        return replace(calm, calm_ms=3_000).with_calm()

    return plan


def stormy(nodes: int) -> Callable[[int], Plan]:
    return lambda seed: quick("storm", nodes, seed, network=RESTLESS)


def crowded(
    nodes: int, liars: Sequence[str], parameters: Parameters, network: NetworkDials
) -> Callable[[int], Plan]:
    """Return runs in which many commands meet on torn links: fair order is tried there."""

    def plan(seed: int) -> Plan:
        rng = random.Random(seed)
        places = rng.sample(range(nodes), (nodes - 1) // 3)
        chosen = {place: rng.choice(liars) for place in places}
        calm = quick("plain", nodes, seed, chosen, parameters, network)
        return replace(calm, calm_ms=1_500, duration_ms=1, commands_per_s=200).with_calm()

    return plan


def power_beside(liar: str) -> Callable[[int], Plan]:
    """Return runs in which all but a liar of this kind lose power, three times."""

    def plan(seed: int) -> Plan:
        place = next(iter(quick("power-liar", 5, seed).liars))
        return quick("power-liar", 5, seed, {place: liar})

    return plan


def busy(plan: Callable[[int], Plan]) -> Callable[[int], Plan]:
    return lambda seed: replace(plan(seed), commands_per_s=150)


def many_echoes_lost(seed: int) -> Plan:
    """All lose power while an id is in one log, and in the others' queues for the next batch."""
    slow_batches = msgspec.structs.replace(QUICK, batch_interval_ms=150)
    return replace(quick("power", 4, seed, parameters=slow_batches), commands_per_s=200)


# -- rules taken away


def class_in(target: str, kind: type) -> Weaken:
    return lambda patch: patch.setattr(target, kind)


def without_guard(weaken: Weaken) -> Weaken:
    """Take away besides what stops a replica that hears its own key contradict itself."""

    def both(patch: pytest.MonkeyPatch) -> None:
        weaken(patch)
        patch.setattr("consensus.guard.Guard._unknown", lambda *_: None)

    return both


safety = "consensus.recovery.Safety"
context = "consensus.recovery.Context"
keeper = "consensus.replica.LogKeeper"
rounds = "consensus.replica.Rounds"
order = "consensus.sequencer.FairOrder"
CROWDED = msgspec.structs.replace(QUICK, batch_interval_ms=5)

MUTATIONS: dict[str, Mutation] = {
    # Forks.
    "quorum of 2f+1 at n = 5, a twin": Mutation(
        mutants.weaken_quorum, restless(5, "twin"), FORKS, ("certificate",)
    ),
    "quorum of 2f+1 at n = 5, an equivocator": Mutation(
        mutants.weaken_quorum, restless(5, "equivocate"), FORKS, ("certificate",)
    ),
    "commit vote without the check against hi_timeout": Mutation(
        class_in(safety, mutants.NoTimeoutCheck),
        stormy(4),
        ("two-statements", "blame", *FORKS),
        ("durability",),
    ),
    "commit vote that leaves the lock": Mutation(
        class_in(safety, mutants.LeavesLock),
        stormy(4),
        (*FORKS, *STOPS),
        ("durability", "blame", "refused"),
    ),
    "last voted round forgotten": Mutation(
        without_guard(class_in(safety, mutants.ForgetsVotes)),
        scene("power", 4),
        ("two-statements", "blame", *FORKS),
        ("durability",),
    ),
    # Stops.
    "lock raised only with a commit vote": Mutation(
        class_in(safety, mutants.LockOnlyWithCommitVote), stormy(4), STOPS, ("durability",)
    ),
    "votes before batches and bodies are on disk": Mutation(
        class_in(context, mutants.ForgetsData), power_beside("withhold"), STOPS, ("durability",)
    ),
    "votes before blocks are on disk": Mutation(
        class_in(context, mutants.ForgetsBlocks), power_beside("boast"), STOPS, ("durability",)
    ),
    "no answers to older rounds, bare timeouts": Mutation(
        class_in(rounds, mutants.NoAnswers), scene("loss", 5), STOPS
    ),
    "no echo after a commit": Mutation(
        class_in(keeper, mutants.NoRelog), many_echoes_lost, STOPS
    ),
    "batches judged by local clocks": Mutation(
        class_in(keeper, mutants.LocalClocks), scene("long-down", 4, "expire"), STOPS
    ),
    # Unfair orders.
    "shaded ids before the last solid one": Mutation(
        class_in(order, ShadedBeforeTheLastSolid),
        crowded(9, ("omit", "shuffle"), CROWDED, TORN),
        ("fairness",),
        ("liveness", "inclusion"),
        seed=3,
    ),
    "deadline with all ancestors": Mutation(
        class_in(order, DeadlineWithAllAncestors),
        crowded(5, ("withhold",), msgspec.structs.replace(CROWDED, order_deadline_ms=100), SLOW),
        ("fairness",),
        ("liveness", "inclusion"),
        long=True,
    ),
    "Copeland alone inside a batch": Mutation(
        class_in(order, CopelandAlone),
        busy(scene("plain", 5, "cycle")),
        (),
        harm=mutants.turned_around,
    ),
    "order by the leader's log": Mutation(
        class_in(order, mutants.LeadersOrder), scene("plain", 5, "reverse"), ("fairness",)
    ),
    # More.
    "no inclusion rule": Mutation(
        mutants.weaken_inclusion, scene("plain", 5, "leave-out"), ("inclusion",)
    ),
    "no quota of introduced commands": Mutation(
        mutants.weaken_quota,
        scene("plain", 5, "introduce", entries_max=25),
        ("liveness", "inclusion", "memory"),
    ),
    "command id over the signature": Mutation(
        mutants.weaken_ids,
        scene("plain", 4, "resign"),
        ("raised",),
        watch=mutants.watch_contents,
    ),
    "votes sent before the record is on disk": Mutation(
        without_guard(class_in(context, mutants.NoPromise)),
        scene("power", 4),
        ("two-statements", "blame", *FORKS),
        ("durability",),
    ),
    "ids forgotten at a restart": Mutation(
        mutants.weaken_memory, scene("crash", 4), ("twice", *FORKS)
    ),
}  # fmt: skip


def main() -> None:
    """Search every mutation from random seeds and print what it took."""
    words = argparse.ArgumentParser(description=main.__doc__)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--runs", type=int, default=RUNS_MAX)
    words.add_argument("names", nargs="*")
    given = words.parse_args()
    print("| taken away | runs until found | CPU s | what shows |\n|---|---|---|---|")
    for name, mutation in MUTATIONS.items():
        if given.names and not any(part in name for part in given.names):
            continue
        rng = random.Random(f"{given.seed} {name}")
        began = time.process_time()
        with pytest.MonkeyPatch.context() as patch:
            mutation.watch(patch)
            mutation.weaken(patch)
            seeds = (rng.randrange(1 << 30) for _ in range(given.runs))
            found = mutation.found(seeds, given.runs)
        cpu_s = time.process_time() - began
        runs, harm = (str(found[0]), found[2]) if found else (f"not in {given.runs}", "")
        print(f"| {name} | {runs} | {cpu_s:.1f} | {harm[:90].splitlines()[0] if harm else ''} |",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
