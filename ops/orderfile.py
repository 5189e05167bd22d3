"""The files of `fairlane order`: logs in, their fair order out.

Source: docs/protocol/fair-order.md, "A tool".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from consensus.committee import REPLICAS_MAX, faults
from consensus.fairorder import FairOrder

OBJECT_BYTES_MAX = 64 << 20
"""No object in a file is longer."""
MASK_BYTES_MAX = 256 << 20
"""The relation of m ids in n logs takes n * m * m bits, which must fit in here."""


class OrderFileError(ValueError):
    """The file cannot be used; the text names the line, the field and the reason."""


class Logs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question: `logs[i]` are the ids that replica i received, in its order."""

    n: int
    logs: list[list[str]]
    f: int | None = None
    gamma: str = "1"


class Answer(msgspec.Struct, frozen=True):
    """The batches in order, each in its order, and the ids not emitted, sorted."""

    batches: list[list[str]]
    pending: list[str]


def _fraction(gamma: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,9})(?:/([0-9]{1,9}))?", gamma)
    if found is None:
        raise OrderFileError(f'gamma: {gamma[:40]!r} is no fraction such as "1" or "6/7"')
    return int(found[1]), int(found[2] or 1)


def _size(logs: Logs) -> None:
    if not 1 <= logs.n <= REPLICAS_MAX:
        raise OrderFileError(f"n: {logs.n} is not in 1..{REPLICAS_MAX}")
    if len(logs.logs) != logs.n:
        raise OrderFileError(f"logs: {len(logs.logs)} of them, but n is {logs.n}")
    ids = len({id_ for log in logs.logs for id_ in log})
    if logs.n * ids * ids > MASK_BYTES_MAX * 8:
        raise OrderFileError(f"logs: {ids} ids are too many to compare in {logs.n} logs")


def fair_order(logs: Logs) -> Answer:
    """Return the fair order of `logs`, all committed in one block that has no digest.

    An id is its text in UTF-8 and never expires. One that a log repeats counts where it came
    first. Errors: OrderFileError.
    """
    _size(logs)
    numerator, denominator = _fraction(logs.gamma)
    f = faults(logs.n) if logs.f is None else logs.f
    try:
        order = FairOrder(
            logs.n,
            f,
            numerator,
            denominator,
            expires_ms=lambda _: 1,
            pending_max=sum(map(len, logs.logs)),
        )
    except ValueError as error:
        raise OrderFileError(str(error)) from None
    suffixes = [[id_.encode() for id_ in log] for log in logs.logs]
    batches = order.commit(1, 0, b"", suffixes)
    return Answer(
        [[id_.decode() for id_ in batch.ids] for batch in batches],
        [id_.decode() for id_ in sorted(order.pending())],
    )


def _parse(text: bytes) -> Logs:
    try:
        return msgspec.json.decode(text, type=Logs)
    except UnicodeDecodeError as error:
        raise OrderFileError(f"not UTF-8: {error.reason}") from None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise OrderFileError(str(error)) from None


def _is_whole(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def answers(file: BinaryIO) -> Iterator[Answer]:
    """Yield the answer to each object of `file`.

    Shape: one object over any number of lines, or one object a line; blank lines are skipped.
    Errors: OrderFileError.
    """
    number, first = 0, True
    while line := file.readline(OBJECT_BYTES_MAX + 1):
        number += 1
        if not line.strip():
            continue
        if first and not _is_whole(line):
            # One object over several lines: the first of them is no value by itself.
            line += file.read(OBJECT_BYTES_MAX + 1)
        first = False
        try:
            if len(line) > OBJECT_BYTES_MAX:
                raise OrderFileError(f"longer than {OBJECT_BYTES_MAX} bytes")
            yield fair_order(_parse(line))
        except OrderFileError as error:
            raise OrderFileError(f"line {number}: {error}") from None
    if first:
        raise OrderFileError("no object in it")
