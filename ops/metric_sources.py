"""Metrics that are read where they are counted, at each scrape: core, transport, settlement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ops.metric_family import LABELS_MAX, OTHER, PREFIX
from p2p.lanes import Lane, LaneStats
from p2p.link import PeerStats


class ChainCounts(NamedTuple):
    """What this node's submissions came to, and how the chain answered. Units: blocks."""

    accepted: int = 0
    already: int = 0
    reverted: int = 0
    failed: int = 0
    errors: int = 0
    height: int = 0


CoreCounters = Callable[[], Mapping[str, int]]
PeerCounters = Callable[[], Mapping[int, PeerStats]]
InboxCounters = Callable[[], Mapping[Lane, LaneStats]]
ChainCounters = Callable[[], ChainCounts]

SUBMISSIONS = ("accepted", "already", "reverted", "failed")
"""Results of a submission: on chain by us, by another, refused by the contract, not sent."""
EVIDENCE_KINDS = ("proposal", "vote", "commit_vote", "commit_vote_after_timeout", "log_fork")
_EVIDENCE = "evidence_"

CORE = {
    "timeouts": ("consensus_timeouts", "Own timeouts sent."),
    "proposals": ("consensus_proposals", "Own proposals sent."),
    "refused_proposals": ("consensus_refused_proposals", "Proposals not voted for."),
    "batches_signed": ("orderlog_batches", "Own batches signed."),
    "busy": ("orderlog_busy", "Commands refused because the log's window was full."),
}
"""Counters of the core that have a metric of their own; the others share one by their name."""

PEER_COUNTERS = {
    "connects": ("p2p_connects", "Links that came up, the first included."),
    "dial_failures": ("p2p_dial_failures", "Dials that failed."),
    "sent_bytes": ("p2p_peer_send_bytes", "Bytes sent."),
    "received_bytes": ("p2p_peer_receive_bytes", "Bytes received."),
    "sent_frames": ("p2p_peer_send_frames", "Frames sent."),
    "received_frames": ("p2p_peer_receive_frames", "Frames received."),
    "dropped_out": ("p2p_dropped_out", "Frames dropped at the full queue to a peer."),
    "dropped_in": ("p2p_dropped_in", "Frames of a peer dropped at its full share of the inbox."),
    "malformed": ("p2p_malformed", "Frames that broke the format; each cuts the link."),
    "silences": ("p2p_silences", "Links cut because the peer said nothing for too long."),
    "stalls": ("p2p_stalls", "Links cut because a frame did not end in time."),
    "handler_errors": ("p2p_handler_errors", "Errors of the library in a peer's stream."),
}
PEER_GAUGES = {
    "queued_bytes": ("p2p_peer_pending_send_bytes", "Bytes that wait to be sent."),
    "connected": ("p2p_peer_connected", "1 while the link is up."),
}
PEER_LANE_GAUGES = {
    "queued_frames": ("p2p_lane_pending_send_frames", "Frames that wait to be sent, by lane."),
    "queued_bytes": ("p2p_lane_pending_send_bytes", "Bytes that wait to be sent, by lane."),
}
INBOX_GAUGES = {
    "queued_frames": ("p2p_lane_received_frames", "Frames received that wait, by lane."),
    "queued_bytes": ("p2p_lane_received_bytes", "Bytes received that wait, by lane."),
}


class CoreCollector(Collector):
    """Shows the counters of the consensus core."""

    def __init__(self, source: CoreCounters) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """Yield one family per metric, empty ones included."""
        counts = dict(self._source())
        for name, (metric, text) in CORE.items():
            yield CounterMetricFamily(f"{PREFIX}_{metric}", text, value=counts.pop(name, 0))
        evidence = CounterMetricFamily(
            f"{PREFIX}_consensus_evidence", "Evidence found, by kind.", labels=("kind",)
        )
        for kind in EVIDENCE_KINDS:
            evidence.add_metric((kind,), counts.pop(_EVIDENCE + kind, 0))
        yield evidence
        events = CounterMetricFamily(
            f"{PREFIX}_core_events", "What else the core counted.", labels=("event",)
        )
        names = sorted(counts)
        for name in names[:LABELS_MAX]:
            events.add_metric((name,), counts[name])
        if names[LABELS_MAX:]:
            events.add_metric((OTHER,), sum(counts[name] for name in names[LABELS_MAX:]))
        yield events


