"""The replicated state at one height, as a restart begins from it."""

from __future__ import annotations

from msgspec import Struct


class Snapshot(Struct, frozen=True, array_like=True):
    """The sequencer's and the executor's canonical exports after block `height`."""

    height: int
    sequencer: bytes
    executor: bytes
