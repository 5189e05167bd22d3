"""A node whose engine is broken on purpose: one bit of its memory flips after a given height.

Run as `python -m tests.e2e.broken HOME HEIGHT`. It replaces the engine in its own process; no
option of a production node can do that.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import trio

import ops.replica
from consensus.command import CommandId
from consensus.sequencer import OrderedBlock
from ops.commands.node import run_node
from ops.replica import Exchange


class BrokenExchange(Exchange):
    """Executes as it should, but for one bit of the first market's last price."""

    height: ClassVar[int] = 0
    bit: ClassVar[int] = 1

    def execute(self, block: OrderedBlock, bodies: list[tuple[CommandId, bytes]]) -> None:
        super().execute(block, bodies)
        if block.height == self.height:
            self.engine.state.markets[0].last_price ^= self.bit


if __name__ == "__main__":
    BrokenExchange.height = int(sys.argv[2])
    ops.replica.Exchange = BrokenExchange  # type: ignore[misc]
    sys.exit(trio.run(run_node, Path(sys.argv[1])))