class PeerCollector(Collector):
    """Shows what the transport knows of each peer."""

    def __init__(self, source: PeerCounters) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """Yield one family per metric, with a sample per peer."""
        stats = self._source()
        connected = sum(peer.connected for peer in stats.values())
        yield GaugeMetricFamily(f"{PREFIX}_p2p_peers", "Replicas connected.", value=connected)
        for field, (metric, text) in PEER_COUNTERS.items():
            counter = CounterMetricFamily(f"{PREFIX}_{metric}", text, labels=("peer",))
            for peer, values in stats.items():
                counter.add_metric((str(peer),), getattr(values, field))
            yield counter
        for field, (metric, text) in PEER_GAUGES.items():
            gauge = GaugeMetricFamily(f"{PREFIX}_{metric}", text, labels=("peer",))
            for peer, values in stats.items():
                gauge.add_metric((str(peer),), getattr(values, field))
            yield gauge
        yield from _lanes(stats)


def _lanes(stats: Mapping[int, PeerStats]) -> Iterator[Metric]:
    """Yield what waits in each lane of each peer, and what the lane has dropped."""
    for field, (metric, text) in PEER_LANE_GAUGES.items():
        gauge = GaugeMetricFamily(f"{PREFIX}_{metric}", text, labels=("peer", "lane"))
        for peer, values in stats.items():
            for lane, of_lane in values.lanes.items():
                gauge.add_metric((str(peer), lane.name.lower()), getattr(of_lane, field))
        yield gauge
    text = "Frames dropped at a full lane to a peer."
    dropped = CounterMetricFamily(f"{PREFIX}_p2p_lane_dropped_out", text, labels=("peer", "lane"))
    for peer, values in stats.items():
        for lane, of_lane in values.lanes.items():
            dropped.add_metric((str(peer), lane.name.lower()), of_lane.dropped)
    yield dropped


class InboxCollector(Collector):
    """Shows what waits for the core in each lane, of all peers together."""

    def __init__(self, source: InboxCounters) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """Yield one family per metric, with a sample per lane."""
        lanes = self._source()
        for field, (metric, text) in INBOX_GAUGES.items():
            gauge = GaugeMetricFamily(f"{PREFIX}_{metric}", text, labels=("lane",))
            for lane, stats in lanes.items():
                gauge.add_metric((lane.name.lower(),), getattr(stats, field))
            yield gauge
        text = "Frames received and dropped at a full lane."
        dropped = CounterMetricFamily(f"{PREFIX}_p2p_lane_dropped_in", text, labels=("lane",))
        for lane, stats in lanes.items():
            dropped.add_metric((lane.name.lower(),), stats.dropped)
        yield dropped


class ChainCollector(Collector):
    """Shows what came of the way to the chain and from it."""

    def __init__(self, source: ChainCounters) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """Yield the submissions by result, the failures, and how far the chain is followed."""
        counts = self._source()
        submissions = CounterMetricFamily(
            f"{PREFIX}_checkpoint_submissions",
            "Own submissions that ended, by result.",
            labels=("result",),
        )
        for result in SUBMISSIONS:
            submissions.add_metric((result,), getattr(counts, result))
        yield submissions
        text = "Calls to the chain that failed."
        yield CounterMetricFamily(f"{PREFIX}_settlement_chain_errors", text, value=counts.errors)
        text = "Newest final block of the chain seen."
        yield GaugeMetricFamily(f"{PREFIX}_settlement_chain_height", text, value=counts.height)
