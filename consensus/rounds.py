"""Rounds: certificates that come in, the pacemaker's timers, timeouts, answers to laggards.

Source: Jolteon (arXiv 2106.10362), pacemaker; ARCHITECTURE.md, "Pacing".
"""

from __future__ import annotations

from consensus.codec import encode
from consensus.committer import Committer
from consensus.context import KEY_SAFETY, TABLE_SAFETY, Context
from consensus.fetch import Fetcher, WantBlock
from consensus.messages import (
    QC,
    TC,
    CommitVote,
    Proposal,
    RoundInfo,
    RoundTC,
    Timeout,
    Vote,
)
from consensus.tally import (
    ROUNDS_AHEAD_MAX,
    ROUNDS_BEHIND_MAX,
    TimeoutTally,
    VoteTally,
    make_commit_proof,
    make_qc,
    make_tc,
)

TIMER = "round"
ANSWER_INTERVAL_MS = 50
"""A peer that lags is told so at most this often."""
BACKOFF_EXPONENT_MAX = 16
COMMIT_ROUNDS_MAX = 1_024
"""Commit votes are kept from the committed round on, but for no more rounds than these: a replica
whose tip stands still longer learns of commits by the chain instead."""


class Rounds:
    """The current round, and the certificates that move it."""

    def __init__(self, ctx: Context, fetcher: Fetcher, committer: Committer) -> None:
        self._ctx = ctx
        self._fetcher = fetcher
        self._committer = committer
        self.round = ctx.safety.round
        self.entered_ms = 0
        self.after_timeout = True
        """Whether this round was entered by a TC, or by a restart."""
        self._fails = 0
        self._failed_leaders: dict[int, None] = {}
        self._votes: VoteTally[Vote] = VoteTally()
        self._commit_votes: VoteTally[CommitVote] = VoteTally()
        self._timeouts = TimeoutTally()
        self._answered_ms: dict[int, int] = {}
        self._own_certified_round = 0

    def start(self) -> None:
        """Begin in the round that durable state allows; send again exactly what was sent."""
        ctx = self._ctx
        self.round = ctx.safety.round
        for message in (
            ctx.safety.proposal,
            ctx.safety.vote,
            ctx.safety.commit_vote,
            ctx.safety.timeout,
        ):
            if message is not None:
                ctx.broadcast(message)
        self._begin(self.round)

    def in_window(self, round_: int) -> bool:
        """Say whether statements of `round_` are worth keeping."""
        return self.round - ROUNDS_BEHIND_MAX <= round_ <= self.round + ROUNDS_AHEAD_MAX

    def take_qc(self, qc: QC) -> None:
        """Take in a verified QC: raise the lock, commit-vote, enter the next round."""
        if qc.round == 0:
            return
        ctx, safety = self._ctx, self._ctx.safety
        if ctx.tree.certify(qc) and ctx.tree.block(qc.block) is None:
            self._fetcher.want(WantBlock(qc.block), [v.voter for v in qc.votes])
        if not self._commit_vote(qc) and safety.take_qc(qc):
            ctx.write(TABLE_SAFETY, KEY_SAFETY, encode(safety.record()))
        self._committer.on_certified(qc)
        if ctx.committee.leader(qc.round) == ctx.me:
            self._own_certified_round = max(self._own_certified_round, qc.round)
        if qc.round >= self.round:
            self._fails = 0
            self._failed_leaders.pop(ctx.committee.leader(qc.round), None)
            self.after_timeout = False
            self._begin(qc.round + 1)

    def _commit_vote(self, qc: QC) -> bool:
        """Commit-vote for what `qc` certifies, if that is recent and safe; say if we did."""
        ctx, safety = self._ctx, self._ctx.safety
        recent = qc.round >= self.round - ROUNDS_BEHIND_MAX
        if not (recent and ctx.may_sign and safety.may_commit_vote(qc)):
            return False
        vote = safety.sign_commit_vote(qc)
        ctx.persist_safety()
        ctx.broadcast(vote)
        return True

    def begin_signing(self) -> None:
        """Say at once what was held back since the start: a commit vote for the lock."""
        self._commit_vote(self._ctx.safety.lock)

    def last_turn_succeeded(self) -> bool:
        """Say whether our last proposal was certified; after a failure the next must be prompt."""
        last = self._ctx.safety.proposal
        return last is not None and self._own_certified_round >= last.block.round

    def take_tc(self, tc: TC) -> None:
        """Take in a verified TC and its QC; enter the next round."""
        ctx = self._ctx
        self.take_qc(tc.high_qc)
        if ctx.safety.take_tc(tc):
            ctx.write(TABLE_SAFETY, KEY_SAFETY, encode(ctx.safety.record()))
        if tc.round >= self.round:
            # Counted here and not at the own timer: who is always joined by f+1 others first
            # would else keep its short timer, and the network's would hardly grow.
            self._fails += 1
            self._failed_leaders[ctx.committee.leader(tc.round)] = None
            self.after_timeout = True
            self._begin(tc.round + 1)

    def _begin(self, round_: int) -> None:
        ctx = self._ctx
        self.round = round_
        self.entered_ms = ctx.now_ms
        below = round_ - ROUNDS_BEHIND_MAX
        self._votes.prune(below)
        self._timeouts.prune(below)
        self._commit_votes.prune(
            max(round_ - COMMIT_ROUNDS_MAX, min(below, ctx.tree.tip.round + 1))
        )
        ctx.timer(TIMER, ctx.now_ms + self._timeout_ms())

    def _timeout_ms(self) -> int:
        """Return how long to wait in this round: x1.5 per failure, capped; a quarter of that
        for a leader that failed its last turn."""
        parameters = self._ctx.parameters
        wait = parameters.round_timer_ms
        for _ in range(min(self._fails, BACKOFF_EXPONENT_MAX)):
            wait = min(wait * 3 // 2, parameters.round_timer_max_ms)
        if self._ctx.committee.leader(self.round) in self._failed_leaders:
            wait //= 4
        return wait

    def on_timer(self) -> None:
        """The round took too long: give it up, and say so again while it lasts."""
        ctx = self._ctx
        if ctx.now_ms < self.entered_ms + self._timeout_ms():
            ctx.timer(TIMER, self.entered_ms + self._timeout_ms())
            return
        if ctx.safety.hi_timeout < self.round and ctx.may_sign:
            ctx.count("timeouts")
        self._time_out()
        ctx.timer(TIMER, ctx.now_ms + max(self._timeout_ms(), ctx.parameters.round_timer_ms // 2))

    def _time_out(self) -> None:
        ctx, safety = self._ctx, self._ctx.safety
        if not ctx.may_sign:
            return
        if not safety.may_time_out(self.round):
            ctx.count("timeout_not_allowed")
            return
        last = safety.timeout
        if last is not None and last.round == self.round and last.lock == safety.lock:
            ctx.broadcast(last)
            return
        timeout = safety.sign_timeout(self.round)
        ctx.persist_safety()
        ctx.broadcast(timeout)

    def on_vote(self, peer: int, vote: Vote) -> None:
        """Count a vote; q of them make a QC."""
        if vote.round < self.round - 1:
            self.answer_laggard(peer, vote.round)
        if not self.in_window(vote.round):
            return
        if not self._votes.add(vote):
            return
        if self._ctx.tree.qc(vote.block) is not None:
            return
        votes = self._votes.for_block(vote.round, vote.block)
        if len(votes) >= self._ctx.committee.quorum:
            self.take_qc(make_qc(votes))

    def on_commit_vote(self, peer: int, vote: CommitVote) -> None:
        """Count a commit vote; q of them commit the block and all before it."""
        ctx = self._ctx
        if vote.round <= ctx.tree.tip.round or vote.round > self.round + ROUNDS_AHEAD_MAX:
            return
        if not self._commit_votes.add(vote):
            return
        votes = self._commit_votes.for_block(vote.round, vote.block)
        if len(votes) == ctx.committee.quorum:
            self._committer.prove(make_commit_proof(votes))

    def on_timeout(self, peer: int, timeout: Timeout) -> None:
        """Take in a peer's timeout; f+1 make us time out too, q of them make a TC."""
        ctx = self._ctx
        if timeout.round < self.round:
            self.answer_laggard(peer, timeout.round)
        self.take_qc(timeout.lock)
        if timeout.tc is not None:
            self.take_tc(timeout.tc)
        if not self.in_window(timeout.round):
            return
        self._timeouts.add(timeout)
        timeouts = self._timeouts.of_round(timeout.round)
        if len(timeouts) >= ctx.committee.quorum and timeout.round >= self.round:
            tc = make_tc(timeouts)
            self.take_tc(tc)
            ctx.broadcast(RoundTC(ctx.committee.epoch, tc))
        elif (
            len(self._timeouts.voters_from(self.round)) > ctx.committee.f
            and ctx.safety.hi_timeout < self.round
        ):
            self._time_out()

    def answer_laggard(self, peer: int, round_: int) -> None:
        """Tell a peer that speaks of an older round which round it is, not too often."""
        ctx = self._ctx
        if peer == ctx.me or round_ >= self.round:
            return
        if ctx.now_ms - self._answered_ms.get(peer, -ANSWER_INTERVAL_MS) >= ANSWER_INTERVAL_MS:
            self.greet(peer)

    def repeat_to(self, peer: int) -> None:
        """Send what we last said to a peer that may have missed it, the very bytes, if it is of
        this round or the one before: a link that was down lost it, as did our own restart."""
        safety = self._ctx.safety
        for message in (safety.proposal, safety.vote, safety.commit_vote, safety.timeout):
            if message is not None:
                round_ = message.block.round if isinstance(message, Proposal) else message.round
                if round_ >= self.round - 1:
                    self._ctx.send(peer, message)

    def greet(self, peer: int) -> None:
        """Tell `peer` the highest certificates and the committed height here."""
        ctx = self._ctx
        self._answered_ms[peer] = ctx.now_ms
        epoch, safety = ctx.committee.epoch, ctx.safety
        ctx.send(peer, RoundInfo(epoch, safety.lock, safety.hi_tc, ctx.tree.tip.height))
