"""Proof of misbehaviour: two signed statements that no honest replica makes.

Found while listening (`words`), kept and counted here, and verifiable by anybody who has the
committee's keys. Source: ARCHITECTURE.md, "Consensus".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import Struct

from consensus.codec import CodecError, Shape, encode
from consensus.context import TABLE_EVIDENCE, Context
from consensus.crypto import signable
from consensus.digest import Digest
from consensus.messages import (
    TAG_BATCH,
    TAG_BLOCK,
    TAG_COMMIT,
    TAG_TIMEOUT,
    TAG_VOTE,
    CommitVote,
    GaveUp,
    LogBatch,
    Proposal,
    Vote,
    batch_digest,
    block_digest,
    commit_digest,
    timeout_digest,
    vote_digest,
)
from consensus.words import Contradiction

EVIDENCE_MAX = 32
"""Records kept of one offender and kind, one a round (of a log fork: a seq); more prove no more
and are only counted, so that nobody fills a disk, or the places for others."""
EVIDENCE_BYTES_MAX = 16 << 20
"""Bytes kept of one offender and kind: batches are long."""
KINDS = ("proposal", "vote", "commit_vote", "commit_vote_after_timeout", "log_fork")

Statement = Proposal | Vote | CommitVote | LogBatch | GaveUp
_STATEMENT: Shape[Statement] = Shape(Statement)

Verify = Callable[[bytes, bytes, bytes], bool]
"""verify(public key, message, signature)."""


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


class _Signed(NamedTuple):
    """A statement's signer, its epoch, and what the signature covers under which tag."""

    signer: int
    epoch: int
    tag: bytes
    covered: Digest
    signature: bytes


class EvidenceBook:
    """Evidence found in this epoch, over all starts."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._known: dict[tuple[str, int], dict[int, None]] = {}
        self._bytes: dict[tuple[str, int], int] = {}
        for kind in KINDS:
            self._load(kind)

    def _load(self, kind: str) -> None:
        prefix = kind.encode() + b"/"
        for key, record in self._ctx.reader.scan(TABLE_EVIDENCE, prefix, kind.encode() + b"0"):
            self._ctx.count(f"evidence_{kind}")
            offender, epoch, position = _parse_key(key[len(prefix) :])
            if epoch == self._ctx.committee.epoch:
                self._known.setdefault((kind, offender), {})[position] = None
                self._bytes[kind, offender] = self._bytes.get((kind, offender), 0) + len(record)

    def contradiction(self, found: Contradiction) -> None:
        """Keep what was heard."""
        self.found(found.kind, found.offender, found.position, found.first, found.second)

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
        record = Evidence(
            kind=kind,
            offender=offender,
            epoch=ctx.committee.epoch,
            position=position,
            first=encode(first),
            second=encode(second),
        )
        raw = encode(record)
        size = self._bytes.get((kind, offender), 0) + len(raw)
        if size > EVIDENCE_BYTES_MAX:
            return
        positions[position] = None
        self._bytes[kind, offender] = size
        ctx.write(TABLE_EVIDENCE, evidence_key(record), raw)


def evidence_key(evidence: Evidence) -> bytes:
    """Return the store key of a record: kind, offender, epoch, position."""
    kind = evidence.kind.encode() + b"/" + evidence.offender.to_bytes(2, "big")
    return kind + evidence.epoch.to_bytes(4, "big") + evidence.position.to_bytes(8, "big")


def _parse_key(rest: bytes) -> tuple[int, int, int]:
    number = int.from_bytes
    return number(rest[:2], "big"), number(rest[2:6], "big"), number(rest[6:14], "big")


def contradiction_of(
    first: Statement, second: Statement, replicas: int
) -> tuple[str, int, int] | None:
    """Return kind, offender and position when no honest replica of `replicas` signs both.

    Looks at what is said only; whether both bear the offender's signature is `evidence_fault`'s.
    """
    match first, second:
        case Proposal(one), Proposal(other) if (one.epoch, one.round) == (other.epoch, other.round):
            same = block_digest(one) == block_digest(other)
            return None if same else ("proposal", one.round % replicas, one.round)
        case Vote(), Vote() if _place(first) == _place(second):
            same = first.block == second.block and first.seen == second.seen
            return None if same else ("vote", first.voter, first.round)
        case CommitVote(), CommitVote() if _place(first) == _place(second):
            same = first.block == second.block
            return None if same else ("commit_vote", first.voter, first.round)
        case CommitVote(), GaveUp() if first.voter == second.voter and first.epoch == second.epoch:
            broken = second.round >= first.round > second.lock_round
            return ("commit_vote_after_timeout", first.voter, first.round) if broken else None
        case LogBatch(), LogBatch() if _position(first) == _position(second):
            same = batch_digest(first) == batch_digest(second)
            return None if same else ("log_fork", first.author, first.seq)
    return None


def _place(vote: Vote | CommitVote) -> tuple[int, int, int]:
    return vote.epoch, vote.voter, vote.round


def _position(batch: LogBatch) -> tuple[int, int, int]:
    return batch.epoch, batch.author, batch.seq


def _signed(said: Statement, replicas: int) -> _Signed:
    match said:
        case Proposal(block, signature):
            leader = block.round % replicas
            return _Signed(leader, block.epoch, TAG_BLOCK, block_digest(block), signature)
        case Vote():
            covered = vote_digest(said.round, said.block, said.seen)
            return _Signed(said.voter, said.epoch, TAG_VOTE, covered, said.signature)
        case CommitVote():
            covered = commit_digest(said.round, said.block)
            return _Signed(said.voter, said.epoch, TAG_COMMIT, covered, said.signature)
        case GaveUp():
            covered = timeout_digest(said.round, said.lock_round)
            return _Signed(said.voter, said.epoch, TAG_TIMEOUT, covered, said.signature)
        case LogBatch():
            return _Signed(said.author, said.epoch, TAG_BATCH, batch_digest(said), said.signature)


def evidence_fault(
    evidence: Evidence, network: bytes, keys: Sequence[bytes], verify: Verify
) -> str | None:
    """Say why a record proves nothing, or None when it does.

    `keys` are the consensus keys of the record's epoch by index. Needs no node and no other data.
    """
    try:
        statements = [_STATEMENT.decode(evidence.first), _STATEMENT.decode(evidence.second)]
    except CodecError as error:
        return f"a statement is malformed: {error}"
    claimed = (evidence.kind, evidence.offender, evidence.position)
    if contradiction_of(statements[0], statements[1], len(keys)) != claimed:
        return "the statements do not contradict each other as the record says"
    for said in statements:
        signer, epoch, tag, covered, signature = _signed(said, len(keys))
        if epoch != evidence.epoch or signer != evidence.offender:
            return "a statement is of another epoch or replica"
        if not 0 <= signer < len(keys):
            return "there is no such replica"
        if not verify(keys[signer], signable(network, epoch, tag, covered), signature):
            return "a signature is bad"
    return None
