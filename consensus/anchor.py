"""Which inbox messages are anchored: the highest count that 2f+1 logs claim on one chain.

So everything that enters the replicated state comes through the logs, and a replica whose
Ethereum endpoint is dead still executes. Source: ARCHITECTURE.md, "Order logs".
"""

from __future__ import annotations

from msgspec import Struct

from consensus.digest import INBOX_START_HASH, inbox_chain
from consensus.messages import LogBatch

UNANCHORED_MAX = 16_384
"""Messages kept beyond the anchor for one log. What a log claims past that is not counted until
the anchor has caught up with it, so an invented chain cannot grow without limit."""


class LogClaims(Struct, array_like=True):
    """One log's claim: its count and hash, and what lies beyond the anchor, message by message."""

    count: int
    hash: bytes
    messages: list[bytes]
    hashes: list[bytes]


class AnchorState(Struct, array_like=True):
    """All that the next block depends on; canonical, so also its digest's pre-image."""

    count: int
    hash: bytes
    claims: list[LogClaims]


class InboxAnchor:
    """The anchored inbox count and hash, and each log's claims beyond it."""

    def __init__(self, n: int, f: int, state: AnchorState | None = None) -> None:
        self._support = 2 * f + 1
        fresh = [LogClaims(0, INBOX_START_HASH, [], []) for _ in range(n)]
        self.state = state or AnchorState(0, INBOX_START_HASH, fresh)

    def next_epoch(self, n: int, f: int) -> InboxAnchor:
        """Return the anchor of the epoch that begins now: every log claims what is anchored."""
        count, hash_ = self.state.count, self.state.hash
        claims = [LogClaims(count, hash_, [], []) for _ in range(n)]
        return InboxAnchor(n, f, AnchorState(count, hash_, claims))

    def observe(self, batch: LogBatch) -> None:
        """Take the claim of a committed batch; the batch rules have checked its chain."""
        state, log = self.state, self.state.claims[batch.author]
        for message in batch.inbox.messages:
            log.count += 1
            log.hash = inbox_chain(log.hash, (message,))
            follows = log.count == state.count + len(log.hashes) + 1
            if follows and len(log.hashes) < UNANCHORED_MAX:
                log.messages.append(message)
                log.hashes.append(log.hash)

    def advance(self) -> tuple[bytes, ...]:
        """Move the anchor as far as 2f+1 logs agree; return the newly anchored messages."""
        state = self.state
        fresh: list[bytes] = []
        while True:
            ahead = len(fresh)
            support: dict[bytes, int] = {}
            message_of: dict[bytes, bytes] = {}
            for log in state.claims:
                if len(log.hashes) > ahead:
                    hash_ = log.hashes[ahead]
                    support[hash_] = support.get(hash_, 0) + 1
                    message_of[hash_] = log.messages[ahead]
            agreed = sorted(h for h, votes in support.items() if votes >= self._support)
            if not agreed:
                break
            state.hash = agreed[0]
            fresh.append(message_of[agreed[0]])
        state.count += len(fresh)
        for log in state.claims:
            del log.messages[: len(fresh)]
            del log.hashes[: len(fresh)]
        return tuple(fresh)
