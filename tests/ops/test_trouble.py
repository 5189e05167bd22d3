"""Whom a hunt kills: never more than it may, except in a storm, and nobody for ever."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, cast

import pytest

from ops.devnet.processes import Child
from ops.devnet.trouble import STORM_EVERY, Trouble
from ops.devnet.watch import Watch


class Process:
    """A process that runs until it is killed."""

    def __init__(self) -> None:
        self.alive = True

    def poll(self) -> int | None:
        return None if self.alive else -9


class Status:
    """What a node says of itself."""

    def __init__(self, syncing: bool) -> None:
        self.syncing = syncing


def hunt(nodes: int, seed: int) -> tuple[Trouble, list[Child], list[Any]]:
    children = [Child(f"node {i}", [], Path()) for i in range(nodes)]
    processes = [Process() for _ in children]
    watch = Watch([""] * nodes)
    for child, process, record in zip(children, processes, watch.nodes, strict=True):
        child.process, child.ready = cast(Any, process), True
        record.status = cast(Any, Status(False))
    return Trouble(children, watch, lambda _: None, [], seed), children, watch.nodes


@pytest.mark.parametrize(("nodes", "f"), [(4, 1), (5, 1), (7, 2)])
def test_a_hunt_keeps_a_quorum_up_but_in_storms_and_lets_everybody_return(
    nodes: int, f: int
) -> None:
    """Each node passes from down over starting and catching up to up; seeds 0 to 9."""
    storms = hits = 0
    for seed in range(10):
        rng = random.Random(seed)
        trouble, children, records = hunt(nodes, seed)
        interrupted = [0] * nodes
        for _ in range(400):
            storm = rng.randrange(STORM_EVERY) == 0
            up = [c.ready and not r.status.syncing for c, r in zip(children, records, strict=True)]
            victims = trouble._victims(rng, f, storm)
            places = [children.index(victim) for victim in victims]
            after = nodes - sum(up) + sum(up[place] for place in places)
            assert after <= max(f + storm, nodes - sum(up)), "never more than may be down"
            storms += after > f
            for place in places:
                hits += not up[place]
                interrupted[place] = 0 if up[place] else interrupted[place] + 1
                assert interrupted[place] <= 1, "once while it comes back"
                children[place].ready = False
                cast(Any, children[place].process).alive = False
            for place, (child, record) in enumerate(zip(children, records, strict=True)):
                if rng.random() < 0.5:  # One step back towards being up.
                    process = cast(Any, child.process)
                    if not process.alive:
                        process.alive = True
                    elif not child.ready:
                        child.ready, record.status.syncing = True, True
                    else:
                        record.status.syncing = False
                        interrupted[place] = 0
    assert storms > 10, "there are moments with more than f down"
    assert hits > 10, "and kills of nodes that are just starting"
