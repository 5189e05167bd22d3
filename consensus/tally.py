"""Counting votes, commit votes and timeouts into certificates, bounded per voter and round."""

from __future__ import annotations

from typing import Generic, TypeVar

from consensus.messages import (
    QC,
    TC,
    CommitProof,
    CommitVote,
    SignedSeen,
    SignedTimeout,
    Timeout,
    Vote,
)

ROUNDS_AHEAD_MAX = 16
"""Votes and timeouts are kept for so many rounds above ours; a liar's later ones are dropped."""
ROUNDS_BEHIND_MAX = 3

V = TypeVar("V", Vote, CommitVote)


class VoteTally(Generic[V]):
    """The first vote of each (round, voter), and which blocks have how many."""

    def __init__(self) -> None:
        self._votes: dict[int, dict[int, V]] = {}

    def add(self, vote: V) -> bool:
        """Count `vote`; say False, and count the first one alone, if its voter says another."""
        of_round = self._votes.setdefault(vote.round, {})
        first = of_round.setdefault(vote.voter, vote)
        return first is vote or _same(first, vote)

    def for_block(self, round_: int, block: bytes) -> list[V]:
        """Return the counted votes for `block`, by voter."""
        of_round = self._votes.get(round_, {})
        return [of_round[v] for v in sorted(of_round) if of_round[v].block == block]

    def prune(self, below_round: int) -> None:
        for round_ in [r for r in self._votes if r < below_round]:
            del self._votes[round_]

    def __len__(self) -> int:
        return sum(len(of_round) for of_round in self._votes.values())


def _same(first: V, second: V) -> bool:
    if isinstance(first, Vote) and isinstance(second, Vote):
        return first.block == second.block and first.seen == second.seen
    return first.block == second.block


def make_qc(votes: list[Vote]) -> QC:
    """Return the certificate that these votes for one block make."""
    parts = tuple(SignedSeen(v.voter, v.seen, v.signature) for v in votes)
    return QC(round=votes[0].round, block=votes[0].block, votes=parts)


def make_commit_proof(votes: list[CommitVote]) -> CommitProof:
    """Return the proof that these commit votes for one block make."""
    parts = tuple((v.voter, v.signature) for v in votes)
    return CommitProof(round=votes[0].round, block=votes[0].block, votes=parts)


class TimeoutTally:
    """The newest timeout of each (round, voter) around the current round."""

    def __init__(self) -> None:
        self._timeouts: dict[int, dict[int, Timeout]] = {}

    def add(self, timeout: Timeout) -> None:
        of_round = self._timeouts.setdefault(timeout.round, {})
        known = of_round.get(timeout.voter)
        if known is None or known.lock.round < timeout.lock.round:
            of_round[timeout.voter] = timeout

    def of_round(self, round_: int) -> list[Timeout]:
        of_round = self._timeouts.get(round_, {})
        return [of_round[v] for v in sorted(of_round)]

    def voters_from(self, round_: int) -> list[int]:
        """Return who has given up `round_` or a later round."""
        voters = {v: None for r, of in self._timeouts.items() if r >= round_ for v in of}
        return sorted(voters)

    def prune(self, below_round: int) -> None:
        for round_ in [r for r in self._timeouts if r < below_round]:
            del self._timeouts[round_]

    def __len__(self) -> int:
        return sum(len(of_round) for of_round in self._timeouts.values())


def make_tc(timeouts: list[Timeout]) -> TC:
    """Return the certificate that these timeouts of one round make."""
    highest = max(timeouts, key=lambda t: t.lock.round)
    parts = tuple(SignedTimeout(t.voter, t.lock.round, t.signature) for t in timeouts)
    return TC(round=timeouts[0].round, timeouts=parts, high_qc=highest.lock)
