"""Trees over the chunks of the engine's state: only what changed is hashed and handed on again.

The names of chunks and nodes are those of `consensus.digest`. A tree of one chunk has its name as
root; the root of no chunks is 32 zero bytes. The number of chunks is bound outside.
"""

from __future__ import annotations

from consensus.digest import (
    CHUNK_BYTES_MAX,
    CHUNK_OBJECT,
    NAMES_OBJECT,
    STATE_FANOUT,
    ZERO_DIGEST,
    Digest,
    chunk_name,
    node_name,
    split_chunk,
)


class ChunkTree:
    """A growing tree of chunk names; `set` hashes the chunk, `root` the changed nodes."""

    __slots__ = ("_changed", "_fresh", "_levels", "_long", "_was")

    def __init__(self) -> None:
        self._levels: list[list[Digest]] = [[]]
        self._changed: dict[int, None] = {}
        self._fresh: dict[int, bytes] = {}
        """The chunks set since the last `take`, by index."""
        self._was: dict[tuple[int, int], Digest | None] = {}
        """The names at the last `take` of what was set since, by level and index."""
        self._long: dict[Digest, bytes] = {}
        """The list of the pieces of each long chunk, by its name."""

    def __len__(self) -> int:
        return len(self._levels[0])

    def set(self, index: int, chunk: bytes) -> None:
        """Put `chunk` at `index`, which is at most the number of chunks."""
        name = chunk_name(chunk)
        before = self._levels[0][index] if index < len(self._levels[0]) else None
        if before in self._long and self._was.get((0, index), before) != before:
            del self._long[before]
        if len(chunk) > CHUNK_BYTES_MAX:
            self._long[name] = split_chunk(chunk)[0]
        if self._put(0, index, name):
            self._changed[index] = None
            self._fresh[index] = chunk

    def _put(self, level: int, index: int, name: Digest) -> bool:
        """Put a name into its place; say whether it is another than before."""
        row = self._levels[level]
        if index == len(row):
            self._was.setdefault((level, index), None)
            row.append(name)
            return True
        if row[index] == name:
            return False
        self._was.setdefault((level, index), row[index])
        row[index] = name
        return True

    def root(self) -> Digest:
        """Return the root over all chunks."""
        changed = list(self._changed)
        self._changed.clear()
        level = 0
        while len(self._levels[level]) > 1:
            below = self._levels[level]
            if len(self._levels) == level + 1:
                self._levels.append([])
                changed = list(range(len(below)))
            level += 1
            changed = sorted(dict.fromkeys(index // STATE_FANOUT for index in changed))
            for parent in changed:
                first = parent * STATE_FANOUT
                names = b"".join(below[first : first + STATE_FANOUT])
                self._put(level, parent, node_name(level, names))
        return self._levels[level][0] if self._levels[level] else ZERO_DIGEST

    def take(self) -> tuple[dict[Digest, bytes], dict[Digest, None]]:
        """Return what came into the tree since the last `take`, by name, and the names that left.

        Call it right after `root`. Shape: CHUNK_OBJECT and a chunk or a piece, or NAMES_OBJECT
        and the names of children or the list of pieces.
        """
        fresh: dict[Digest, bytes] = {}
        gone: dict[Digest, None] = {}
        for (level, index), before in self._was.items():
            name = self._levels[level][index]
            if name == before:
                continue
            if before is not None:
                gone[before] = None
                list_ = self._long.pop(before, b"")
                gone.update({Digest(list_[at : at + 32]): None for at in range(32, len(list_), 32)})
            if level:
                first = index * STATE_FANOUT
                below = self._levels[level - 1][first : first + STATE_FANOUT]
                fresh[name] = NAMES_OBJECT + b"".join(below)
            elif name in self._long:
                fresh[name] = NAMES_OBJECT + self._long[name]
                _, pieces = split_chunk(self._fresh[index])
                fresh.update({name: CHUNK_OBJECT + piece for name, piece in pieces.items()})
            else:
                fresh[name] = CHUNK_OBJECT + self._fresh[index]
        self._was.clear()
        self._fresh.clear()
        both = [name for name in gone if name in fresh]
        for name in both:
            del fresh[name], gone[name]
        return fresh, gone
