"""What came of every command, as clients may ask for it: outcomes, trades, receipts.

Outcomes and trades are numbered from 1, the same at every node. The newest are in memory, all
that are kept are on disk; their records go into the same write as the block that made them. So
the journal hears of each thing twice: `record` before that write, `on_logged` and `on_executed`
after it, and only what it has heard twice is shown to anybody.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import islice

import trio
from msgspec import Struct

from consensus.codec import decode, encode
from consensus.command import CommandId, expires_ms
from consensus.context import TABLE_BATCHES, TABLE_LOG, Context, batch_key, log_key
from consensus.effects import Reply, Write
from consensus.messages import Head, LogBatch
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
TABLE_TRADES = "trades"
RECENT_MAX = 20_000
"""Outcomes and trades in memory; older ones are read from disk."""
SEEN_MAX = 20_000
"""Commands in the own log and not yet over whose place there is remembered, the newest ones."""
VOID_MAX = 20_000
"""Commands that expired unordered which are remembered; the oldest is forgotten first."""
EXPIRIES_SLACK = 4_096
"""Executed commands stay in the expiry queue until there are so many more of them than seen."""
SETTLED_MAX = 4_096
"""Accepted checkpoints that receipts can name; older commands show the oldest of them."""
OWN_BATCHES_READ_MAX = 8_192
"""Committed own batches read at the start, to find where pending commands stand."""
KEPT_MAX = 1_000_000
"""Outcomes, and trades, kept on disk; the oldest leaves when a new one comes."""
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
        self._recent: deque[tuple[int, OutcomeRecord]] = deque()
        self._by_id: dict[bytes, tuple[int, OutcomeRecord]] = {}
        self._trades: deque[Trade] = deque(maxlen=RECENT_MAX)
        self._recorded: dict[int, list[tuple[int, OutcomeRecord]]] = {}
        self._logged: dict[bytes, int] = {}
        self._seen: OrderedDict[bytes, int] = OrderedDict()
        self._expiries: list[CommandId] = []
        self._void: OrderedDict[bytes, int] = OrderedDict()
        self._settled: deque[FormedCheckpoint] = deque(maxlen=SETTLED_MAX)
        self._outcome_stream = _Stream()
        self._trade_stream = _Stream()

    def resume(self, outcomes: int, trades: int, seen: dict[CommandId, int]) -> None:
        """Go on after a restart: so many happened, and `seen` stand in the own log, pending."""
        self._outcome_stream.advance(outcomes)
        self._trade_stream.advance(trades)
        for id_, seq in seen.items():
            self._remember_seen(id_, seq)

    @property
    def trade_count(self) -> int:
        return self._trade_stream.last

    def sizes(self) -> dict[str, int]:
        """Return how much each memory holds, for tests that it stays within its bound."""
        kept = ("_recent", "_by_id", "_trades", "_recorded", "_logged", "_seen", "_expiries")
        return {name: len(getattr(self, name)) for name in (*kept, "_void", "_settled")}

    def record(self, event: LogBatch | Executed, now_ms: int, writes: list[Write]) -> None:
        """Append the records to write with what happened, unless it is replayed."""
        if isinstance(event, LogBatch):
            self._logged.update(dict.fromkeys(event.entries, event.seq))
            return
        if event.replayed:
            return
        recorded = self._recorded[event.block.height] = self._outcomes_of(event, now_ms)
        for sequence, record in recorded:
            writes.append(Write(TABLE_OUTCOMES, _key(sequence), encode(record)))
            writes.append(Write(TABLE_RECEIPTS, record.id, _key(sequence)))
            self._retire(sequence - KEPT_MAX, writes)
        for trade in _trades_of(event):
            writes.append(Write(TABLE_TRADES, _key(trade.sequence), encode(trade)))
            if trade.sequence > KEPT_MAX:
                writes.append(Write(TABLE_TRADES, _key(trade.sequence - KEPT_MAX), None))

    def _outcomes_of(self, executed: Executed, now_ms: int) -> list[tuple[int, OutcomeRecord]]:
        block = executed.block
        positions = {id_: place for place, id_ in enumerate((*block.ids, *block.refused))}
        outcomes = [event for event in executed.events if isinstance(event, CommandOutcome)]
        return [
            (
                sequence,
                OutcomeRecord(
                    id=event.id,
                    status=event.status,
                    reason=event.reason or "",
                    height=block.height,
                    position=positions.get(CommandId(event.id), 0),
                    block_time_ms=block.time_ms,
                    executed_at_ms=now_ms,
                    event=event,
                    seen_seq=self._logged.get(event.id) or self._seen.get(event.id, 0),
                ),
            )
            for sequence, event in enumerate(outcomes, executed.first_outcome)
        ]

    def on_logged(self, batch: LogBatch) -> None:
        """Remember where these commands stand in the own log."""
        for entry in batch.entries:
            self._logged.pop(entry, None)
            if entry not in self._by_id:
                self._remember_seen(CommandId(entry), batch.seq)

    def on_reply(self, reply: Reply) -> None:
        """Remember of a client's command that it never can happen."""
        if reply.status == "expired":
            self._remember_void(reply.id, 0)

    def _remember_seen(self, id_: CommandId, seq: int) -> None:
        self._seen[id_] = seq
        heapq.heappush(self._expiries, id_)
        while len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        if len(self._expiries) > 2 * len(self._seen) + EXPIRIES_SLACK:
            self._expiries = sorted(CommandId(each) for each in self._seen)

    def _remember_void(self, id_: CommandId, seq: int) -> None:
        self._void[id_] = seq
        while len(self._void) > VOID_MAX:
            self._void.popitem(last=False)

    def on_executed(self, executed: Executed) -> list[CommandId]:
        """Show a block's events; return the logged commands that expired unordered by it."""
        outcomes = self._recorded.pop(executed.block.height, None)
        if outcomes is None:
            outcomes = [self._as_written(*each) for each in self._outcomes_of(executed, 0)]
        for entry in outcomes:
            self._add(entry)
        self._outcome_stream.advance(executed.first_outcome - 1 + len(outcomes))
        for trade in _trades_of(executed):
            self._trades.append(trade)
            self._trade_stream.advance(trade.sequence)
        return self._expire(executed.block.time_ms)

    def _as_written(self, sequence: int, made: OutcomeRecord) -> tuple[int, OutcomeRecord]:
        """Return a replayed outcome's record, whose clock and place are those of its first time."""
        raw = self._store.get(TABLE_OUTCOMES, _key(sequence))
        return sequence, decode(OutcomeRecord, raw) if raw is not None else made

    def _expire(self, block_time_ms: int) -> list[CommandId]:
        """No block after one of this time can order what expires by then."""
        void: list[CommandId] = []
        while self._expiries and expires_ms(self._expiries[0]) <= block_time_ms:
            id_ = heapq.heappop(self._expiries)
            seq = self._seen.pop(id_, None)
            if seq is not None:
                self._remember_void(id_, seq)
                void.append(id_)
        return void

    def _add(self, entry: tuple[int, OutcomeRecord]) -> None:
        id_ = entry[1].id
        self._seen.pop(id_, None)
        self._by_id[id_] = entry
        self._recent.append(entry)
        while len(self._recent) > RECENT_MAX:
            _, oldest = self._recent.popleft()
            self._by_id.pop(oldest.id, None)

    def _retire(self, sequence: int, writes: list[Write]) -> None:
        raw = self._store.get(TABLE_OUTCOMES, _key(sequence)) if sequence > 0 else None
        if raw is not None:
            writes.append(Write(TABLE_OUTCOMES, _key(sequence), None))
            writes.append(Write(TABLE_RECEIPTS, decode(OutcomeRecord, raw).id, None))

    def on_accepted(self, checkpoint: FormedCheckpoint) -> None:
        """A checkpoint is on chain and final: all up to its height is settled."""
        if not self._settled or checkpoint.number > self._settled[-1].number:
            self._settled.append(checkpoint)

    @property
    def newest_settled(self) -> FormedCheckpoint | None:
        return self._settled[-1] if self._settled else None

    def outcomes(self, after: int, limit: int) -> Sequence[Outcome]:
        """Return up to `limit` outcomes with sequence > `after`. Errors: CursorLost."""
        first = self._recent[0][0] if self._recent else self._outcome_stream.last + 1
        if after + 1 >= first:
            skip = after + 1 - first
            return [_outcome(*entry) for entry in islice(self._recent, skip, skip + limit)]
        page = self._page(TABLE_OUTCOMES, after, limit, self._outcome_stream.last)
        return [_outcome(after + 1 + k, decode(OutcomeRecord, raw)) for k, raw in enumerate(page)]

    def _page(self, table: str, after: int, limit: int, last: int) -> list[bytes]:
        """Return the stored records of `after` + 1, `after` + 2, and so on. Errors: CursorLost."""
        found: list[bytes] = []
        for key, raw in self._store.scan(table, _key(after + 1), _key(last + 1)):
            sequence = int.from_bytes(key, "big")
            if sequence != after + 1 + len(found):
                # Pruned, or executed elsewhere while this node was far behind.
                if not found:
                    raise CursorLost(sequence)
                break
            found.append(raw)
            if len(found) >= limit:
                break
        if not found and after < last:
            raise CursorLost(last + 1)
        return found

    async def outcomes_beyond(self, after: int) -> None:
        """Return as soon as an outcome with sequence > `after` exists."""
        await self._outcome_stream.beyond(after)

    def trades(self, after: int, limit: int) -> Sequence[Trade]:
        """Return up to `limit` trades with sequence > `after`. Errors: CursorLost."""
        first = self._trades[0].sequence if self._trades else self._trade_stream.last + 1
        if after + 1 >= first:
            skip = after + 1 - first
            return list(islice(self._trades, skip, skip + limit))
        page = self._page(TABLE_TRADES, after, limit, self._trade_stream.last)
        return [decode(Trade, raw) for raw in page]

    async def trades_beyond(self, after: int) -> None:
        """Return as soon as a trade with sequence > `after` exists."""
        await self._trade_stream.beyond(after)

    def receipt(self, id_: CommandId) -> Receipt | None:
        """Return how far the command came, as far as it was seen here or executed."""
        known = self._by_id.get(id_)
        if known is None:
            key = self._store.get(TABLE_RECEIPTS, id_)
            sequence = int.from_bytes(key, "big") if key is not None else 0
            raw = self._store.get(TABLE_OUTCOMES, key) if key is not None else None
            if raw is not None and sequence <= self._outcome_stream.last:
                known = (sequence, decode(OutcomeRecord, raw))
        if known is None:
            return self._unordered(id_)
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

    def _unordered(self, id_: CommandId) -> Receipt | None:
        void = id_ in self._void
        seq = self._void.get(id_) or self._seen.get(id_, 0)
        if not void and not seq:
            return None
        seen = SeenStage(log=self._me, seq=seq) if seq else None
        return Receipt(id=id_, seen=seen, void=void)

    def _settlement(self, height: int) -> SettledStage | None:
        place = bisect_left(self._settled, height, key=lambda checkpoint: checkpoint.height)
        if place == len(self._settled):
            return None
        return SettledStage(checkpoint=self._settled[place].number)


