"""What came of every command, as clients may ask for it: outcomes, trades, receipts.

Outcomes and trades are numbered from 1, the same at every node. The newest are in memory, all
that are kept are on disk; their records go into the same write as the block that made them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import islice

import trio
from msgspec import Struct

from consensus.codec import decode, encode
from consensus.command import CommandId
from consensus.effects import Reply, Write
from matcher.outcome import REJECTED, CommandOutcome, Fill
from ops.gateway.port import (
    CursorLost,
    ExecutedStage,
    OrderedStage,
    Outcome,
    Receipt,
    SeenStage,
    SettledStage,
    Trade,
)
from ops.replica import Executed, FormedCheckpoint
from ops.store import Storage

TABLE_OUTCOMES = "outcomes"
TABLE_RECEIPTS = "receipts"
RECENT_MAX = 20_000
"""Outcomes and trades in memory; older outcomes are read from disk, older trades are lost."""
SEEN_MAX = 20_000
"""Commands seen and not yet executed whose place in the own log is remembered."""
KEPT_MAX = 1_000_000
"""Outcomes kept on disk; the oldest leaves when a new one comes."""
SIDES = ("buy", "sell")


class OutcomeRecord(Struct, frozen=True, array_like=True):
    """One executed command, as stored. Units: milliseconds."""

    id: bytes
    status: str
    reason: str
    height: int
    position: int
    block_time_ms: int
    executed_at_ms: int
    event: CommandOutcome
    seen_seq: int


def _key(sequence: int) -> bytes:
    return sequence.to_bytes(8, "big")


class _Stream:
    """The newest items of one numbered stream, and who waits for the next."""

    def __init__(self) -> None:
        self.last = 0
        self.arrived = trio.Event()

    def advance(self, last: int) -> None:
        if last > self.last:
            self.last = last
            self.arrived.set()
            self.arrived = trio.Event()

    async def beyond(self, after: int) -> None:
        while self.last <= after:
            await self.arrived.wait()


class Journal:
    """The streams of one node."""

    def __init__(self, store: Storage, me: int) -> None:
        self._store = store
        self._me = me
        self._outcomes: deque[Outcome] = deque(maxlen=RECENT_MAX)
        self._trades: deque[Trade] = deque(maxlen=RECENT_MAX)
        self._records: OrderedDict[bytes, tuple[int, OutcomeRecord]] = OrderedDict()
        self._seen: OrderedDict[bytes, int] = OrderedDict()
        self._settled: deque[FormedCheckpoint] = deque(maxlen=4_096)
        self._outcome_stream = _Stream()
        self._trade_stream = _Stream()

    @property
    def outcome_count(self) -> int:
        return self._outcome_stream.last

    @property
    def trade_count(self) -> int:
        return self._trade_stream.last

    def on_reply(self, reply: Reply) -> None:
        """Remember where a client's command stands in the own log."""
        if reply.status == "seen" and reply.seq:
            self._seen[reply.id] = reply.seq
            while len(self._seen) > SEEN_MAX:
                self._seen.popitem(last=False)

    def seen_seq(self, id_: bytes) -> int:
        return self._seen.get(id_, 0)

    def on_executed(self, executed: Executed, now_ms: int, writes: list[Write]) -> None:
        """Take a block's events; append the records to write with it unless it is replayed."""
        block = executed.block
        positions = {id_: place for place, id_ in enumerate((*block.ids, *block.refused))}
        sequence = executed.first_outcome - 1
        for event in executed.events:
            if not isinstance(event, CommandOutcome):
                continue
            sequence += 1
            record = OutcomeRecord(
                id=event.id,
                status=event.status,
                reason=event.reason or "",
                height=block.height,
                position=positions.get(CommandId(event.id), 0),
                block_time_ms=block.time_ms,
                executed_at_ms=now_ms,
                event=event,
                seen_seq=self._seen.pop(event.id, 0),
            )
            self._add(sequence, record)
            if not executed.replayed:
                writes.append(Write(TABLE_OUTCOMES, _key(sequence), encode(record)))
                writes.append(Write(TABLE_RECEIPTS, event.id, _key(sequence)))
                self._retire(sequence - KEPT_MAX, writes)
        self._outcome_stream.advance(sequence)
        self._add_trades(executed)

    def _add(self, sequence: int, record: OutcomeRecord) -> None:
        self._records[record.id] = (sequence, record)
        while len(self._records) > RECENT_MAX:
            self._records.popitem(last=False)
        self._outcomes.append(_outcome(sequence, record))

    def _retire(self, sequence: int, writes: list[Write]) -> None:
        raw = self._store.get(TABLE_OUTCOMES, _key(sequence)) if sequence > 0 else None
        if raw is not None:
            writes.append(Write(TABLE_OUTCOMES, _key(sequence), None))
            writes.append(Write(TABLE_RECEIPTS, decode(OutcomeRecord, raw).id, None))

    def _add_trades(self, executed: Executed) -> None:
        for fill in executed.events:
            if not isinstance(fill, Fill):
                continue
            self._trades.append(
                Trade(
                    sequence=fill.trade,
                    instrument=fill.instrument,
                    price=fill.price,
                    lots=fill.qty,
                    taker_side=SIDES[fill.taker_side],
                    taker_order=fill.taker_order,
                    maker_order=fill.maker_order,
                    height=executed.block.height,
                    block_time_ms=executed.block.time_ms,
                )
            )
            self._trade_stream.advance(fill.trade)

    def on_accepted(self, checkpoint: FormedCheckpoint) -> None:
        """A checkpoint is on chain and final: all up to its height is settled."""
        if not self._settled or checkpoint.number > self._settled[-1].number:
            self._settled.append(checkpoint)

    @property
    def newest_settled(self) -> FormedCheckpoint | None:
        return self._settled[-1] if self._settled else None

    def outcomes(self, after: int, limit: int) -> Sequence[Outcome]:
        """Return up to `limit` outcomes with sequence > `after`. Errors: CursorLost."""
        first = self._outcomes[0].sequence if self._outcomes else self._outcome_stream.last + 1
        if after + 1 >= first:
            skip = after + 1 - first
            return list(islice(self._outcomes, skip, skip + limit))
        found: list[Outcome] = []
        for key, raw in self._store.scan(TABLE_OUTCOMES, _key(after + 1)):
            sequence = int.from_bytes(key, "big")
            if not found and sequence != after + 1:
                raise CursorLost(sequence)
            found.append(_outcome(sequence, decode(OutcomeRecord, raw)))
            if len(found) >= limit:
                break
        return found

    async def outcomes_beyond(self, after: int) -> None:
        """Return as soon as an outcome with sequence > `after` exists."""
        await self._outcome_stream.beyond(after)

    def trades(self, after: int, limit: int) -> Sequence[Trade]:
        """Return up to `limit` trades with sequence > `after`. Errors: CursorLost."""
        first = self._trades[0].sequence if self._trades else self._trade_stream.last + 1
        if after + 1 < first and self._trade_stream.last:
            raise CursorLost(first)
        skip = after + 1 - first
        return list(islice(self._trades, max(skip, 0), max(skip, 0) + limit))

    async def trades_beyond(self, after: int) -> None:
        """Return as soon as a trade with sequence > `after` exists."""
        await self._trade_stream.beyond(after)

    def receipt(self, id_: CommandId) -> Receipt | None:
        """Return how far the command came, as far as it was seen here or executed."""
        known = self._records.get(id_)
        if known is None:
            key = self._store.get(TABLE_RECEIPTS, id_)
            raw = self._store.get(TABLE_OUTCOMES, key) if key is not None else None
            if key is not None and raw is not None:
                known = (int.from_bytes(key, "big"), decode(OutcomeRecord, raw))
        if known is None:
            seq = self._seen.get(id_)
            return Receipt(id=id_, seen=SeenStage(log=self._me, seq=seq)) if seq else None
        sequence, record = known
        seen = SeenStage(log=self._me, seq=record.seen_seq) if record.seen_seq else None
        return Receipt(
            id=id_,
            seen=seen,
            ordered=OrderedStage(
                height=record.height, position=record.position, block_time_ms=record.block_time_ms
            ),
            executed=ExecutedStage(
                sequence=sequence,
                status=record.status,
                reason=record.reason,
                details=_details(record.event),
                executed_at_ms=record.executed_at_ms,
            ),
            settled=self._settlement(record.height),
        )

    def _settlement(self, height: int) -> SettledStage | None:
        for checkpoint in self._settled:
            if checkpoint.height >= height:
                return SettledStage(checkpoint=checkpoint.number)
        return None


def _outcome(sequence: int, record: OutcomeRecord) -> Outcome:
    return Outcome(
        sequence=sequence,
        id=CommandId(record.id),
        status=record.status,
        reason=record.reason,
        height=record.height,
        executed_at_ms=record.executed_at_ms,
        details=_details(record.event),
    )


def _details(event: CommandOutcome) -> dict[str, object]:
    """Return the numbers of an outcome: order, filled, remaining, or a batch's results."""
    if event.results:
        return {
            "results": [
                {
                    "status": result.status,
                    "reason": result.reason or "",
                    "order_id": result.order_id,
                    "filled": result.filled,
                    "remaining": result.remaining,
                }
                for result in event.results
            ]
        }
    if event.status == REJECTED:
        return {}
    return {
        "order_id": event.order_id,
        "filled": event.filled,
        "remaining": event.remaining,
    }
