"""Merkle trees over the chunks of the engine's state: only what changed is hashed again.

leaf = SHA-256(0x00 | chunk), node = SHA-256(0x01 | left | right); a node without a right sibling
moves up as it is; the root of no chunks is 32 zero bytes. The number of chunks is bound outside.
"""

from __future__ import annotations

from hashlib import sha256


class ChunkTree:
    """A growing tree of chunk hashes; `set` hashes the chunk, `root` the changed parents."""

    __slots__ = ("_changed", "_levels")

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[]]
        self._changed: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._levels[0])

    def set(self, index: int, chunk: bytes) -> None:
        """Put `chunk` at `index`, which is at most the number of chunks."""
        leaves = self._levels[0]
        leaf = sha256(b"\x00" + chunk).digest()
        if index == len(leaves):
            leaves.append(leaf)
        else:
            leaves[index] = leaf
        self._changed[index] = None

    def root(self) -> bytes:
        """Return the root over all chunks."""
        changed = list(self._changed)
        self._changed.clear()
        level = 0
        while len(self._levels[level]) > 1:
            below = self._levels[level]
            if len(self._levels) == level + 1:
                self._levels.append([])
                changed = list(range(len(below)))
            above = self._levels[level + 1]
            changed = sorted(dict.fromkeys(index >> 1 for index in changed))
            for parent in changed:
                pair = below[2 * parent : 2 * parent + 2]
                hashed = sha256(b"\x01" + pair[0] + pair[1]).digest() if pair[1:] else pair[0]
                if parent == len(above):
                    above.append(hashed)
                else:
                    above[parent] = hashed
            level += 1
        return self._levels[level][0] if self._levels[level] else bytes(32)
