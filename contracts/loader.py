"""Read the compiled contracts that come with the package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, NewType

import msgspec

HexBytes = NewType("HexBytes", str)
"""Bytes as lower-case hex, without 0x."""


class UnknownContract(LookupError):
    """There is no artifact of that name."""


class Artifact(msgspec.Struct, frozen=True):
    """One compiled contract.

    `deployed_bytecode` has zeros where the constructor writes immutable values.
    """

    name: str
    compiler: str
    settings_sha256: str
    bytecode: HexBytes
    deployed_bytecode: HexBytes
    abi: list[dict[str, Any]]


@cache
def artifact(name: str) -> Artifact:
    """Return the artifact of contract `name`, such as "Vault". Errors: UnknownContract."""
    resource = files("contracts") / "artifacts" / f"{name}.json"
    if not name.isidentifier() or not resource.is_file():
        raise UnknownContract(name)
    return msgspec.json.decode(resource.read_bytes(), type=Artifact)
