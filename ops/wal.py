"""The end of a write-ahead log: what a crash left half written, told from damage.

RocksDB cuts an incomplete last record without a word, and refuses a log whose last record has a
bad checksum, though a crash leaves such ones too: its length on disk, its bytes not. Here the end
is looked at so that both are cut with a warning, and nothing else is.
Format: blocks of 32 KiB; a record is checksum (4), length (2), type (1), payload; a longer one
goes on over several. Source: RocksDB wiki, "Write Ahead Log File Format".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BLOCK_BYTES: Final = 32_768
HEADER_BYTES: Final = 7
CHECKED_BYTES_MAX: Final = 8 << 20
"""A longer last record is not judged here: checksums in Python take a second for these."""
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_MASK_DELTA: Final = 0xA282EAD8


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC32C: Final = _table()


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of `data`."""
    crc, table = 0xFFFFFFFF, _CRC32C
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Part:
    """One physical record: where its header is, and what it holds."""

    start: int
    type: int
    end: int
    is_good: bool


@dataclass(frozen=True, slots=True)
class Tail:
    """A log's end: `keep` bytes are whole records; `lost` after them are not, for a reason."""

    path: Path
    keep: int
    lost: int
    why: str


def _parts(data: bytes, start: int, checked: bool) -> Iterator[_Part]:
    """Yield physical records from `start` on, until one does not fit; its checksum if wanted."""
    at, size = start, len(data)
    while at + HEADER_BYTES <= size:
        room = BLOCK_BYTES - at % BLOCK_BYTES
        if room < HEADER_BYTES:
            at += room
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        end = at + HEADER_BYTES + length
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
            return
        if HEADER_BYTES + length > room or end > size:
            return
        is_good = not checked or _sum(data, at, end) == int.from_bytes(data[at : at + 4], "little")
        yield _Part(at, kind, end, is_good)
        at = end


def _sum(data: bytes, at: int, end: int) -> int:
    crc = crc32c(data[at + 6 : end])
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _walk(data: bytes) -> tuple[int, int]:
    """Return the starts of the last whole record and of what comes after it, checksums apart."""
    begun = last = whole = 0
    for part in _parts(data, 0, checked=False):
        if part.type in (_FULL, _FIRST):
            begun = part.start
        if part.type in (_FULL, _LAST):
            last, whole = begun, part.end
    return last, whole


def newest_log(directory: Path) -> Path | None:
    """Return the newest write-ahead log that holds anything."""
    logs = [path for path in directory.glob("*.log") if path.stem.isdigit()]
    held = [path for path in logs if path.stat().st_size]
    return max(held, key=lambda path: int(path.stem), default=None)


def torn_tail(directory: Path) -> Tail | None:
    """Say what an interrupted write left at the newest log's end, or None. Errors: OSError."""
    path = newest_log(directory)
    if path is None:
        return None
    data = path.read_bytes()
    _, whole = _walk(data)
    rest = data[whole:]
    if not any(rest):
        return None  # Space that was set aside.
    return Tail(path, whole, len(rest), "an incomplete record")


def corrupt_tail(directory: Path) -> Tail | None:
    """Say whether all that is wrong with the newest log is its last record, or what follows the
    last good one; None when good records come after the damage. Errors: OSError."""
    path = newest_log(directory)
    if path is None:
        return None
    data = path.read_bytes()
    last, whole = _walk(data)
    # The last record that has a place in the chain of lengths may itself be what is damaged.
    if whole - last > CHECKED_BYTES_MAX:
        return None
    is_good = all(part.is_good for part in _parts(data[:whole], last, checked=True))
    keep = whole if is_good else last
    if not any(data[keep:]) or _holds_records(data, keep):
        return None
    return Tail(path, keep, len(data) - keep, "a record with a bad checksum")


def _holds_records(data: bytes, after: int) -> bool:
    """Say whether good records follow the one at `after`: at the start of any later block, or
    anywhere in its own."""
    blocks = range((after // BLOCK_BYTES + 1) * BLOCK_BYTES, len(data), BLOCK_BYTES)
    starts = [*blocks, *range(after + 1, min(len(data), after + BLOCK_BYTES))]
    budget = CHECKED_BYTES_MAX
    for start in starts:
        part = next(_parts(data, start, checked=False), None)
        if part is None or part.type not in (_FULL, _FIRST) or part.end == part.start + 7:
            continue
        budget -= part.end - part.start
        if budget < 0:
            return True  # Too much to look through: damage is the safe thing to call it.
        if next(_parts(data[: part.end], start, checked=True)).is_good:
            return True
    return False


def cut(tail: Tail) -> None:
    """Cut a log's end, durably. Errors: OSError."""
    with open(tail.path, "r+b") as file:
        file.truncate(tail.keep)
        os.fsync(file.fileno())
