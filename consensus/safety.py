"""The voting rules and the state that must never be forgotten. All of consensus' safety is here.

Two-chain HotStuff with commit votes. Sources: Jolteon (arXiv 2106.10362, figure 2: voting and
timeout rules), DiemBFT v4 (safety module: last voted round, preferred round), Aptos AIP-89
(order votes, here commit votes). docs/protocol/consensus.md says which mutation of each rule
forks or stops a network.

Every method that returns a message has already changed the state: the caller persists
`record()` before the message leaves.
"""

from __future__ import annotations

from msgspec import Struct

from consensus.crypto import ReplicaSigner
from consensus.digest import Digest
from consensus.messages import (
    QC,
    TAG_BLOCK,
    TAG_COMMIT,
    TAG_TIMEOUT,
    TAG_VOTE,
    TC,
    Block,
    CommitVote,
    Proposal,
    Timeout,
    Vote,
    block_digest,
    commit_digest,
    timeout_digest,
    vote_digest,
)


class SafetyViolation(AssertionError):
    """We were asked to sign against our own record: stop, an operator must look."""


class SafetyRecord(Struct, frozen=True, array_like=True):
    """The durable state S: on disk before any signature that depends on it leaves the node.

    `vote`, `timeout`, `commit_vote` and `proposal` are the last ones as sent; after a restart
    exactly these bytes are sent again, and nothing older is signed.
    """

    epoch: int
    last_voted: int
    hi_timeout: int
    lock: QC
    hi_tc: TC | None
    vote: Vote | None
    timeout: Timeout | None
    commit_vote: CommitVote | None
    proposal: Proposal | None


def genesis_qc(genesis_digest: Digest) -> QC:
    """Return the QC of round 0, which certifies the genesis block without votes."""
    return QC(round=0, block=genesis_digest, votes=())


def extends(round_: int, qc: QC, tc: TC | None) -> bool:
    """Say whether a block of `round_` may stand on `qc` and `tc`.

    Either the QC is of the round before, or the TC is, and names no higher QC than this one.
    """
    if qc.round == round_ - 1:
        return True
    return tc is not None and tc.round == round_ - 1 and qc.round >= tc.high_round


class Safety:
    """One replica's voting rules over its durable state; it alone signs votes and timeouts."""

    def __init__(self, signer: ReplicaSigner, replica: int, record: SafetyRecord) -> None:
        self._signer = signer
        self._replica = replica
        self.epoch = record.epoch
        self.last_voted = record.last_voted
        self.hi_timeout = record.hi_timeout
        self.lock = record.lock
        self.hi_tc = record.hi_tc
        self.vote = record.vote
        self.timeout = record.timeout
        self.commit_vote = record.commit_vote
        self.proposal = record.proposal

    @staticmethod
    def fresh(epoch: int, genesis_digest: Digest) -> SafetyRecord:
        """Return the record of a replica that has signed nothing in `epoch`."""
        return SafetyRecord(
            epoch=epoch,
            last_voted=0,
            hi_timeout=0,
            lock=genesis_qc(genesis_digest),
            hi_tc=None,
            vote=None,
            timeout=None,
            commit_vote=None,
            proposal=None,
        )

    def record(self) -> SafetyRecord:
        """Return the durable record of the present state."""
        return SafetyRecord(
            epoch=self.epoch,
            last_voted=self.last_voted,
            hi_timeout=self.hi_timeout,
            lock=self.lock,
            hi_tc=self.hi_tc,
            vote=self.vote,
            timeout=self.timeout,
            commit_vote=self.commit_vote,
            proposal=self.proposal,
        )

    @property
    def round(self) -> int:
        """The round to be in: one above the highest certificate held."""
        return max(self.lock.round, self.hi_tc.round if self.hi_tc else 0) + 1

    def take_qc(self, qc: QC) -> bool:
        """Raise the lock to `qc`, always: also when its round was timed out. Say if it rose."""
        if qc.round <= self.lock.round:
            return False
        self.lock = qc
        return True

    def take_tc(self, tc: TC) -> bool:
        """Keep the highest TC; its own QC must be taken first. Say if it is higher."""
        if self.hi_tc is not None and tc.round <= self.hi_tc.round:
            return False
        self.hi_tc = tc
        return True

    def may_vote(self, block: Block) -> bool:
        """Say whether a vote for `block` is safe: Jolteon's rule over its own QC and TC."""
        return block.round > self.last_voted and extends(block.round, block.qc, block.tc)

    def sign_vote(self, block: Block, digest: Digest, seen: tuple[int, ...]) -> Vote:
        """Vote for `block`, which must be safe and valid. Persist before sending."""
        if not self.may_vote(block):
            raise SafetyViolation(f"vote in round {block.round}, last voted {self.last_voted}")
        self.last_voted = block.round
        self.take_qc(block.qc)
        covered = vote_digest(block.round, digest, seen)
        self.vote = Vote(
            epoch=self.epoch,
            round=block.round,
            block=digest,
            seen=seen,
            voter=self._replica,
            signature=self._signer.sign(self.epoch, TAG_VOTE, covered),
        )
        return self.vote

    def may_commit_vote(self, qc: QC) -> bool:
        """Say whether a commit vote for `qc` is safe: its round was not timed out, nor voted."""
        voted = self.commit_vote.round if self.commit_vote else 0
        return qc.round > self.hi_timeout and qc.round > voted

    def sign_commit_vote(self, qc: QC) -> CommitVote:
        """Commit-vote for the block that `qc` certifies. Persist before sending."""
        if not self.may_commit_vote(qc):
            raise SafetyViolation(f"commit vote in round {qc.round}, timed out {self.hi_timeout}")
        self.take_qc(qc)
        covered = commit_digest(qc.round, qc.block)
        self.commit_vote = CommitVote(
            epoch=self.epoch,
            round=qc.round,
            block=qc.block,
            voter=self._replica,
            signature=self._signer.sign(self.epoch, TAG_COMMIT, covered),
        )
        return self.commit_vote

    def may_time_out(self, round_: int) -> bool:
        """Say whether `round_` may be given up: a certificate opened it, and we voted no later."""
        if round_ < self.last_voted:
            return False
        by_tc = self.hi_tc is not None and self.hi_tc.round == round_ - 1
        return self.lock.round == round_ - 1 or by_tc

    def sign_timeout(self, round_: int) -> Timeout:
        """Give up `round_`: no vote and no commit vote in it any more. Persist before sending."""
        if not self.may_time_out(round_):
            raise SafetyViolation(f"timeout in round {round_}, last voted {self.last_voted}")
        self.last_voted = max(self.last_voted, round_)
        self.hi_timeout = max(self.hi_timeout, round_)
        covered = timeout_digest(round_, self.lock.round)
        self.timeout = Timeout(
            epoch=self.epoch,
            round=round_,
            lock=self.lock,
            tc=self.hi_tc if self.lock.round < round_ - 1 else None,
            voter=self._replica,
            signature=self._signer.sign(self.epoch, TAG_TIMEOUT, covered),
        )
        return self.timeout

    def may_propose(self, round_: int) -> bool:
        """Say whether no block was proposed by us in `round_` or later."""
        return self.proposal is None or self.proposal.block.round < round_

    def sign_proposal(self, block: Block) -> Proposal:
        """Propose `block`, the only one of its round. Persist before sending."""
        if not self.may_propose(block.round):
            raise SafetyViolation(f"second proposal in round {block.round}")
        digest = block_digest(block)
        self.proposal = Proposal(block, self._signer.sign(self.epoch, TAG_BLOCK, digest))
        return self.proposal
