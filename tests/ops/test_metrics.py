"""The metrics: the document lists them all, labels stay bounded, the methods count."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

import ops.metrics
from ops.metric_family import LABELS_MAX
from ops.metric_sources import CORE, EVIDENCE_KINDS, PEER_COUNTERS, PEER_GAUGES, ChainCounts
from ops.metrics import PROPOSALS_MAX, Metrics
from p2p.lanes import Lane, LaneStats
from p2p.link import PeerStats

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([\w, ]*?) *\| (.+) \|$", re.MULTILINE)


class Sources:
    """What the core, the transport and the way to the chain have counted."""

    def __init__(self) -> None:
        self.core: dict[str, int] = {}
        self.chain = ChainCounts()
        self.inbox = {lane: LaneStats(lane, lane + 9, lane + 99) for lane in Lane}
        self.peers = {peer: PeerStats() for peer in range(1, 5)}

    def count(self) -> None:
        for name in (*CORE, *(f"evidence_{kind}" for kind in EVIDENCE_KINDS), "blocks_committed"):
            self.core[name] = self.core.get(name, 0) + 1
        self.chain = ChainCounts(*(value + 1 for value in self.chain))
        self.inbox = {
            lane: LaneStats(*(value + 1 for value in dataclasses.astuple(stats)))
            for lane, stats in self.inbox.items()
        }
        for peer in self.peers.values():
            for field in dataclasses.fields(peer):
                if field.name != "lanes":
                    setattr(peer, field.name, getattr(peer, field.name) + 1)
            peer.lanes = self.inbox


SOURCES = Sources()
SOURCES.count()


def fresh(process: bool = False, sources: Sources = SOURCES) -> Metrics:
    return Metrics(
        replica=0,
        replicas=5,
        version="1.2.3",
        process=process,
        core=lambda: sources.core,
        transport=lambda: sources.peers,
        chain=lambda: sources.chain,
        inbox=lambda: sources.inbox,
    )


def groups(metrics: Metrics) -> Iterator[Any]:
    for value in vars(metrics).values():
        if type(value).__name__.endswith("Metrics"):
            yield value


def exercise(metrics: Metrics) -> None:
    """Call every method of the facade once, with a plain argument for each parameter."""
    plain = {"bool": True, "int": 1, "float": 0.5, "float | None": 0.5, "str": "x"}
    metrics.order.sent("get_bodies")
    for group in groups(metrics):
        for name, method in inspect.getmembers(group, inspect.ismethod):
            if name.startswith("_"):
                continue
            parameters = inspect.signature(method).parameters.values()
            values = {}
            for parameter in parameters:
                kind = str(parameter.annotation)
                default: Any = [1] * 5 if "Sequence" in kind or "Iterable" in kind else None
                values[parameter.name] = plain.get(kind, default)
            method(**values)


def declared(metrics: Metrics) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return (type, labels) of every metric by the name that Prometheus sees."""
    exercise(metrics)
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        name = family.name + "_total" if family.type == "counter" else family.name
        assert family.samples, f"{name} has no sample after all methods were called"
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, tuple(sorted(labels)))
    return found


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    text = DOCUMENT.read_text("utf-8")
    rows = ROW.findall(text)
    assert len(rows) == len({row[0] for row in rows}), "a metric stands twice"
    return {
        name: (kind, tuple(sorted(filter(None, map(str.strip, labels.split(","))))))
        for name, kind, labels, _ in rows
    }


def test_the_document_and_the_registry_say_the_same() -> None:
    in_code = {
        name: value for name, value in declared(fresh()).items() if name.startswith("fairlane_")
    }
    assert documented() == in_code


def test_every_metric_moves_when_the_facade_is_told() -> None:
    """No metric is declared and then forgotten: each differs after every method was called."""

    def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in metrics.registry.collect()
            for sample in family.samples
        }

    sources = Sources()
    metrics = fresh(sources=sources)
    before = samples(metrics)
    sources.count()
    exercise(metrics)
    exercise(metrics)
    moved = {
        name
        for (name, labels), value in samples(metrics).items()
        if before.get((name, labels)) != value
    }
    still = {
        name
        for name, (kind, _) in declared(fresh()).items()
        if not any(other.startswith(name) for other in moved)
    }
    assert still == {
        "fairlane_consensus_validators",  # Set once.
        "fairlane_build_info",
    }


