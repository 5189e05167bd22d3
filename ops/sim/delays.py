"""How long a command waits for its order when some replicas keep it out of their logs.

For each number of censors, from none to f, the same seeds: from the moment at which the first
honest log holds the victim's command to its execution, in rounds and in virtual milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from consensus.command import CommandId
from consensus.committee import faults
from ops.sim.liars.logs import Censor
from ops.sim.plan import SHORT_DIALS, Plan
from ops.sim.report import finish
from ops.sim.world import World

QUICK = msgspec.structs.replace(SHORT_DIALS, batch_interval_ms=20, block_interval_ms=30)
SECONDS = 5
RATE = 60


class Broken(AssertionError):
    """A run that was to be measured broke an invariant."""


@dataclass(frozen=True, slots=True)
class Delays:
    """What the victim's commands waited, with so many censors of n. Units: rounds, milliseconds."""

    nodes: int
    censors: int
    commands: int
    rounds_mean: float
    rounds_p99: int
    rounds_max: int
    ms_mean: float
    ms_p99: int
    ms_max: int


def measure(nodes: int, censors: int, seeds: Iterable[int]) -> Delays:
    """Return the delays over `seeds`. Errors: Broken."""
    rounds: list[int] = []
    waits_ms: list[int] = []
    for seed in seeds:
        for in_rounds, in_ms in _delays(nodes, censors, seed):
            rounds.append(in_rounds)
            waits_ms.append(in_ms)
    rounds.sort()
    waits_ms.sort()
    count = len(rounds)
    assert count, "clients send commands in every run"
    return Delays(
        nodes=nodes,
        censors=censors,
        commands=count,
        rounds_mean=sum(rounds) / count,
        rounds_p99=rounds[count * 99 // 100],
        rounds_max=rounds[-1],
        ms_mean=sum(waits_ms) / count,
        ms_p99=waits_ms[count * 99 // 100],
        ms_max=waits_ms[-1],
    )


def _delays(nodes: int, censors: int, seed: int) -> list[tuple[int, int]]:
    """Return (rounds, milliseconds) for each of the victim's commands in one run."""
    # Spread over the circle of leaders; which seats they have is the seed's.
    liars = {(seed + k * nodes // max(censors, 1)) % nodes: Censor.name for k in range(censors)}
    plan = Plan(
        nodes=nodes,
        seed=seed,
        duration_ms=SECONDS * 1_000,
        parameters=QUICK,
        liars=liars,
        commands_per_s=RATE,
    )
    world = World(plan)
    held: dict[CommandId, tuple[int, int]] = {}
    world.audits.receipts.on_first = lambda id_: held.setdefault(
        id_, (_round(world), world.loop.now_us)
    )
    rounds: dict[CommandId, int] = {}
    world.chain.on_emitted = lambda id_: rounds.setdefault(id_, _round(world))
    report = finish(world)
    if not report.held:
        raise Broken(f"n={nodes}, {censors} censors, seed {seed}: {report.violations}")
    found: list[tuple[int, int]] = []
    for id_, (round_, at_us) in held.items():
        if world.clients.sender_of(id_) == Censor.victim and id_ in world.chain.emitted_us:
            wait_us = world.chain.emitted_us[id_] - at_us
            found.append((rounds[id_] - round_, wait_us // 1_000))
    return found


def _round(world: World) -> int:
    """Return the highest round of any honest replica."""
    cores = (host.core for host in world.hosts if host.is_honest)
    return max((core.rounds.round for core in cores if core is not None), default=0)


def table(sizes: Iterable[int], seeds: range) -> str:
    """Return the delays for each size with none to f censors, as a Markdown table."""
    lines = [
        "| n | censors | commands | rounds: mean | p99 | max | ms: mean | p99 | max |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for nodes in sizes:
        for censors in range(faults(nodes) + 1):
            d = measure(nodes, censors, seeds)
            lines.append(
                f"| {nodes} | {censors} | {d.commands} | {d.rounds_mean:.2f} | {d.rounds_p99} | "
                f"{d.rounds_max} | {d.ms_mean:.0f} | {d.ms_p99} | {d.ms_max} |"
            )
    return "\n".join(lines)
