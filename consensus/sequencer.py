"""From committed blocks to an order: everything that the next block's meaning depends on.

One instance follows the committed chain, block by block; its digest is the consensus part of the
state digest. Source: ARCHITECTURE.md, "Fair order" and "State digest".
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from msgspec import Struct

from consensus.anchor import AnchorState, InboxAnchor, LogClaims
from consensus.batches import SealedBatch
from consensus.codec import CodecError, decode, encode
from consensus.command import CommandId
from consensus.committee import Committee, Parameters
from consensus.digest import Digest, chunk_name, parts_digest, tree_root
from consensus.fairorder import FairOrder, OrderedBatch
from consensus.messages import Block, Head, InboxClaim, LogBatch, Observation

STATE_CHUNK_BYTES_MAX = 1 << 30
"""More than a log's chunk can have: some thousand inbox messages and prices."""


@dataclass(frozen=True, slots=True)
class OrderedBlock:
    """What one committed block adds to the order, ready to execute.

    `observations[i]` are the newest prices that log i has committed; `inbox` the newly anchored
    messages, `inbox_hash` the chained hash after them. Ids in `refused` expire too far ahead.
    """

    height: int
    round: int
    digest: Digest
    time_ms: int
    batches: tuple[OrderedBatch, ...]
    ids: tuple[CommandId, ...]
    refused: tuple[CommandId, ...]
    observations: tuple[tuple[Observation, ...], ...]
    inbox: tuple[bytes, ...]
    inbox_hash: bytes


class _Cut(Struct, frozen=True, array_like=True, tag="cut"):
    """The last block's height and time, and what is anchored of the inbox."""

    height: int
    time_ms: int
    inbox_count: int
    inbox_hash: bytes


class _Log(Struct, frozen=True, array_like=True, tag="log-head"):
    """One log as committed: its head, last time, newest prices, and inbox claims."""

    author: int
    head: Head
    time_ms: int
    observations: tuple[Observation, ...]
    claims: LogClaims