def test_open_labels_are_bounded() -> None:
    metrics = fresh()
    for i in range(10 * LABELS_MAX):
        metrics.execution.command_executed("rejected", f"reason {i}")
        metrics.gateway.command("refused", f"reason {i}")
        metrics.peers.blamed(1, f"kind {i}")
        metrics.peers.received(f"type {i}", 1)
    text = metrics.text().decode()
    for name in ("execution_rejects_total", "mempool_failed_txs_total", "p2p_blames_total"):
        rows = [line for line in text.splitlines() if line.startswith(f"fairlane_{name}{{")]
        assert len(rows) == LABELS_MAX + 1, name
        assert sum(float(row.split()[-1]) for row in rows) == 10 * LABELS_MAX
    assert (
        text.count("fairlane_p2p_message_receive_bytes_total{")
        == len(ops.metrics.MESSAGE_TYPES) + 1
    )


def test_intervals_are_of_consecutive_commits() -> None:
    metrics = fresh()
    for at, round_ in ((10.0, 1), (10.06, 2), (10.10, 5)):
        metrics.consensus.block_committed(at, round_, ordered=2)
    read = metrics.registry.get_sample_value
    assert read("fairlane_consensus_num_txs") == 2
    assert read("fairlane_consensus_block_interval_seconds_count") == 2
    total = read("fairlane_consensus_block_interval_seconds_sum")
    assert total is not None and abs(total - 0.10) < 1e-9
    assert read("fairlane_consensus_commit_seconds_count") == 0


def test_commit_time_runs_from_the_first_arrival_of_the_rounds_proposal() -> None:
    metrics = fresh()
    for at, round_ in ((1.0, 1), (1.2, 2), (1.3, 2)):
        metrics.consensus.proposed(at, round_)
    metrics.consensus.block_committed(1.5, 2, ordered=0)
    metrics.consensus.block_committed(1.6, 3, ordered=0)
    read = metrics.registry.get_sample_value
    assert read("fairlane_consensus_commit_seconds_count") == 1
    total = read("fairlane_consensus_commit_seconds_sum")
    assert total is not None and abs(total - 0.3) < 1e-9


def test_proposals_of_rounds_that_failed_are_forgotten() -> None:
    metrics = fresh()
    for round_ in range(10 * PROPOSALS_MAX):
        metrics.consensus.proposed(round_, round_)
    for round_ in range(10 * PROPOSALS_MAX):
        metrics.consensus.block_committed(10_000.0, round_, ordered=0)
    read = metrics.registry.get_sample_value
    assert read("fairlane_consensus_commit_seconds_count") == PROPOSALS_MAX


def test_the_core_and_the_transport_are_read_at_each_scrape() -> None:
    sources = Sources()
    metrics = fresh(sources=sources)
    sources.core = {"timeouts": 3, "evidence_vote": 2, **{f"odd {i}": 1 for i in range(200)}}
    sources.peers[2].received_bytes = 77
    sources.peers[2].connected = True
    read = metrics.registry.get_sample_value
    assert read("fairlane_consensus_timeouts_total") == 3
    assert read("fairlane_consensus_evidence_total", {"kind": "vote"}) == 2
    assert read("fairlane_core_events_total", {"event": "other"}) == 200 - LABELS_MAX
    assert read("fairlane_p2p_peer_receive_bytes_total", {"peer": "2"}) == 77
    assert read("fairlane_p2p_peers") == 1


def test_every_counter_of_the_transport_is_shown() -> None:
    fields = {field.name for field in dataclasses.fields(PeerStats)}
    assert fields - {"lanes"} == set(PEER_COUNTERS) | set(PEER_GAUGES)


def test_lanes_are_shown_by_name_on_both_sides() -> None:
    read = fresh().registry.get_sample_value
    of_peer = {"peer": "2", "lane": "fetch"}
    assert read("fairlane_p2p_lane_pending_send_frames", of_peer) == Lane.FETCH + 1
    assert read("fairlane_p2p_lane_pending_send_bytes", of_peer) == Lane.FETCH + 10
    assert read("fairlane_p2p_lane_dropped_out_total", of_peer) == Lane.FETCH + 100
    here = {"lane": "bulk"}
    assert read("fairlane_p2p_lane_received_frames", here) == Lane.BULK + 1
    assert read("fairlane_p2p_lane_received_bytes", here) == Lane.BULK + 10
    assert read("fairlane_p2p_lane_dropped_in_total", here) == Lane.BULK + 100


def test_two_nodes_in_one_process_do_not_share_metrics() -> None:
    one, two = fresh(), fresh()
    one.peers.received("vote", 5)
    name, labels = "fairlane_p2p_message_receive_bytes_total", {"message_type": "vote"}
    assert one.registry.get_sample_value(name, labels) == 5
    assert two.registry.get_sample_value(name, labels) == 0


def test_the_process_is_measured() -> None:
    assert b"process_resident_memory_bytes" in fresh(process=True).text()
    assert b"fairlane_build_info{python=" in fresh().text()
