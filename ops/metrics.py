"""The node's metrics: one registry, and a typed method for everything that the node tells it.

Names follow CometBFT's where the meaning is the same, with the prefix `fairlane_`. Label values
are bounded: replicas by index, everything else by a list here or by `LABELS_MAX` and then "other".
docs/metrics.md lists every metric for operators; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
from ops.metric_sources import (
    ChainCollector,
    ChainCounters,
    ChainCounts,
    CoreCollector,
    CoreCounters,
    InboxCollector,
    InboxCounters,
    PeerCollector,
    PeerCounters,
)

MESSAGE_TYPES = (*(str(type_.__struct_config__.tag) for type_ in get_args(Message)), "share")
FETCHES = {
    "get_batches": "batches",
    "get_bodies": "bodies",
    "get_block": "blocks",
    "get_chain": "chain",
}
"""The messages that ask for missing data, and what they ask for."""
PROPOSALS_MAX = 256
"""Proposals whose arrival is remembered until their block is committed; the oldest goes first."""


class ConsensusMetrics:
    """Blocks, rounds, votes, evidence."""

    def __init__(self, registry: CollectorRegistry, replicas: int) -> None:
        f = Family(registry, "consensus")
        self._height = f.gauge("height", "Height of the newest committed block.")
        self._round = f.gauge("round", "Round that this replica is in.")
        self._rounds = f.gauge("rounds", "Rounds that the newest block took.")
        self._validators = f.gauge("validators", "Replicas of the epoch.")
        self._validators.set(replicas)
        self._missing = f.gauge("missing_validators", "Replicas without a vote in recent QCs.")
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
        self._silent = f.gauge("silent", "1 while this replica signs nothing in its epoch.")
        self._committed_at: float | None = None
        self._proposed_at: dict[int, float] = {}

    def proposed(self, now_s: float, round_: int) -> None:
        """The proposal of a round arrived, or was made here."""
        if len(self._proposed_at) >= PROPOSALS_MAX:
            del self._proposed_at[next(iter(self._proposed_at))]
        self._proposed_at.setdefault(round_, now_s)

    def block_committed(self, now_s: float, round_: int, ordered: int) -> None:
        """The block of a round was committed, and ordered so many commands.

        Units: seconds of one monotonic clock, as in `proposed`.
        """
        if self._committed_at is not None:
            self._interval.observe(now_s - self._committed_at)
        self._committed_at = now_s
        self._num_txs.set(ordered)
        proposed_at = self._proposed_at.pop(round_, None)
        if proposed_at is not None:
            self._commit.observe(now_s - proposed_at)

    def chain(
        self, height: int, round_: int, rounds: int, ordered_total: int, block_time_lag_s: float
    ) -> None:
        """Where the committed chain stands; `rounds` is what its newest block took."""
        self._height.set(height)
        self._round.set(round_)
        self._rounds.set(rounds)
        self._total_txs.set(ordered_total)
        self._clock.set(block_time_lag_s)

    def replicas(self, missing: int, byzantine: int, syncing: bool, silent: bool) -> None:
        """How many replicas do not vote, how many have evidence against them; whether we lag, or
        sign nothing."""
        self._silent.set(silent)
        self._missing.set(missing)
        self._byzantine.set(byzantine)
        self._syncing.set(syncing)


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
        self._fetches = {tag: fetches.labels(kind) for tag, kind in FETCHES.items()}
        self._size = mempool.gauge("size", "Ids logged somewhere and not yet ordered.")
        self._size_bytes = mempool.gauge("size_bytes", "Bytes of the bodies held for them.")
        self._wait = order.histogram(
            "wait_seconds", "From own persisted batch to the emitting block's commit.", LATENCY
        )
        self._batch_size = order.histogram("batch_size", "Commands in a fair-order batch.", SIZES)
        self._void = order.counter("void", "Commands in the own log that expired unordered.")
        self._censored = order.gauge(
            "censorship_alarms", "Ids in f+1 committed logs, pending for longer than the alarm."
        )

    def batch_signed(self, entries: int) -> None:
        """An own batch was signed."""
        self._entries.observe(entries)

    def log_heads(self, held: Sequence[int], committed: Sequence[int], window_used: int) -> None:
        """How far each log is held, and committed; own batches beyond that."""
        self._open.set(window_used)
        for gauges, values in ((self._held, held), (self._committed, committed)):
            for gauge, value in zip(gauges, values, strict=True):
                gauge.set(value)

    def seen(self, wait_s: float) -> None:
        """A command of a client stands in a persisted own batch."""
        self._seen_wait.observe(wait_s)

    def sent(self, message_type: str) -> None:
        """A message was given to the transport; those that ask for data are counted."""
        fetches = self._fetches.get(message_type)
        if fetches is not None:
            fetches.inc()

    def pending(self, ids: int, body_bytes: int, censored: int) -> None:
        """What waits for its order now."""
        self._size.set(ids)
        self._size_bytes.set(body_bytes)
        self._censored.set(censored)

    def emitted(self, batch_sizes: Iterable[int]) -> None:
        """A block's commit emitted these batches."""
        for size in batch_sizes:
            self._batch_size.observe(size)

    def void(self, commands: int) -> None:
        """So many commands in the own log expired before they were ordered."""
        self._void.inc(commands)

    def ordered(self, wait_s: float) -> None:
        """A command of an own client was emitted."""
        self._wait.observe(wait_s)


