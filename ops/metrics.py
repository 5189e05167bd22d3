"""The node's metrics: one registry, and a typed method for everything that the node tells it.

Names follow CometBFT's where the meaning is the same, with the prefix `fairlane_`. Label values
are bounded: replicas by index, everything else by a list here or by `LABELS_MAX` and then "other".
docs/metrics.md lists every metric for operators; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from platform import python_version
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Info,
    ProcessCollector,
    generate_latest,
)

from consensus.messages import Message
from ops.gateway.metrics import GatewayMetrics
from ops.metric_family import (
    FAST,
    LABELS_MAX,
    LATENCY,
    OTHER,
    PREFIX,
    SIZES,
    SLOW,
    Bounded,
    Family,
)
from ops.metric_sources import CoreCollector, CoreCounters, PeerCollector, PeerCounters

MESSAGE_TYPES = (*(str(type_.__struct_config__.tag) for type_ in get_args(Message)), "share")
SUBMISSIONS = ("sent", "accepted", "already", "reverted", "failed")
FETCHES = ("batches", "bodies", "blocks", "chain")


class ConsensusMetrics:
    """Blocks, rounds, votes, evidence."""

    def __init__(self, registry: CollectorRegistry, replicas: int) -> None:
        f = Family(registry, "consensus")
        self._height = f.gauge("height", "Height of the newest committed block.")
        self._round = f.gauge("round", "Round that this replica is in.")
        self._rounds = f.gauge("rounds", "Rounds that the newest block took.")
        self._validators = f.gauge("validators", "Replicas of the epoch.")
        self._validators.set(replicas)
        self._missing = f.gauge("missing_validators", "Replicas without a vote in the newest QC.")
        self._byzantine = f.gauge("byzantine_validators", "Replicas with stored evidence.")
        self._interval = f.histogram(
            "block_interval_seconds", "Local time between two commits.", LATENCY
        )
        self._commit = f.histogram(
            "commit_seconds", "From a proposal's arrival to its block's commit.", LATENCY
        )
        self._num_txs = f.gauge("num_txs", "Commands that the newest block ordered.")
        self._total_txs = f.gauge("total_txs", "Commands ordered since the genesis.")
        self._clock = f.gauge("block_time_lag_seconds", "Own clock minus the newest block's time.")
        self._syncing = f.gauge("block_syncing", "1 while this replica catches up.")
        self._committed_at: float | None = None

    def block_committed(
        self,
        now_s: float,
        *,
        height: int,
        rounds: int,
        missing: int,
        ordered: int,
        ordered_total: int,
        block_time_lag_s: float,
        commit_s: float | None,
    ) -> None:
        """A block was committed. `commit_s` is None when its proposal was not seen live."""
        if self._committed_at is not None:
            self._interval.observe(now_s - self._committed_at)
        self._committed_at = now_s
        self._height.set(height)
        self._rounds.set(rounds)
        self._missing.set(missing)
        self._num_txs.set(ordered)
        self._total_txs.set(ordered_total)
        self._clock.set(block_time_lag_s)
        if commit_s is not None:
            self._commit.observe(commit_s)

    def round_entered(self, round_: int) -> None:
        """This replica entered a round."""
        self._round.set(round_)

    def syncing(self, on: bool) -> None:
        """This replica began, or ended, catching up."""
        self._syncing.set(on)

    def byzantine(self, replicas: int) -> None:
        """So many replicas have evidence against them."""
        self._byzantine.set(replicas)


class OrderMetrics:
    """Order logs, the fair order, and what waits for it (CometBFT's mempool)."""

    def __init__(self, registry: CollectorRegistry, replicas: int) -> None:
        log = Family(registry, "orderlog")
        order = Family(registry, "order")
        mempool = Family(registry, "mempool")
        peers = [str(i) for i in range(replicas)]
        held = log.gauge("head", "Highest batch held without a gap, by log.", ("replica",))
        committed = log.gauge(
            "committed_head", "Batch of the committed head, by log.", ("replica",)
        )
        self._held = [held.labels(peer) for peer in peers]
        self._committed = [committed.labels(peer) for peer in peers]
        self._open = log.gauge("window_used", "Own batches beyond the committed head.")
        self._entries = log.histogram("batch_entries", "Ids in an own batch.", SIZES)
        self._seen_wait = log.histogram(
            "seen_wait_seconds",
            "From a command's arrival at the door to its persisted batch.",
            FAST,
        )
        fetches = log.counter("fetches", "Requests sent for missing data, by kind.", ("kind",))
        self._fetches = {kind: fetches.labels(kind) for kind in (*FETCHES, OTHER)}
        self._size = mempool.gauge("size", "Ids logged somewhere and not yet ordered.")
        self._size_bytes = mempool.gauge("size_bytes", "Bytes of the bodies held for them.")
        self._wait = order.histogram(
            "wait_seconds", "From own persisted batch to the emitting block's commit.", LATENCY
        )
        self._batch_size = order.histogram("batch_size", "Commands in a fair-order batch.", SIZES)
        self._deadlines = order.counter("deadlines", "Batches emitted by the deadline rule.")
        self._void = order.counter("void", "Ids that expired unordered.")
        self._censored = order.gauge(
            "censorship_alarms", "Ids in f+1 committed logs, pending for longer than the alarm."
        )

    def batch_signed(self, entries: int, window_used: int) -> None:
        """An own batch was signed and persisted."""
        self._entries.observe(entries)
        self._open.set(window_used)

    def log_heads(self, held: Sequence[int], committed: Sequence[int]) -> None:
        """How far each log is held, and committed."""
        for gauges, values in ((self._held, held), (self._committed, committed)):
            for gauge, value in zip(gauges, values, strict=True):
                gauge.set(value)

    def seen(self, wait_s: float) -> None:
        """A command of a client stands in a persisted own batch."""
        self._seen_wait.observe(wait_s)

    def fetch_sent(self, kind: str) -> None:
        """Missing data was asked for."""
        self._fetches.get(kind, self._fetches[OTHER]).inc()

    def pending(self, ids: int, body_bytes: int, censored: int) -> None:
        """What waits for its order now."""
        self._size.set(ids)
        self._size_bytes.set(body_bytes)
        self._censored.set(censored)

    def emitted(self, batch_sizes: Iterable[int], deadlines: int, void: int) -> None:
        """A block's commit emitted these batches, and voided so many ids."""
        for size in batch_sizes:
            self._batch_size.observe(size)
        self._deadlines.inc(deadlines)
        self._void.inc(void)

    def ordered(self, wait_s: float) -> None:
        """A command of an own client was emitted."""
        self._wait.observe(wait_s)


class PeerMetrics:
    """What only the driver knows of the other replicas; the rest comes from the transport."""

    def __init__(self, registry: CollectorRegistry) -> None:
        f = Family(registry, "p2p")
        self._strangers = f.counter("strangers", "Connections of peers that are no replica.")
        self._blames = f.counter("blames", "Rules broken by a peer, by kind.", ("peer", "kind"))
        self._blamed: dict[tuple[int, str], Counter] = {}
        received = f.counter("message_receive_bytes", "Bytes received, by type.", ("message_type",))
        sent = f.counter("message_send_bytes", "Bytes sent, by type.", ("message_type",))
        types = (*MESSAGE_TYPES, OTHER)
        self._received = {type_: received.labels(type_) for type_ in types}
        self._sent = {type_: sent.labels(type_) for type_ in types}

    def received(self, message_type: str, size: int) -> None:
        """A message was decoded; `message_type` is its tag."""
        self._received.get(message_type, self._received[OTHER]).inc(size)

    def sent(self, message_type: str, size: int) -> None:
        """A message was given to the transport: `size` in all copies."""
        self._sent.get(message_type, self._sent[OTHER]).inc(size)

    def stranger(self) -> None:
        """Somebody who is no replica was turned away."""
        self._strangers.inc()

    def blamed(self, peer: int, kind: str) -> None:
        """A peer broke the rule `kind`: words of ours, never the peer's text."""
        child = self._blamed.get((peer, kind))
        if child is None:
            if sum(p == peer for p, _ in self._blamed) >= LABELS_MAX:
                kind = OTHER
            child = self._blamed[peer, kind] = self._blames.labels(str(peer), kind)
        child.inc()


class ExecutionMetrics:
    """The engine."""

    def __init__(self, registry: CollectorRegistry) -> None:
        f = Family(registry, "execution")
        self._height = f.gauge("height", "Height of the newest executed block.")
        self._commands = Bounded(
            f.counter("commands", "Commands executed, by outcome.", ("status",))
        )
        self._rejects = Bounded(
            f.counter("rejects", "Commands refused by the engine, by reason.", ("reason",))
        )
        self._trades = f.counter("trades", "Trades.")
        self._block = f.histogram("block_seconds", "Time to execute one block.", FAST)
        self._digest = f.histogram("digest_seconds", "Time to take one state digest.", FAST)
        self._latency = f.histogram(
            "latency_seconds", "From the door of this node to the outcome here.", LATENCY
        )

    def block_executed(self, height: int, seconds: float, trades: int) -> None:
        """A block was executed."""
        self._height.set(height)
        self._block.observe(seconds)
        if trades:
            self._trades.inc(trades)

    def command_executed(self, status: str, reason: str) -> None:
        """A command got its outcome; `reason` is empty unless it was refused."""
        self._commands.inc(status)
        if reason:
            self._rejects.inc(reason)

    def own_command_executed(self, latency_s: float) -> None:
        """A command that came in at this node's door got its outcome."""
        self._latency.observe(latency_s)

    def digest_taken(self, seconds: float) -> None:
        """A state digest was taken."""
        self._digest.observe(seconds)


class CheckpointMetrics:
    """Checkpoints, and what the chain says."""

    def __init__(self, registry: CollectorRegistry, replicas: int) -> None:
        f = Family(registry, "checkpoint")
        settlement = Family(registry, "settlement")
        self._formed = f.gauge("formed", "Number of the newest checkpoint formed here.")
        self._formed_total = f.counter("formations", "Checkpoints formed here.")
        self._signed = f.gauge("signed", "Number of the newest with a group signature.")
        self._accepted = f.gauge("accepted", "Number of the newest accepted on chain.")
        self._lag = f.gauge("lag_seconds", "Newest block's time minus the accepted one's.")
        shares = f.counter("shares", "Shares received, by peer.", ("peer",))
        bad = f.counter("bad_shares", "Shares that did not verify, by peer.", ("peer",))
        self._shares = [shares.labels(str(i)) for i in range(replicas)]
        self._bad = [bad.labels(str(i)) for i in range(replicas)]
        submissions = f.counter("submissions", "Own transactions, by result.", ("result",))
        self._submissions = {name: submissions.labels(name) for name in (*SUBMISSIONS, OTHER)}
        self._settled = f.histogram(
            "settled_seconds", "From a block's commit to its checkpoint's acceptance.", SLOW
        )
        self._inbox_seen = settlement.gauge("inbox_seen", "Inbox messages seen final.")
        self._inbox_anchored = settlement.gauge("inbox_anchored", "Inbox messages consumed.")
        self._chain_errors = settlement.counter("chain_errors", "Failed calls to the chain.")
        self._chain_height = settlement.gauge("chain_height", "Newest block of the chain seen.")

    def formed(self, number: int) -> None:
        """A checkpoint was formed."""
        self._formed.set(number)
        self._formed_total.inc()

    def share(self, peer: int, valid: bool) -> None:
        """A share came in."""
        (self._shares if valid else self._bad)[peer].inc()

    def signed(self, number: int) -> None:
        """A group signature was combined."""
        self._signed.set(number)

    def submitted(self, result: str) -> None:
        """An own submission ended: one of `SUBMISSIONS`."""
        self._submissions.get(result, self._submissions[OTHER]).inc()

    def accepted(self, number: int, settled_s: float | None) -> None:
        """A checkpoint was accepted; `settled_s` is None when its commit was not seen live."""
        self._accepted.set(number)
        if settled_s is not None:
            self._settled.observe(settled_s)

    def lag(self, seconds: float) -> None:
        """How far the chain is behind the newest block."""
        self._lag.set(seconds)

    def inbox(self, seen: int, anchored: int) -> None:
        """How far the inbox is seen, and consumed."""
        self._inbox_seen.set(seen)
        self._inbox_anchored.set(anchored)

    def chain_seen(self, height: int) -> None:
        """The chain's newest block."""
        self._chain_height.set(height)

    def chain_error(self) -> None:
        """A call to the chain failed."""
        self._chain_errors.inc()


class NodeMetrics:
    """The driver and its store."""

    def __init__(self, registry: CollectorRegistry) -> None:
        store = Family(registry, "store")
        node = Family(registry, "node")
        self._sync = store.histogram("sync_seconds", "Time of one synced write.", FAST)
        self._write = store.histogram("write_seconds", "Time of one write without sync.", FAST)
        self._bytes = store.counter("written_bytes", "Bytes written.")
        self._step = node.histogram("step_seconds", "Time of one step of the core.", FAST)
        self._queue = node.gauge("inputs_waiting", "Inputs that wait for the core.")
        self._verify = node.histogram(
            "verify_seconds", "Time of one batch of signature checks.", FAST
        )

    def written(self, size: int, seconds: float, sync: bool) -> None:
        """The store wrote one batch."""
        self._bytes.inc(size)
        (self._sync if sync else self._write).observe(seconds)

    def stepped(self, seconds: float, waiting: int) -> None:
        """The core took one input, and so many wait."""
        self._step.observe(seconds)
        self._queue.set(waiting)

    def verified(self, seconds: float) -> None:
        """A batch of signatures was checked."""
        self._verify.observe(seconds)


class Metrics:
    """All metrics of one node, in a registry of its own."""

    def __init__(
        self,
        *,
        replica: int,
        replicas: int,
        version: str,
        process: bool = True,
        core: CoreCounters = dict,
        transport: PeerCounters = dict,
    ) -> None:
        """`core` and `transport` are read at each scrape: `Context.counters`, `Transport.stats`.

        `process` adds the standard `process_*` metrics of this process.
        """
        self.registry = CollectorRegistry()
        self.registry.register(CoreCollector(core))
        self.registry.register(PeerCollector(transport))
        self.consensus = ConsensusMetrics(self.registry, replicas)
        self.order = OrderMetrics(self.registry, replicas)
        self.peers = PeerMetrics(self.registry)
        self.execution = ExecutionMetrics(self.registry)
        self.checkpoints = CheckpointMetrics(self.registry, replicas)
        self.node = NodeMetrics(self.registry)
        self.gateway = GatewayMetrics(self.registry)
        info = Info("build", "Version and place of this node.", (), PREFIX, "", "", self.registry)
        info.info({"version": version, "replica": str(replica), "python": python_version()})
        if process:
            ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """Return the exposition. Shape: Prometheus text format 0.0.4."""
        return generate_latest(self.registry)
