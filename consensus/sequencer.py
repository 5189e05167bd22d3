"""From committed blocks to an order: everything that the next block's meaning depends on.

One instance follows the committed chain, block by block; its digest is the consensus part of the
state digest. Source: ARCHITECTURE.md, "Fair order" and "State digest".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Struct

from consensus.anchor import AnchorState, InboxAnchor
from consensus.batches import SealedBatch
from consensus.codec import decode, encode
from consensus.command import CommandId
from consensus.committee import Committee, Parameters
from consensus.digest import Digest
from consensus.fairorder import FairOrder, OrderedBatch
from consensus.idmemory import chunk_digest, chunks_root
from consensus.messages import Block, Head, InboxClaim, Observation


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


class _Snapshot(Struct, frozen=True, array_like=True):
    """The sequencer between two blocks, canonical."""

    height: int
    time_ms: int
    heads: tuple[Head, ...]
    times_ms: tuple[int, ...]
    observations: tuple[tuple[Observation, ...], ...]
    anchor: AnchorState
    fair: bytes


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

    def digest(self) -> Digest:
        """Return the Merkle root over chunks of all that the next block depends on here.

        Shape: height and time, the anchor, each log (head, time, prices, claims), the fair order's
        own root.
        """
        anchor = self._anchor.state
        chunks: list[object] = [(self.height, self.time_ms), (anchor.count, anchor.hash)]
        for author, prices in enumerate(self._observed()):
            head, time_ms = self.heads[author], self.times_ms[author]
            chunks.append((author, head, time_ms, prices, anchor.claims[author]))
        return chunks_root([*(chunk_digest(encode(c)) for c in chunks), self.fair.digest()])

    def _snapshot(self, fair: bytes) -> _Snapshot:
        return _Snapshot(
            height=self.height,
            time_ms=self.time_ms,
            heads=tuple(self.heads),
            times_ms=tuple(self.times_ms),
            observations=self._observed(),
            anchor=self._anchor.state,
            fair=fair,
        )

    def export(self) -> bytes:
        """Return the canonical snapshot; `restore` makes an equal sequencer of it."""
        return encode(self._snapshot(self.fair.export()))

    def restore(self, data: bytes) -> None:
        """Become the sequencer that `export` described. Errors: CodecError."""
        snapshot = decode(_Snapshot, data, bytes_max=len(data))
        n = self._committee.n
        self.height = snapshot.height
        self.time_ms = snapshot.time_ms
        self.heads = list(snapshot.heads)
        self.times_ms = list(snapshot.times_ms)
        self._observations = [{o.feed: o for o in log} for log in snapshot.observations]
        self._anchor = InboxAnchor(n, self._committee.f, snapshot.anchor)
        self.fair.restore(snapshot.fair)