class PeerMetrics:
    """What only the driver knows of the other replicas; the rest comes from the transport."""

    def __init__(self, registry: CollectorRegistry) -> None:
        f = Family(registry, "p2p")
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
        self._block = f.histogram(
            "block_seconds", "Time of a step of the core that executed blocks, per block.", FAST
        )
        self._latency = f.histogram(
            "latency_seconds", "From the door of this node to the outcome here.", LATENCY
        )

    def block_executed(self, height: int, trades: int) -> None:
        """A block was executed."""
        self._height.set(height)
        if trades:
            self._trades.inc(trades)

    def blocks_took(self, seconds: float, blocks: int) -> None:
        """A step of the core executed so many blocks."""
        for _ in range(blocks):
            self._block.observe(seconds / blocks)

    def command_executed(self, status: str, reason: str) -> None:
        """A command got its outcome; `reason` is empty unless it was refused."""
        self._commands.inc(status)
        if reason:
            self._rejects.inc(reason)

    def own_command_executed(self, latency_s: float) -> None:
        """A command that came in at this node's door got its outcome."""
        self._latency.observe(latency_s)


class CheckpointMetrics:
    """Checkpoints, and the inbox."""

    def __init__(self, registry: CollectorRegistry, replicas: int) -> None:
        f = Family(registry, "checkpoint")
        settlement = Family(registry, "settlement")
        self._formed = f.gauge("formed", "Number of the newest checkpoint formed here.")
        self._signed = f.gauge("signed", "Number of the newest whose signature was combined here.")
        self._accepted = f.gauge("accepted", "Number of the newest accepted on chain.")
        self._lag = f.gauge("lag_seconds", "Newest block's time minus the accepted one's.")
        shares = f.counter("shares", "Shares received, by peer.", ("peer",))
        self._shares = [shares.labels(str(i)) for i in range(replicas)]
        self._settled = f.histogram(
            "settled_seconds", "From a block's commit to its checkpoint's acceptance.", SLOW
        )
        self._inbox_seen = settlement.gauge("inbox_seen", "Inbox messages seen final.")
        self._inbox_anchored = settlement.gauge("inbox_anchored", "Inbox messages consumed.")

    def share(self, peer: int) -> None:
        """A share came in."""
        self._shares[peer].inc()

    def signed(self, number: int) -> None:
        """A group signature was combined and goes to the chain."""
        self._signed.set(number)

    def settled(self, seconds: float) -> None:
        """A checkpoint was accepted so long after its block's commit here."""
        self._settled.observe(seconds)

    def numbers(self, formed: int, accepted: int, lag_s: float) -> None:
        """The newest formed and accepted checkpoint, and how far the chain is behind."""
        self._formed.set(formed)
        self._accepted.set(accepted)
        self._lag.set(lag_s)

    def inbox(self, seen: int, anchored: int) -> None:
        """How far the inbox is seen, and consumed."""
        self._inbox_seen.set(seen)
        self._inbox_anchored.set(anchored)


class NodeMetrics:
    """The driver and its store."""

    def __init__(self, registry: CollectorRegistry) -> None:
        store = Family(registry, "store")
        node = Family(registry, "node")
        self._sync = store.histogram("sync_seconds", "Time of one sync to disk.", FAST)
        self._write = store.histogram("write_seconds", "Time of one write, not synced.", FAST)
        self._bytes = store.counter("written_bytes", "Bytes written.")
        self._step = node.histogram("step_seconds", "Time of one step of the core.", FAST)
        self._queue = node.gauge("inputs_waiting", "Inputs that wait for the core.")
        self._verify = node.histogram(
            "verify_seconds", "Time of one batch of signature checks.", FAST
        )

    def written(self, size: int, seconds: float) -> None:
        """The store wrote one batch of records."""
        self._bytes.inc(size)
        self._write.observe(seconds)

    def synced(self, seconds: float) -> None:
        """All that was written is durable."""
        self._sync.observe(seconds)

    def stepped(self, seconds: float) -> None:
        """The core took one input."""
        self._step.observe(seconds)

    def waiting(self, inputs: int) -> None:
        """So many inputs and frames wait for the core."""
        self._queue.set(inputs)

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
        chain: ChainCounters = ChainCounts,
        inbox: InboxCounters = dict,
        measure: Callable[[], None] | None = None,
    ) -> None:
        """`core`, `transport`, `chain` and `inbox` are read at each scrape: `Context.counters`, ...

        `measure` is called before each, to set what nobody pushes. `process` adds the standard
        `process_*` metrics of this process.
        """
        self._measure = measure
        self.registry = CollectorRegistry()
        self.registry.register(CoreCollector(core))
        self.registry.register(PeerCollector(transport))
        self.registry.register(ChainCollector(chain))
        self.registry.register(InboxCollector(inbox))
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
        if self._measure is not None:
            self._measure()
        return generate_latest(self.registry)
