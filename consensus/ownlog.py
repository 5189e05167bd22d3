"""This replica's own order log: what it received, in receipt order, batch by batch.

*Received* means appended to a batch that is persisted; a client's receipt follows that. Entries
come from clients (introduced: the batch carries the body) and from peers' logs (echoed).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from msgspec import Struct

from consensus.batches import NO_CLAIM, SealedBatch, inbox_chain
from consensus.command import CommandId
from consensus.committee import Committee, Parameters
from consensus.crypto import ReplicaSigner
from consensus.messages import (
    INBOX_MESSAGES_MAX,
    TAG_BATCH,
    Head,
    InboxClaim,
    LogBatch,
    Observation,
    batch_digest,
)

RECEIPTS_MAX = 20_000
"""Ids that wait for a batch. When full, clients hear `busy`, and echoes wait for the next commit,
after which every pending id that the log lacks is appended again."""
INBOX_AHEAD_MAX = 4_096
"""Inbox messages that wait to be claimed; the watcher brings the rest again."""


class OwnHead(Struct, frozen=True, array_like=True):
    """The newest batch that this replica signed, durable before the batch leaves."""

    epoch: int
    head: Head


class OwnLog:
    """Receipts that wait, and the position of the next batch."""

    def __init__(
        self,
        committee: Committee,
        parameters: Parameters,
        author: int,
        signer: ReplicaSigner,
        head: Head,
        last: LogBatch | None,
        start: InboxClaim = NO_CLAIM,
    ) -> None:
        """`head` and `last` are the newest batch that this replica signed (None: none yet), and
        `start` is the inbox claim that the log's first batch goes on from."""
        self._committee = committee
        self._parameters = parameters
        self._author = author
        self._signer = signer
        self.head = head
        self._last_time_ms = last.time_ms if last else 0
        self._claim = last.inbox if last else start
        self._waiting: deque[tuple[CommandId, bool]] = deque()
        self._logged: dict[CommandId, bool] = {}
        self._prices: dict[int, Observation] = {}
        self._inbox: deque[bytes] = deque()
        self.last_batch_ms = 0

    @property
    def waiting(self) -> int:
        """Receipts that are in no batch yet."""
        return len(self._waiting)

    def waiting_ids(self) -> list[CommandId]:
        """Return the ids that are in no batch yet, in receipt order."""
        return [id_ for id_, _ in self._waiting if self._logged.get(id_) is False]

    @property
    def claimed_inbox(self) -> int:
        """Inbox messages that this log has claimed or will claim."""
        return self._claim.count + len(self._inbox)

    def holds(self, id_: CommandId) -> bool:
        """Say whether `id_` is in the log or waits for it."""
        return id_ in self._logged

    def is_persisted(self, id_: CommandId) -> bool:
        """Say whether `id_` stands in a batch that was made, and so persisted."""
        return self._logged.get(id_, False)

    def note_logged(self, ids: Iterable[CommandId]) -> None:
        """Remember ids that earlier batches of this log hold (after a restart)."""
        for id_ in ids:
            self._logged[id_] = True

    def forget(self, ids: Iterable[CommandId]) -> None:
        """Forget ids that are emitted or void: they are never logged again."""
        for id_ in ids:
            self._logged.pop(id_, None)

    def receive(self, id_: CommandId, introduced: bool) -> bool:
        """Append a receipt; say False when the queue is full. A known id changes nothing."""
        if id_ in self._logged:
            return True
        if len(self._waiting) >= RECEIPTS_MAX:
            return False
        self._logged[id_] = False
        self._waiting.append((id_, introduced))
        return True

    def observe_prices(self, observations: Iterable[Observation]) -> None:
        """Put these prices into the next batch; a newer one of a feed replaces an older."""
        for observation in observations:
            self._prices[observation.feed] = observation

    def observe_inbox(self, since: int, messages: tuple[bytes, ...], hash_: bytes) -> bool:
        """Take final inbox messages after the `since` first ones; say False if they do not fit."""
        if since + len(messages) <= self.claimed_inbox:
            return True
        skip = self.claimed_inbox - since
        if not 0 <= skip <= len(messages):
            return False
        fresh = messages[skip:]
        known = inbox_chain(self._claim.hash, tuple(self._inbox))
        if inbox_chain(known, fresh) != hash_:
            return False
        self._inbox.extend(fresh[: INBOX_AHEAD_MAX - len(self._inbox)])
        return True

    def follow_inbox(self, count: int, hash_: bytes) -> None:
        """Take note that the inbox is this far, in an epoch in which nothing will be claimed."""
        if count > self.claimed_inbox:
            self._inbox.clear()
            self._claim = InboxClaim(count=count, hash=hash_, messages=())

    def due_ms(self) -> int:
        """Return when the next batch is due: soon with receipts waiting, else when idle."""
        busy = bool(self._waiting or self._inbox)
        wait = self._parameters.batch_interval_ms if busy else self._parameters.idle_batch_ms
        return self.last_batch_ms + wait

    def has_room(self, committed: Head) -> bool:
        """Say whether the window lets this log grow beyond its committed head."""
        return self.head.seq - committed.seq < self._parameters.log_window

    def make_batch(self, now_ms: int, body_of: Callable[[CommandId], bytes]) -> SealedBatch:
        """Sign the next batch. Persist it, and the bodies of all its entries, before sending.

        Entries keep receipt order: the first that the introduce quota shuts out ends the batch.
        """
        quota = self._parameters.introduce_max(self._committee.n)
        entries: list[CommandId] = []
        introduced: list[CommandId] = []
        while self._waiting and len(entries) < self._parameters.entries_max:
            id_, introduces = self._waiting[0]
            live = self._logged.get(id_) is False
            if live and introduces:
                if len(introduced) == quota:
                    break
                introduced.append(id_)
            self._waiting.popleft()
            if live:
                entries.append(id_)
                self._logged[id_] = True
        messages = tuple(
            self._inbox.popleft() for _ in range(min(len(self._inbox), INBOX_MESSAGES_MAX))
        )
        self._claim = InboxClaim(
            count=self._claim.count + len(messages),
            hash=inbox_chain(self._claim.hash, messages),
            messages=messages,
        )
        unsigned = LogBatch(
            epoch=self._committee.epoch,
            author=self._author,
            seq=self.head.seq + 1,
            prev=self.head.digest,
            time_ms=max(now_ms, self._last_time_ms),
            entries=tuple(entries),
            bodies=tuple(body_of(id_) for id_ in introduced),
            oracle=tuple(self._prices[feed] for feed in sorted(self._prices)),
            inbox=self._claim,
            signature=b"",
        )
        self._prices.clear()
        digest = batch_digest(unsigned)
        signature = self._signer.sign(self._committee.epoch, TAG_BATCH, digest)
        sealed = SealedBatch(_signed(unsigned, signature), tuple(introduced))
        assert sealed.digest == digest
        self.head = sealed.head
        self._last_time_ms = unsigned.time_ms
        self.last_batch_ms = now_ms
        return sealed


def _signed(batch: LogBatch, signature: bytes) -> LogBatch:
    """Return `batch` with its signature, which its digest does not cover."""
    return LogBatch(
        batch.epoch,
        batch.author,
        batch.seq,
        batch.prev,
        batch.time_ms,
        batch.entries,
        batch.bodies,
        batch.oracle,
        batch.inbox,
        signature,
    )