def block_time_ms(parent_ms: int, times_ms: Sequence[int]) -> int:
    """Return a block's time: its parent's, or the lower median of the times at its heads."""
    return max(parent_ms, sorted(times_ms)[(len(times_ms) - 1) // 2])


class Sequencer:
    """The committed cut through the logs, anchors, prices and the fair order."""

    def __init__(
        self, committee: Committee, parameters: Parameters, heads: Sequence[Head], time_ms: int
    ) -> None:
        n = committee.n
        self._committee = committee
        self.height = 0
        self.time_ms = time_ms
        self.heads = list(heads)
        self.times_ms = [0] * n
        self._observations: list[dict[int, Observation]] = [{} for _ in range(n)]
        self._anchor = InboxAnchor(n, committee.f)
        self.fair = FairOrder(
            n,
            committee.f,
            gamma_numerator=parameters.gamma_numerator,
            gamma_denominator=parameters.gamma_denominator,
            deadline_ms=parameters.order_deadline_ms,
        )

    def begin_epoch(self, committee: Committee, heads: Sequence[Head]) -> None:
        """Go on with the next epoch's committee, whose logs begin at `heads`.

        Height and time go on, remembered ids and what is anchored stay; pending commands and
        prices are logged anew. Errors: UnfairCommittee.
        """
        n, f = committee.n, committee.f
        self.fair = self.fair.next_epoch(n, f)
        self._committee = committee
        self.heads = list(heads)
        self.times_ms = [0] * n
        self._observations = [{} for _ in range(n)]
        self._anchor = self._anchor.next_epoch(n, f)

    @property
    def anchored(self) -> InboxClaim:
        """What is anchored of the inbox, as a log's claim."""
        return InboxClaim(self._anchor.state.count, self._anchor.state.hash, ())

    @property
    def inbox_count(self) -> int:
        """Inbox messages that are anchored."""
        return self._anchor.state.count

    def commit(
        self, block: Block, digest: Digest, runs: Sequence[Sequence[SealedBatch]]
    ) -> OrderedBlock:
        """Take the next committed block; `runs[i]` are log i's newly committed batches."""
        assert block.height == self.height + 1
        suffixes: list[list[CommandId]] = []
        for author, run in enumerate(runs):
            suffix: list[CommandId] = []
            for sealed in run:
                suffix.extend(CommandId(entry) for entry in sealed.batch.entries)
                self._anchor.observe(sealed.batch)
                latest = self._observations[author]
                for observation in sealed.batch.oracle:
                    known = latest.get(observation.feed)
                    if known is None or observation.time_ms >= known.time_ms:
                        latest[observation.feed] = observation
            suffixes.append(suffix)
            if run:
                self.times_ms[author] = run[-1].batch.time_ms
            self.heads[author] = block.heads[author]
        self.height = block.height
        self.time_ms = block_time_ms(self.time_ms, self.times_ms)
        batches = self.fair.commit(block.height, self.time_ms, digest, suffixes)
        return OrderedBlock(
            height=block.height,
            round=block.round,
            digest=digest,
            time_ms=self.time_ms,
            batches=tuple(batches),
            ids=tuple(CommandId(i) for batch in batches for i in batch.ids),
            refused=tuple(CommandId(i) for batch in batches for i in batch.refused),
            observations=self._observed(),
            inbox=self._anchor.advance(),
            inbox_hash=self._anchor.state.hash,
        )

    def _observed(self) -> tuple[tuple[Observation, ...], ...]:
        return tuple(
            tuple(latest[feed] for feed in sorted(latest)) for latest in self._observations
        )

    def _heads_chunks(self) -> list[bytes]:
        anchor = self._anchor.state
        cut = _Cut(self.height, self.time_ms, anchor.count, anchor.hash)
        logs = [
            _Log(author, self.heads[author], self.times_ms[author], prices, anchor.claims[author])
            for author, prices in enumerate(self._observed())
        ]
        return [encode(chunk) for chunk in (cut, *logs)]

    def chunks(self, known: Container[bytes] = ()) -> list[bytes]:
        """Return the chunks of all that the next block depends on here, the fair order's last.

        Remembered ids' chunks whose name is `known` are left out.
        """
        return self._heads_chunks() + self.fair.chunks(known)

    def leaves(self) -> list[Digest]:
        """Return the names of `chunks`, in their order."""
        return [*(chunk_name(chunk) for chunk in self._heads_chunks()), *self.fair.leaves()]

    def digest(self) -> Digest:
        """Return the digest of all that the next block depends on here."""
        leaves = self.leaves()
        return parts_digest([(len(leaves), tree_root(leaves))])

    def last_batch(self, author: int) -> LogBatch | None:
        """Return what the next batch of a log must follow: of the last committed one its place,
        time and claim; None at the log's start."""
        head, claims = self.heads[author], self._anchor.state.claims[author]
        if head.seq == 0:
            return None
        return LogBatch(
            epoch=self._committee.epoch,
            author=author,
            seq=head.seq,
            prev=b"",
            time_ms=self.times_ms[author],
            entries=(),
            bodies=(),
            oracle=(),
            inbox=InboxClaim(claims.count, claims.hash, ()),
            signature=b"",
        )

    def export(self) -> bytes:
        """Return the canonical snapshot; `restore` makes an equal sequencer of it."""
        return encode(tuple(self.chunks()))

    def restore(self, data: bytes) -> None:
        """Become the sequencer that `export` described. Errors: CodecError."""
        self.load(decode(tuple[bytes, ...], data, bytes_max=len(data)))

    def load(self, chunks: Sequence[bytes]) -> None:
        """Become, fresh, the sequencer that `chunks` describe. Errors: CodecError."""
        n = self._committee.n
        if len(chunks) <= n:
            raise CodecError("a snapshot without all logs")
        cut = decode(_Cut, chunks[0])
        logs = [decode(_Log, chunk, STATE_CHUNK_BYTES_MAX) for chunk in chunks[1 : 1 + n]]
        if [log.author for log in logs] != list(range(n)):
            raise CodecError("logs in another order")
        self.fair.load(chunks[1 + n :])
        self.height, self.time_ms = cut.height, cut.time_ms
        self.heads = [log.head for log in logs]
        self.times_ms = [log.time_ms for log in logs]
        self._observations = [{o.feed: o for o in log.observations} for log in logs]
        anchor = AnchorState(cut.inbox_count, cut.inbox_hash, [log.claims for log in logs])
        self._anchor = InboxAnchor(n, self._committee.f, anchor)
        if self._heads_chunks() != list(chunks[: 1 + n]):
            raise CodecError("not what a sequencer would export")
