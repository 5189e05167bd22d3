"""The records of the fair order's state: what a snapshot holds and the state digest covers.

A state is a list of chunks: one header, the pending ids, the logs' orders over them, then the
remembered ids. All that the next block depends on is in them, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from msgspec import Struct

from consensus.codec import CodecError, decode, encode
from consensus.committee import REPLICAS_MAX
from consensus.idmemory import IdPart

SNAPSHOT_BYTES_MAX = 256 << 20
PART_ENTRIES_MAX = 512

T = TypeVar("T")


class OrderHeader(Struct, frozen=True, array_like=True, tag="order"):
    """The parameters, the last block, and the number of the next new batch."""

    n: int
    f: int
    gamma_numerator: int
    gamma_denominator: int
    deadline_ms: int
    height: int
    time_ms: int
    next_number: int


class PendingId(Struct, frozen=True, array_like=True):
    """One pending id, as `fairorder` keeps it; its support is the number of logs that list it."""

    id: bytes
    height: int
    solid_ms: int | None
    since_ms: int | None
    open_number: int


class PendingPart(Struct, frozen=True, array_like=True, tag="pending"):
    """Pending ids in the order of their first appearance."""

    part: int
    entries: tuple[PendingId, ...]


class LogPart(Struct, frozen=True, array_like=True, tag="log"):
    """The pending ids that log `log` holds, in its order, each as its index among all."""

    log: int
    part: int
    order: tuple[int, ...]


OrderChunk = OrderHeader | PendingPart | LogPart | IdPart


class OrderState(Struct, frozen=True):
    """A state taken apart: `logs[i]` lists indices into `pending`."""

    header: OrderHeader
    pending: Sequence[PendingId]
    logs: Sequence[Sequence[int]]


def _split(items: Sequence[T]) -> list[tuple[T, ...]]:
    return [
        tuple(items[start : start + PART_ENTRIES_MAX])
        for start in range(0, len(items), PART_ENTRIES_MAX)
    ]


def state_chunks(state: OrderState) -> list[bytes]:
    """Return the encoded chunks of a state, all but the remembered ids'."""
    chunks: list[OrderChunk] = [state.header]
    chunks += [PendingPart(part, ids) for part, ids in enumerate(_split(state.pending))]
    for log, order in enumerate(state.logs):
        chunks += [LogPart(log, part, run) for part, run in enumerate(_split(order))]
    return [encode(chunk) for chunk in chunks]


def join_chunks(chunks: Sequence[bytes]) -> bytes:
    """Return one snapshot of these chunks."""
    return encode(tuple(chunks))


def read_chunks(chunks: Sequence[bytes]) -> tuple[OrderState, list[IdPart]]:
    """Return the state and the remembered ids behind these chunks.

    What the parts say is checked for range only; whoever loads them compares the whole again.
    Errors: CodecError.
    """
    parts: list[OrderChunk] = [
        decode(OrderChunk, chunk, SNAPSHOT_BYTES_MAX)  # type: ignore[arg-type]
        for chunk in chunks
    ]
    if not parts or not isinstance(parts[0], OrderHeader):
        raise CodecError("a snapshot starts with its header")
    header, pending, remembered = parts[0], list[PendingId](), list[IdPart]()
    if not 0 < header.n <= REPLICAS_MAX:
        raise CodecError("n out of range")
    logs: list[list[int]] = [[] for _ in range(header.n)]
    for part in parts[1:]:
        match part:
            case OrderHeader():
                raise CodecError("two headers")
            case PendingPart():
                pending += part.entries
            case LogPart():
                if not 0 <= part.log < header.n:
                    raise CodecError("log out of range")
                logs[part.log] += part.order
            case IdPart():
                remembered.append(part)
    _check_indices(logs, len(pending))
    return OrderState(header, pending, logs), remembered


def _check_indices(logs: Iterable[Sequence[int]], size: int) -> None:
    for order in logs:
        if len(order) > size or any(not 0 <= index < size for index in order):
            raise CodecError("log entry out of range")
