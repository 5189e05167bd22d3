"""A store's files cut off or changed anywhere: it opens with what was written first, or refuses
with a message that says what to do. It never loses records between others, and never raises."""

from __future__ import annotations

import logging
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import rocksdict

from consensus.effects import Write
from ops import store as store_module
from ops.store import Store, StoreCorrupt, StoreError
from ops.wal import corrupt_tail, crc32c, torn_tail

WRITES = 900
DAMAGES = int(os.environ.get("FAIRLANE_DAMAGES", "25"))
SEED = 11
NEVER_READ = ("LOG", "LOCK", "IDENTITY")


@pytest.fixture
def fast_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: it is not power that is lost here."""
    memory = Path("/dev/shm")
    home = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else tmp_path))
    yield home
    shutil.rmtree(home)


def key_of(number: int) -> bytes:
    return number.to_bytes(4, "big")


def value_of(number: int) -> bytes:
    return random.Random(number).randbytes(20 + 37 * (number % 23))


def written(fast_path: Path, monkeypatch: pytest.MonkeyPatch, reopen: bool) -> Path:
    """Return the directory of a store as a kill leaves it: with tables, logs and a history."""
    options = store_module._options

    def small() -> rocksdict.Options:
        made = options()
        made.set_write_buffer_size(64 << 10)
        return made

    monkeypatch.setattr(store_module, "_options", small)
    home = fast_path / "data"
    store = Store.open(home)
    for number in range(WRITES):
        write = Write("blocks", key_of(number), value_of(number))
        extra = Write("safety", b"record", key_of(number))
        store.apply([write, extra], sync=number % 3 == 0)
        if reopen and number == WRITES // 2:
            store.close()
            store = Store.open(home)
    store._database.cancel_all_background(True)  # Else files come and go while we copy.
    image = shutil.copytree(home, fast_path / "image")
    with suppress(StoreError):  # It minds that its background is gone.
        store.close()
    return image


def look(home: Path) -> int:
    """Open a store and read all of it; return how many writes it has, which are the first ones.

    Errors: StoreError, whose message says what to do."""
    store = Store.open(home)
    try:
        rows = list(store.scan("blocks"))
        count = len(rows)
        assert rows == [(key_of(k), value_of(k)) for k in range(count)], "a prefix, whole"
        newest = store.get("safety", b"record")
        assert newest == (key_of(count - 1) if count else None), "nothing older beside it"
    finally:
        store.close()
    return count


def flip(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return f"flip {path.name} at {at} of {len(data)}"


def wipe(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    data[at : at + rng.randint(1, 5_000)] = bytes(len(data[at : at + 5_000]))
    path.write_bytes(data[: path.stat().st_size])
    return f"zeroes {path.name} from {at} of {len(data)}"


def truncate(path: Path, rng: random.Random) -> str:
    size = path.stat().st_size
    at = rng.randrange(size)
    os.truncate(path, at)
    return f"cut {path.name} at {at} of {size}"


@pytest.mark.parametrize("reopen", [False, True])
def test_damage_anywhere_is_cut_or_refused(
    fast_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    reopen: bool,
) -> None:
    image = written(fast_path, monkeypatch, reopen)
    kinds = {path.suffix or path.name.split("-")[0] for path in image.iterdir()}
    assert kinds >= {".sst", ".log", "MANIFEST", "CURRENT"}, "there is something of each"
    rng = random.Random(SEED)
    whole = look(shutil.copytree(image, fast_path / "whole"))
    assert whole == WRITES
    opened = refused = cut = 0
    silent: list[str] = []
    useless: list[str] = []
    for _ in range(DAMAGES):
        home = shutil.copytree(image, fast_path / "damaged")
        files = sorted(p for p in home.iterdir() if p.name not in NEVER_READ and p.stat().st_size)
        damage: Callable[[Path, random.Random], str] = rng.choice((flip, flip, truncate, wipe))
        told = damage(rng.choice(files), rng)
        caplog.clear()
        try:
            with caplog.at_level(logging.WARNING):
                count = look(home)
        except StoreError as error:
            refused += 1
            text = str(error)
            helps = not isinstance(error, StoreCorrupt) or f"mv {home} {home}.damaged" in text
            useless += [] if helps and str(home) in text else [f"{told}: {text}"]
        else:
            opened += 1
            if count < WRITES:
                cut += 1
                if not caplog.records:
                    silent.append(f"{told}: {count}")
        shutil.rmtree(home)
    print(f"seed {SEED}: {opened} opened, {refused} refused, {cut} cut, silent: {silent}")
    assert not useless
    assert refused > DAMAGES // 4
    # A log that ends between two records looks as if the machine had died between them.
    assert all("cut" in told and ".log" in told for told in silent)
    assert len(silent) <= DAMAGES // 20


def test_a_log_is_cut_at_every_place_of_its_last_record(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Bytes missing or changed in the record that was written last: it goes, with a warning."""
    home = fast_path / "data"
    store = Store.open(home)
    for number in range(5):
        store.apply([Write("blocks", key_of(number), value_of(number))], sync=True)
    before = next(home.glob("*.log")).stat().st_size
    image = shutil.copytree(home, fast_path / "before")
    store.apply([Write("blocks", key_of(5), value_of(5))], sync=True)
    after = shutil.copytree(home, fast_path / "after")
    store.close()
    size = next(after.glob("*.log")).stat().st_size
    assert len(list(image.glob("*.log"))) == 1
    rng = random.Random(SEED)
    for at in [before, *rng.sample(range(before + 1, size), 25), size - 1]:
        for damage in ("cut", "flip"):
            home = shutil.copytree(after, fast_path / "damaged")
            path = next(home.glob("*.log"))
            if damage == "cut":
                os.truncate(path, at)
            else:
                data = bytearray(path.read_bytes())
                data[at] ^= 0x10
                path.write_bytes(data)
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                reopened = Store.open(home)
            assert len(list(reopened.scan("blocks"))) == 5, (damage, at)
            warned = any("cut" in record.message for record in caplog.records)
            assert warned == (damage == "flip" or at != before), (damage, at)
            reopened.close()
            shutil.rmtree(home)


