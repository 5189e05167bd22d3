"""What makes a log batch valid, alone and after its predecessor: all of it, in one place.

Neither check asks a clock or depends on who looks, so that honest replicas always agree.
Source: ARCHITECTURE.md, "Order logs".
"""

from __future__ import annotations

from collections.abc import Callable

from consensus.command import COMMAND_ID_BYTES, CommandId
from consensus.committee import Committee, Parameters
from consensus.digest import INBOX_START_HASH as INBOX_START_HASH
from consensus.digest import Digest, tagged
from consensus.digest import inbox_chain as inbox_chain
from consensus.messages import (
    INBOX_MESSAGE_BYTES_MAX,
    INBOX_MESSAGES_MAX,
    OBSERVATIONS_MAX,
    Head,
    InboxClaim,
    LogBatch,
    batch_digest,
)

TIME_MS_MAX = 1 << 62
NO_CLAIM = InboxClaim(count=0, hash=INBOX_START_HASH, messages=())

BodyCheck = Callable[[bytes], CommandId | None]
"""Returns the id of a body whose signature is good, or None. Needs no clock."""


def batch_fault(
    batch: LogBatch, committee: Committee, parameters: Parameters, check_body: BodyCheck
) -> str | None:
    """Say what is wrong with `batch` on its own, its signature apart, or None."""
    if batch.epoch != committee.epoch or not 0 <= batch.author < committee.n:
        return "batch of another epoch or author"
    if not 1 <= batch.seq < 1 << 62 or len(batch.prev) != 32:
        return "batch position"
    if not 0 <= batch.time_ms < TIME_MS_MAX:
        return "batch time"
    if len(batch.entries) > parameters.entries_max:
        return "too many entries"
    if any(len(entry) != COMMAND_ID_BYTES for entry in batch.entries):
        return "entry is no command id"
    entries = dict.fromkeys(batch.entries)
    if len(entries) != len(batch.entries):
        return "entry twice"
    if len(batch.bodies) > parameters.introduce_max(committee.n):
        return "introduces too many commands"
    if len(batch.oracle) > OBSERVATIONS_MAX or any(
        not (0 <= o.feed < OBSERVATIONS_MAX and 0 < o.value < 1 << 63 and 0 <= o.time_ms < 1 << 62)
        for o in batch.oracle
    ):
        return "observation out of bounds"
    claim = batch.inbox
    if not 0 <= claim.count < 1 << 62 or len(claim.hash) != 32:
        return "inbox claim"
    if len(claim.messages) > INBOX_MESSAGES_MAX or any(
        len(message) > INBOX_MESSAGE_BYTES_MAX for message in claim.messages
    ):
        return "inbox messages out of bounds"
    introduced: dict[CommandId, None] = {}
    for body in batch.bodies:
        id_ = check_body(body)
        if id_ is None or id_ not in entries or id_ in introduced:
            return "body without a good signature or entry"
        introduced[id_] = None
    return None


class SealedBatch:
    """A batch with its digest and the ids of its bodies, as kept in memory."""

    __slots__ = ("batch", "body_ids", "digest", "follows", "head", "missing")

    def __init__(self, batch: LogBatch, body_ids: tuple[CommandId, ...]) -> None:
        self.batch = batch
        self.digest: Digest = batch_digest(batch)
        self.head = Head(batch.seq, self.digest)
        self.body_ids = body_ids
        self.missing: dict[CommandId, None] = {}
        """Entries whose bodies are not held yet; the batch is ready when there is none."""
        self.follows: bool | None = None
        """Whether it may follow the batch that `prev` names; None until both were held."""


def link_fault(prev: LogBatch | None, batch: LogBatch, start: InboxClaim = NO_CLAIM) -> str | None:
    """Say why `batch` cannot follow `prev`, digests apart, or None.

    With `prev` None it is the log's first, which goes on from the claim `start`: what was
    anchored of the inbox when the epoch began.
    """
    seq, time_ms, claim = (0, 0, start) if prev is None else (prev.seq, prev.time_ms, prev.inbox)
    if batch.seq != seq + 1:
        return "seq does not follow"
    if batch.time_ms < time_ms:
        return "time goes back"
    if batch.inbox.count != claim.count + len(batch.inbox.messages):
        return "inbox count does not follow"
    if batch.inbox.hash != inbox_chain(claim.hash, batch.inbox.messages):
        return "inbox hash does not follow"
    return None


def log_starts(committee: Committee) -> tuple[Head, ...]:
    """Return where all logs of the committee's epoch begin."""
    return tuple(log_start(committee.network, committee.epoch, i) for i in range(committee.n))


def log_start(network: bytes, epoch: int, author: int) -> Head:
    """Return the head of log `author` before its first batch."""
    data = network + epoch.to_bytes(8, "big") + author.to_bytes(4, "big")
    return Head(0, tagged(b"fairlane/log", data))
