"""The whole deterministic node: consensus, the engine behind the order, and checkpoints.

`step(now_ms, input) -> list[Effect]` is all that a driver needs, the trio node as well as a
simulator. Nothing here reads a clock or does I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Struct

from consensus import effects as core
from consensus.codec import decode, encode
from consensus.command import EXPIRY_ORDER_MAX_MS, CommandId, decode_command, expires_ms
from consensus.committee import Committee, Parameters
from consensus.committer import DIGEST_INTERVAL
from consensus.context import Reader, Successor
from consensus.crypto import ReplicaSigner
from consensus.digest import Digest, parts_digest
from consensus.replica import Replica
from consensus.sequencer import OrderedBlock
from matcher.chunks import ChunkTree
from matcher.engine import BlockInput, CheckpointState, Command, Engine, Event
from matcher.genesis import MarketGenesis
from matcher.outcome import CommandOutcome
from settlement.checkpoint import (
    EMPTY_DATA_HASH,
    KEY_SHARE,
    TABLE,
    Accepted,
    BroadcastShare,
    Checkpoint,
    CheckpointConfig,
    CheckpointCore,
    Formed,
    ShareReceived,
    ShareRecord,
    SubmitCheckpoint,
    checkpoint_digest,
)
from settlement.checkpoint import Start as CheckpointStart
from settlement.shares import ShareGroup, ShareSigner

CHECKPOINT_TIMERS = "checkpoint/"
KEY_FORMED = b"formed/"
REFUSED_TOO_FAR = "expiry_too_far"
REFUSED_FULL = "order_full"
FORMED_KEPT = 256
"""Formed checkpoints whose height and withdrawal count are remembered, for receipts and proofs."""


def refusal(id_: CommandId, time_ms: int) -> str:
    """Say why the fair order refused a command in a block of this time."""
    too_far = expires_ms(id_) > time_ms + EXPIRY_ORDER_MAX_MS
    return REFUSED_TOO_FAR if too_far else REFUSED_FULL


@dataclass(frozen=True, slots=True)
class Executed:
    """One block was executed here: what was ordered and what came of it.

    `first_outcome` is the sequence of its first command outcome; they count from 1 and are the
    same at every node. `replayed` says that this happened before, ahead of a restart.
    """

    block: OrderedBlock
    events: tuple[Event, ...]
    first_outcome: int
    replayed: bool


class FormedCheckpoint(Struct, frozen=True, array_like=True):
    """What a receipt, a withdrawal's proof or a peer's snapshot needs to know of a formed
    checkpoint; it is on disk, since a restart need not form it again."""

    number: int
    height: int
    withdrawals: int
    withdrawals_root: bytes
    digest: bytes
    snapshot_root: bytes


def _formed_key(number: int) -> bytes:
    return KEY_FORMED + number.to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class AcceptedContent:
    """What the contract accepted with `digest`, in a final block, as its transaction says it."""

    checkpoint: Checkpoint
    digest: bytes


Input = core.Input | ShareReceived | Accepted | AcceptedContent
Effect = core.Effect | BroadcastShare | SubmitCheckpoint | Executed


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaConfig:
    """Everything about the network that one replica is told, and which one it is."""

    committee: Committee
    parameters: Parameters
    market: MarketGenesis
    genesis_time_ms: int
    checkpoint_interval_ms: int
    checkpoints_separator: bytes
    me: int


class _Counters(Struct, frozen=True, array_like=True, tag="exchange"):
    """What the executor knows beside the engine."""

    outcomes: int
    checkpoint_number: int


class Exchange:
    """The engine as the executor behind consensus: ordered blocks in, events and digests out."""

    def __init__(self, config: ReplicaConfig) -> None:
        committee = config.committee
        self.engine = Engine(config.market, committee.n, committee.f)
        self._interval_ms = config.checkpoint_interval_ms
        self._counters = ChunkTree()
        self.outcomes = 0
        self.is_milestone = False
        """Whether a checkpoint is formed of the last block's state."""
        self.checkpoint_number = config.genesis_time_ms // config.checkpoint_interval_ms
        self.replaying = True
        self.executed: list[Executed] = []
        self.due: list[tuple[int, int, CheckpointState, int]] = []
        """Checkpoints whose block is executed: height, block time, engine's part, withdrawals."""

    def successor(self) -> Successor | None:
        """No registry message changes the committee yet."""
        return None

    def begin_epoch(self, n: int, f: int) -> None:
        raise AssertionError("the engine has named no successor")

    def execute(self, block: OrderedBlock, bodies: list[tuple[CommandId, bytes]]) -> None:
        """Apply one ordered block. A body was verified at the edge, so it decodes."""
        commands = []
        for id_, body in bodies:
            command = decode_command(body)
            commands.append(Command(id_, command.signer, command.payload))
        outcome = self.engine.apply(
            BlockInput(
                height=block.height,
                time_ms=block.time_ms,
                observations=tuple(
                    tuple((o.feed, o.value, o.time_ms) for o in log) for log in block.observations
                ),
                inbox=block.inbox,
                inbox_hash=block.inbox_hash,
                commands=tuple(commands),
                refused=tuple((id_, refusal(id_, block.time_ms)) for id_ in block.refused),
            )
        )
        first = self.outcomes + 1
        self.outcomes += sum(isinstance(event, CommandOutcome) for event in outcome.events)
        self.executed.append(Executed(block, outcome.events, first, self.replaying))
        number = block.time_ms // self._interval_ms
        self.is_milestone = block.height % DIGEST_INTERVAL == 0 and number > self.checkpoint_number
        if self.is_milestone:
            self.checkpoint_number = number
            state = self.engine.checkpoint_state()
            withdrawals = len(self.engine.state.withdrawals)
            self.due.append((block.height, block.time_ms, state, withdrawals))

    def digest(self) -> Digest:
        """Return the digest of the engine and the counters around it."""
        return parts_digest([(len(tree), tree.root()) for tree in self.trees()])

    def trees(self) -> tuple[ChunkTree, ...]:
        """Return the trees of the counters and of the engine, brought up to date."""
        self._counters.set(0, encode(_Counters(self.outcomes, self.checkpoint_number)))
        return (self._counters, *self.engine.trees())

    def export(self) -> bytes:
        """Return everything that the trees cover, to look at or to compare."""
        counters = encode(_Counters(self.outcomes, self.checkpoint_number))
        return encode((counters, self.engine.export_state()))

    def load(self, parts: Sequence[Sequence[bytes]]) -> None:
        """Become the exchange whose trees hold these chunks. Errors: CodecError, SnapshotError."""
        (raw,), *engine = parts
        counters = decode(_Counters, raw)
        self.engine.load(engine)
        self.outcomes = counters.outcomes
        self.checkpoint_number = counters.checkpoint_number
        self._counters = ChunkTree()
        self.executed.clear()
        self.due.clear()


