"""The summary of a devnet's run: one record, shown as a table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from ops.devnet.stores import StoreReport

PERCENTILES = (("p50", 50), ("p90", 90), ("p99", 99), ("max", 100))


class ByzantineSummary(Struct, frozen=True, kw_only=True):
    """What the honest nodes showed while others lied.

    `latency_before_ms` is of commands submitted before the lies began, `latency_lying_ms` after,
    `latency_trader_0_ms` those of the trader whom a censor leaves out, also after; all until f+1
    honest nodes had executed them.
    """

    behaviours: dict[str, str]
    honest: list[int]
    beyond_f: bool
    commands_before: int
    commands_lying: int
    commands_trader_0: int
    latency_before_ms: dict[str, int]
    latency_lying_ms: dict[str, int]
    latency_trader_0_ms: dict[str, int]
    liars_ended: list[str]
    disks: StoreReport


class HuntSummary(Struct, frozen=True, kw_only=True):
    """What a hunt of `kills` kill -9s showed. `seen` counts commands with a receipt of at least
    one node, `more_than_f_down` the kills that left more than f nodes down."""

    seed: int
    kills: int
    more_than_f_down: int
    down_max: int
    seen: int
    seen_lost: int
    disks: StoreReport


class Summary(Struct, frozen=True, kw_only=True):
    """What a run showed. Units: milliseconds, MB (1e6 bytes), CPU seconds of one core.

    `executed` counts commands with an outcome at every node, `rejected` those refused for a
    reason. `executed_latency_ms` is from submission until f+1 nodes had executed the command,
    `executed_everywhere_latency_ms` until all had. `faults` lists what did not hold; empty is
    success.
    """

    nodes: int
    submitted: int
    executed: int
    rejected: int
    rejected_reasons: dict[str, int]
    trades: int
    blocks: int
    seconds: float
    executed_latency_ms: dict[str, int]
    executed_everywhere_latency_ms: dict[str, int]
    settled_latency_ms: dict[str, int]
    deposits_credited: int
    withdrawals_claimed: int
    checkpoints: int
    agree: bool
    state_digest: str
    rss_mb_max: float
    cpu_s_per_node: float
    cpu_s_chain: float
    kills: int
    faults: list[str]
    byzantine: ByzantineSummary | None = None
    hunt: HuntSummary | None = None


def percentiles(sorted_ms: Sequence[int]) -> dict[str, int]:
    """Return the nearest-rank percentiles of sorted values; empty for none."""
    if not sorted_ms:
        return {}
    last = len(sorted_ms) - 1
    return {
        name: sorted_ms[min(last, max(0, -(-p * len(sorted_ms) // 100) - 1))]
        for name, p in PERCENTILES
    }


def table(summary: Summary) -> str:
    """Return the summary as lines for a person."""
    reasons = ", ".join(f"{n} {reason}" for reason, n in summary.rejected_reasons.items())
    rows = [
        ("nodes", f"{summary.nodes}"),
        ("submitted", f"{summary.submitted}"),
        ("executed at every node", f"{summary.executed}"),
        ("rejected by the engine", f"{summary.rejected}" + (f"  ({reasons})" if reasons else "")),
        ("trades", f"{summary.trades}"),
        ("blocks", f"{summary.blocks}"),
        ("executed after (f+1 nodes)", _latency(summary.executed_latency_ms)),
        ("executed after (all nodes)", _latency(summary.executed_everywhere_latency_ms)),
        ("settled on chain after", _latency(summary.settled_latency_ms)),
        ("deposits credited", f"{summary.deposits_credited}"),
        ("withdrawals claimed", f"{summary.withdrawals_claimed}"),
        ("checkpoints on chain", f"{summary.checkpoints}"),
        ("nodes killed and back", f"{summary.kills}"),
        ("state digest", summary.state_digest[:18] + (" at every node" if summary.agree else "")),
        ("memory of a node, at most", f"{summary.rss_mb_max:.0f} MB"),
        ("CPU of a node", f"{summary.cpu_s_per_node:.1f} s in {summary.seconds:.0f} s of trading"),
        ("CPU of the chain", f"{summary.cpu_s_chain:.1f} s"),
    ]
    if summary.byzantine is not None:
        rows += _byzantine_rows(summary.byzantine)
    if summary.hunt is not None:
        rows += _hunt_rows(summary.hunt)
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    verdict = "all held" if not summary.faults else "FAILED: " + "; ".join(summary.faults)
    return "\n".join([*lines, f"  {'verdict':<{width}}  {verdict}"])


def _byzantine_rows(lied: ByzantineSummary) -> list[tuple[str, str]]:
    rows = [(f"node {i} lied", name) for i, name in lied.behaviours.items()]
    if lied.beyond_f:
        rows.append(("more liars than f", "nothing is promised"))
    rows += [
        ("before they lied", _latency(lied.latency_before_ms)),
        ("while they lied", _latency(lied.latency_lying_ms)),
        ("trader 0 meanwhile", _latency(lied.latency_trader_0_ms)),
        *_disk_rows(lied.disks),
    ]
    rows += [("a liar ended", said) for said in lied.liars_ended]
    return rows


def _hunt_rows(hunt: HuntSummary) -> list[tuple[str, str]]:
    return [
        ("kill -9", f"{hunt.kills}, with more than f down {hunt.more_than_f_down} times"),
        ("down at once, at most", f"{hunt.down_max}"),
        ("with a receipt `seen`", f"{hunt.seen}, lost {hunt.seen_lost}"),
        *_disk_rows(hunt.disks),
    ]


def _disk_rows(disks: StoreReport) -> list[tuple[str, str]]:
    evidence = ", ".join(f"{count} x {name}" for name, count in disks.evidence.items())
    logs = [
        (
            f"log of node {i}",
            f"{log.entries} entries, {log.missing} missing, {log.inverted} inverted",
        )
        for i, log in disks.liars_logs.items()
    ]
    return [
        *logs,
        ("one chain on all disks", f"to height {disks.height}, of nodes {disks.read}"),
        ("ordered, void", f"{disks.ordered}, {disks.void}"),
        ("pairs owed, unfair", f"{disks.pairs}, {disks.unfair}"),
        ("evidence kept", evidence or "none"),
    ]


def _latency(values: dict[str, int]) -> str:
    return "  ".join(f"{name} {ms} ms" for name, ms in values.items()) or "-"
