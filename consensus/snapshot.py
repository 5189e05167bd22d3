"""Snapshots: the replicated state as named objects, each proved by the one that names it.

The manifest's name is the state digest, a checkpoint's `snapshotRoot`. It holds the number of
chunks and the root of each tree: the sequencer's, then the executor's. A node is its children's
names, a long chunk the names of its pieces. So whoever trusts the root can check every object on
its own, and two snapshots share what they have in common. Source: ADR-0018.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from consensus.codec import CodecError, decode
from consensus.digest import (
    CHUNK_BYTES_MAX,
    CHUNK_OBJECT,
    NAMES_OBJECT,
    STATE_FANOUT,
    ZERO_DIGEST,
    Digest,
    chunk_name,
    long_name,
    node_name,
    parts_digest,
    piece_name,
    split_chunk,
)
from consensus.idmemory import chunks_root

TREES_MAX = 16
CHUNKS_MAX = 1 << 40
"""Chunks of one tree; the manifest is checked against this before anything is asked for."""
LONG_PIECES_MAX = 4_095
NAME_BYTES = 32
OBJECT_BYTES_MAX = 1 + CHUNK_BYTES_MAX
"""No object is larger: a piece, or a long chunk's list of LONG_PIECES_MAX names."""

TABLE_STATE = "state"
TREE_KEY = b"o"
RECORD_KEY = b"s"


class SnapshotError(ValueError):
    """An object is not what its name says, or none is there."""


class Tree(Protocol):
    """A tree of chunks that knows what changed; `matcher.chunks.ChunkTree` is one."""

    def __len__(self) -> int: ...

    def root(self) -> Digest: ...

    def take(self) -> tuple[dict[Digest, bytes], dict[Digest, None]]: ...


class Part(Struct, frozen=True, array_like=True):
    """One tree: how many chunks, and the root over them."""

    chunks: int
    root: bytes


class Manifest(Struct, frozen=True, array_like=True, tag="snapshot"):
    """The sequencer's tree and the executor's."""

    sequencer: Part
    executor: tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        return (self.sequencer, *self.executor)


class SnapshotRecord(Struct, frozen=True, array_like=True):
    """On disk, under its height: a snapshot all of whose objects are there."""

    height: int
    root: bytes
    is_milestone: bool


class State(Struct, frozen=True):
    """A snapshot read whole: all chunks, tree by tree."""

    sequencer: list[bytes]
    executor: list[list[bytes]]


def state_digest(sequencer: bytes, executor: bytes) -> Digest:
    """Return the Merkle root of all that the next block depends on, from its two parts' roots."""
    return chunks_root([Digest(sequencer), Digest(executor)])


def manifest_root(manifest: Manifest) -> Digest:
    """Return the state digest that a manifest stands for."""
    sequencer = parts_digest([(manifest.sequencer.chunks, manifest.sequencer.root)])
    return state_digest(sequencer, parts_digest([(p.chunks, p.root) for p in manifest.executor]))


def object_key(name: bytes) -> bytes:
    """Return the store key, in the table of states, of what `name` stands for."""
    return TREE_KEY + name


def record_key(height: int) -> bytes:
    """Return the store key, in the table of states, of the snapshot of `height`."""
    return RECORD_KEY + height.to_bytes(8, "big")