def _trades_of(executed: Executed) -> list[Trade]:
    """Return a block's fills as the stream shows them."""
    return [
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
        for fill in executed.events
        if isinstance(fill, Fill)
    ]


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


def pending_here(ctx: Context) -> dict[CommandId, int]:
    """Return the commands in the own log that are not over, with the batch that each stands in."""
    me, logs, fair = ctx.me, ctx.logs, ctx.sequencer.fair
    found: dict[CommandId, int] = {}
    path = logs.path(me, logs.bases[me], ctx.own.head)
    for sealed in path if isinstance(path, list) else ():
        for entry in sealed.batch.entries:
            id_ = CommandId(entry)
            if not fair.is_done(id_) and expires_ms(id_) > ctx.sequencer.time_ms:
                found[id_] = sealed.batch.seq
    wanted = {id_: None for id_ in fair.pending() if fair.holds(me, id_)}
    newest, epoch = logs.bases[me].seq, ctx.committee.epoch
    for seq in range(newest, max(0, newest - OWN_BATCHES_READ_MAX), -1):
        if not wanted:
            break
        digest = ctx.reader.get(TABLE_LOG, log_key(epoch, me, seq))
        raw = (
            ctx.reader.get(TABLE_BATCHES, batch_key(epoch, me, Head(seq, digest)))
            if digest
            else None
        )
        for entry in decode(LogBatch, raw).entries if raw is not None else ():
            if wanted.pop(entry, 0) is None:
                found[CommandId(entry)] = seq
    return found
