"""A replica's disk that forgets: what was not synced may be gone after a crash.

As the node's store promises (`ops/store.py`): one write-ahead log whose records are whole write
batches under checksums, replayed up to the first that is torn. So each Persist is there whole or
not at all, a sync makes all before it durable, and a crash cuts off an end of those after it. A
Persist of which a part survives cannot come about, nor a later one without an earlier.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from consensus.effects import Persist, Write

Tables = dict[str, dict[bytes, bytes]]


class SimDisk:
    """Records as the running process reads them, and as they would survive a crash."""

    def __init__(self) -> None:
        self._tables: Tables = {}
        self._unsynced: list[tuple[Write, ...]] = []
        self._before: dict[tuple[str, bytes], bytes | None] = {}
        """What the records that the unsynced Persists changed were at the last sync."""
        self.lost_persists = 0

    def get(self, table: str, key: bytes) -> bytes | None:
        records = self._tables.get(table)
        return records.get(key) if records is not None else None

    def scan(self, table: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        records = self._tables.get(table, {})
        for key in sorted(k for k in records if start <= k < end):
            yield key, records[key]

    def durable(self, table: str, key: bytes) -> bytes | None:
        """Return the record that no crash can take away any more, or None."""
        if self._before and (table, key) in self._before:
            return self._before[table, key]
        records = self._tables.get(table)
        return records.get(key) if records is not None else None

    def durable_keys_from(self, table: str, prefix: bytes) -> list[bytes]:
        """Return the keys of durable records that begin with `prefix`, in order."""
        found = {k: None for k in self._tables.get(table, ()) if k.startswith(prefix)}
        for each, key in self._before:
            if each == table and key.startswith(prefix):
                found[key] = None
        return sorted(k for k in found if self.durable(table, k) is not None)

    def records(self, table: str) -> int:
        """Return how many records of a table the running process can read."""
        return len(self._tables.get(table, ()))

    def persist(self, effect: Persist) -> None:
        """Carry out a Persist at once, as a disk does that takes no time."""
        if not effect.sync:
            self.write(effect.writes)
            return
        self._apply(effect.writes)
        if self._unsynced:
            self.sync()

    def write(self, writes: tuple[Write, ...]) -> None:
        """Write records, which a crash may still take away."""
        before = self._before
        for write in writes:
            name = (write.table, write.key)
            if name not in before:
                before[name] = self.get(write.table, write.key)
        self._unsynced.append(writes)
        self._apply(writes)

    def sync(self) -> None:
        """Make everything written so far durable."""
        self._unsynced.clear()
        self._before.clear()

    def crash(self, rng: random.Random) -> None:
        """Keep what is durable, and of the later Persists as many as chance says."""
        kept = rng.randint(0, len(self._unsynced))
        self.lost_persists += len(self._unsynced) - kept
        again = self._unsynced[:kept]
        self._apply(Write(table, key, value) for (table, key), value in self._before.items())
        for writes in again:
            self._apply(writes)
        self.sync()

    def _apply(self, writes: Iterator[Write] | tuple[Write, ...]) -> None:
        tables = self._tables
        for write in writes:
            records = tables.get(write.table)
            if records is None:
                records = tables[write.table] = {}
            if write.value is None:
                records.pop(write.key, None)
            else:
                records[write.key] = write.value
