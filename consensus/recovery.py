"""From a disk to a replica: the durable state, the newest snapshot, and the blocks after it.

A restarted replica is the one that crashed, less what it never promised. Errors: CorruptState
when records that must be there are not; the operator restores the disk or joins anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from consensus.batches import NO_CLAIM, SealedBatch, log_starts
from consensus.blocktree import RECENT_MAX, BlockTree, genesis_block
from consensus.codec import decode
from consensus.command import CommandId, command_id, decode_command, expires_ms
from consensus.committee import Committee, Parameters
from consensus.committer import Committer
from consensus.context import (
    KEY_OWN_HEAD,
    KEY_SAFETY,
    TABLE_BATCHES,
    TABLE_BLOCKS,
    TABLE_BODIES,
    TABLE_CHAIN,
    TABLE_LOG,
    TABLE_SAFETY,
    Context,
    EpochStart,
    Executor,
    Reader,
    batch_key,
    chain_floor,
    height_key,
    log_key,
)
from consensus.crypto import ReplicaSigner
from consensus.digest import Digest
from consensus.fetch import Fetcher
from consensus.logstore import LogStore
from consensus.messages import Block, Head, LogBatch
from consensus.ownlog import OwnHead, OwnLog
from consensus.safety import Safety, SafetyRecord
from consensus.sequencer import Sequencer
from consensus.shelf import Shelf, newest_record
from consensus.snapshot import (
    TABLE_STATE,
    SnapshotError,
    SnapshotRecord,
    object_key,
    read_state,
    state_digest,
)

UNCOMMITTED_LOADED_MAX = 4_096
"""Batches of one log loaded above its committed head; the rest is fetched again."""


class CorruptState(RuntimeError):
    """The disk lacks a record that the rest of it names."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A replica's parts, standing where its disk ends."""

    ctx: Context
    fetcher: Fetcher
    committer: Committer


def open_context(
    committee: Committee,
    parameters: Parameters,
    me: int,
    signer: ReplicaSigner,
    reader: Reader,
    executor: Executor,
    genesis_time_ms: int,
    start: EpochStart | None = None,
) -> Opened:
    """Return the parts that this disk describes, with the epoch's committed blocks executed.

    `start` is how the epoch began, when it is not the network's first. Errors: CorruptState.
    """
    starts = log_starts(committee)
    sequencer = Sequencer(committee, parameters, starts, genesis_time_ms)
    genesis, _ = genesis_block(committee.network, committee.epoch, starts, start)
    recent = [genesis]
    shelf = Shelf(reader, sequencer, executor)
    record = newest_record(reader)
    if record is not None:
        shelf.resume(record, restore(record, reader, sequencer, executor))
        recent = _recent_blocks(reader, record.height, genesis)
    base = Base(committee, parameters, me, signer, reader, executor, sequencer, shelf)
    return open_epoch(base, recent, start)


def restore(
    record: SnapshotRecord, reader: Reader, sequencer: Sequencer, executor: Executor
) -> dict[Digest, None]:
    """Become the state of a stored snapshot; return the names in it. Errors: CorruptState."""
    names: dict[Digest, None] = {}
    try:
        state = read_state(lambda n: reader.get(TABLE_STATE, object_key(n)), record.root, names)
        sequencer.load(state.sequencer)
        executor.load(state.executor)
    except (SnapshotError, ValueError) as error:
        raise CorruptState(f"snapshot of height {record.height}: {error}") from None
    if state_digest(sequencer.digest(), executor.digest()) != record.root:
        raise CorruptState(f"snapshot of height {record.height}: another state digest")
    return names


def snapshot_height(reader: Reader) -> int:
    """Return the height of the stored snapshot, or 0."""
    record = newest_record(reader)
    return record.height if record is not None else 0


@dataclass(frozen=True, slots=True)
class Base:
    """What an epoch is opened on: who takes part, and the replicated state."""

    committee: Committee
    parameters: Parameters
    me: int
    signer: ReplicaSigner
    reader: Reader
    executor: Executor
    sequencer: Sequencer
    shelf: Shelf


def open_epoch(base: Base, recent: list[Block], start: EpochStart | None) -> Opened:
    """Return the parts of a replica whose newest executed block is the last of `recent`, then
    execute what the disk has of the epoch above it."""
    committee, reader, sequencer = base.committee, base.reader, base.sequencer
    executor, epoch = base.executor, base.committee.epoch
    starts = log_starts(committee)
    _, genesis_digest = genesis_block(committee.network, epoch, starts, start)
    claim = start.claim if start is not None else NO_CLAIM
    raw = reader.get(TABLE_SAFETY, KEY_SAFETY)
    record = decode(SafetyRecord, raw) if raw else Safety.fresh(epoch, genesis_digest)
    if record.epoch != epoch:
        record = Safety.fresh(epoch, genesis_digest)
    logs = LogStore(committee, base.parameters, sequencer.heads, claim)
    for author in range(committee.n):
        logs.base_batches[author] = sequencer.last_batch(author)
    own_head, own_last = _own_head(reader, epoch, base.me, starts)
    own = OwnLog(committee, base.parameters, base.me, base.signer, own_head, own_last, claim)
    ctx = Context(
        committee=committee,
        parameters=base.parameters,
        me=base.me,
        signer=base.signer,
        reader=reader,
        executor=executor,
        safety=Safety(base.signer, base.me, record),
        logs=logs,
        own=own,
        tree=BlockTree(recent),
        sequencer=sequencer,
        shelf=base.shelf,
        start=start,
    )
    fetcher = Fetcher(ctx)
    committer = Committer(ctx, fetcher)
    if sequencer.height:
        digest = state_digest(sequencer.digest(), executor.digest())
        ctx.executed_digests[sequencer.height] = digest
    if start is not None and sequencer.height == start.height:
        # The old epoch's digest, which the quorum signed: the new one's logs have changed it.
        ctx.executed_digests[start.height] = Digest(start.state)
    _load_pending_bodies(ctx)
    replay(ctx, committer)
    _load_uncommitted(ctx)
    return Opened(ctx, fetcher, committer)


