"""Shrinking: from a run that breaks an invariant to a shorter one that breaks the same.

Greedy: each pass proposes plans with something taken away, and the first that still shows a
violation of the same kind is kept. Since any change moves all that chance decides, each proposal
is tried with a few seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import monotonic

import msgspec

from consensus.committee import faults
from ops.sim.plan import Fault, MachineDials, NetworkDials, Partition, Plan, PowerLoss
from ops.sim.report import Report, run

SEEDS_PER_PROPOSAL = 4
RUNS_MAX = 2_000

Run = Callable[[Plan], Report]


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The shortest failing run found, what it shows, and in how many runs it was found."""

    plan: Plan
    report: Report
    runs: int


def kind_of(report: Report) -> str | None:
    """Return the kind of a report's first violation, or None."""
    if not report.violations:
        return None
    return report.violations[0].partition("]")[0].lstrip("[")


def weight(plan: Plan) -> int:
    """Return how much there is in a plan, to compare two."""
    quiet = NetworkDials()
    network: int = sum(bool(getattr(plan.network, name) != getattr(quiet, name)) for name in _DIALS)
    return (
        10 * len(plan.faults)
        + 10 * len(plan.liars)
        + 10 * plan.nodes
        + 5 * network
        + 5 * (plan.machines != MachineDials())
        + 5 * (bool(plan.skews_ms) + bool(plan.drifts_ppm))
        + plan.commands_per_s // 10
        + plan.duration_ms // 1_000
    )


def shrink(plan: Plan, report: Report, seconds: float, run_one: Run = run) -> Shrunk:
    """Return a smaller plan that breaks the same kind of invariant; at worst `plan` itself."""
    wanted = kind_of(report)
    assert wanted is not None, "only what fails can be shrunk"
    best, runs, until = Shrunk(plan, report, 0), 0, monotonic() + seconds
    improved = True
    while improved:
        improved = False
        for proposal in _proposals(best.plan):
            for seed in range(best.plan.seed, best.plan.seed + SEEDS_PER_PROPOSAL):
                if monotonic() >= until or runs >= RUNS_MAX:
                    return replace(best, runs=runs)
                runs += 1
                tried = replace(proposal, seed=seed)
                outcome = run_one(tried)
                if kind_of(outcome) == wanted:
                    best = Shrunk(tried, outcome, runs)
                    improved = True
                    break
            if improved:
                break
    return replace(best, runs=runs)


def _proposals(plan: Plan) -> Iterator[Plan]:
    """Yield plans that are less than `plan`, those that save most first."""
    least = weight(plan)
    for proposal in _all_proposals(plan):
        proposal = _tight(proposal)
        try:
            proposal.check()
        except ValueError:
            continue
        if weight(proposal) < least:
            yield proposal


def _all_proposals(plan: Plan) -> Iterator[Plan]:
    some = plan.faults
    if len(some) > 1:
        yield replace(plan, faults=())
        yield replace(plan, faults=some[: len(some) // 2])
        yield replace(plan, faults=some[len(some) // 2 :])
    for k in range(len(some)):
        yield replace(plan, faults=some[:k] + some[k + 1 :])
    for liar in plan.liars:
        yield replace(plan, liars={i: kind for i, kind in plan.liars.items() if i != liar})
    yield replace(plan, network=NetworkDials(wan=plan.network.wan))
    for name in _DIALS:
        yield replace(plan, network=_without(plan.network, name))
    yield replace(plan, machines=MachineDials())
    yield replace(plan, skews_ms=(), drifts_ppm=())
    yield replace(plan, skews_ms=())
    yield replace(plan, drifts_ppm=())
    yield replace(plan, commands_per_s=plan.commands_per_s // 4)
    yield replace(plan, commands_per_s=plan.commands_per_s // 2)
    for nodes in range(4, plan.nodes):
        smaller = _smaller(plan, nodes)
        if smaller is not None:
            yield smaller
    yield plan  # Perhaps only shorter.


_DIALS = ("loss", "repeat", "slow", "storm", "wan", "tail")


def _without(dials: NetworkDials, name: str) -> NetworkDials:
    default = getattr(NetworkDials(), name)
    match name:
        case "loss":
            return replace(dials, loss=default)
        case "repeat":
            return replace(dials, repeat=default)
        case "slow":
            return replace(dials, slow=default)
        case "storm":
            return replace(dials, storm=default)
        case "wan":
            return replace(dials, wan=default)
        case _:
            return replace(dials, tail=default)


def _smaller(plan: Plan, nodes: int) -> Plan | None:
    """Return `plan` with fewer nodes, or None when what it says of nodes does not fit."""
    if any(i >= nodes for i in plan.liars) or len(plan.liars) > faults(nodes):
        return None
    kept: list[Fault] = []
    for fault in plan.faults:
        match fault:
            case Partition():
                kept.append(replace(fault, groups=fault.groups[:nodes]))
            case PowerLoss():
                kept.append(replace(fault, spared=tuple(i for i in fault.spared if i < nodes)))
            case _:
                if fault.node < nodes:
                    kept.append(fault)
    return replace(
        plan,
        nodes=nodes,
        faults=tuple(kept),
        skews_ms=plan.skews_ms[:nodes],
        drifts_ppm=plan.drifts_ppm[:nodes],
    )


def _tight(plan: Plan) -> Plan:
    """Return `plan` as short as what it holds allows."""
    quiet = not plan.faults and not plan.network.disturbs and not plan.machines.slow_sync
    ends = [_end_ms(fault) for fault in plan.faults]
    restless = plan.network.disturbs or plan.machines.slow_sync
    calm_ms = 0 if quiet else max([*ends, plan.calm_ms // 2 if restless else 0])
    calm_ms = min(calm_ms, plan.calm_ms)
    return replace(plan, calm_ms=calm_ms, duration_ms=0).with_calm()


def _end_ms(fault: Fault) -> int:
    match fault:
        case Partition():
            return fault.until_ms
        case PowerLoss():
            return fault.at_ms + fault.spread_ms + fault.down_max_ms
        case _:
            lasts = msgspec.to_builtins(fault)
            return int(fault.at_ms + lasts.get("down_ms", lasts.get("for_ms", 1)))
