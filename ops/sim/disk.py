"""A replica's disk that forgets: what was not synced may be gone after a crash.

Like a database with one write-ahead log: each Persist is atomic, a synced one makes all before it
durable, and a crash cuts off an end of those after the last synced one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from consensus.effects import Persist, Write

Tables = dict[str, dict[bytes, bytes]]


class SimDisk:
    """Records as the running process reads them, and as they would survive a crash."""

    def __init__(self) -> None:
        self._seen: Tables = {}
        self._durable: Tables = {}
        self._unsynced: list[tuple[Write, ...]] = []
        self.lost_persists = 0

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._seen.get(table, {}).get(key)

    def scan(self, table: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        records = self._seen.get(table, {})
        for key in sorted(k for k in records if start <= k < end):
            yield key, records[key]

    def durable(self, table: str, key: bytes) -> bytes | None:
        """Return the record that no crash can take away any more, or None."""
        return self._durable.get(table, {}).get(key)

    def durable_keys_from(self, table: str, prefix: bytes) -> list[bytes]:
        """Return the keys of durable records that begin with `prefix`, in order."""
        return sorted(k for k in self._durable.get(table, {}) if k.startswith(prefix))

    def persist(self, effect: Persist) -> None:
        """Carry out a Persist."""
        _apply(self._seen, effect.writes)
        self._unsynced.append(effect.writes)
        if effect.sync:
            for writes in self._unsynced:
                _apply(self._durable, writes)
            self._unsynced.clear()

    def crash(self, rng: random.Random) -> None:
        """Keep what is durable, and of the later Persists as many as chance says."""
        kept = rng.randint(0, len(self._unsynced))
        self.lost_persists += len(self._unsynced) - kept
        for writes in self._unsynced[:kept]:
            _apply(self._durable, writes)
        self._unsynced.clear()
        self._seen = {table: dict(records) for table, records in self._durable.items()}


def _apply(tables: Tables, writes: tuple[Write, ...]) -> None:
    for write in writes:
        records = tables.setdefault(write.table, {})
        key = bytes(write.key)
        if write.value is None:
            records.pop(key, None)
        else:
            records[key] = write.value
