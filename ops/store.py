"""What a node keeps on disk: tables of records in one RocksDB, and the same in memory.

One key space: a record's key is its table's byte and then its own key, so that a step's writes
are one batch in one log, and one memtable is all the memory it takes. A value carries a CRC-32 of
key and value, so that a record that is not what was written is never taken for one.
Source: ADR-0006.
"""

from __future__ import annotations

import errno
import logging
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol
from zlib import crc32

import rocksdict

from consensus.effects import Write
from ops.wal import corrupt_tail, cut, torn_tail

log = logging.getLogger("fairlane.store")

TABLES: Final = {
    "meta": b"\x01",
    "safety": b"\x02",
    "blocks": b"\x03",
    "batches": b"\x04",
    "bodies": b"\x05",
    "chain": b"\x06",
    "state": b"\x07",
    "log": b"\x08",
    "proofs": b"\x09",
    "outcomes": b"\x0a",
    "evidence": b"\x0b",
    "checkpoint": b"\x0c",
    "receipts": b"\x0d",
    "epochs": b"\x0e",
    "trades": b"\x0f",
}
"""A table's byte is part of the format: a new table takes the next, none is ever used again."""

FORMAT: Final = 1
MEMTABLE_BYTES: Final = 16 << 20
CACHE_BYTES: Final = 16 << 20
OPEN_FILES_MAX: Final = 128
KEY_BYTES_MAX: Final = 256
VALUE_BYTES_MAX: Final = 64 << 20

_CHECKED_AT_OPEN: Final = ("meta", "safety")
TURNS_KEPT: Final = 16_384
"""Writes whose numbers are kept, each in its place of a ring: a gap among them shows at the start
that records are missing between others, as when RocksDB's list of files lost its end."""

_TURN: Final = b"\x00turn"
_FORMAT_KEY: Final = b"format"
_NETWORK_KEY: Final = b"network"


class StoreError(Exception):
    """The disk did not do as asked: what was written last may not be there, so stop the node."""


class StoreLocked(StoreError):
    """Another process has this store open."""


class StoreCorrupt(StoreError):
    """A record, or the log, is not what was written."""


class Storage(Protocol):
    """What a node needs of its disk; `Store` is the real one, `MemoryStore` the simulator's."""

    def apply(self, writes: Sequence[Write], sync: bool) -> None: ...

    def sync(self) -> None: ...

    def get(self, table: str, key: bytes) -> bytes | None: ...

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]: ...

    def close(self) -> None: ...