def depth(chunks: int) -> int:
    """Return how many levels of nodes stand above so many chunks."""
    level, row = 0, chunks
    while row > 1:
        level, row = level + 1, -(-row // STATE_FANOUT)
    return level


def read_manifest(root: bytes, object_: bytes) -> Manifest:
    """Return the manifest that `root` names. Errors: SnapshotError."""
    try:
        manifest = decode(Manifest, object_[1:])
    except CodecError as error:
        raise SnapshotError(str(error)) from None
    sound = (
        object_[:1] == CHUNK_OBJECT
        and len(manifest.executor) < TREES_MAX
        and all(0 <= p.chunks <= CHUNKS_MAX and len(p.root) == NAME_BYTES for p in manifest.parts)
        and all(p.chunks or p.root == ZERO_DIGEST for p in manifest.parts)
    )
    if not sound or manifest_root(manifest) != root:
        raise SnapshotError("not the manifest of this state")
    return manifest


def split_names(names: bytes) -> list[Digest]:
    """Return the names in a node or a long chunk's list."""
    return [Digest(names[at : at + NAME_BYTES]) for at in range(0, len(names), NAME_BYTES)]


def read_node(name: bytes, level: int, below: int, object_: bytes) -> list[Digest]:
    """Return the `below` children's names of a node. Errors: SnapshotError."""
    names = object_[1:]
    if object_[:1] != NAMES_OBJECT or len(names) != below * NAME_BYTES:
        raise SnapshotError("another number of children")
    if node_name(level, names) != name:
        raise SnapshotError("not the node of this name")
    return split_names(names)


def read_chunk(name: bytes, object_: bytes) -> list[Digest]:
    """Check a chunk; of a long one return salt and pieces' names. Errors: SnapshotError."""
    kind, content = object_[:1], object_[1:]
    if kind == CHUNK_OBJECT and len(content) <= CHUNK_BYTES_MAX and chunk_name(content) == name:
        return []
    sound = kind == NAMES_OBJECT and 0 < len(content) <= (1 + LONG_PIECES_MAX) * NAME_BYTES
    if not sound or len(content) % NAME_BYTES or long_name(content) != name:
        raise SnapshotError("not the chunk of this name")
    return split_names(content)


def read_piece(name: bytes, salt: bytes, place: int, object_: bytes) -> None:
    """Check a piece of a long chunk. Errors: SnapshotError."""
    if object_[:1] != CHUNK_OBJECT or piece_name(salt, place, object_[1:]) != name:
        raise SnapshotError("not the piece of this name")


def objects_of(chunks: Sequence[bytes]) -> dict[Digest, bytes]:
    """Return the objects of a tree over these chunks, by name."""
    objects: dict[Digest, bytes] = {}
    row: list[Digest] = []
    for chunk in chunks:
        name = chunk_name(chunk)
        row.append(name)
        if len(chunk) > CHUNK_BYTES_MAX:
            list_, pieces = split_chunk(chunk)
            objects.update({piece: CHUNK_OBJECT + part for piece, part in pieces.items()})
            objects[name] = NAMES_OBJECT + list_
        else:
            objects[name] = CHUNK_OBJECT + chunk
    objects.update(nodes_of(row))
    return objects


def nodes_of(row: Sequence[Digest]) -> dict[Digest, bytes]:
    """Return the nodes of a tree over the chunks with these names, by name."""
    nodes: dict[Digest, bytes] = {}
    level, below = 0, list(row)
    while len(below) > 1:
        level += 1
        groups = [
            b"".join(below[at : at + STATE_FANOUT]) for at in range(0, len(below), STATE_FANOUT)
        ]
        below = [node_name(level, group) for group in groups]
        nodes.update(zip(below, (NAMES_OBJECT + group for group in groups), strict=True))
    return nodes


Get = Callable[[bytes], bytes | None]
"""get(name) -> the object, or None."""


def read_state(get: Get, root: bytes, names: dict[Digest, None]) -> State:
    """Return the state that `root` names, and add every name in it to `names`.

    Objects are trusted to be what their names say: they were checked before they were stored.
    Errors: SnapshotError when one is missing.
    """
    manifest = read_manifest(root, _must(get, Digest(root)))
    names[Digest(root)] = None
    trees = [list(read_tree(get, part, names)) for part in manifest.parts]
    return State(trees[0], trees[1:])


def read_tree(get: Get, part: Part, names: dict[Digest, None]) -> Iterator[bytes]:
    """Yield the chunks of one tree; else as `read_state`."""
    row = [Digest(part.root)] if part.chunks else []
    for _ in range(depth(part.chunks)):
        names.update(dict.fromkeys(row))
        row = [name for node in row for name in split_names(_must(get, node)[1:])]
    if len(row) != part.chunks:
        raise SnapshotError("a tree with another number of chunks")
    for name in row:
        names[name] = None
        object_ = _must(get, name)
        if object_[:1] == CHUNK_OBJECT:
            yield object_[1:]
            continue
        _, *pieces = split_names(object_[1:])
        names.update(dict.fromkeys(pieces))
        yield b"".join(_must(get, piece)[1:] for piece in pieces)


def _must(get: Get, name: Digest) -> bytes:
    object_ = get(name)
    if object_ is None:
        raise SnapshotError(f"object {name.hex()} is missing")
    return object_
