"""The end of an epoch: its last block, and the certificate that hands the network over.

The block that executes the registry's message, at height h, ends its epoch at h + 64; from there
on blocks keep their parent's heads, so what may still follow the last block is empty. Replicas go
on with rounds until q of them have signed the state after it: fewer could not help the rest.
Source: ARCHITECTURE.md, "Epochs".
"""

from __future__ import annotations

from msgspec import Struct

from consensus.codec import encode
from consensus.committer import Committer
from consensus.context import TABLE_EPOCHS, Context, EpochStart, epoch_key
from consensus.messages import (
    TAG_HANDOVER,
    EpochEnded,
    Handover,
    HandoverVote,
    InboxClaim,
    handover_digest,
)


class EpochRecord(Struct, frozen=True, array_like=True):
    """How an epoch ended, as kept on disk: with what was anchored of the contract's inbox."""

    handover: Handover
    inbox_count: int
    inbox_hash: bytes

    @staticmethod
    def of(handover: Handover, anchored: InboxClaim) -> EpochRecord:
        return EpochRecord(handover, anchored.count, anchored.hash)

    def start(self) -> EpochStart:
        """Return how the next epoch begins."""
        handover = self.handover
        claim = InboxClaim(self.inbox_count, self.inbox_hash, ())
        return EpochStart(handover.height, handover.block, handover.state, claim)


class Handing:
    """Collects handover votes, and knows when this replica may leave its epoch."""

    def __init__(self, ctx: Context, committer: Committer) -> None:
        self._ctx = ctx
        self._committer = committer
        self._votes: dict[int, HandoverVote] = {}
        self._own: HandoverVote | None = None
        self._proof: Handover | None = None
        self.done: Handover | None = None
        """The certificate, once this replica itself stands at the epoch's end."""

    def advance(self) -> None:
        """Sign the end when it is committed, and leave when q replicas have signed it."""
        ctx, last, height = self._ctx, self._ctx.last_height(), self._ctx.tree.tip.height
        if self.done is not None or self._committer.halted:
            return
        if height == last and self._own is None and ctx.may_sign:
            self._own = self._sign(height)
            ctx.promise()
            ctx.broadcast(self._own)
        if self._proof is not None and height >= self._proof.height:
            self._leave(self._proof)

    def _sign(self, height: int) -> HandoverVote:
        ctx = self._ctx
        successor = ctx.executor.successor()
        assert successor is not None, "an epoch ends because it has a successor"
        block, state = ctx.tree.tip_digest, ctx.executed_digests[height]
        covered = handover_digest(height, block, state, successor.keys)
        return HandoverVote(
            epoch=ctx.committee.epoch,
            height=height,
            block=block,
            state=state,
            keys=successor.keys,
            voter=ctx.me,
            signature=ctx.signer.sign(ctx.committee.epoch, TAG_HANDOVER, covered),
        )

    def on_vote(self, vote: HandoverVote) -> None:
        """Count a vote, the newest of each voter; q that say the same make the certificate."""
        if self._proof is not None:
            return
        self._votes[vote.voter] = vote
        said = (vote.height, vote.block, vote.state, vote.keys)
        same = [
            v
            for _, v in sorted(self._votes.items())
            if (v.height, v.block, v.state, v.keys) == said
        ]
        if len(same) >= self._ctx.committee.quorum:
            votes = tuple((v.voter, v.signature) for v in same)
            self.on_certificate(Handover(vote.epoch, *said, votes))

    def on_certificate(self, handover: Handover) -> None:
        """Take a verified certificate: it also proves that the last block is committed."""
        if self._proof is None:
            self._proof = handover
            self._committer.prove_end(handover)
            self.advance()

    def _leave(self, handover: Handover) -> None:
        ctx = self._ctx
        mine = ctx.executed_digests.get(handover.height)
        successor = ctx.executor.successor()
        keys = successor.keys if successor is not None else ()
        said = (handover.height, handover.block, handover.state, handover.keys)
        if said != (ctx.last_height(), ctx.tree.tip_digest, mine, keys):
            self._committer.halt_at_end(handover)
            return
        self.done = handover
        record = EpochRecord.of(handover, ctx.sequencer.anchored)
        ctx.write(TABLE_EPOCHS, epoch_key(handover.epoch), encode(record))
        ctx.promise()

    def repeat(self, peers: tuple[int, ...]) -> None:
        """Say again what `peers` may have missed: the certificate, or else our vote for it."""
        for peer in peers:
            if self._proof is not None:
                self._ctx.send(peer, EpochEnded(self._proof))
            elif self._own is not None:
                self._ctx.send(peer, self._own)