class Store:
    """RocksDB behind the few calls that a node needs.

    Not for several threads at once, `sync` excepted. rocksdict holds Python's lock while it
    writes and syncs, so a thread of one's own gains nothing for `apply`; it does for `sync`.
    """

    def __init__(self, path: Path, database: rocksdict.Rdict) -> None:
        """Take over an open database; callers use `open`."""
        self._path = path
        self._database = database
        self._durable = rocksdict.WriteOptions()
        self._durable.sync = True
        self._turn = 0

    @classmethod
    def open(cls, path: Path, network: bytes | None = None) -> Store:
        """Open or create the store in the directory `path`, and check its safety records.

        `network` is the network id: a store that was made for another one is refused.
        Errors: StoreLocked, StoreCorrupt, StoreError.
        """
        with _mapped(path):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            _refuse_without_index(path)
            torn = torn_tail(path)
        try:
            store = cls(path, _open(path))
        except StoreCorrupt:
            with _mapped(path):
                torn = corrupt_tail(path)
                if torn is None:
                    raise
                cut(torn)
            store = cls(path, _open(path))
        if torn is not None:
            log.warning(
                "%s: cut %d bytes after %d: %s. A crash leaves that, and nobody was promised it; "
                "without a crash, check the disk",
                torn.path,
                torn.lost,
                torn.keep,
                torn.why,
            )
        try:
            store._check_turns()
            store._check_format(network)
            store._check_records()
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open_to_read(cls, path: Path) -> Store:
        """Open a store for reading only, as it is now, also while a node writes to it.

        Errors: StoreCorrupt, StoreError.
        """
        if not (path / "CURRENT").is_file():
            raise StoreError(f"{path} holds no store")
        with _mapped(path):
            reading = rocksdict.AccessType.read_only()
            return cls(path, rocksdict.Rdict(str(path), _options(), access_type=reading))

    def apply(self, writes: Sequence[Write], sync: bool) -> None:
        """Write all records or none; with `sync`, they and all before them survive power loss.

        Errors: StoreError, after which nothing may be sent that relies on these records.
        """
        if not writes:
            if sync:
                self.sync()
            return
        batch = rocksdict.WriteBatch(raw_mode=True)
        self._turn += 1
        turn_key = _turn_key(self._turn % TURNS_KEPT)
        batch.put(turn_key, _seal(turn_key, self._turn.to_bytes(8, "big")))
        for write in writes:
            key = _full_key(write.table, write.key)
            if write.value is None:
                batch.delete(key)
            else:
                batch.put(key, _seal(key, write.value))
        with _mapped(self._path):
            if sync:
                self._database.write(batch, self._durable)
            else:
                self._database.write(batch)

    def sync(self) -> None:
        """Make everything applied so far durable, without holding Python's lock meanwhile.

        A record lives in a log file until the file that replaces it is itself synced, so syncing
        the logs that exist now covers every earlier `apply`. Errors: StoreError.
        """
        with _mapped(self._path):
            for log in self._path.glob("*.log"):
                with suppress(FileNotFoundError):  # Replaced, and so already durable.
                    _sync_file(log, os.fdatasync)
            _sync_file(self._path, os.fsync)

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the record's value, or None. Errors: StoreCorrupt, StoreError."""
        full = _full_key(table, key)
        with _mapped(self._path):
            sealed = self._database.get(full)
        return None if sealed is None else _unseal(self._path, full, sealed)

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the records with `start` <= key < `end` in key order, as they are right now.

        Errors: StoreCorrupt, StoreError.
        """
        prefix = TABLES[table]
        low = prefix + start
        high = bytes((prefix[0] + 1,)) if end is None else prefix + end
        with _mapped(self._path):
            cursor = self._database.iter()
            if reverse:
                cursor.seek_for_prev(high)
                if cursor.valid() and cursor.key() >= high:
                    cursor.prev()
            else:
                cursor.seek(low)
        return self._walk(cursor, low, high, reverse)

    def _walk(
        self, cursor: rocksdict.RdictIter, low: bytes, high: bytes, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        while True:
            with _mapped(self._path):
                if not cursor.valid():
                    cursor.status()
                    return
                full, sealed = cursor.key(), cursor.value()
                if not low <= full < high:
                    return
                if reverse:
                    cursor.prev()
                else:
                    cursor.next()
            yield full[1:], _unseal(self._path, full, sealed)

    def size_bytes(self) -> int:
        """Return what the store takes on disk."""
        total = 0
        for file in self._path.iterdir():
            with suppress(FileNotFoundError):
                total += file.stat().st_size
        return total

    def close(self) -> None:
        """Close the store; what was applied without `sync` is still there if the machine is."""
        with _mapped(self._path):
            self._database.close()

    def _check_turns(self) -> None:
        """Find the number of the newest write, and that none of those before it is missing."""
        turns: dict[int, int] = {}
        with _mapped(self._path):
            cursor = self._database.iter()
            cursor.seek(_TURN)
        for key, value in self._walk(cursor, _TURN, _TURN + b"\xff", reverse=False):
            turns[int.from_bytes(key[len(_TURN) - 1 :], "big")] = int.from_bytes(value, "big")
        newest = self._turn = max(turns.values(), default=0)
        for turn in range(max(1, newest - TURNS_KEPT + 1), newest + 1):
            if turns.get(turn % TURNS_KEPT) != turn:
                raise StoreCorrupt(
                    f"{self._path}: write {turn} of {newest} is missing between others. "
                    f"{begin_anew(self._path)}"
                )

    def _check_format(self, network: bytes | None) -> None:
        stored = self.get("meta", _FORMAT_KEY)
        if stored is None:
            self.apply([Write("meta", _FORMAT_KEY, bytes((FORMAT,)))], sync=True)
        elif stored != bytes((FORMAT,)):
            raise StoreError(
                f"{self._path} has store format {stored.hex()}, this program reads {FORMAT:02x}: "
                "use the release that wrote it"
            )
        if network is None:
            return
        bound = self.get("meta", _NETWORK_KEY)
        if bound is None:
            self.apply([Write("meta", _NETWORK_KEY, network)], sync=True)
        elif bound != network:
            raise StoreError(
                f"{self._path} belongs to network {bound.hex()}, the genesis says "
                f"{network.hex()}: point the node at its own data directory"
            )

    def _check_records(self) -> None:
        for table in _CHECKED_AT_OPEN:
            try:
                for _ in self.scan(table):
                    pass
            except StoreCorrupt as error:
                raise StoreCorrupt(
                    f"{error}. Without it this replica could sign twice, so it does not start. "
                    f"{begin_anew(self._path)}"
                ) from None


class MemoryStore:
    """The same in memory, with the power loss that a test asks for.

    What was applied since the last sync is kept apart: `crash` forgets it, or keeps the first
    few batches of it, as a log's tail would.
    """

    def __init__(self) -> None:
        self._records: dict[bytes, bytes] = {}
        self._durable: dict[bytes, bytes] = {}
        self._unsynced: list[tuple[tuple[bytes, bytes | None], ...]] = []

    @property
    def unsynced(self) -> int:
        """How many batches a crash can lose."""
        return len(self._unsynced)

    def apply(self, writes: Sequence[Write], sync: bool) -> None:
        """Write all records; with `sync`, they and all before them survive `crash`."""
        if writes:
            batch = tuple((_full_key(write.table, write.key), write.value) for write in writes)
            _replay(self._records, batch)
            self._unsynced.append(batch)
        if sync:
            self.sync()

    def sync(self) -> None:
        """Make everything applied so far durable."""
        for batch in self._unsynced:
            _replay(self._durable, batch)
        self._unsynced.clear()

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the record's value, or None."""
        return self._records.get(_full_key(table, key))

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the records with `start` <= key < `end` in key order, as they are right now."""
        prefix = TABLES[table]
        keys = sorted(key for key in self._records if key[0] == prefix[0])
        stop = len(keys) if end is None else bisect_left(keys, prefix + end)
        chosen = keys[bisect_left(keys, prefix + start) : stop]
        found = [(key[1:], self._records[key]) for key in chosen]
        return reversed(found) if reverse else iter(found)

    def crash(self, keep: int = 0) -> None:
        """Lose power: of the batches since the last sync only the first `keep` remain."""
        assert 0 <= keep <= len(self._unsynced)
        for batch in self._unsynced[:keep]:
            _replay(self._durable, batch)
        self._unsynced.clear()
        self._records = dict(self._durable)

    def close(self) -> None:
        """Do nothing: the records stay for the next life."""


def _replay(records: dict[bytes, bytes], batch: tuple[tuple[bytes, bytes | None], ...]) -> None:
    for key, value in batch:
        if value is None:
            records.pop(key, None)
        else:
            records[key] = value


def _turn_key(slot: int) -> bytes:
    return _TURN + slot.to_bytes(2, "big")


def _open(path: Path) -> rocksdict.Rdict:
    with _mapped(path):
        return rocksdict.Rdict(str(path), _options())


def _refuse_without_index(path: Path) -> None:
    """RocksDB takes a directory without CURRENT for a new store, and its tables for rubbish."""
    if (path / "CURRENT").exists():
        return
    left = sorted(each.name for each in path.iterdir() if each.suffix in (".sst", ".log"))
    if left:
        raise StoreCorrupt(f"{path} has {left[0]} and no file CURRENT. {begin_anew(path)}")


def begin_anew(path: Path) -> str:
    """Say what to do about a store that cannot be trusted."""
    return (
        "Check the disk, and never put an older copy in its place. To go on without it: "
        f"mv {path} {path}.damaged, and start the node. It asks its peers what its key signed and "
        "is silent until the next epoch, so do that to no more nodes at once than may fail"
    )


def _full_key(table: str, key: bytes) -> bytes:
    assert len(key) <= KEY_BYTES_MAX, len(key)
    return TABLES[table] + key


def _seal(key: bytes, value: bytes) -> bytes:
    assert len(value) <= VALUE_BYTES_MAX, len(value)
    return crc32(value, crc32(key)).to_bytes(4, "big") + value


def _unseal(path: Path, key: bytes, sealed: bytes) -> bytes:
    value = sealed[4:]
    if len(sealed) < 4 or crc32(value, crc32(key)).to_bytes(4, "big") != sealed[:4]:
        table = next((name for name, byte in TABLES.items() if byte == key[:1]), "?")
        raise StoreCorrupt(f"{path}: record {key[1:].hex()} of table {table} is corrupt")
    return value


def _options() -> rocksdict.Options:
    blocks = rocksdict.BlockBasedOptions()
    blocks.set_block_cache(rocksdict.Cache(CACHE_BYTES))
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    blocks.set_bloom_filter(10, False)
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(blocks)
    options.set_write_buffer_size(MEMTABLE_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_max_open_files(OPEN_FILES_MAX)
    options.set_max_background_jobs(2)
    options.set_compression_type(rocksdict.DBCompressionType.lz4())
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    options.set_stats_dump_period_sec(0)
    # A half-written last record was never promised to anybody. Damage before it was: the default
    # mode would drop all that follows without a word, and with it what this replica had signed.
    options.set_wal_recovery_mode(rocksdict.DBRecoveryMode.tolerate_corrupted_tail_records())
    return options


def _sync_file(path: Path, sync: Callable[[int], None]) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    """Turn what rocksdict raises (bare `Exception`) into the store's own errors."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    except rocksdict.DbClosedError:
        raise StoreError(f"{path}: the store is closed") from None
    except Exception as error:  # rocksdict has no exception type of its own.
        text = str(error)
        if "lock" in text.lower() and "/LOCK" in text:
            raise StoreLocked(
                f"{path} is in use by another node: two nodes must never share a home"
            ) from None
        if text.startswith("Corruption"):
            raise StoreCorrupt(f"{path} is damaged ({text}). {begin_anew(path)}") from None
        if os.strerror(errno.ENOSPC) in text:
            raise StoreError(f"{path}: the disk is full") from None
        raise StoreError(f"{path}: {text}") from error
