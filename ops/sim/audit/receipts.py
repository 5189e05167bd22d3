"""The arrival tap: what each honest replica persisted in its own log, in order, and when.

Fairness and inclusion are held against this and not against anything that the protocol says.
"""

from __future__ import annotations

from collections.abc import Callable

from consensus.command import CommandId
from ops.sim.audit.records import Shelf

Held = Callable[[CommandId], object]


class ReceiptAudit:
    """Every honest replica's persisted receipts."""

    def __init__(
        self,
        n: int,
        f: int,
        honest: tuple[int, ...],
        now_us: Callable[[], int],
        shelf: Shelf,
    ) -> None:
        self._honest = frozenset(honest)
        self._now_us = now_us
        self._shelf = shelf
        self._needed = f + 1
        self._logs: list[dict[int, tuple[bytes, ...]]] = [{} for _ in range(n)]
        """By node and seq: a crash may take an unsynced batch, and another takes its place."""
        self._holders: dict[bytes, dict[int, None]] = {}
        self.held_us: dict[bytes, int] = {}
        """When f+1 honest logs first held an id."""
        self.on_first: Held = lambda _: None
        self.on_held: Held = lambda _: None
        """Called when the first, and when f+1 honest logs hold an id."""

    def kept(self, node: int, key: bytes, raw: bytes) -> None:
        """Node `node` wrote a batch under `key`: take its entries if it is of its own log."""
        if int.from_bytes(key[4:6], "big") != node:
            return
        batch = self._shelf.batches.read(raw)
        assert batch.author == node, "the author stands in the key"
        self._logs[node][batch.seq] = batch.entries
        if node not in self._honest:
            return
        for entry in batch.entries:
            holders = self._holders.setdefault(entry, {})
            holders[node] = None
            if len(holders) == 1:
                self.on_first(CommandId(entry))
            if len(holders) == self._needed and entry not in self.held_us:
                self.held_us[entry] = self._now_us()
                self.on_held(CommandId(entry))

    def log(self, node: int) -> list[bytes]:
        """Return what a node received, in the order of its log."""
        log = self._logs[node]
        return [entry for seq in sorted(log) for entry in log[seq]]

    def blind(self) -> list[int]:
        """Return the honest nodes of which no receipt was seen."""
        return [node for node in sorted(self._honest) if not any(self._logs[node].values())]
