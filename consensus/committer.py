"""Commitment and execution: proven blocks, exactly once, in height order, with all their data.

A block is proven by q commit votes, or by a certified child of the next round (two-chain rule).
"""

from __future__ import annotations

from collections.abc import Callable

from consensus.batches import SealedBatch
from consensus.codec import encode
from consensus.command import CommandId
from consensus.context import (
    TABLE_BLOCKS,
    TABLE_CHAIN,
    TABLE_LOG,
    TABLE_PROOFS,
    Context,
    height_key,
    log_key,
)
from consensus.digest import ZERO_DIGEST, Digest
from consensus.divergence import Divergence, PartDigests
from consensus.fetch import Fetcher, WantBatches, WantBlock, WantBody
from consensus.logstore import BrokenPath, MissingBatch
from consensus.messages import QC, Block, CommitProof, Handover, block_digest
from consensus.snapshot import state_digest

DIGEST_INTERVAL = 8
"""State digests are taken at heights that are multiples of this."""
DIGESTS_KEPT = 64
SNAPSHOT_INTERVAL = 1_024
"""A snapshot is taken so many heights after the last one, if no milestone comes before."""
COMMITS_PER_STEP_MAX = 64


class Committer:
    """The way from a proof of commitment to an executed block."""

    def __init__(self, ctx: Context, fetcher: Fetcher) -> None:
        self._ctx = ctx
        self._fetcher = fetcher
        self._target: tuple[int, Digest] | None = None
        self._proofs: dict[Digest, CommitProof] = {}
        self._claimed: dict[int, tuple[Digest, QC]] = {}
        self.covered: Callable[[int], bool] = lambda author: False
        """Says whether a log's batches are on their way without a wish of ours."""
        self.halted = False
        self.emitted: list[CommandId] = []
        self.void: list[CommandId] = []
        """What the commits of this step ended; the replica empties both after each."""

    @property
    def proved_height(self) -> int:
        """The highest block that is known to be committed, here or elsewhere."""
        tip = self._ctx.tree.tip.height
        return tip if self._target is None else max(tip, self._target[0])

    def prove(self, proof: CommitProof) -> None:
        """Take in a verified proof: q commit votes for a block."""
        block = self._ctx.tree.block(proof.block)
        digest = Digest(proof.block)
        if block is not None and block.height <= self._ctx.tree.tip.height:
            return
        if len(self._proofs) < DIGESTS_KEPT or digest in self._proofs:
            self._proofs[digest] = proof
        if block is None:
            self._fetcher.want(WantBlock(proof.block), [voter for voter, _ in proof.votes])
        else:
            self._aim(block, digest)

    def prove_end(self, handover: Handover) -> None:
        """Take in a verified certificate of the epoch's end: its last block is committed."""
        block = self._ctx.tree.block(handover.block)
        if block is not None:
            self._aim(block, Digest(handover.block))
        elif handover.height > self._ctx.tree.tip.height:
            self._target = (handover.height, Digest(handover.block))
            self._fetcher.want(WantBlock(handover.block), [voter for voter, _ in handover.votes])

    def halt_at_end(self, handover: Handover) -> None:
        """Stop: a quorum ended the epoch in another state than ours."""
        mine = self._ctx.executed_digests.get(handover.height, ZERO_DIGEST)
        self._diverged(handover.height, mine, Digest(handover.state))

    def _aim(self, block: Block, digest: Digest) -> None:
        if block.height > self._ctx.tree.tip.height and (
            self._target is None or block.height > self._target[0]
        ):
            self._target = (block.height, digest)

    def on_certified(self, qc: QC) -> None:
        """Apply the two-chain rule, and compare what a quorum executed, when `qc` is new."""
        tree = self._ctx.tree
        block = tree.block(qc.block)
        if block is None:
            return
        self._compare(block, qc)
        parent = tree.parent(block)
        if parent is not None and parent.height > 0 and parent.round + 1 == block.round:
            self._aim(parent, Digest(block.qc.block))

    def on_block(self, digest: Digest, block: Block) -> None:
        """A block arrived whose certificate, proof or child may have come before it."""
        for each in (digest, *self._ctx.tree.children(digest)):
            qc = self._ctx.tree.qc(each)
            if qc is not None:
                self.on_certified(qc)
        if digest in self._proofs:
            self._aim(block, digest)

    def _compare(self, block: Block, qc: QC) -> None:
        """A QC over `block` says what q - f honest replicas executed; it must be what we did."""
        height, digest = block.executed_height, Digest(block.executed_digest)
        mine = self._ctx.executed_digests.get(height)
        if mine is not None and mine != digest:
            self._diverged(height, mine, digest, qc)
        elif height > self._ctx.tree.tip.height and len(self._claimed) < DIGESTS_KEPT:
            self._claimed.setdefault(height, (digest, qc))

    def _diverged(self, height: int, mine: Digest, theirs: Digest, qc: QC | None = None) -> None:
        """Stop with all that is known of it; the driver adds what a replay needs."""
        ctx = self._ctx
        self.halted = True
        block = ctx.tree.block(qc.block) if qc is not None else None
        own = tuple(ctx.executed_parts[each] for each in sorted(ctx.executed_parts))
        dump = encode(Divergence(height, mine, theirs, block, qc, own))
        ctx.halt(f"state digest at height {height} differs from a quorum's", dump, "diverged")

    def try_commit(self) -> bool:
        """Commit as far as proofs and data reach; ask for what is missing. Say if any was."""
        if self._target is None or self.halted:
            return False
        ctx = self._ctx
        height, digest = self._target
        if height <= ctx.tree.tip.height:
            self._target = None
            return False
        block = ctx.tree.block(digest)
        if block is None:
            self._fetcher.want(WantBlock(digest), [])
            return False
        run = ctx.tree.uncommitted_to(block)
        if run is None:
            self.halted = True
            ctx.halt(f"a proven block of height {height} forks our chain", encode(block), "forked")
            return False
        if isinstance(run, bytes):
            self._fetcher.want(WantBlock(run), [ctx.committee.leader(block.round)])
            return False
        done = 0
        for each in run[:COMMITS_PER_STEP_MAX]:
            if ctx.tree.tip.height == ctx.last_height():
                break
            runs = self.data_for(each, run[-1])
            if runs is None:
                break
            self.apply(each, runs)
            done += 1
            if self.halted:
                break
        return done > 0

    def data_for(self, block: Block, until: Block) -> list[list[SealedBatch]] | None:
        """Return each log's batches from the committed heads to `block`'s, all bodies held.

        Asks for what is missing up to `until`, a block on `block` or itself, and returns None.
        """
        ctx = self._ctx
        runs: list[list[SealedBatch]] = []
        whole = True
        claimants = self.claimants(block)
        for author in range(ctx.committee.n):
            base, head = ctx.logs.bases[author], block.heads[author]
            path = ctx.logs.path(author, base, head)
            if isinstance(path, BrokenPath):
                ctx.count("broken_path")
                return None
            if isinstance(path, MissingBatch):
                whole = False
                if self.covered(author):
                    continue
                goal = path.head if until is block else until.heads[author]
                wish = WantBatches(author, None, goal, goal.seq)
                self._fetcher.want(wish, [*claimants, author])
                continue
            missing = ctx.logs.bodies_missing(path)
            if missing is not None:
                for id_ in missing.ids:
                    self._fetcher.want(WantBody(id_), [*claimants, author])
                whole = False
            runs.append(path)
        return runs if whole else None

    def claimants(self, block: Block) -> list[int]:
        """Return who should hold a block's data: its leader, and the parent's voters."""
        ctx = self._ctx
        return [ctx.committee.leader(block.round), *(v.voter for v in block.qc.votes)]

    def apply(self, block: Block, runs: list[list[SealedBatch]], replay: bool = False) -> None:
        """Commit `block`, the child of the tip, and execute what it orders."""
        ctx = self._ctx
        digest = block_digest(block)
        ordered = ctx.sequencer.commit(block, digest, runs)
        bodies: list[tuple[CommandId, bytes]] = []
        for id_ in ordered.ids:
            body = ctx.logs.body(id_)
            assert body is not None, "an ordered command's body is held"
            bodies.append((id_, body))
        ctx.executor.execute(ordered, bodies)
        ctx.tree.commit(block, digest)
        for author, run in enumerate(runs):
            ctx.logs.commit(author, run)
        emitted = (*ordered.ids, *ordered.refused)
        for id_ in emitted:
            ctx.logs.satisfy(id_)
            ctx.logs.drop_body(id_)
        void = ctx.logs.expire(ordered.time_ms)
        ctx.own.forget(emitted)
        ctx.own.forget(void)
        self.emitted.extend(emitted)
        self.void.extend(void)
        ctx.count("blocks_committed")
        ctx.count("commands_ordered", len(ordered.ids))
        if block.height % DIGEST_INTERVAL == 0 or block.height == ctx.last_height():
            self._take_digest(block.height)
        if not replay:
            self._record(block, digest, runs)

    def _take_digest(self, height: int) -> None:
        ctx = self._ctx
        parts = PartDigests(height, ctx.sequencer.digest(), ctx.executor.digest())
        mine = state_digest(parts.sequencer, parts.executor)
        ctx.executed_digests[height] = mine
        ctx.executed_parts[height] = parts
        for old in [h for h in ctx.executed_digests if h <= height - 8 * DIGESTS_KEPT]:
            del ctx.executed_digests[old]
            ctx.executed_parts.pop(old, None)
        claimed = self._claimed.pop(height, None)
        for old in [h for h in self._claimed if h < height]:
            del self._claimed[old]
        if claimed is not None and claimed[0] != mine:
            self._diverged(height, mine, *claimed)
            return
        is_milestone = ctx.executor.is_milestone
        due = is_milestone or height - ctx.shelf.newest_height >= SNAPSHOT_INTERVAL
        if due and ctx.shelf.may_take():
            ctx.shelf.take(height, mine, is_milestone)

    def _record(self, block: Block, digest: Digest, runs: list[list[SealedBatch]]) -> None:
        ctx = self._ctx
        ctx.write(TABLE_BLOCKS, digest, encode(block))
        ctx.write(TABLE_CHAIN, height_key(block.height), digest)
        for author, run in enumerate(runs):
            for sealed in run:
                position = log_key(ctx.committee.epoch, author, sealed.batch.seq)
                ctx.write(TABLE_LOG, position, sealed.digest)
        proof = self._proofs.pop(digest, None)
        if proof is not None:
            ctx.write(TABLE_PROOFS, height_key(block.height), encode(proof))
        for old in [d for d, p in self._proofs.items() if p.round < block.round]:
            del self._proofs[old]
        ctx.flush()