def test_damage_before_the_last_record_is_refused(fast_path: Path) -> None:
    home = fast_path / "data"
    store = Store.open(home)
    ends = []
    for number in range(40):
        store.apply([Write("blocks", key_of(number), value_of(number))], sync=True)
        ends.append(next(home.glob("*.log")).stat().st_size)
    image = shutil.copytree(home, fast_path / "image")
    store.close()
    rng = random.Random(SEED)
    for at in rng.sample(range(ends[-2]), 60):
        home = shutil.copytree(image, fast_path / "damaged")
        path = next(home.glob("*.log"))
        data = bytearray(path.read_bytes())
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        with pytest.raises(StoreCorrupt, match=r"mv .*damaged"):
            Store.open(home)
        shutil.rmtree(home)


def test_a_gap_between_writes_is_refused(fast_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the gap lies before a full turn of the ring."""
    monkeypatch.setattr(store_module, "TURNS_KEPT", 8)
    store = Store.open(fast_path)
    for number in range(30):
        store.apply([Write("blocks", key_of(number), b"")], sync=False)
    store.close()
    Store.open(fast_path).close()
    store = Store.open(fast_path)
    store._turn += 1
    store.apply([Write("blocks", b"later", b"")], sync=True)
    store.close()
    with pytest.raises(StoreCorrupt, match="is missing between others"):
        Store.open(fast_path)


def test_a_store_without_its_index_is_not_taken_for_a_new_one(fast_path: Path) -> None:
    store = Store.open(fast_path)
    store.apply([Write("blocks", b"k", b"v")], sync=True)
    store._database.flush()
    store.close()
    (fast_path / "CURRENT").unlink()
    for log in fast_path.glob("*.log"):
        log.unlink()
    with pytest.raises(StoreCorrupt, match="no file CURRENT"):
        Store.open(fast_path)


def test_a_store_is_read_beside_the_node_that_has_it(fast_path: Path) -> None:
    store = Store.open(fast_path / "data")
    store.apply([Write("blocks", b"k", b"v")], sync=False)
    reader = Store.open_to_read(fast_path / "data")
    assert reader.get("blocks", b"k") == b"v"
    with pytest.raises(StoreError):
        reader.apply([Write("blocks", b"k", b"w")], sync=True)
    reader.close()
    store.apply([Write("blocks", b"k", b"w")], sync=True)
    assert store.get("blocks", b"k") == b"w"
    store.close()
    with pytest.raises(StoreError, match="holds no store"):
        Store.open_to_read(fast_path / "nothing")


def test_the_checksum_is_castagnolis() -> None:
    """The check value of the catalogue of CRCs, and RFC 3720's 32 zeroes."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_an_end_that_is_whole_or_absent_is_no_tail(fast_path: Path) -> None:
    assert torn_tail(fast_path) is None
    assert corrupt_tail(fast_path) is None
    store = Store.open(fast_path / "data")
    for number in range(20):
        store.apply([Write("blocks", key_of(number), bytes(9_000))], sync=True)
    assert torn_tail(fast_path / "data") is None
    assert corrupt_tail(fast_path / "data") is None
    store.close()
