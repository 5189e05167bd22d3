"""The replicated state machine of the simulator: hash chains over all that was executed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

from msgspec import Struct

from consensus.codec import decode, encode
from consensus.command import CommandId, decode_command
from consensus.committer import DIGEST_INTERVAL
from consensus.context import Successor
from consensus.digest import parts_digest
from consensus.sequencer import OrderedBlock
from matcher.chunks import ChunkTree

CELLS = 160
"""Chains over commands; each command extends one, so that most of the state changes seldom."""


class _Total(Struct, frozen=True, array_like=True, tag="total"):
    chain: bytes
    executed: int
    milestone: int


class _Cell(Struct, frozen=True, array_like=True, tag="cell"):
    place: int
    chain: bytes


Tap = Callable[[int, OrderedBlock, list[CommandId]], None]
"""tap(commands executed before, block, ids that it executes)."""


class HashChain:
    """Hashes every block's time, observations, inbox messages and commands into one value, and
    each command into a cell besides.

    With `milestone_ms` the first digest height of each such span of block time is a milestone.
    """

    def __init__(self, tap: Tap | None = None, milestone_ms: int = 0) -> None:
        self._chain = bytes(32)
        self._tap = tap
        self._milestone_ms = milestone_ms
        self._milestone = 0
        self.executed = 0
        self.is_milestone = False
        self._begin([bytes(32)] * CELLS)

    def _begin(self, cells: list[bytes]) -> None:
        self._cells = cells
        self._total_tree, self._cell_tree = ChunkTree(), ChunkTree()
        self._touched = dict.fromkeys(range(CELLS))

    def execute(self, block: OrderedBlock, bodies: list[tuple[CommandId, bytes]]) -> None:
        if self._tap is not None:
            self._tap(self.executed, block, [id_ for id_, _ in bodies])
        about = (block.height, block.time_ms, block.observations, block.inbox, block.inbox_hash)
        chain = sha256(self._chain + encode(about))
        for id_, body in bodies:
            # As the exchange does: a signature has a twin, so what is executed is the rest.
            command = decode_command(body)
            chain.update(id_ + command.signer + sha256(command.payload).digest())
            place = id_[-1] % CELLS
            self._cells[place] = sha256(self._cells[place] + id_).digest()
            self._touched[place] = None
        self._chain = chain.digest()
        self.executed += len(bodies)
        span = block.time_ms // self._milestone_ms if self._milestone_ms else 0
        self.is_milestone = block.height % DIGEST_INTERVAL == 0 and span > self._milestone
        if self.is_milestone:
            self._milestone = span

    def successor(self) -> Successor | None:
        return None

    def begin_epoch(self, n: int, f: int) -> None:
        """Nothing here depends on the committee."""

    def digest(self) -> bytes:
        return parts_digest([(len(tree), tree.root()) for tree in self.trees()])

    def trees(self) -> tuple[ChunkTree, ...]:
        """Return the trees of the total and of the cells, brought up to date."""
        total = _Total(self._chain, self.executed, self._milestone)
        self._total_tree.set(0, encode(total))
        for place in sorted(self._touched):
            self._cell_tree.set(place, encode(_Cell(place, self._cells[place])))
        self._touched.clear()
        return self._total_tree, self._cell_tree

    def load(self, parts: Sequence[Sequence[bytes]]) -> None:
        """Become the chains behind these chunks."""
        (raw,), cells = parts
        total = decode(_Total, raw)
        self._chain, self.executed = total.chain, total.executed
        self._milestone = total.milestone
        self._begin([decode(_Cell, cell).chain for cell in cells])

    def export(self) -> bytes:
        """Return everything, to compare two of these."""
        return encode((self._chain, self.executed, self._milestone, self._cells))
