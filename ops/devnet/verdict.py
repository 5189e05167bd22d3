"""What a run with liars or a hunt came to, from the load, the watching and the disks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from consensus.committee import faults
from ops.devnet.load import Load
from ops.devnet.report import ByzantineSummary, HuntSummary, percentiles
from ops.devnet.stores import Disks, StoreReport
from ops.devnet.trouble import Trouble
from ops.devnet.watch import Watch


@dataclass(frozen=True, slots=True)
class Lies:
    """Who of `nodes` lied how, from when on, and which liars fell over their lies."""

    behaviours: Mapping[int, str]
    nodes: int
    from_ms: int
    ended: Sequence[str]


def hunted(
    trouble: Trouble, load: Load, kills: int, disks: Disks, report: StoreReport
) -> HuntSummary:
    """Return what a hunt showed; what did not hold is appended to the hunt's faults."""
    seen = load.seen
    lost = [id_ for id_ in seen if bytes.fromhex(id_[2:]) not in disks.ordered]
    if lost:
        trouble.faults.append(f"{len(lost)} commands with a receipt `seen` are lost: {lost[0]}")
    if trouble.kills < kills:
        trouble.faults.append(f"only {trouble.kills} of {kills} kills")
    if trouble.faults:
        trouble.faults.append(f"the kills are those of --kills {kills} --seed {trouble.seed}")
    return HuntSummary(
        seed=trouble.seed,
        kills=trouble.kills,
        more_than_f_down=trouble.storms,
        down_max=trouble.down_max,
        seen=len(seen),
        seen_lost=len(lost),
        disks=report,
    )


def lied(lies: Lies, load: Load, watch: Watch, report: StoreReport) -> ByzantineSummary:
    """Return what the honest nodes showed while others lied."""
    f, sent = faults(lies.nodes), load.submitted_ms
    of_trader_0 = dict.fromkeys(load.of_trader(0))
    before = {id_: ms for id_, ms in sent.items() if ms < lies.from_ms}
    after = {id_: ms for id_, ms in sent.items() if ms >= lies.from_ms}
    victim = {id_: ms for id_, ms in after.items() if id_ in of_trader_0}

    def latency(of: dict[str, int]) -> dict[str, int]:
        return percentiles(watch.executed_latencies(of, f + 1))

    return ByzantineSummary(
        behaviours={str(i): name for i, name in lies.behaviours.items()},
        honest=[i for i in range(lies.nodes) if i not in lies.behaviours],
        beyond_f=len(lies.behaviours) > f,
        commands_before=len(before),
        commands_lying=len(after),
        commands_trader_0=len(victim),
        latency_before_ms=latency(before),
        latency_lying_ms=latency(after),
        latency_trader_0_ms=latency(victim),
        liars_ended=list(lies.ended),
        disks=report,
    )
