"""The ids that were ordered and may not be ordered again, and the chunks of a state's digest."""

from __future__ import annotations

from collections.abc import Container, Sequence

from msgspec import Struct

from consensus.codec import CodecError, encode
from consensus.digest import Digest, chunk_name, tagged

PART_IDS_MAX = 1_024
"""Ids per chunk, so that one more id costs little hashing however many expire in one second."""


def chunks_root(leaves: Sequence[Digest]) -> Digest:
    """Return the Merkle root over `leaves`, bound to their number.

    Shape: pairs are joined level by level; an odd last node moves up as it is.
    """
    level = list(leaves)
    while len(level) > 1:
        joined = [
            tagged(b"fairlane/chunk-node", level[i] + level[i + 1])
            for i in range(0, len(level) - 1, 2)
        ]
        level = joined + level[len(joined) * 2 :]
    return tagged(b"fairlane/chunk-root", len(leaves).to_bytes(8, "big") + b"".join(level))


class IdPart(Struct, frozen=True, array_like=True, tag="ids"):
    """Some ids that are forgotten together, once block time reaches `second` * 1,000 ms."""

    second: int
    part: int
    ids: tuple[bytes, ...]


class _Bucket:
    """The ids of one second, in the order they came, with the digests of its parts."""

    __slots__ = ("ids", "leaves")

    def __init__(self) -> None:
        self.ids: list[bytes] = []
        self.leaves: list[Digest] = []

    def part(self, second: int, number: int) -> IdPart:
        start = number * PART_IDS_MAX
        return IdPart(second, number, tuple(self.ids[start : start + PART_IDS_MAX]))

    def parts(self) -> int:
        return -(-len(self.ids) // PART_IDS_MAX)


class IdMemory:
    """A set of ids, each kept until its own time, in buckets of one second of block time."""

    def __init__(self) -> None:
        self._second_of: dict[bytes, int] = {}
        self._buckets: dict[int, _Bucket] = {}
        self._forgotten_second = 0

    def __contains__(self, id_: bytes) -> bool:
        return id_ in self._second_of

    def __len__(self) -> int:
        return len(self._second_of)

    def remember(self, id_: bytes, until_ms: int) -> None:
        """Keep `id_` until block time reaches `until_ms`, rounded up to a whole second."""
        second = -(-until_ms // 1_000)
        self._second_of[id_] = second
        bucket = self._buckets.setdefault(second, _Bucket())
        # The last part is about to change; the full ones never do again.
        del bucket.leaves[len(bucket.ids) // PART_IDS_MAX :]
        bucket.ids.append(id_)

    def forget(self, time_ms: int) -> None:
        """Drop what need not be kept at block time `time_ms`."""
        second = time_ms // 1_000
        if second == self._forgotten_second:
            return
        self._forgotten_second = second
        for due in [kept for kept in self._buckets if kept <= second]:
            for id_ in self._buckets.pop(due).ids:
                del self._second_of[id_]

    def leaves(self) -> list[Digest]:
        """Return the leaf of every chunk, in the order of `chunks`; only new ones are hashed."""
        leaves: list[Digest] = []
        for second in sorted(self._buckets):
            bucket = self._buckets[second]
            for number in range(len(bucket.leaves), bucket.parts()):
                bucket.leaves.append(chunk_name(encode(bucket.part(second, number))))
            leaves += bucket.leaves
        return leaves

    def chunks(self, known: Container[bytes] = ()) -> list[bytes]:
        """Return the encoded `IdPart`s, by second and part, less those whose name is `known`."""
        names = iter(self.leaves() if known else ())
        return [
            encode(self._buckets[second].part(second, number))
            for second in sorted(self._buckets)
            for number in range(self._buckets[second].parts())
            if not known or next(names) not in known
        ]

    def load(self, parts: Sequence[IdPart]) -> None:
        """Fill this empty memory from what `chunks` gave. Errors: CodecError for an id twice."""
        for part in parts:
            if part.second < 0:
                raise CodecError("a second below zero")
            for id_ in part.ids:
                if id_ in self._second_of:
                    raise CodecError("an id is remembered twice")
                self.remember(id_, part.second * 1_000)
