"""Held against what is committed: one chain, one order, one state, and no log left out."""

from __future__ import annotations

from collections.abc import Callable

from consensus.codec import decode
from consensus.command import CommandId, expires_ms
from consensus.committee import Committee, Parameters
from consensus.messages import Block
from consensus.replica import Replica
from consensus.sequencer import OrderedBlock
from ops.sim.audit.ledger import Ledger

EXECUTION_LAG_MAX = 32
"""As the protocol says: a block more than this above what it names executed keeps its heads."""


class ChainAudit:
    """The one true chain and order, as first seen at any honest replica, and all against it."""

    def __init__(
        self, ledger: Ledger, committee: Committee, parameters: Parameters, genesis: Block
    ) -> None:
        self._ledger = ledger
        self._committee = committee
        self._parameters = parameters
        self._digests: dict[int, bytes] = {}
        self._blocks: dict[int, Block] = {0: genesis}
        self._states: dict[int, bytes] = {}
        self.order: list[CommandId] = []
        self.place: dict[CommandId, int] = {}
        self.emission: list[tuple[int, bytes]] = []
        """(batch number, id) of all that left the order, the refused ids too."""
        self.emitted_us: dict[CommandId, int] = {}
        self.newest_us = 0
        """When a command was last executed for the first time."""
        self.on_emitted: Callable[[CommandId], object] = lambda _: None
        self._emitted_at_ms: dict[bytes, int] = {}
        self.time_ms = 0
        """The newest block time."""
        self._emitted_height = 0
        self.inbox: list[bytes] = []
        """The contract's messages, as they truly were."""
        self._anchored: list[bytes] = []

    @property
    def height(self) -> int:
        """The highest height committed anywhere honest."""
        return max(self._digests, default=0)

    def block(self, height: int) -> Block | None:
        """Return the committed block at `height`."""
        return self._blocks.get(height)

    def committed(self, node: int, height: int, digest: bytes, raw: bytes | None) -> None:
        """An honest replica recorded the block with `digest` as committed at `height`."""
        known = self._digests.setdefault(height, digest)
        if known != digest:
            text = f"height {height}: {digest.hex()[:12]}, elsewhere {known.hex()[:12]}"
            self._ledger.found("agreement", node, text)
            return
        if height not in self._blocks:
            if raw is None:
                self._ledger.found("agreement", node, f"block {height} committed but not kept")
                return
            block = decode(Block, raw)
            self._blocks[height] = block
            self._check_inclusion(node, block)

    def _check_inclusion(self, node: int, block: Block) -> None:
        """What f+1 of the parent's voters held may not be left out, and nobody may run ahead."""
        parent = self._blocks.get(block.height - 1)
        if parent is None:
            self._ledger.found("agreement", node, f"block {block.height} without a parent")
            return
        if block.height - block.executed_height > EXECUTION_LAG_MAX:
            if block.heads != parent.heads:
                self._ledger.found("inclusion", node, f"block {block.height} moved heads in a lag")
            return
        cap = self._parameters.head_cap
        for author in range(self._committee.n):
            at, before = block.heads[author].seq, parent.heads[author].seq
            claims = sorted((vote.seen[author] for vote in block.qc.votes), reverse=True)
            owed = min(claims[self._committee.f], before + cap) if claims else before
            if not max(owed, before) <= at <= before + cap:
                text = f"block {block.height}, log {author}: {at}, owed {owed}, from {before}"
                self._ledger.found("inclusion", node, text)

    def executed(
        self, node: int, before: int, block: OrderedBlock, ids: list[CommandId], now_us: int
    ) -> None:
        """An honest replica executed `ids`, after `before` commands."""
        for place, id_ in enumerate(ids, before):
            if place < len(self.order):
                if self.order[place] != id_:
                    text = f"command {place} differs, at height {block.height}"
                    self._ledger.found("order", node, text)
            elif place > len(self.order):
                self._ledger.found("order", node, f"command {place} comes after a gap")
            elif id_ in self.place:
                self._ledger.found("twice", node, f"command {id_.hex()[:24]} a second time")
            else:
                self.place[id_] = place
                self.order.append(id_)
                self.emitted_us[id_] = self.newest_us = now_us
                self.on_emitted(id_)
        if block.height > self._emitted_height:
            self._emitted_height = block.height
            self.time_ms = block.time_ms
            for batch in block.batches:
                for emitted in (*batch.ids, *batch.refused):
                    self.emission.append((batch.number, emitted))
                    self._emitted_at_ms[emitted] = block.time_ms
            self._anchored += block.inbox
            if self._anchored != self.inbox[: len(self._anchored)]:
                self._ledger.found("inbox", node, f"height {block.height} anchors what never was")

    def is_over(self, id_: CommandId) -> bool:
        """Say whether a command was executed or refused, or has expired by block time."""
        return id_ in self._emitted_at_ms or expires_ms(id_) <= self.time_ms

    def is_void_for(self, a: bytes, b: bytes) -> bool:
        """Say whether `a` had expired, by block time, when `b` was emitted."""
        return expires_ms(CommandId(a)) <= self._emitted_at_ms[b]

    def stepped(self, node: int, core: Replica) -> None:
        """Compare the state digest that a step brought."""
        height = core.height
        digest = core.executed_digest(height)
        if digest is not None:
            known = self._states.setdefault(height, digest)
            if known != digest:
                self._ledger.found("state", node, f"state digests differ at height {height}")
