"""A replica's state taken apart by name, so that two of them can be compared.

An export is chunks of canonical MessagePack, in arrays of arrays; a chunk is an array that begins
with its tag. So the parts are found without knowing every kind of chunk: one that nobody told us
of is a part too, named by its tag.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import islice
from types import MappingProxyType
from typing import Any

import msgspec

from consensus.codec import encode
from matcher.snapshot import MarketChunk, MetaChunk

KEYS = MappingProxyType(
    {"market": 1, "wallet": 1, "withdrawals": 1, "log-head": 1, "pending": 1, "log": 2, "ids": 2}
)
"""How many fields after the tag tell chunks of a kind apart."""
FIELDS = MappingProxyType(
    {"meta": MetaChunk.__struct_fields__, "market": MarketChunk.__struct_fields__}
)
"""Chunks whose fields are parts of their own."""
DEPTH_MAX = 8
ARRAY_STARTS = tuple(bytes((start,)) for start in (*range(0x90, 0xA0), 0xDC, 0xDD))
"""First bytes of an array. Source: the MessagePack specification."""


def parts_of(sequencer: bytes, executor: bytes) -> dict[str, bytes]:
    """Return a digest for each part of these exports, by name, in their order.

    A name begins with its half, "sequencer" or "executor": "executor market 0 mark".
    """
    halves = (("sequencer", sequencer), ("executor", executor))
    return {name: part for half, data in halves for name, part in _parts(half, "", data, 0)}


def grouped(parts: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return one digest for each kind of part: the first two words of its name."""
    hashes: dict[str, Any] = {}
    for name, digest in parts.items():
        group = " ".join(islice(name.split(" "), 2))
        hashes.setdefault(group, sha256()).update(encode((name, digest)))
    return {group: each.digest() for group, each in hashes.items()}


def differing(mine: Mapping[str, bytes], other: Mapping[str, bytes]) -> list[str]:
    """Return the names of the parts that differ or that only one has."""
    names = dict.fromkeys((*mine, *other))
    return [name for name in names if mine.get(name) != other.get(name)]


def _parts(half: str, path: str, value: object, depth: int) -> Iterator[tuple[str, bytes]]:
    items = _array(value) if depth < DEPTH_MAX else None
    if items is None:
        yield f"{half}{path}", sha256(encode(value)).digest()
    elif items and isinstance(items[0], str):
        yield from _chunk(half, items)
    else:
        for place, item in enumerate(items):
            yield from _parts(half, f"{path} {place}", item, depth + 1)


def _chunk(half: str, items: list[Any]) -> Iterator[tuple[str, bytes]]:
    tag, fields = items[0], FIELDS.get(items[0])
    keys = items[1 : 1 + KEYS.get(tag, 0)]
    named = [f"0x{key.hex()}" if isinstance(key, bytes) else str(key) for key in keys]
    name = " ".join((half, tag, *named))
    if fields is None or len(fields) != len(items) - 1:
        yield name, sha256(encode(items)).digest()
        return
    for field, value in zip(fields, items[1:], strict=True):
        yield f"{name} {field}", sha256(encode(value)).digest()


def _array(value: object) -> list[Any] | None:
    """Return the items of an array, or of bytes that are exactly one, or None."""
    if isinstance(value, list):
        return value
    if not isinstance(value, bytes) or value[:1] not in ARRAY_STARTS:
        return None
    try:
        items = msgspec.msgpack.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return items if isinstance(items, list) and encode(items) == value else None
