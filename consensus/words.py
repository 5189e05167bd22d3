"""What each key was heard to sign: the newest for whoever lost its record, the recent for evidence.

Statements come by themselves and inside certificates; both count. All is bounded for each key, so
that a liar can only make us forget its own words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from msgspec import Struct

from consensus.committee import Committee
from consensus.messages import (
    QC,
    TC,
    Block,
    Blocks,
    Chain,
    CommitProof,
    CommitVote,
    GaveUp,
    Last,
    Message,
    Proposal,
    RoundInfo,
    RoundTC,
    SignedTimeout,
    Timeout,
    Vote,
)

ROUNDS_KEPT = 64
"""Statements of so many rounds below ours are compared with later ones."""
ROUNDS_AHEAD = 16
STATEMENTS_MAX = 2 * (ROUNDS_KEPT + ROUNDS_AHEAD)
"""Statements of one kind and key; when there are as many, those of older rounds go."""
CERTIFICATES_MAX = 256
"""Certificates that were looked into lately; they come many times over."""

W = TypeVar("W")
Statement = Vote | CommitVote | GaveUp | Proposal


class Contradiction(Struct, frozen=True):
    """Two statements of one key that no honest replica makes; `kind` names the rule."""

    kind: str
    offender: int
    position: int
    first: Statement
    second: Statement


@dataclass(slots=True)
class Spoken:
    """What one key signed: the newest of each kind, and the first of each recent round."""

    vote: Vote | None = None
    commit_vote: CommitVote | None = None
    gave_up: GaveUp | None = None
    proposal: Proposal | None = None
    votes: dict[int, Vote] = field(default_factory=dict)
    commit_votes: dict[int, CommitVote] = field(default_factory=dict)
    gave_ups: dict[int, GaveUp] = field(default_factory=dict)
    """By round the timeout with the lowest lock: it contradicts the most."""
    proposals: dict[int, Proposal] = field(default_factory=dict)

    def __len__(self) -> int:
        kept = len(self.votes) + len(self.commit_votes)
        return kept + len(self.gave_ups) + len(self.proposals)


class Words:
    """What was heard of every key of one committee."""

    def __init__(self, committee: Committee) -> None:
        self._committee = committee
        self._spoken = [Spoken() for _ in range(committee.n)]
        self._looked_into: dict[bytes, None] = {}
        self._low = 0
        self._high = ROUNDS_AHEAD

    def __len__(self) -> int:
        return sum(map(len, self._spoken))

    def of(self, key: int) -> Spoken:
        """Return what the replica with index `key` was heard to sign."""
        return self._spoken[key]

    def enter(self, round_: int) -> None:
        """Compare from now on what is said about the rounds around `round_`."""
        self._low, self._high = round_ - ROUNDS_KEPT, round_ + ROUNDS_AHEAD

    def hear(self, statement: Statement) -> Contradiction | None:
        """Take in a verified statement; say what it contradicts."""
        match statement:
            case Vote():
                return self._on_vote(statement)
            case CommitVote():
                return self._on_commit_vote(statement)
            case GaveUp():
                return self._on_gave_up(statement)
            case Proposal():
                return self._on_proposal(statement)

    def _in_window(self, round_: int) -> bool:
        return self._low <= round_ <= self._high

    def _on_vote(self, vote: Vote) -> Contradiction | None:
        spoken = self._spoken[vote.voter]
        if spoken.vote is None or vote.round > spoken.vote.round:
            spoken.vote = vote
        if not self._in_window(vote.round):
            return None
        self._make_room(spoken.votes)
        first = spoken.votes.setdefault(vote.round, vote)
        if first is vote or (first.block == vote.block and first.seen == vote.seen):
            return None
        return Contradiction("vote", vote.voter, vote.round, first, vote)

    def _on_commit_vote(self, vote: CommitVote) -> Contradiction | None:
        spoken = self._spoken[vote.voter]
        if spoken.commit_vote is None or vote.round > spoken.commit_vote.round:
            spoken.commit_vote = vote
        if not self._in_window(vote.round):
            return None
        self._make_room(spoken.commit_votes)
        first = spoken.commit_votes.setdefault(vote.round, vote)
        if first is not vote:
            if first.block == vote.block:
                return None
            return Contradiction("commit_vote", vote.voter, vote.round, first, vote)
        for gave_up in spoken.gave_ups.values():
            if gave_up.round >= vote.round > gave_up.lock_round:
                return _given_up(vote, gave_up)
        return None

    def _on_gave_up(self, gave_up: GaveUp) -> Contradiction | None:
        spoken, round_ = self._spoken[gave_up.voter], gave_up.round
        newest = spoken.gave_up
        if newest is None or (round_, gave_up.lock_round) > (newest.round, newest.lock_round):
            spoken.gave_up = gave_up
        if not self._in_window(round_):
            return None
        known = spoken.gave_ups.get(round_)
        if known is not None and known.lock_round <= gave_up.lock_round:
            return None
        self._make_room(spoken.gave_ups)
        spoken.gave_ups[round_] = gave_up
        for voted, vote in spoken.commit_votes.items():
            if round_ >= voted > gave_up.lock_round:
                return _given_up(vote, gave_up)
        return None

    def _on_proposal(self, proposal: Proposal) -> Contradiction | None:
        round_ = proposal.block.round
        leader = self._committee.leader(round_)
        spoken = self._spoken[leader]
        if spoken.proposal is None or round_ > spoken.proposal.block.round:
            spoken.proposal = proposal
        if not self._in_window(round_):
            return None
        self._make_room(spoken.proposals)
        first = spoken.proposals.setdefault(round_, proposal)
        if first is proposal or first.block.digest == proposal.block.digest:
            return None
        return Contradiction("proposal", leader, round_, first, proposal)

    def _make_room(self, said: dict[int, W]) -> None:
        if len(said) >= STATEMENTS_MAX:
            for round_ in [r for r in said if not self._in_window(r)]:
                del said[round_]

    def statements(self, message: Message) -> Iterator[Statement]:
        """Yield what a verified message shows to be signed, its certificates' parts as well.

        A vote of a certificate that is known to the byte is not repeated, nor a certificate.
        """
        match message:
            case Vote() | CommitVote():
                yield message
            case Proposal(block):
                yield message
                yield from self._of_block(block)
            case Timeout():
                yield gave_up_of(message)
                yield from self._of_pair(message.epoch, message.lock, message.tc)
            case RoundTC(epoch, tc):
                yield from self.of_tc(epoch, tc)
            case RoundInfo():
                yield from self._of_pair(message.epoch, message.lock, message.tc)
            case Blocks(blocks):
                for block in blocks:
                    yield from self._of_block(block)
            case Chain():
                yield from self._of_chain(message)
            case Last():
                for said in (message.vote, message.commit_vote, message.gave_up):
                    if said is not None:
                        yield said
                if message.proposal is not None:
                    yield message.proposal
                    yield from self._of_block(message.proposal.block)
            case _:
                pass

    def _of_chain(self, chain: Chain) -> Iterator[Statement]:
        for block in chain.blocks:
            yield from self._of_block(block)
        epoch = chain.blocks[-1].epoch
        if chain.child is not None and chain.child_qc is not None:
            yield from self._of_block(chain.child)
            yield from self.of_qc(epoch, chain.child_qc)
        if chain.proof is not None:
            yield from self.of_proof(epoch, chain.proof)

    def _of_block(self, block: Block) -> Iterator[Statement]:
        yield from self._of_pair(block.epoch, block.qc, block.tc)

    def _of_pair(self, epoch: int, qc: QC, tc: TC | None) -> Iterator[Statement]:
        yield from self.of_qc(epoch, qc)
        if tc is not None:
            yield from self.of_tc(epoch, tc)

    def of_qc(self, epoch: int, qc: QC) -> Iterator[Statement]:
        """Yield the votes of a certificate that were not heard yet."""
        if self._is_looked_into(b"".join([part.signature for part in qc.votes])):
            return
        for part in qc.votes:
            known = self._spoken[part.voter].votes.get(qc.round)
            if known is None or known.block != qc.block or known.seen != part.seen:
                yield Vote(epoch, qc.round, qc.block, part.seen, part.voter, part.signature)

    def of_tc(self, epoch: int, tc: TC) -> Iterator[Statement]:
        """Yield the timeouts of a certificate and the votes of its QC."""
        if not self._is_looked_into(b"".join([part.signature for part in tc.timeouts])):
            for part in tc.timeouts:
                yield gave_up_in(epoch, tc.round, part)
        yield from self.of_qc(epoch, tc.high_qc)

    def of_proof(self, epoch: int, proof: CommitProof) -> Iterator[Statement]:
        """Yield the commit votes of a proof."""
        for voter, signature in proof.votes:
            yield CommitVote(epoch, proof.round, proof.block, voter, signature)

    def _is_looked_into(self, signatures: bytes) -> bool:
        """Say whether a certificate was looked into, and remember it. Its signatures name it:
        they cover all else in it."""
        if signatures in self._looked_into:
            return True
        if len(self._looked_into) >= CERTIFICATES_MAX:
            del self._looked_into[next(iter(self._looked_into))]
        self._looked_into[signatures] = None
        return False


def gave_up_of(timeout: Timeout) -> GaveUp:
    """Return what a timeout's signature covers."""
    return GaveUp(
        timeout.epoch, timeout.round, timeout.lock.round, timeout.voter, timeout.signature
    )


def gave_up_in(epoch: int, round_: int, part: SignedTimeout) -> GaveUp:
    """Return what one part of a TC says."""
    return GaveUp(epoch, round_, part.lock_round, part.voter, part.signature)


def _given_up(vote: CommitVote, gave_up: GaveUp) -> Contradiction:
    kind = "commit_vote_after_timeout"
    return Contradiction(kind, vote.voter, vote.round, vote, gave_up)
