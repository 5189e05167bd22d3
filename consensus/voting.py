"""Proposals and votes: what a leader puts into a block, and when a replica votes for one."""

from __future__ import annotations

from consensus.committer import DIGEST_INTERVAL, Committer
from consensus.context import Context
from consensus.digest import Digest
from consensus.fetch import Fetcher, WantBatches, WantBlock
from consensus.inclusion import floor_heads, heads_fault, keeps_heads
from consensus.logstore import BrokenPath
from consensus.messages import Block, Head, Proposal, block_digest
from consensus.rounds import Rounds
from consensus.safety import extends
from consensus.sequencer import block_time_ms

PROPOSE_TIMER = "propose"
VOTE_TIMER = "vote"
AHEAD_OF_CLOCK_MAX_MS = 1_000
"""A voter waits while block time is further ahead of its clock than this; it never refuses."""


class Voting:
    """The leader's and the voter's half of a round."""

    def __init__(
        self,
        ctx: Context,
        fetcher: Fetcher,
        committer: Committer,
        rounds: Rounds,
    ) -> None:
        self._ctx = ctx
        self._fetcher = fetcher
        self._committer = committer
        self._rounds = rounds
        self._proposals: dict[int, Proposal] = {}
        self._refused: dict[Digest, str] = {}
        self._parent_seen_ms = 0

    def on_proposal(self, peer: int, proposal: Proposal) -> None:
        """Take in a leader's block: its certificates first, then perhaps a vote."""
        ctx, block = self._ctx, proposal.block
        self._rounds.take_qc(block.qc)
        if block.tc is not None:
            self._rounds.take_tc(block.tc)
        if block.round < self._rounds.round:
            self._rounds.answer_laggard(peer, block.round)
        if block.height <= ctx.tree.tip.height:
            return
        if not extends(block.round, block.qc, block.tc):
            ctx.blame(peer, "proposal does not follow from its certificates")
            return
        first = self._proposals.get(block.round)
        if first is not None and first.block != block:
            return
        if block.round < self._rounds.round and ctx.tree.qc(block.digest) is None:
            # No honest replica votes for it any more, and its leader may have signed thousands.
            # Should votes that are on their way certify it, it is asked of the voters.
            ctx.count("proposals_late")
            return
        digest = ctx.tree.add(block)
        self._committer.on_block(digest, block)
        if block.round >= self._rounds.round:
            self._proposals[block.round] = proposal
            self._parent_seen_ms = ctx.now_ms
            for old in [r for r in self._proposals if r < self._rounds.round]:
                del self._proposals[old]

    def try_propose(self) -> bool:
        """Propose when it is our turn and time; say whether a block went out."""
        ctx, round_ = self._ctx, self._rounds.round
        safety = ctx.safety
        if not ctx.may_sign:
            return False
        if ctx.committee.leader(round_) != ctx.me or not safety.may_propose(round_):
            return False
        if round_ <= safety.last_voted:
            return False
        start = max(self._rounds.entered_ms, self._parent_seen_ms)
        ready_ms = self._parent_seen_ms + ctx.parameters.block_interval_ms
        if ctx.now_ms < ready_ms:
            ctx.timer(PROPOSE_TIMER, ready_ms)
            return False
        tc = safety.hi_tc if safety.hi_tc and safety.hi_tc.round == round_ - 1 else None
        qc = safety.lock
        if not extends(round_, qc, tc):
            return False
        parent = ctx.tree.block(qc.block)
        if parent is None:
            self._fetcher.want(WantBlock(qc.block), [v.voter for v in qc.votes])
            return False
        executed = self._executed_for(parent)
        if executed is None:
            return False
        heads = self._heads_for(parent, executed[0])
        if heads is None:
            return False
        prompt = self._rounds.after_timeout or not self._rounds.last_turn_succeeded()
        empty_ms = start + ctx.parameters.empty_block_ms
        if heads == parent.heads and not prompt and ctx.now_ms < empty_ms:
            ctx.timer(PROPOSE_TIMER, empty_ms)
            return False
        block = Block(
            epoch=ctx.committee.epoch,
            round=round_,
            height=parent.height + 1,
            qc=qc,
            tc=tc if qc.round < round_ - 1 else None,
            heads=heads,
            executed_height=executed[0],
            executed_digest=executed[1],
        )
        proposal = safety.sign_proposal(block)
        ctx.write_block(block, block_digest(block))
        ctx.persist_safety()
        ctx.broadcast(proposal)
        ctx.count("proposals")
        return True

    def _executed_for(self, parent: Block) -> tuple[int, Digest] | None:
        """Return the highest state that a child of `parent` may name, or None while unknown."""
        ctx = self._ctx
        certain = ctx.tree.certain_height(parent)
        if certain is None:
            return None
        height = min(certain, ctx.sequencer.height)
        height -= height % DIGEST_INTERVAL
        if height > parent.executed_height and height in ctx.executed_digests:
            return height, ctx.executed_digests[height]
        return parent.executed_height, Digest(parent.executed_digest)

    def _ends(self, height: int) -> bool:
        """Say whether the epoch ends with this height or below: heads stay as they are."""
        last = self._ctx.last_height()
        return last is not None and height >= last

    def _heads_for(self, parent: Block, executed_height: int) -> tuple[Head, ...] | None:
        """Return the furthest heads that we hold and may name; ask for those that we must."""
        ctx = self._ctx
        if keeps_heads(parent.height + 1, executed_height) or self._ends(parent.height + 1):
            return parent.heads
        cap = ctx.parameters.head_cap
        qc = ctx.safety.lock
        floors = floor_heads(parent, qc, ctx.committee.f, cap)
        heads: list[Head] = []
        whole = True
        for author, before in enumerate(parent.heads):
            run = ctx.logs.deepest(author, before, cap)
            head = run[-1].head if run else before
            if head.seq < floors[author]:
                ranked = sorted(qc.votes, key=lambda v: (-v.seen[author], v.voter))
                wish = WantBatches(author, before, None, floors[author])
                self._fetcher.want(wish, [*(v.voter for v in ranked), author])
                ctx.count("leader_lacks_required")
                whole = False
            heads.append(head)
        return tuple(heads) if whole else None

    def try_vote(self) -> bool:
        """Vote for the current round's proposal when it is safe and valid; say if we did."""
        ctx, round_ = self._ctx, self._rounds.round
        proposal = self._proposals.get(round_)
        if proposal is None or not ctx.may_sign:
            return False
        block = proposal.block
        if not ctx.safety.may_vote(block) or self._committer.halted:
            return False
        if block.height <= ctx.tree.tip.height:
            # Commit votes proved it before its votes reached us: there is nothing to vote for.
            return False
        digest = block_digest(block)
        if digest in self._refused or not self._is_valid(block, digest):
            return False
        seen = tuple(
            head.seq + len(ctx.logs.deepest(author, head, 2 * ctx.parameters.log_window))
            for author, head in enumerate(block.heads)
        )
        vote = ctx.safety.sign_vote(block, digest, seen)
        ctx.write_block(block, digest)
        ctx.persist_safety()
        ctx.broadcast(vote)
        return True

    def _refuse(self, block: Block, digest: Digest, why: str) -> bool:
        if len(self._refused) > 64:
            self._refused.clear()
        self._refused[digest] = why
        self._ctx.count("refused_proposals")
        self._ctx.blame(self._ctx.committee.leader(block.round), f"proposal: {why}")
        return False

    def _is_valid(self, block: Block, digest: Digest) -> bool:
        """Say whether `block` is valid now; what may become so later is asked or waited for."""
        ctx = self._ctx
        parent = ctx.tree.block(block.qc.block)
        if parent is None:
            self._fetcher.want(WantBlock(block.qc.block), self._committer.claimants(block))
            return False
        if block.height != parent.height + 1:
            return self._refuse(block, digest, "height does not follow")
        if self._ends(block.height):
            fault = None if block.heads == parent.heads else "heads move though the epoch ends"
        else:
            fault = heads_fault(block, parent, ctx.committee.f, ctx.parameters.head_cap)
        if fault is not None:
            return self._refuse(block, digest, fault)
        run = ctx.tree.uncommitted_to(block)
        if run is None:
            return self._refuse(block, digest, "does not extend the committed chain")
        if isinstance(run, bytes):
            self._fetcher.want(WantBlock(run), self._committer.claimants(block))
            return False
        held = self._committer.data_for(block, block) is not None
        # Broken paths are refused even while something else is missing; nothing is voted for.
        paths_stand = self._check_paths(block, parent, digest)
        return held and paths_stand and self._check_state(block, parent, digest, run)

    def _check_paths(self, block: Block, parent: Block, digest: Digest) -> bool:
        """Say whether all heads extend the parent's on valid batches, all held."""
        logs = self._ctx.logs
        for author, (head, before) in enumerate(zip(block.heads, parent.heads, strict=True)):
            start = before if before.seq >= logs.bases[author].seq else logs.bases[author]
            path = logs.path(author, start, head)
            if isinstance(path, BrokenPath):
                return self._refuse(block, digest, f"log {author}: {path.why}")
            if not isinstance(path, list) or logs.bodies_missing(path) is not None:
                return False
        return True

    def _check_state(self, block: Block, parent: Block, digest: Digest, run: list[Block]) -> bool:
        """Say whether block time and the named state stand against ours."""
        ctx = self._ctx
        time_ms = ctx.sequencer.time_ms
        for each in run:
            time_ms = block_time_ms(time_ms, self._times_at(each))
        if time_ms > ctx.now_ms + AHEAD_OF_CLOCK_MAX_MS:
            ctx.timer(VOTE_TIMER, time_ms - AHEAD_OF_CLOCK_MAX_MS)
            return False
        height, claimed = block.executed_height, block.executed_digest
        if height > ctx.sequencer.height:
            # Also a state that the parent named is our own before we vote: it says, for one,
            # whether the epoch ends. Its blocks are certain, so they commit here soon.
            return False
        if height == parent.executed_height:
            if claimed != parent.executed_digest:
                return self._refuse(block, digest, "executed differs from the parent's")
            return True
        certain = ctx.tree.certain_height(parent)
        if certain is None:
            return False
        if height % DIGEST_INTERVAL or not parent.executed_height < height <= certain:
            return self._refuse(block, digest, "executed out of bounds")
        mine = ctx.executed_digests.get(height)
        if mine is None:
            return False
        if mine != claimed:
            ctx.count("executed_differs")
            return self._refuse(block, digest, "executed state differs from ours")
        return True

    def _times_at(self, block: Block) -> list[int]:
        """Return the batch times at a block's heads, whose batches are all held."""
        ctx = self._ctx
        times: list[int] = []
        for author, head in enumerate(block.heads):
            sealed = ctx.logs.batch(author, head.digest)
            times.append(sealed.batch.time_ms if sealed else ctx.sequencer.times_ms[author])
        return times
