"""The store keeps what it promised, and says so when it cannot."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.effects import Write
from ops import store as store_module
from ops.store import (
    TABLES,
    MemoryStore,
    Storage,
    Store,
    StoreCorrupt,
    StoreError,
    StoreLocked,
)

_KEYS = st.binary(max_size=3)
_WRITES = st.builds(
    Write, st.sampled_from(sorted(TABLES)), _KEYS, st.none() | st.binary(max_size=40)
)
_BATCHES = st.lists(st.tuples(st.lists(_WRITES, max_size=8), st.booleans()), max_size=8)

Model = dict[tuple[str, bytes], bytes]


def _replay(model: Model, writes: list[Write]) -> None:
    for write in writes:
        if write.value is None:
            model.pop((write.table, write.key), None)
        else:
            model[write.table, write.key] = write.value


def _own(rows: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [row for row in rows if row[0] != b"format"]


def _contents(store: Storage) -> Model:
    found = {(table, key): value for table in TABLES for key, value in store.scan(table)}
    found.pop(("meta", b"format"), None)
    return found


@settings(max_examples=25, deadline=None)
@given(batches=_BATCHES, start=_KEYS, end=st.none() | _KEYS, reverse=st.booleans())
def test_both_stores_are_a_dict_that_survives_reopening(
    batches: list[tuple[list[Write], bool]], start: bytes, end: bytes | None, reverse: bool
) -> None:
    with tempfile.TemporaryDirectory() as home:
        model: Model = {}
        memory = MemoryStore()
        store = Store.open(Path(home))
        for writes, sync in batches:
            store.apply(writes, sync)
            memory.apply(writes, sync)
            _replay(model, writes)
        for table in TABLES:
            rows = [(key, value) for (name, key), value in model.items() if name == table]
            rows = [row for row in rows if row[0] >= start and (end is None or row[0] < end)]
            rows.sort(reverse=reverse)
            assert _own(list(store.scan(table, start, end, reverse))) == rows
            assert list(memory.scan(table, start, end, reverse)) == rows
        store.close()
        store = Store.open(Path(home))
        assert _contents(store) == _contents(memory) == model
        for (table, key), value in model.items():
            assert store.get(table, key) == memory.get(table, key) == value
        store.close()


@given(batches=_BATCHES, data=st.data())
def test_a_crash_in_memory_loses_only_a_tail_of_what_was_not_synced(
    batches: list[tuple[list[Write], bool]], data: st.DataObject
) -> None:
    memory = MemoryStore()
    states: list[Model] = [{}]
    durable = 0
    for writes, sync in batches:
        memory.apply(writes, sync)
        if writes:
            states.append(dict(states[-1]))
            _replay(states[-1], writes)
        if sync:
            durable = len(states) - 1
    keep = data.draw(st.integers(0, memory.unsynced))
    memory.crash(keep)
    assert _contents(memory) == states[durable + keep]


_WRITER = """
import sys
from pathlib import Path
from consensus.effects import Write
from ops.store import Store

store = Store.open(Path(sys.argv[1]))
for i in range(100_000):
    writes = [Write("safety", b"last", i.to_bytes(4, "big"))]
    writes += [Write("bodies", i.to_bytes(4, "big") + bytes((j,)), bytes(200)) for j in range(5)]
    mode = sys.argv[2]
    store.apply(writes, sync=mode == "apply")
    if mode == "sync":
        store.sync()
    print(i, flush=True)
