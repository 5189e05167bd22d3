"""Follow the chain to finality and tell what the network must know: the inbox and acceptances.

Nothing is told before it is final, nothing twice by one watcher, and never backwards. The
inbox's messages are checked against its hash chain and against the contract's own record.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from consensus.digest import INBOX_START_HASH, inbox_chain
from consensus.messages import INBOX_MESSAGES_MAX
from settlement.errors import ChainInconsistent, ChainUnavailable
from settlement.ethereum import Enqueued, SettlementClient
from settlement.rpc import Finality

RANGE_BLOCKS_MAX = 1_000
"""Blocks asked for at once; many endpoints refuse more than a few thousand."""
BACKOFF_MAX_S = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InboxAdvance:
    """Final messages of the inbox: those after the `since` first; `hash` is that after the last.

    Shape: at most INBOX_MESSAGES_MAX messages.
    """

    since: int
    messages: tuple[bytes, ...]
    hash: bytes


@dataclass(frozen=True, slots=True)
class CheckpointAccepted:
    """The contract accepted the checkpoint `number` with `digest`, in a final block.

    `transaction` brought it, if it is the newest as far as is known; else it is empty.
    """

    number: int
    digest: bytes
    transaction: bytes = b""


ChainEvent = InboxAdvance | CheckpointAccepted
Emit = Callable[[ChainEvent], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a watcher has told: everything up to `block`, the inbox's first `count` messages."""

    block: int
    count: int
    hash: bytes


ORIGIN = Cursor(-1, 0, INBOX_START_HASH)


class Watcher:
    """One pass over the chain, from a cursor on."""

    def __init__(
        self,
        client: SettlementClient,
        finality: Finality = "finalized",
        start: Cursor = ORIGIN,
        poll_s: float = 1.0,
    ) -> None:
        """`start` is an earlier watcher's cursor, or ORIGIN."""
        self._client = client
        self._finality = finality
        self._poll_s = poll_s
        self._chain_checked = False
        self.cursor = start
        self.final_block = start.block
        self.available = False
        self.failures = 0
        self.last_error = ""

    async def run(self, emit: Emit) -> None:
        """Tell `emit` every event in order, for ever; an outage is waited out with growing pauses.

        The cursor moves once `emit` returned. Errors: WrongChain; whatever `emit` raises.
        """
        pause_s = self._poll_s
        while True:
            try:
                events, cursor = await self.look()
            except ChainUnavailable as error:
                self._failed(error)
                pause_s = min(2 * pause_s, max(BACKOFF_MAX_S, self._poll_s))
                await trio.sleep(pause_s)
                continue
            self.available, pause_s = True, self._poll_s
            for event in events:
                await emit(event)
            self.cursor = cursor
            if cursor.block >= self.final_block:
                await trio.sleep(self._poll_s)

    async def look(self) -> tuple[list[ChainEvent], Cursor]:
        """Return what became final since the cursor, a range at most, and the next cursor.

        Errors: ChainUnavailable, ChainInconsistent, WrongChain.
        """
        if not self._chain_checked:
            await self._client.check_chain()
            self._chain_checked = True
        old = self.cursor
        # A load-balanced endpoint may answer from an older view: the known final block stands.
        final = max(self.final_block, await self._client.rpc.final_block(self._finality))
        self.final_block = final
        if final <= old.block:
            return [], old
        last = min(final, old.block + RANGE_BLOCKS_MAX)
        enqueued, accepted = await self._client.events(old.block + 1, last)
        messages = _chain_up(old, enqueued)
        cursor = Cursor(last, old.count + len(messages), inbox_chain(old.hash, messages))
        await self._confirm(cursor, final, bool(messages))
        events: list[ChainEvent] = list(_chunks(old, messages))
        newest = accepted[-1] if accepted and last == final else None
        for event in accepted:
            transaction = event.transaction if event is newest else b""
            events.append(CheckpointAccepted(event.number, event.digest, transaction))
        return events, cursor

    async def _confirm(self, cursor: Cursor, final: int, advanced: bool) -> None:
        """Compare with the contract's own record, so that a log left out or made up is noticed."""
        if cursor.block == final:
            count = await self._client.inbox_count(final)
            if count != cursor.count:
                raise ChainInconsistent(f"logs tell of {cursor.count} messages, the inbox {count}")
        if advanced and await self._client.inbox_hash(cursor.count, final) != cursor.hash:
            raise ChainInconsistent(f"the inbox has another hash at {cursor.count}")

    def _failed(self, error: ChainUnavailable) -> None:
        self.failures += 1
        self._chain_checked = False  # What comes back may be another chain.
        self.last_error = str(error)
        if self.available or self.failures == 1:
            log.warning("chain unavailable: %s", error)
        self.available = False


def _chain_up(old: Cursor, enqueued: list[Enqueued]) -> list[bytes]:
    """Return the messages, which must follow the cursor. Errors: ChainInconsistent."""
    hash_ = old.hash
    for offset, event in enumerate(enqueued):
        hash_ = inbox_chain(hash_, (event.message,))
        if event.index != old.count + offset + 1 or event.chained != hash_:
            raise ChainInconsistent(f"message {event.index} does not follow {old.count + offset}")
    return [event.message for event in enqueued]


def _chunks(old: Cursor, messages: list[bytes]) -> list[InboxAdvance]:
    count, hash_, chunks = old.count, old.hash, []
    for i in range(0, len(messages), INBOX_MESSAGES_MAX):
        part = tuple(messages[i : i + INBOX_MESSAGES_MAX])
        hash_ = inbox_chain(hash_, part)
        chunks.append(InboxAdvance(count, part, hash_))
        count += len(part)
    return chunks
