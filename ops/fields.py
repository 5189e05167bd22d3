"""Small strict readers behind the genesis and the node's settings, each with one clear error."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from consensus.crypto import InvalidPoint

A = TypeVar("A")
T = TypeVar("T")


class ConfigError(Exception):
    """A file of ours cannot be used; the text names the file, the field and the reason."""


def parse_endpoint(text: str) -> tuple[str, int]:
    """Return the host and port of `host:port`; an IPv6 host stands in brackets.

    Errors: ValueError.
    """
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]{1,253})):([0-9]{1,5})", text)
    if found is None:
        raise ValueError(f"{text[:300]!r} is not host:port")
    port = int(found[3])
    if port > 65_535:
        raise ValueError(f"port {port} is over 65535")
    return found[1] or found[2], port


def demand(condition: bool, why: str) -> None:
    """Raise ValueError with `why` unless the condition holds."""
    if not condition:
        raise ValueError(why)


def in_range(value: int, low: int, high: int, name: str) -> None:
    """Demand `low` <= value <= `high`."""
    demand(low <= value <= high, f"{name}: {value} is not in {low}..{high}")


def exactly(value: bytes, length: int, name: str) -> None:
    """Demand a value of `length` bytes."""
    demand(len(value) == length, f"{name}: {len(value)} bytes instead of {length}")


def named(name: str, call: Callable[[A], T], value: A) -> T:
    """Return `call(value)`; its ValueError is told under the field's name."""
    try:
        return call(value)
    except (InvalidPoint, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None


def from_hex(text: str, name: str) -> bytes:
    """Return the bytes behind hexadecimal text, with or without 0x. Errors: ValueError."""
    digits = text.removeprefix("0x")
    demand(re.fullmatch(r"(?:[0-9a-fA-F]{2})*", digits) is not None, f"{name}: not hexadecimal")
    return bytes.fromhex(digits)


def no_float(text: str) -> NoReturn:
    """Refuse a JSON number with a fraction, and NaN: for `json.loads`."""
    raise ValueError(f"{text[:40]} is not an integer; a genesis has no other numbers")


def no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, refusing a field that stands twice: for `json.loads`."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {double!r} stands twice")
    return found


def read_bounded(path: Path, bytes_max: int) -> bytes:
    """Return a file of at most `bytes_max` bytes. Errors: ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(data) > bytes_max:
        raise ConfigError(f"{path}: longer than {bytes_max} bytes")
    return data


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Errors: ConfigError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ConfigError(f"{path}: {error.strerror}") from None
