"""From what happens in one node to its metrics: what is pushed, and what is read at a scrape."""

from __future__ import annotations

import logging
import time

from consensus.command import CommandId
from consensus.committer import DIGEST_INTERVAL
from consensus.context import TABLE_EVIDENCE
from consensus.effects import Reply
from matcher.outcome import REJECTED, CommandOutcome, Fill
from ops.metric_sources import EVIDENCE_KINDS
from ops.metrics import Metrics
from ops.replica import ExchangeReplica, Executed
from ops.store import Storage
from settlement.checkpoint import KEY_EVIDENCE
from settlement.checkpoint import TABLE as TABLE_CHECKPOINT

log = logging.getLogger("fairlane.node")

OWN_MAX = 20_000
"""Commands of own clients whose times are remembered; the oldest is forgotten first."""
HEIGHTS_MAX = 4_096
"""Blocks whose commit is remembered until their checkpoint is on chain; the oldest goes first."""
VOTERS_BLOCKS = 64
"""Newest blocks in whose certificates a replica must have a vote, not to be called missing."""


class OwnCommands:
    """How long the commands take that come in at this node's door. Units: seconds, monotonic."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._times: dict[bytes, tuple[float, float | None]] = {}

    def __len__(self) -> int:
        return len(self._times)

    def submitted(self, id_: bytes, now_s: float) -> None:
        """A client's command goes to the core; sent again, it keeps its first time."""
        self._times.setdefault(id_, (now_s, None))
        if len(self._times) > OWN_MAX:
            del self._times[next(iter(self._times))]

    def answered(self, reply: Reply, now_s: float) -> None:
        """The core said how far the command came."""
        times = self._times.get(reply.id)
        if times is None or times[1] is not None:
            return
        if reply.status == "seen" and reply.seq:
            self._times[reply.id] = (times[0], now_s)
            self._metrics.order.seen(now_s - times[0])
        elif reply.status != "seen":
            del self._times[reply.id]

    def executed(self, id_: bytes, now_s: float) -> None:
        """The command got its outcome here."""
        times = self._times.pop(id_, None)
        if times is None:
            return
        submitted_s, logged_s = times
        self._metrics.execution.own_command_executed(now_s - submitted_s)
        if logged_s is not None:
            self._metrics.order.ordered(now_s - logged_s)

    def forget(self, id_: bytes) -> None:
        """The command is over without an outcome."""
        self._times.pop(id_, None)


class Observer:
    """Tells the metrics of one node what its core does."""

    def __init__(self, metrics: Metrics, replica: ExchangeReplica, store: Storage) -> None:
        self._metrics = metrics
        self._replica = replica
        self._store = store
        self._committed_at: dict[int, float] = {}
        self._silent_epoch = 0
        self.own = OwnCommands(metrics)

    def executed(self, executed: Executed) -> None:
        """Count one block that was committed and executed just now, not replayed."""
        self._tell_of_silence()
        now_s = time.perf_counter()
        metrics, block = self._metrics, executed.block
        trades = commands = 0
        for event in executed.events:
            if isinstance(event, Fill):
                trades += 1
            elif isinstance(event, CommandOutcome):
                commands += 1
                # A cancelled order has a reason too, but nobody refused it.
                refused = event.reason if event.status == REJECTED else None
                metrics.execution.command_executed(event.status, refused or "")
                self.own.executed(event.id, now_s)
        metrics.consensus.block_committed(now_s, block.round, commands)
        metrics.execution.block_executed(block.height, trades)
        metrics.order.emitted([len(batch.ids) for batch in block.batches])
        if block.height % DIGEST_INTERVAL == 0:  # It can be a checkpoint's.
            self._committed_at[block.height] = now_s
            if len(self._committed_at) > HEIGHTS_MAX:
                del self._committed_at[next(iter(self._committed_at))]

    def accepted(self, height: int) -> None:
        """The checkpoint of the block at `height` is on chain and final."""
        committed_s = self._committed_at.pop(height, None)
        if committed_s is not None:
            self._metrics.checkpoints.settled(time.perf_counter() - committed_s)

    def _tell_of_silence(self) -> None:
        """Say once in the log why this replica follows and signs nothing."""
        silence = self._replica.consensus.guard.silence
        if silence is not None and silence.epoch != self._silent_epoch:
            self._silent_epoch = silence.epoch
            log.error("silent until epoch %d is over: %s", silence.epoch, silence.why)

    def measure(self, now_ms: int) -> None:
        """Read from the core what nobody pushes; `now_ms` is the node's clock."""
        replica, metrics = self._replica, self._metrics
        consensus, ctx = replica.consensus, replica.consensus.ctx
        tip, sequencer = ctx.tree.tip, ctx.sequencer
        metrics.consensus.chain(
            height=tip.height,
            round_=consensus.rounds.round,
            rounds=tip.round - tip.qc.round if tip.height else 0,
            ordered_total=replica.exchange.outcomes,
            block_time_lag_s=(now_ms - sequencer.time_ms) / 1000,
        )
        metrics.consensus.replicas(
            self._missing(),
            self._offenders(),
            consensus.keeper.behind,
            consensus.guard.silence is not None,
        )
        self._measure_logs()
        interval_ms = replica.config.checkpoint_interval_ms
        accepted = replica.checkpoints.accepted_number
        settled_ms = interval_ms * accepted if accepted > 0 else replica.config.genesis_time_ms
        metrics.checkpoints.numbers(
            max(replica.formed, default=0),
            max(accepted, 0),
            max(0, sequencer.time_ms - settled_ms) / 1000,
        )

    def _measure_logs(self) -> None:
        ctx = self._replica.consensus.ctx
        fair, bases, window = ctx.sequencer.fair, ctx.logs.bases, ctx.parameters.log_window
        held = [
            head.seq + len(ctx.logs.deepest(author, head, window))
            for author, head in enumerate(bases)
        ]
        self._metrics.order.log_heads(
            held, [head.seq for head in bases], ctx.own.head.seq - bases[ctx.me].seq
        )
        bodies = (ctx.logs.body(CommandId(id_)) for id_ in fair.pending())
        alarmed = fair.alarmed(ctx.sequencer.time_ms, ctx.parameters.censorship_alarm_ms)
        self._metrics.order.pending(len(fair), sum(len(b) for b in bodies if b), len(alarmed))

    def _missing(self) -> int:
        """Return how many replicas have no vote in the certificates of the newest blocks."""
        tree = self._replica.consensus.ctx.tree
        voted = bytearray(self._replica.config.committee.n)
        block = tree.tip
        for _ in range(VOTERS_BLOCKS):
            for vote in block.qc.votes:
                voted[vote.voter] = 1
            parent = tree.parent(block)
            if parent is None:
                break
            block = parent
        return voted.count(0) if tree.tip.height > 1 else 0

    def _offenders(self) -> int:
        """Return how many replicas have evidence against them in the store."""
        return sum(self._is_offender(i) for i in range(self._replica.config.committee.n))

    def _is_offender(self, replica: int) -> bool:
        if self._store.get(TABLE_CHECKPOINT, KEY_EVIDENCE + bytes((replica,))) is not None:
            return True
        for kind in EVIDENCE_KINDS:
            start = kind.encode() + b"/" + replica.to_bytes(2, "big")
            end = kind.encode() + b"/" + (replica + 1).to_bytes(2, "big")
            if next(iter(self._store.scan(TABLE_EVIDENCE, start, end)), None) is not None:
                return True
        return False