"""


@pytest.mark.parametrize("mode", ["apply", "sync"])
def test_what_was_promised_survives_kill_9(tmp_path: Path, mode: str) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path), mode], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    promised = -1
    for line in writer.stdout:
        promised = int(line)
        if promised == 300:
            writer.send_signal(signal.SIGKILL)
    writer.wait()
    store = Store.open(tmp_path)
    last = store.get("safety", b"last")
    assert last is not None
    assert int.from_bytes(last, "big") >= promised >= 300
    whole = int.from_bytes(last, "big") + 1
    assert len(list(store.scan("bodies"))) == 5 * whole  # Each batch whole, or not there.
    store.close()


def test_sync_reaches_every_log_file_that_still_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim behind `sync`: a record is in a log file at the time, or in a synced table."""
    synced: list[int] = []
    real = os.fdatasync

    def watched(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", watched)
    store = Store.open(tmp_path)
    store.apply([Write("blocks", b"a", bytes(1000))], sync=False)
    store.sync()
    assert set(synced) == {log.stat().st_ino for log in tmp_path.glob("*.log")} != set()
    store.close()


def test_a_home_has_one_node(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    with pytest.raises(StoreLocked, match="in use by another node"):
        Store.open(tmp_path)
    script = "import sys; from pathlib import Path; from ops.store import Store;"
    script += "Store.open(Path(sys.argv[1]))"
    other = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert other.returncode != 0
    assert "StoreLocked" in other.stderr
    store.close()
    Store.open(tmp_path).close()


def test_a_store_of_another_network_is_refused(tmp_path: Path) -> None:
    Store.open(tmp_path, network=bytes(32)).close()
    Store.open(tmp_path, network=bytes(32)).close()
    with pytest.raises(StoreError, match="belongs to network 0000"):
        Store.open(tmp_path, network=b"\1" * 32)


def _as_killed_now(home: Path) -> Path:
    """Return a copy of what a killed process would leave."""
    return shutil.copytree(home, home.with_name(home.name + "-killed"))


def _damage(home: Path, suffix: str, needle: bytes) -> None:
    """Flip one bit of `needle` wherever the files hold it."""
    hits = 0
    for file in home.glob(f"*{suffix}"):
        data = file.read_bytes()
        if needle in data:
            file.write_bytes(data.replace(needle, bytes((needle[0] ^ 1,)) + needle[1:]))
            hits += 1
    assert hits


def test_a_damaged_log_refuses_to_start(tmp_path: Path) -> None:
    """RocksDB's default would drop the damaged record and all after it, silently."""
    store = Store.open(tmp_path)
    store.apply([Write("safety", b"last_voted", b"needle-in-the-log")], sync=True)
    store.apply([Write("safety", b"other", b"later")], sync=True)
    home = _as_killed_now(tmp_path)
    store.close()
    _damage(home, ".log", b"needle-in-the-log")
    with pytest.raises(StoreCorrupt, match="never put an older copy"):
        Store.open(home)


def test_a_damaged_table_file_is_found(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.apply([Write("safety", b"last_voted", b"needle-in-the-table")], sync=True)
    store.close()  # Closing moves the log's records into a table file.
    _damage(tmp_path, ".sst", b"needle-in-the-table")
    with pytest.raises(StoreCorrupt):
        Store.open(tmp_path)


def test_a_half_written_last_record_is_forgotten(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.apply([Write("safety", b"first", b"whole")], sync=True)
    store.apply([Write("safety", b"second", b"the-torn-record")], sync=False)
    home = _as_killed_now(tmp_path)
    store.close()
    (log,) = (log for log in home.glob("*.log") if log.stat().st_size)
    os.truncate(log, log.stat().st_size - 5)
    store = Store.open(home)
    assert _contents(store) == {("safety", b"first"): b"whole"}
    store.close()


def test_a_record_that_is_not_what_was_written_is_found(tmp_path: Path) -> None:
    """Below RocksDB's own checksums: a record replaced by another record's bytes."""
    store = Store.open(tmp_path)
    store.apply([Write("safety", b"k", b"mine"), Write("bodies", b"k", b"body")], sync=True)
    database = store._database
    database.put(TABLES["bodies"] + b"k", database.get(TABLES["safety"] + b"k"))
    with pytest.raises(StoreCorrupt, match="record 6b of table bodies"):
        store.get("bodies", b"k")
    with pytest.raises(StoreCorrupt):
        list(store.scan("bodies"))
    store.close()
    Store.open(tmp_path).close()  # Bodies can be fetched again; a safety record cannot.
    store = Store.open(tmp_path)
    store._database.put(TABLES["safety"] + b"k", b"\0\0\0\0mine")
    store.close()
    with pytest.raises(StoreCorrupt, match=r"could sign twice.*does not start"):
        Store.open(tmp_path)


def test_the_checksum_is_what_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same damage goes unseen once the checksum is taken away."""
    store = Store.open(tmp_path)
    store.apply([Write("safety", b"k", b"mine")], sync=True)
    store._database.put(TABLES["safety"] + b"k", b"\0\0\0\0liar")
    monkeypatch.setattr(store_module, "crc32", lambda data, start=0: 0)
    assert store.get("safety", b"k") == b"liar"
    store.close()


def test_errors_of_the_world_are_store_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError):
        Store.open(tmp_path / "file")
    store = Store.open(tmp_path / "home")
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.get("safety", b"k")
    with pytest.raises(StoreError, match="closed"):
        store.apply([Write("safety", b"k", b"v")], sync=False)


def test_a_scan_sees_the_store_as_it_was_when_asked(tmp_path: Path) -> None:
    memory = MemoryStore()
    store = Store.open(tmp_path)
    each: list[Storage] = [memory, store]
    for one in each:
        one.apply([Write("log", b"a", b"1"), Write("log", b"b", b"2")], sync=False)
        rows = one.scan("log")
        one.apply([Write("log", b"a", None), Write("log", b"c", b"3")], sync=False)
        assert list(rows) == [(b"a", b"1"), (b"b", b"2")]
    store.close()
