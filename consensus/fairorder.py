"""Fair order: a pure function of the committed logs, without a leader's choice.

gamma-batch-order-fairness: if ceil(gamma n) replicas received a before b, then b is never emitted
before a, unless both count as one batch. Every replica computes the order from the same cuts
through the same logs. Sources: Themis (eprint 2021/1465), Aequitas (eprint 2020/269),
ARCHITECTURE.md "Fair order", docs/protocol/fair-order.md.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from consensus.codec import CodecError, decode
from consensus.command import EXPIRY_ORDER_MAX_MS, CommandId
from consensus.command import expires_ms as _expires_ms
from consensus.digest import Digest, chunk_name
from consensus.fairstate import (
    SNAPSHOT_BYTES_MAX,
    OrderHeader,
    OrderState,
    PendingId,
    join_chunks,
    read_chunks,
    state_chunks,
)
from consensus.idmemory import IdMemory, chunks_root
from consensus.pendingids import Entry, PendingIds
from consensus.precedence import Precedence, bits

PENDING_MAX = 16_384
"""Pending ids at one time; one that appears beyond them is refused at once."""
_NEVER_MS = 1 << 64


class UnfairCommittee(ValueError):
    """So many replicas would have to hold an id that the faulty ones could stop the order."""

    def __init__(self, n: int, f: int, numerator: int, denominator: int, solid: int) -> None:
        super().__init__(
            f"n={n}, f={f}, gamma={numerator}/{denominator}: an id needs S={solid} logs, "
            f"but only n-f={n - f} are sure to hold it"
        )


def thresholds(n: int, f: int, numerator: int = 1, denominator: int = 1) -> tuple[int, int]:
    """Return (T, S): the logs an id needs to be compared, and to be emitted.

    Errors: UnfairCommittee when S > n - f; ValueError when f or gamma is out of range.
    """
    if not 0 <= f < n:
        raise ValueError(f"f={f} must be at least 0 and below n={n}")
    if not 0 < numerator <= denominator:
        raise ValueError(f"gamma={numerator}/{denominator} must be above 0 and at most 1")
    # floor((1 - gamma) n) = n - ceil(gamma n) replicas may have received a pair the other way.
    threshold = (denominator - numerator) * n // denominator + f + 1
    solid = 2 * threshold - 1
    if solid > n - f:
        raise UnfairCommittee(n, f, numerator, denominator, solid)
    return threshold, solid


@dataclass(frozen=True, slots=True)
class OrderedBatch:
    """Ids emitted together, in the order of execution.

    `number` is a name, not a rank: the order is that of emission. A batch that the deadline cut
    goes on in a later block under the same number, and others may come in between. `refused` ids
    are emitted too, but expire too far ahead to be executed, or came when too many were pending.
    """

    number: int
    ids: tuple[bytes, ...]
    refused: tuple[bytes, ...] = ()


def _expires_in_prefix(id_: bytes) -> int:
    return _expires_ms(CommandId(id_))


class FairOrder:
    """The order of commands, block by block: `commit` takes the new log entries of each block."""

    def __init__(
        self,
        n: int,
        f: int,
        gamma_numerator: int = 1,
        gamma_denominator: int = 1,
        deadline_ms: int = 2_000,
        expires_ms: Callable[[bytes], int] = _expires_in_prefix,
        pending_max: int = PENDING_MAX,
    ) -> None:
        """Errors: as `thresholds`."""
        self.threshold, self.solid_support = thresholds(n, f, gamma_numerator, gamma_denominator)
        self._parameters = (n, f, gamma_numerator, gamma_denominator, deadline_ms)
        self._n, self._f = n, f
        self._deadline_ms = deadline_ms
        self._expires_ms = expires_ms
        self._pending_max = pending_max
        self._height = 0
        self._time_ms = 0
        self._next_number = 1
        self._pending = self._new_pending()
        self._shed: list[bytes] = []
        """The ids that this block refuses because too many are pending."""
        self._watched: dict[bytes, Entry] = {}
        """The pending ids in f + 1 logs, by `since_ms`."""
        self._done = IdMemory()
        self._first_expiry_ms = _NEVER_MS
        """No pending id expires before this."""
        self._changed = False
        self._due_ms = _NEVER_MS
        """If nothing changes, nothing can be emitted before this."""

    def commit(
        self,
        height: int,
        time_ms: int,
        block_digest: bytes,
        suffixes: Sequence[Sequence[bytes]],
    ) -> list[OrderedBatch]:
        """Take a block: `suffixes[i]` are the ids that it adds to log i. Return what it emits.

        Heights rise, times never fall. An id that repeats in a log, that was emitted or that has
        expired is ignored.
        """
        assert height > self._height and time_ms >= self._time_ms, (height, time_ms)
        assert len(suffixes) == self._n, len(suffixes)
        self._height, self._time_ms = height, time_ms
        self._done.forget(time_ms)
        grown = self._append(suffixes)
        self._drop_expired()
        self._promote(grown)
        batches: list[OrderedBatch] = []
        if self._shed:
            # Before all others: what is emitted in this block may have to come after these.
            batches.append(OrderedBatch(self._next_number, (), tuple(self._shed)))
            self._next_number += 1
            self._shed.clear()
        if self._changed or time_ms >= self._due_ms:
            self._changed = False
            batches += self._emit_what_is_ready(block_digest)
        return batches

    def _new_pending(self) -> PendingIds:
        return PendingIds(self.threshold, self._n)

    def _append(self, suffixes: Sequence[Sequence[bytes]]) -> list[Entry]:
        """Append to the logs; return the ids whose support grew, some of them repeatedly."""
        grown: list[Entry] = []
        by_id, done = self._pending.by_id, self._done
        for i, ids in enumerate(suffixes):
            log = self._pending.logs[i]
            fresh: list[Entry] = []
            for id_ in ids:
                if id_ in log or id_ in done:
                    continue
                entry = by_id.get(id_) or self._new_entry(id_)
                if entry is not None:
                    log[id_] = entry
                    fresh.append(entry)
            self._pending.append(i, fresh)
            grown += fresh
        return grown

    def _new_entry(self, id_: bytes) -> Entry | None:
        expires_ms = self._expires_ms(id_)
        if expires_ms <= self._time_ms:
            return None
        if len(self) >= self._pending_max:
            self._done.remember(id_, min(expires_ms, self._time_ms + EXPIRY_ORDER_MAX_MS))
            self._shed.append(id_)
            return None
        self._first_expiry_ms = min(self._first_expiry_ms, expires_ms)
        return self._pending.add(id_, expires_ms)

    def _drop_expired(self) -> None:
        if self._first_expiry_ms > self._time_ms:
            return
        gone = [
            entry for entry in self._pending.by_id.values() if entry.expires_ms <= self._time_ms
        ]
        self._remove(gone)
        self._first_expiry_ms = min(
            (entry.expires_ms for entry in self._pending.by_id.values()), default=_NEVER_MS
        )

    def _promote(self, grown: Iterable[Entry]) -> None:
        """Note which ids reach f + 1, T and S logs in this block."""
        entering: list[Entry] = []
        hardened: list[Entry] = []
        for entry in dict.fromkeys(grown):
            if self._pending.by_id.get(entry.id) is not entry:
                continue
            self._changed = True
            support = self._pending.support(entry)
            if entry.since_ms is None and support > self._f:
                entry.since_ms = self._time_ms
                self._watched[entry.id] = entry
            if not entry.height and support >= self.threshold:
                entry.height = self._height
                entering.append(entry)
            if entry.solid_ms is None and support >= self.solid_support:
                entry.solid_ms = self._time_ms
                hardened.append(entry)
        self._pending.compare(entering)
        self._pending.make_solid(hardened)

    def _remove(self, gone: Sequence[Entry]) -> None:
        if gone:
            self._changed = True
            self._pending.remove(gone)
            for entry in gone:
                self._watched.pop(entry.id, None)

    def _emit_what_is_ready(self, block_digest: bytes) -> list[OrderedBatch]:
        pending, cutoff_ms = self._pending, self._time_ms - self._deadline_ms
        pending.compact()
        pending.note_late(cutoff_ms)
        self._due_ms = _NEVER_MS
        if not pending.solid:
            return []
        graph, entries = pending.graph, pending.entries
        whole = list(self._ready(graph, pending.solid))
        rest = pending.compared
        for component in whole:
            rest ^= component
        overdue: list[tuple[int, int]] = []
        if pending.late & rest:
            overdue = list(self._overdue(graph, pending.solid, pending.late, rest))
        for emitted, _ in overdue:
            rest ^= emitted
        gone: list[Entry] = []
        batches: list[OrderedBatch] = []
        for emitted, component in [(component, component) for component in whole] + overdue:
            number = self._number(component, component ^ emitted, rest)
            line = [entries[k] for k in self._line(graph, emitted, block_digest)]
            batches.append(self._batch(number, line))
            gone += line
        self._remove(gone)
        solid_ms = pending.note_late(cutoff_ms)
        if solid_ms is not None:
            self._due_ms = solid_ms + self._deadline_ms + 1
        # A prefix leaves the edges among the others as they are, a deadline may break a cycle.
        self._changed = bool(overdue)
        return batches

    def _ready(self, graph: Precedence, solid: int) -> Iterator[int]:
        """Return the longest prefix of the chain in which every id is solid, by component."""
        return graph.chain(self._pending.compared, solid)

    def _overdue(
        self, graph: Precedence, solid: int, late: int, rest: int
    ) -> Iterator[tuple[int, int]]:
        """Yield (what the deadline emits, its component among the solid ids of `rest`).

        Without this, clients could keep one cycle of preferences growing for ever. An id goes
        only if whatever may come before it was emitted or counts as the same batch.
        """
        for component in graph.chain(rest & solid):
            emitted = 0
            for k in bits(component & late):
                if not graph.behind(k) & rest & ~component:
                    emitted |= 1 << k
            if emitted:
                rest ^= emitted
                yield emitted, component
            if emitted != component:
                return

    def _number(self, component: int, left: int, rest: int) -> int:
        """Return the number of a batch of which `left` stays behind, among the unemitted `rest`."""
        entries = self._pending.entries
        opened = self._pending.opened
        number = max((entries[k].open_number for k in bits(component & opened)), default=0)
        if left and not number:
            # One open batch at a time: two of them could later meet in one component.
            number = max((entries[k].open_number for k in bits(rest & opened)), default=0)
        if not number:
            number = self._next_number
            self._next_number += 1
        for k in bits(left):
            entries[k].open_number = number
        self._pending.opened |= left
        return number

    def _batch(self, number: int, line: Sequence[Entry]) -> OrderedBatch:
        horizon_ms = self._time_ms + EXPIRY_ORDER_MAX_MS
        for entry in line:
            self._done.remember(entry.id, min(entry.expires_ms, horizon_ms))
        refused = tuple([entry.id for entry in line if entry.expires_ms > horizon_ms])
        ids = tuple([entry.id for entry in line if entry.expires_ms <= horizon_ms])
        return OrderedBatch(number, ids, refused)

    def _line(self, graph: Precedence, members: int, block_digest: bytes) -> list[int]:
        """Return the bits of `members` in their order inside a batch."""
        if not members & (members - 1):
            return [members.bit_length() - 1]
        entries = self._pending.entries

        def rank(k: int) -> tuple[int, bytes]:
            copeland = (graph.beaten(k) & members).bit_count()
            return -copeland, sha256(block_digest + entries[k].id).digest()

        return graph.line_up(members, rank)

    def __len__(self) -> int:
        """Return the number of pending ids."""
        return len(self._pending.by_id)

    def pending(self) -> list[bytes]:
        """Return the pending ids in the order of their first appearance in committed logs."""
        return list(self._pending.by_id)

    def is_pending(self, id_: bytes) -> bool:
        """Say whether `id_` is in a committed log, and neither emitted nor expired."""
        return id_ in self._pending.by_id

    def is_done(self, id_: bytes) -> bool:
        """Say whether `id_` was emitted, or refused, and is still remembered."""
        return id_ in self._done

    def holds(self, log: int, id_: bytes) -> bool:
        """Say whether committed log `log` holds the pending `id_`."""
        return id_ in self._pending.logs[log]

    def support(self, id_: bytes) -> int:
        """Return how many committed logs hold the pending `id_`; 0 when it is not pending."""
        entry = self._pending.by_id.get(id_)
        return self._pending.support(entry) if entry else 0

    def open_number(self, id_: bytes) -> int:
        """Return the number of the batch that the pending `id_` is the rest of; 0 if of none."""
        entry = self._pending.by_id.get(id_)
        return entry.open_number if entry else 0

    def order_of(self, log: int) -> list[bytes]:
        """Return the pending ids that committed log `log` holds, in its order."""
        return list(self._pending.logs[log])

    def next_epoch(self, n: int, f: int) -> FairOrder:
        """Return the order of the epoch that begins now: its logs are empty, nothing is pending,
        and what was emitted stays remembered, in one memory with this order, which has ended.

        Errors: as `thresholds`.
        """
        _, _, numerator, denominator, deadline_ms = self._parameters
        fresh = FairOrder(
            n, f, numerator, denominator, deadline_ms, self._expires_ms, self._pending_max
        )
        fresh._height, fresh._time_ms = self._height, self._time_ms
        fresh._next_number, fresh._done = self._next_number, self._done
        return fresh

    def missing_for(self, log: int) -> list[bytes]:
        """Return the pending ids that log `log` lacks, in the order of `pending`."""
        return self._pending.missing_for(log)

    def alarmed(self, time_ms: int, alarm_ms: int) -> list[bytes]:
        """Return the ids, sorted, that f + 1 logs have held for longer than `alarm_ms`."""
        overdue: list[bytes] = []
        for entry in self._watched.values():
            assert entry.since_ms is not None
            if time_ms - entry.since_ms <= alarm_ms:
                break
            overdue.append(entry.id)
        return sorted(overdue)

    def chunks(self, known: Container[bytes] = ()) -> list[bytes]:
        """Return the encoded chunks of the whole state, the remembered ids' last.

        Of the remembered ids' those are left out whose name is `known`.
        """
        return state_chunks(self._state()) + self._done.chunks(known)

    def leaves(self) -> list[Digest]:
        """Return the names of `chunks`, in their order; of remembered ids' only new are hashed."""
        return [chunk_name(chunk) for chunk in state_chunks(self._state())] + self._done.leaves()

    def digest(self) -> Digest:
        """Return the Merkle root over `leaves`."""
        return chunks_root(self.leaves())

    def export(self) -> bytes:
        """Return a snapshot from which `restore` makes an equal."""
        return join_chunks(self.chunks())

    def _state(self) -> OrderState:
        index = {id_: k for k, id_ in enumerate(self._pending.by_id)}
        return OrderState(
            OrderHeader(*self._parameters, self._height, self._time_ms, self._next_number),
            [
                PendingId(entry.id, entry.height, entry.solid_ms, entry.since_ms, entry.open_number)
                for entry in self._pending.by_id.values()
            ],
            [[index[id_] for id_ in log] for log in self._pending.logs],
        )

    def restore(self, data: bytes) -> None:
        """Take over what `export` gave, in a fresh order with the same parameters.

        Errors: CodecError when `data` is no such snapshot; throw this object away then.
        """
        self.load(decode(tuple[bytes, ...], data, SNAPSHOT_BYTES_MAX))

    def load(self, chunks: Sequence[bytes]) -> None:
        """Take over the state behind `chunks`; else as `restore`. Errors: CodecError."""
        assert not self._height, "load into a fresh order"
        state, remembered = read_chunks(chunks)
        header = state.header
        if header.n != self._n:
            raise CodecError(f"a snapshot of {header.n} logs, not {self._n}")
        self._height, self._time_ms = header.height, header.time_ms
        self._next_number = header.next_number
        self._done.load(remembered)
        for record in state.pending:
            if record.id in self._done or self._new_entry(record.id) is None:
                raise CodecError("a pending id that was emitted or has expired")
        entries = list(self._pending.by_id.values())
        if len(entries) != len(state.pending):
            raise CodecError("a pending id twice")
        for i, order in enumerate(state.logs):
            log = self._pending.logs[i]
            for k in order:
                if entries[k].id in log:
                    raise CodecError("an id twice in one log")
                log[entries[k].id] = entries[k]
            self._pending.append(i, list(log.values()))
        for entry, record in zip(entries, state.pending, strict=True):
            self._restore_entry(entry, record)
        self._pending.renew()
        watched = [entry for entry in entries if entry.since_ms is not None]
        watched.sort(key=lambda entry: entry.since_ms or 0)
        self._watched = {entry.id: entry for entry in watched}
        self._changed = True
        if self.chunks() != list(chunks):
            raise CodecError("not a snapshot of this committee's order")

    def _restore_entry(self, entry: Entry, record: PendingId) -> None:
        entry.height, entry.open_number = record.height, record.open_number
        entry.solid_ms, entry.since_ms = record.solid_ms, record.since_ms
        support = self._pending.support(entry)
        if (
            not support
            or (entry.height > 0) != (support >= self.threshold)
            or (entry.solid_ms is not None) != (support >= self.solid_support)
            or (entry.since_ms is not None) != (support > self._f)
            or not 0 <= entry.open_number < self._next_number
            or not 0 <= entry.height <= self._height
        ):
            raise CodecError("a pending id that contradicts the logs")