def _must(value: bytes | None, what: str) -> bytes:
    if value is None:
        raise CorruptState(f"{what} is missing on disk")
    return value


def _recent_blocks(reader: Reader, height: int, genesis: Block) -> list[Block]:
    first = genesis.height
    recent: list[Block] = [genesis] if height < first + RECENT_MAX else []
    lowest = max(first + 1, height - RECENT_MAX + 1, chain_floor(reader))
    for h in range(min(lowest, height), height + 1):
        recent.append(_block_at(reader, h))
    return recent


def _block_at(reader: Reader, height: int) -> Block:
    digest = _must(reader.get(TABLE_CHAIN, height_key(height)), f"block {height}")
    return decode(Block, _must(reader.get(TABLE_BLOCKS, digest), f"block {height}"))


def _batch_at(reader: Reader, epoch: int, author: int, head: Head) -> LogBatch:
    raw = reader.get(TABLE_BATCHES, batch_key(epoch, author, head))
    return decode(LogBatch, _must(raw, f"batch {head.seq} of log {author}"))


def _own_head(
    reader: Reader, epoch: int, me: int, starts: tuple[Head, ...]
) -> tuple[Head, LogBatch | None]:
    start = starts[me] if me < len(starts) else Head(0, bytes(32))
    raw = reader.get(TABLE_SAFETY, KEY_OWN_HEAD)
    own = decode(OwnHead, raw) if raw is not None else None
    if own is None or own.epoch != epoch:
        # Nothing signed yet, or (newer) this epoch is over and only its end is of interest.
        return start, None
    return own.head, _batch_at(reader, epoch, me, own.head)


def _seal(ctx: Context, batch: LogBatch) -> SealedBatch:
    network = ctx.committee.network
    ids = tuple(command_id(network, decode_command(body)) for body in batch.bodies)
    return SealedBatch(batch, ids)


def _hold(ctx: Context, sealed: SealedBatch) -> None:
    """Hold a stored batch with the bodies that disk has for its entries."""
    # As in the running replica, void ids need no body: nobody may be able to give one.
    fair, time_ms = ctx.sequencer.fair, ctx.sequencer.time_ms
    entries = [CommandId(e) for e in sealed.batch.entries]
    over = [id_ for id_ in entries if expires_ms(id_) <= time_ms or fair.is_done(id_)]
    ctx.logs.add(sealed, over)
    for id_ in list(sealed.missing):
        body = ctx.reader.get(TABLE_BODIES, id_)
        if body is not None:
            ctx.logs.add_body(id_, body)


def _load_pending_bodies(ctx: Context) -> None:
    """Hold the bodies of ids that the snapshot has pending."""
    for each in ctx.sequencer.fair.pending():
        id_ = CommandId(each)
        body = _must(ctx.reader.get(TABLE_BODIES, id_), "body of a pending command")
        ctx.logs.add_body(id_, body)


def replay(ctx: Context, committer: Committer) -> None:
    """Commit and execute again the blocks on disk above the tip."""
    epoch = ctx.committee.epoch
    while True:
        height = ctx.tree.tip.height + 1
        if ctx.reader.get(TABLE_CHAIN, height_key(height)) is None:
            return
        block = _block_at(ctx.reader, height)
        if block.epoch != epoch:
            return
        runs: list[list[SealedBatch]] = []
        for author, head in enumerate(block.heads):
            base = ctx.logs.bases[author]
            run: list[SealedBatch] = []
            for seq in range(base.seq + 1, head.seq + 1):
                digest = ctx.reader.get(TABLE_LOG, log_key(epoch, author, seq))
                at = Head(seq, _must(digest, f"position {seq} of log {author}"))
                run.append(_seal(ctx, _batch_at(ctx.reader, epoch, author, at)))
            for sealed in run:
                _hold(ctx, sealed)
            runs.append(run)
        committer.apply(block, runs, replay=True)
        committer.emitted.clear()
        committer.void.clear()


def _load_uncommitted(ctx: Context) -> None:
    """Hold the batches above the committed heads, and the blocks that the durable state names."""
    epoch = ctx.committee.epoch
    for author in range(ctx.committee.n):
        start = log_key(epoch, author, ctx.logs.bases[author].seq + 1)
        end = log_key(epoch, author + 1, 0)
        for count, (_, raw) in enumerate(ctx.reader.scan(TABLE_BATCHES, start, end)):
            if count == UNCOMMITTED_LOADED_MAX:
                break
            sealed = _seal(ctx, decode(LogBatch, raw))
            _hold(ctx, sealed)
            if author == ctx.me:
                ctx.own.note_logged(CommandId(e) for e in sealed.batch.entries)
    safety = ctx.safety
    named = [safety.lock.block]
    named += [m.block for m in (safety.vote, safety.commit_vote) if m is not None]
    if safety.proposal is not None:
        ctx.tree.add(safety.proposal.block)
        named.append(safety.proposal.block.qc.block)
    for digest in named:
        _load_branch(ctx, Digest(digest))


def _load_branch(ctx: Context, digest: Digest) -> None:
    """Hold the stored block with this digest and its ancestors above the tip."""
    while ctx.tree.block(digest) is None:
        raw = ctx.reader.get(TABLE_BLOCKS, digest)
        if raw is None:
            return
        block = decode(Block, raw)
        if block.height <= ctx.tree.tip.height:
            return
        ctx.tree.add(block)
        digest = Digest(block.qc.block)
