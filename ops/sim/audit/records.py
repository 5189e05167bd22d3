"""Stored records, decoded for the audits: the same bytes once, whoever's disk they are on."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec

from consensus.codec import encode
from consensus.messages import Block, LogBatch, Message
from consensus.safety import SafetyRecord

T = TypeVar("T")

RECORDS_MAX = 8_192


class Records(Generic[T]):
    """Decodes records of one type, and remembers them: values are immutable."""

    def __init__(self, type_: type[T]) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(type_)
        self._known: dict[bytes, T] = {}

    def read(self, raw: bytes) -> T:
        """Return the record behind bytes that a replica stored."""
        known = self._known.get(raw)
        if known is None:
            if len(self._known) >= RECORDS_MAX:
                self._known.clear()
            known = self._known[raw] = self._decoder.decode(raw)
        return known


def _unread(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return `kind` with every field but numbers left as its bytes: quick to look into."""
    hints = get_type_hints(kind)
    fields: list[tuple[str, Any]] = [
        (name, int if hints[name] is int else msgspec.Raw) for name in kind.__struct_fields__
    ]
    return msgspec.defstruct(f"Unread{kind.__name__}", fields, frozen=True, array_like=True)


class Voting:
    """What a stored safety record says, read only as far as it is asked for."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._unread: Any = _SAFETY.decode(raw)
        self.last_voted: int = self._unread.last_voted
        self.hi_timeout: int = self._unread.hi_timeout

    def holds(self, kind: str, said: Message) -> bool:
        """Say whether the record's `vote`, `commit_vote`, `proposal` or `timeout` is `said`."""
        return bytes(getattr(self._unread, kind)) == encode(said)

    @cached_property
    def lock_round(self) -> int:
        """The round of the lock: the first item of its array."""
        lock: tuple[Any, ...] = _LOCK.decode(self._unread.lock)
        return int(lock[0])

    @cached_property
    def whole(self) -> SafetyRecord:
        """The record in full."""
        return _SAFETY_WHOLE.decode(self._raw)


_SAFETY: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(_unread(SafetyRecord))
_SAFETY_WHOLE = msgspec.msgpack.Decoder(SafetyRecord)
_LOCK: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw, msgspec.Raw])


class Shelf:
    """The records that a run's audits read."""

    def __init__(self) -> None:
        self.blocks = Records(Block)
        self.batches = Records(LogBatch)