class ExchangeReplica:
    """One node's deterministic whole."""

    def __init__(
        self,
        config: ReplicaConfig,
        signer: ReplicaSigner,
        share_signer: ShareSigner,
        share_group: ShareGroup,
        reader: Reader,
        retain_blocks: int | None = None,
    ) -> None:
        """Replays what the disk behind `reader` has committed; keeps `retain_blocks` of it.

        Errors: CorruptState.
        """
        self.config = config
        committee = config.committee
        self.exchange = Exchange(config)
        self.consensus = Replica(
            committee=committee,
            parameters=config.parameters,
            me=config.me,
            signer=signer,
            reader=reader,
            executor=self.exchange,
            genesis_time_ms=config.genesis_time_ms,
            retain_blocks=retain_blocks,
        )
        self.checkpoints = CheckpointCore(
            CheckpointConfig(
                me=config.me,
                n=committee.n,
                quorum=committee.quorum,
                faults=committee.f,
                epoch=committee.epoch,
                separator=config.checkpoints_separator,
            ),
            share_signer,
            share_group,
        )
        raw = reader.get(TABLE, KEY_SHARE)
        self._share_record = decode(ShareRecord, raw) if raw is not None else None
        records = reader.scan(TABLE, KEY_FORMED, _formed_key((1 << 64) - 1))
        formed = [decode(FormedCheckpoint, raw) for _, raw in records]
        self.formed = {each.number: each for each in formed}
        self._separator = config.checkpoints_separator

    @property
    def engine(self) -> Engine:
        return self.exchange.engine

    def step(self, now_ms: int, event: Input) -> list[Effect]:
        """Take one input at `now_ms` (wall clock, milliseconds); return what to do, in order."""
        effects: list[Effect] = []
        match event:
            case core.Start():
                effects += self._take_executed()
                self.exchange.replaying = False
                effects += self.checkpoints.step(now_ms, CheckpointStart(self._share_record))
                effects += self._form(now_ms, newest_only=True)
                effects += self.consensus.step(now_ms, event)
            case ShareReceived():
                return list(self.checkpoints.step(now_ms, event))
            case Accepted(number, digest):
                effects += self.checkpoints.step(now_ms, event)
                formed = self.formed.get(number)
                if formed is not None and formed.digest == digest:
                    accepted = core.StateAccepted(formed.height, formed.snapshot_root)
                    effects += self.consensus.step(now_ms, accepted)
            case AcceptedContent(checkpoint, digest):
                if checkpoint_digest(self._separator, checkpoint) == digest:
                    accepted = core.StateAccepted(checkpoint.height, checkpoint.snapshot_root)
                    effects += self.consensus.step(now_ms, accepted)
            case core.TimerFired(name) if name.startswith(CHECKPOINT_TIMERS):
                return list(self.checkpoints.step(now_ms, event))
            case _:
                effects += self.consensus.step(now_ms, event)
        effects += self._take_executed()
        return effects + self._form(now_ms, newest_only=False)

    def _take_executed(self) -> list[Effect]:
        executed: list[Effect] = list(self.exchange.executed)
        self.exchange.executed.clear()
        return executed

    def _form(self, now_ms: int, newest_only: bool) -> list[Effect]:
        """Form the checkpoints that are due; after a restart only the newest is worth signing."""
        due, self.exchange.due = self.exchange.due, []
        effects: list[Effect] = []
        for place, (height, time_ms, state, withdrawals) in enumerate(due):
            snapshot_root = self.consensus.executed_digest(height)
            if snapshot_root is None:
                continue
            checkpoint = self._checkpoint(height, time_ms, state, snapshot_root)
            effects.append(self._remember(checkpoint, withdrawals))
            if not newest_only or place == len(due) - 1:
                effects += self.checkpoints.step(now_ms, Formed(checkpoint))
        return effects

    def _checkpoint(
        self, height: int, time_ms: int, state: CheckpointState, snapshot_root: bytes
    ) -> Checkpoint:
        """Return the checkpoint of a block; it depends on the committed chain alone."""
        return Checkpoint(
            epoch=self.config.committee.epoch,
            number=time_ms // self.config.checkpoint_interval_ms,
            height=height,
            block_time_ms=time_ms,
            state_root=state.state_root,
            snapshot_root=snapshot_root,
            withdrawals_root=state.withdrawals_root,
            withdrawn_total=state.withdrawn_total,
            inbox_count=state.inbox_count,
            inbox_hash=state.inbox_hash,
            net_total=state.net_total,
            positive_total=state.positive_total,
            data_since=0,
            data_hash=EMPTY_DATA_HASH,
            next_epoch_hash=bytes(32),
        )

    def _remember(self, checkpoint: Checkpoint, withdrawals: int) -> core.Persist:
        formed = FormedCheckpoint(
            number=checkpoint.number,
            height=checkpoint.height,
            withdrawals=withdrawals,
            withdrawals_root=checkpoint.withdrawals_root,
            digest=checkpoint_digest(self._separator, checkpoint),
            snapshot_root=checkpoint.snapshot_root,
        )
        self.formed[formed.number] = formed
        writes = [core.Write(TABLE, _formed_key(formed.number), encode(formed))]
        while len(self.formed) > FORMED_KEPT:
            oldest = min(self.formed)
            del self.formed[oldest]
            writes.append(core.Write(TABLE, _formed_key(oldest), None))
        return core.Persist(tuple(writes), sync=False)
