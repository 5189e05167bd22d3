"""Answers to peers that lack something: from memory, or from this replica's own disk."""

from __future__ import annotations

from consensus.batches import SealedBatch
from consensus.codec import decode, encode
from consensus.command import CommandId
from consensus.context import (
    TABLE_BATCHES,
    TABLE_BLOCKS,
    TABLE_BODIES,
    TABLE_CHAIN,
    TABLE_EPOCHS,
    TABLE_LOG,
    TABLE_PROOFS,
    Context,
    batch_key,
    epoch_key,
    height_key,
    log_key,
)
from consensus.digest import Digest
from consensus.handover import EpochRecord
from consensus.messages import (
    FETCH_BATCHES_MAX,
    FETCH_BLOCKS_MAX,
    QC,
    Batches,
    Block,
    Blocks,
    Bodies,
    Chain,
    CommitProof,
    EpochEnded,
    GetBatches,
    GetBlock,
    GetBodies,
    GetChain,
    GetHandover,
    GetState,
    Head,
    LogBatch,
    Pruned,
    StateObjects,
    batch_digest,
    block_digest,
)

ANSWER_BYTES_MAX = 1 << 20
"""An answer ends at the item that brings it over this; the peer asks again for the rest."""


class Library:
    """Reads blocks, batches and bodies by name, wherever they are."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def block(self, digest: bytes) -> Block | None:
        """Return the block with this digest, committed or not."""
        held = self._ctx.tree.block(digest)
        if held is not None:
            return held
        raw = self._ctx.reader.get(TABLE_BLOCKS, digest)
        return decode(Block, raw) if raw is not None else None

    def committed(self, height: int) -> Block | None:
        """Return the committed block at `height`."""
        if height == self._ctx.tree.tip.height and self._ctx.tree.tip.round:
            return self._ctx.tree.tip
        digest = self._ctx.reader.get(TABLE_CHAIN, height_key(height))
        return self.block(digest) if digest is not None else None

    def body(self, id_: CommandId) -> bytes | None:
        """Return the command with this id."""
        held = self._ctx.logs.body(id_)
        return held if held is not None else self._ctx.reader.get(TABLE_BODIES, id_)

    def handover(self, question: GetHandover) -> EpochEnded | None:
        """Return how an epoch ended."""
        raw = self._ctx.reader.get(TABLE_EPOCHS, epoch_key(question.epoch))
        return EpochEnded(decode(EpochRecord, raw).handover) if raw is not None else None

    def _batches_of_old(self, question: GetBatches) -> Batches | None:
        """Return a run of a log of an epoch that is over, as committed."""
        run: list[LogBatch] = []
        size, at = 0, question.after
        while len(run) < FETCH_BATCHES_MAX and size < ANSWER_BYTES_MAX:
            batch = self._stored_after(question.epoch, question.author, at)
            if batch is None:
                break
            run.append(batch)
            size += len(encode(batch))
            at = Head(batch.seq, batch_digest(batch))
        return Batches(tuple(run)) if run else None

    def _stored_after(self, epoch: int, author: int, at: Head) -> LogBatch | None:
        """Return the committed batch that follows `at`, from disk."""
        digest = self._ctx.reader.get(TABLE_LOG, log_key(epoch, author, at.seq + 1))
        if digest is None:
            return None
        raw = self._ctx.reader.get(
            TABLE_BATCHES, batch_key(epoch, author, Head(at.seq + 1, digest))
        )
        if raw is None:
            return None
        batch = decode(LogBatch, raw)
        return batch if batch.prev == at.digest else None

    def batches(self, question: GetBatches) -> Batches | Pruned | None:
        """Return a run of log `author` after the named head."""
        ctx, author = self._ctx, question.author
        if question.epoch != ctx.committee.epoch:
            return self._batches_of_old(question)
        if not 0 <= author < ctx.committee.n:
            return None
        run: list[LogBatch] = []
        size = 0
        at, base = question.after, ctx.logs.bases[author]
        while at.seq < base.seq and len(run) < FETCH_BATCHES_MAX and size < ANSWER_BYTES_MAX:
            batch = self._stored_after(question.epoch, author, at)
            digest = ctx.reader.get(TABLE_LOG, log_key(ctx.committee.epoch, author, at.seq + 1))
            if batch is None or digest is None:
                break
            run.append(batch)
            size += len(encode(batch))
            at = Head(at.seq + 1, digest)
        if at.seq >= base.seq:
            until = question.until
            if until is None:
                held = ctx.logs.deepest(author, at, FETCH_BATCHES_MAX)
            else:
                held = self._run_to(author, at, until)
            for sealed in held[: FETCH_BATCHES_MAX - len(run)]:
                if size >= ANSWER_BYTES_MAX:
                    break
                run.append(sealed.batch)
                size += len(encode(sealed.batch))
        if not run and question.after.seq < base.seq and ctx.chain_floor > 1:
            return Pruned(ctx.chain_floor)
        return Batches(tuple(run)) if run else None

    def _run_to(self, author: int, at: Head, until: Head) -> list[SealedBatch]:
        """Return the first held batches from `at` up to `until`, or if that is another branch the
        last ones before it: an answer that holds `until` itself always helps."""
        logs = self._ctx.logs
        path = logs.path(author, at, until)
        if isinstance(path, list):
            return path
        path = logs.path(author, logs.bases[author], until)
        return path[-FETCH_BATCHES_MAX:] if isinstance(path, list) else []

    def bodies(self, question: GetBodies) -> Bodies | None:
        """Return those of the wanted commands that are here."""
        found: list[bytes] = []
        size = 0
        for id_ in question.ids:
            body = self.body(CommandId(id_))
            if body is not None and size < ANSWER_BYTES_MAX:
                found.append(body)
                size += len(body)
        return Bodies(tuple(found)) if found else None

    def blocks(self, question: GetBlock) -> Blocks | None:
        """Return the wanted block and its ancestors above a height, lowest first."""
        run: list[Block] = []
        at = self.block(question.block)
        while at is not None and at.height > max(question.above_height, 0):
            run.append(at)
            if len(run) >= FETCH_BLOCKS_MAX:
                break
            at = self.block(at.qc.block)
        run.reverse()
        return Blocks(tuple(run)) if run else None

    def state(self, question: GetState) -> StateObjects:
        """Return the named objects of state, an empty one for each that is not here."""
        found: list[bytes] = []
        size = 0
        for name in question.names:
            if size >= ANSWER_BYTES_MAX:
                break
            found.append(self._ctx.shelf.read(name) or b"")
            size += len(found[-1])
        return StateObjects(question.nonce, tuple(found))

    def chain(self, question: GetChain) -> Chain | Pruned | None:
        """Return committed blocks from a height, ending with one whose commitment is provable."""
        tip = self._ctx.tree.tip.height
        if question.from_height < self._ctx.chain_floor:
            return Pruned(self._ctx.chain_floor)
        last = min(tip, question.from_height + FETCH_BLOCKS_MAX - 1)
        blocks = [self.committed(h) for h in range(max(question.from_height, 1), last + 1)]
        run = [block for block in blocks if block is not None]
        if not run or len(run) != len(blocks):
            return None
        run = [block for block in run if block.epoch == run[0].epoch]
        while run:
            height = run[-1].height
            raw = self._ctx.reader.get(TABLE_PROOFS, height_key(height))
            if raw is not None:
                return Chain(tuple(run), decode(CommitProof, raw), None, None)
            child = self.committed(height + 1) if height < tip else None
            if (
                child is not None
                and child.qc.block == block_digest(run[-1])
                and child.round == run[-1].round + 1
            ):
                qc = self._certificate(child, height + 1)
                if qc is not None:
                    return Chain(tuple(run), None, child, qc)
            run.pop()
        return None

    def _certificate(self, block: Block, height: int) -> QC | None:
        grandchild = self.committed(height + 1) if height < self._ctx.tree.tip.height else None
        if grandchild is None:
            return self._ctx.tree.qc(Digest(self._ctx.tree.tip_digest))
        # The epoch's last block has no child here that certifies it.
        return grandchild.qc if grandchild.qc.block == block_digest(block) else None
