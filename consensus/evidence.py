"""Proof of misbehaviour: two signed statements that no honest replica makes. Kept and counted."""

from __future__ import annotations

from msgspec import Struct

from consensus.codec import encode
from consensus.context import TABLE_EVIDENCE, Context
from consensus.messages import CommitVote, LogBatch, Proposal, Timeout, Vote

EVIDENCE_MAX = 32
"""Records kept of one offender and kind, one a round (of a log fork: a seq); more prove no more
and are only counted, so that nobody fills a disk, or the places for others."""

Statement = Proposal | Vote | CommitVote | LogBatch | Timeout


class Evidence(Struct, frozen=True, array_like=True):
    """`offender` signed both statements; `kind` names the rule that they break together.

    `position` is the round, or for a log fork the seq. Verifiable offline: each statement is the
    canonical encoding of a message as signed.
    """

    kind: str
    offender: int
    epoch: int
    position: int
    first: bytes
    second: bytes


class EvidenceBook:
    """Evidence found since the start; the store keeps it over restarts."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._known: dict[tuple[str, int], dict[int, None]] = {}

    def found(
        self, kind: str, offender: int, position: int, first: Statement, second: Statement
    ) -> None:
        """Keep the evidence that `first` and `second` are."""
        ctx = self._ctx
        positions = self._known.setdefault((kind, offender), {})
        if position in positions:
            return
        ctx.count(f"evidence_{kind}")
        if len(positions) >= EVIDENCE_MAX:
            return
        positions[position] = None
        record = Evidence(
            kind=kind,
            offender=offender,
            epoch=ctx.committee.epoch,
            position=position,
            first=encode(first),
            second=encode(second),
        )
        key = kind.encode() + b"/" + offender.to_bytes(2, "big") + position.to_bytes(8, "big")
        ctx.write(TABLE_EVIDENCE, key, encode(record))

    def timeout_against_commit_vote(self, vote: CommitVote, timeout: Timeout) -> None:
        """A commit vote for r is broken by a timeout at r' >= r whose QC is older than r."""
        if timeout.round >= vote.round > timeout.lock.round and timeout.voter == vote.voter:
            self.found("commit_vote_after_timeout", vote.voter, vote.round, vote, timeout)
