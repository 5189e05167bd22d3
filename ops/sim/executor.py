"""The replicated state machine of the simulator: a hash chain over all that was executed."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from msgspec import Struct

from consensus.codec import decode, encode
from consensus.command import CommandId
from consensus.context import Successor
from consensus.sequencer import OrderedBlock


class _Export(Struct, frozen=True, array_like=True):
    chain: bytes
    executed: int


Tap = Callable[[int, OrderedBlock, list[CommandId]], None]
"""tap(commands executed before, block, ids that it executes)."""


class HashChain:
    """Hashes every block's time, observations, inbox messages and commands into one value."""

    def __init__(self, tap: Tap | None = None) -> None:
        self._chain = bytes(32)
        self._tap = tap
        self.executed = 0

    def execute(self, block: OrderedBlock, bodies: list[tuple[CommandId, bytes]]) -> None:
        if self._tap is not None:
            self._tap(self.executed, block, [id_ for id_, _ in bodies])
        about = (block.height, block.time_ms, block.observations, block.inbox, block.inbox_hash)
        chain = sha256(self._chain + encode(about))
        for id_, body in bodies:
            chain.update(id_ + len(body).to_bytes(4, "big") + body)
        self._chain = chain.digest()
        self.executed += len(bodies)

    def successor(self) -> Successor | None:
        return None

    def begin_epoch(self, n: int, f: int) -> None:
        """Nothing here depends on the committee."""

    def digest(self) -> bytes:
        return self._chain

    def export(self) -> bytes:
        return encode(_Export(self._chain, self.executed))

    def restore(self, data: bytes) -> None:
        exported = decode(_Export, data)
        self._chain, self.executed = exported.chain, exported.executed
