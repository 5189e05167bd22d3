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
from tests.consensus.precedence_anew import Precedence, bits

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
    are emitted too, but expire too far ahead to be executed.
    """

    number: int
    ids: tuple[bytes, ...]
    refused: tuple[bytes, ...] = ()


class _Entry:
    """One pending id."""

    __slots__ = ("expires_ms", "height", "id", "open_number", "since_ms", "solid_ms", "support")

    def __init__(self, id_: bytes, expires_ms: int) -> None:
        self.id = id_
        self.expires_ms = expires_ms
        self.support = 0
        self.height = 0
        """Height of the block that gave it T logs; 0 before."""
        self.solid_ms: int | None = None
        """Time of the block that gave it S logs."""
        self.since_ms: int | None = None
        """Time of the block that gave it f + 1 logs."""
        self.open_number = 0
        """The batch of which it is the rest, or 0."""


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
    ) -> None:
        """Errors: as `thresholds`."""
        self.threshold, self.solid_support = thresholds(n, f, gamma_numerator, gamma_denominator)
        self._parameters = (n, f, gamma_numerator, gamma_denominator, deadline_ms)
        self._n, self._f = n, f
        self._deadline_ms = deadline_ms
        self._expires_ms = expires_ms
        self._height = 0
        self._time_ms = 0
        self._next_number = 1
        self._pending: dict[bytes, _Entry] = {}
        self._logs: list[dict[bytes, _Entry]] = [{} for _ in range(n)]
        self._missing: list[dict[bytes, None]] = [{} for _ in range(n)]
        self._comparable: list[_Entry] = []
        """The pending ids with T logs or more, by (height, id)."""
        self._watched: dict[bytes, _Entry] = {}
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
        if not self._changed and time_ms < self._due_ms:
            return []
        self._changed = False
        return self._emit_what_is_ready(block_digest)

    def _append(self, suffixes: Sequence[Sequence[bytes]]) -> list[_Entry]:
        """Append to the logs; return the ids whose support grew, some of them repeatedly."""
        grown: list[_Entry] = []
        for i, ids in enumerate(suffixes):
            log, missing = self._logs[i], self._missing[i]
            for id_ in ids:
                if id_ in log or id_ in self._done:
                    continue
                entry = self._pending.get(id_)
                if entry is None:
                    entry = self._new_entry(id_)
                    if entry is None:
                        continue
                log[id_] = entry
                del missing[id_]
                entry.support += 1
                grown.append(entry)
        return grown

    def _new_entry(self, id_: bytes) -> _Entry | None:
        expires_ms = self._expires_ms(id_)
        if expires_ms <= self._time_ms:
            return None
        entry = self._pending[id_] = _Entry(id_, expires_ms)
        self._first_expiry_ms = min(self._first_expiry_ms, expires_ms)
        for missing in self._missing:
            missing[id_] = None
        return entry

    def _drop_expired(self) -> None:
        if self._first_expiry_ms > self._time_ms:
            return
        gone = [entry for entry in self._pending.values() if entry.expires_ms <= self._time_ms]
        self._remove(gone)
        self._first_expiry_ms = min(
            (entry.expires_ms for entry in self._pending.values()), default=_NEVER_MS
        )

    def _promote(self, grown: Iterable[_Entry]) -> None:
        """Note which ids reach f + 1, T and S logs in this block."""
        entering: list[_Entry] = []
        for entry in grown:
            if self._pending.get(entry.id) is not entry:
                continue
            self._changed = True
            if entry.since_ms is None and entry.support > self._f:
                entry.since_ms = self._time_ms
                self._watched[entry.id] = entry
            if not entry.height and entry.support >= self.threshold:
                entry.height = self._height
                entering.append(entry)
            if entry.solid_ms is None and entry.support >= self.solid_support:
                entry.solid_ms = self._time_ms
        entering.sort(key=lambda entry: entry.id)
        self._comparable += entering

    def _remove(self, gone: Sequence[_Entry]) -> None:
        if not gone:
            return
        self._changed = True
        for entry in gone:
            del self._pending[entry.id]
            self._watched.pop(entry.id, None)
            for log, missing in zip(self._logs, self._missing, strict=True):
                log.pop(entry.id, None)
                missing.pop(entry.id, None)
        self._comparable = [entry for entry in self._comparable if entry.id in self._pending]

    def _emit_what_is_ready(self, block_digest: bytes) -> list[OrderedBatch]:
        entries = self._comparable
        cutoff_ms = self._time_ms - self._deadline_ms
        solid = late = 0
        for k, entry in enumerate(entries):
            if entry.solid_ms is not None:
                solid |= 1 << k
                if entry.solid_ms < cutoff_ms:
                    late |= 1 << k
        self._due_ms = _NEVER_MS
        if not solid:
            return []
        graph = self._graph()
        whole = list(self._ready(graph, solid))
        rest = graph.everyone
        for component in whole:
            rest ^= component
        overdue = list(self._overdue(graph, solid, late, rest)) if late & rest else []
        for emitted, _ in overdue:
            rest ^= emitted
        gone: list[_Entry] = []
        batches: list[OrderedBatch] = []
        for emitted, component in [(component, component) for component in whole] + overdue:
            number = self._number(component, component ^ emitted, rest)
            line = [entries[k] for k in self._line(graph, emitted, block_digest)]
            batches.append(self._batch(number, line))
            gone += line
        self._remove(gone)
        waiting = [e.solid_ms for e in self._comparable if e.solid_ms is not None]
        self._due_ms = min(
            (solid_ms + self._deadline_ms + 1 for solid_ms in waiting if solid_ms >= cutoff_ms),
            default=_NEVER_MS,
        )
        # A prefix leaves the edges among the others as they are, a deadline may break a cycle.
        self._changed = bool(overdue)
        return batches

    def _graph(self) -> Precedence:
        index = {entry.id: k for k, entry in enumerate(self._comparable)}
        logs = [[index[id_] for id_ in log if id_ in index] for log in self._logs]
        return Precedence(self.threshold, len(index), logs)

    def _ready(self, graph: Precedence, solid: int) -> Iterator[int]:
        """Yield the longest prefix of the chain in which every id is solid, by component."""
        for component in graph.chain(graph.everyone):
            if component & ~solid:
                return
            yield component

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
                if not graph.behind[k] & rest & ~component:
                    emitted |= 1 << k
            if emitted:
                rest ^= emitted
                yield emitted, component
            if emitted != component:
                return

    def _number(self, component: int, left: int, rest: int) -> int:
        """Return the number of a batch of which `left` stays behind, among the unemitted `rest`."""
        entries = self._comparable
        number = max(entries[k].open_number for k in bits(component))
        if left and not number:
            # One open batch at a time: two of them could later meet in one component.
            number = max(entries[k].open_number for k in bits(rest))
        if not number:
            number = self._next_number
            self._next_number += 1
        for k in bits(left):
            entries[k].open_number = number
        return number

    def _batch(self, number: int, line: Sequence[_Entry]) -> OrderedBatch:
        horizon_ms = self._time_ms + EXPIRY_ORDER_MAX_MS
        for entry in line:
            self._done.remember(entry.id, min(entry.expires_ms, horizon_ms))
        return OrderedBatch(
            number,
            tuple(entry.id for entry in line if entry.expires_ms <= horizon_ms),
            tuple(entry.id for entry in line if entry.expires_ms > horizon_ms),
        )

    def _line(self, graph: Precedence, members: int, block_digest: bytes) -> list[int]:
        """Return the bits of `members` in their order inside a batch."""
        if not members & (members - 1):
            return [members.bit_length() - 1]
        entries = self._comparable

        def rank(k: int) -> tuple[int, bytes]:
            copeland = (graph.beaten(k) & members).bit_count()
            return -copeland, sha256(block_digest + entries[k].id).digest()

        return graph.line_up(members, rank)

    def __len__(self) -> int:
        """Return the number of pending ids."""
        return len(self._pending)

    def pending(self) -> list[bytes]:
        """Return the pending ids in the order of their first appearance in committed logs."""
        return list(self._pending)

    def is_pending(self, id_: bytes) -> bool:
        """Say whether `id_` is in a committed log, and neither emitted nor expired."""
        return id_ in self._pending

    def is_done(self, id_: bytes) -> bool:
        """Say whether `id_` was emitted, or refused, and is still remembered."""
        return id_ in self._done

    def holds(self, log: int, id_: bytes) -> bool:
        """Say whether committed log `log` holds the pending `id_`."""
        return id_ in self._logs[log]

    def support(self, id_: bytes) -> int:
        """Return how many committed logs hold the pending `id_`; 0 when it is not pending."""
        entry = self._pending.get(id_)
        return entry.support if entry else 0

    def open_number(self, id_: bytes) -> int:
        """Return the number of the batch that the pending `id_` is the rest of; 0 if of none."""
        entry = self._pending.get(id_)
        return entry.open_number if entry else 0

    def order_of(self, log: int) -> list[bytes]:
        """Return the pending ids that committed log `log` holds, in its order."""
        return list(self._logs[log])

    def next_epoch(self, n: int, f: int) -> FairOrder:
        """Return the order of the epoch that begins now: its logs are empty, nothing is pending,
        and what was emitted stays remembered, in one memory with this order, which has ended.

        Errors: as `thresholds`.
        """
        _, _, numerator, denominator, deadline_ms = self._parameters
        fresh = FairOrder(n, f, numerator, denominator, deadline_ms, self._expires_ms)
        fresh._height, fresh._time_ms = self._height, self._time_ms
        fresh._next_number, fresh._done = self._next_number, self._done
        return fresh

    def missing_for(self, log: int) -> list[bytes]:
        """Return the pending ids that log `log` lacks, in the order of `pending`."""
        return list(self._missing[log])

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
        index = {id_: k for k, id_ in enumerate(self._pending)}
        return OrderState(
            OrderHeader(*self._parameters, self._height, self._time_ms, self._next_number),
            [
                PendingId(entry.id, entry.height, entry.solid_ms, entry.since_ms, entry.open_number)
                for entry in self._pending.values()
            ],
            [[index[id_] for id_ in log] for log in self._logs],
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
        entries = list(self._pending.values())
        if len(entries) != len(state.pending):
            raise CodecError("a pending id twice")
        for log, missing, order in zip(self._logs, self._missing, state.logs, strict=True):
            for k in order:
                entry = entries[k]
                if entry.id in log:
                    raise CodecError("an id twice in one log")
                log[entry.id] = entry
                del missing[entry.id]
                entry.support += 1
        for entry, record in zip(entries, state.pending, strict=True):
            self._restore_entry(entry, record)
        self._comparable = sorted(
            (entry for entry in entries if entry.height), key=lambda entry: (entry.height, entry.id)
        )
        watched = [entry for entry in entries if entry.since_ms is not None]
        watched.sort(key=lambda entry: entry.since_ms or 0)
        self._watched = {entry.id: entry for entry in watched}
        self._changed = True
        if self.chunks() != list(chunks):
            raise CodecError("not a snapshot of this committee's order")

    def _restore_entry(self, entry: _Entry, record: PendingId) -> None:
        entry.height, entry.open_number = record.height, record.open_number
        entry.solid_ms, entry.since_ms = record.solid_ms, record.since_ms
        support = entry.support
        if (
            not support
            or (entry.height > 0) != (support >= self.threshold)
            or (entry.solid_ms is not None) != (support >= self.solid_support)
            or (entry.since_ms is not None) != (support > self._f)
            or not 0 <= entry.open_number < self._next_number
            or not 0 <= entry.height <= self._height
        ):
            raise CodecError("a pending id that contradicts the logs")
