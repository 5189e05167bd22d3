"""The snapshots that this replica keeps: to restart from, and for peers that are far behind.

A snapshot is taken in one step, since the trees know what changed; its objects are written a few
in each step. The record that names it comes last, so what a restart finds named is whole. Objects
that no kept snapshot holds any more are deleted, again a few in each step. Source: ADR-0018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consensus.codec import decode, encode
from consensus.digest import CHUNK_OBJECT, Digest, tree_root
from consensus.snapshot import (
    RECORD_KEY,
    TABLE_STATE,
    TREE_KEY,
    Manifest,
    Part,
    SnapshotRecord,
    nodes_of,
    object_key,
    objects_of,
    record_key,
)

if TYPE_CHECKING:
    from consensus.context import Context, Executor, Reader
    from consensus.sequencer import Sequencer

MILESTONES_KEPT = 3
"""Newest milestones (blocks that checkpoints were formed of) kept beside the accepted one."""
WRITE_BYTES_PER_STEP = 128 << 10
OBJECTS_PER_STEP_MAX = 256
"""Objects written, deleted or looked at in one step: at most this many of each."""
UNWRITTEN_MAX = 2
"""Snapshots that may wait to be written; while there are more, no further one is taken."""


@dataclass(slots=True)
class Kept:
    """A kept snapshot, and how its names differ from those of the one kept before it."""

    record: SnapshotRecord
    fresh: dict[Digest, None]
    gone: dict[Digest, None]


class Shelf:
    """Takes, keeps, serves and drops snapshots."""

    def __init__(self, reader: Reader, sequencer: Sequencer, executor: Executor) -> None:
        self._reader = reader
        self._sequencer = sequencer
        self._executor = executor
        self._kept: list[Kept] = []
        self._sequencer_names: dict[Digest, None] = {}
        self._writing: dict[bytes, bytes] = {}
        self._deleting: dict[bytes, None] = {}
        self._live: dict[Digest, None] | None = None
        """While leftovers of an earlier life are looked for: all names that are none."""
        self._looked_at = TREE_KEY
        self._is_paused = False
        self.accepted_height = 0
        """Height of the newest checkpoint that is known to be accepted on chain."""

    @property
    def kept(self) -> list[SnapshotRecord]:
        """The kept snapshots, oldest first; the newest may not be written yet."""
        return [kept.record for kept in self._kept]

    @property
    def backlog(self) -> int:
        """Objects that wait to be written or deleted."""
        return len(self._writing) + len(self._deleting)

    @property
    def newest_height(self) -> int:
        return self._kept[-1].record.height if self._kept else 0

    def floor(self) -> int | None:
        """Return the lowest height that a restart or a peer may begin from; None without any."""
        written = [k.record.height for k in self._kept if self._is_written(k)]
        return min(written) if written else None

    def _is_written(self, kept: Kept) -> bool:
        return record_key(kept.record.height) not in self._writing

    def resume(self, record: SnapshotRecord | None, names: dict[Digest, None] | None) -> None:
        """Begin with the snapshot that the replica was restored from, and with its `names`.

        What else is on disk is deleted bit by bit; with `names` None nothing is looked for.
        """
        if record is not None:
            self._kept = [Kept(record, {}, {})]
            self._sequencer_names = dict.fromkeys(objects_of(self._sequencer.chunks()))
            for tree in self._executor.trees():
                tree.root()
                tree.take()
            for key, _ in self._reader.scan(TABLE_STATE, RECORD_KEY, record_key(record.height)):
                self._deleting[key] = None
        self._live = names

    def may_take(self) -> bool:
        """Say whether there is room for another snapshot."""
        return sum(not self._is_written(kept) for kept in self._kept) < UNWRITTEN_MAX

    def take(self, height: int, root: Digest, is_milestone: bool) -> None:
        """Take a snapshot of the present state, whose digest at `height` is `root`."""
        fresh, gone = self._take_sequencer()
        parts: list[Part] = []
        for tree in self._executor.trees():
            parts.append(Part(len(tree), tree.root()))
            came, left = tree.take()
            fresh.update(came)
            gone.update(left)
        leaves = self._sequencer.leaves()
        manifest = Manifest(Part(len(leaves), tree_root(leaves)), tuple(parts))
        fresh[root] = CHUNK_OBJECT + encode(manifest)
        if self._kept:
            gone[Digest(self._kept[-1].record.root)] = None
        for name, object_ in fresh.items():
            key = object_key(name)
            self._deleting.pop(key, None)
            self._writing[key] = object_
        if self._live is not None:
            self._live.update(dict.fromkeys(fresh))
        record = SnapshotRecord(height, root, is_milestone)
        self._writing[record_key(height)] = encode(record)
        self._kept.append(Kept(record, dict.fromkeys(fresh), gone))

    def _take_sequencer(self) -> tuple[dict[Digest, bytes], dict[Digest, None]]:
        """Return what came into the sequencer's tree since the last snapshot, and what left."""
        old = self._sequencer_names
        row = self._sequencer.leaves()
        objects = objects_of_chunks(self._sequencer.chunks(known=old))
        names = {**dict.fromkeys(row), **dict.fromkeys(objects)}
        objects.update(nodes_of(row))
        names.update(dict.fromkeys(objects))
        self._sequencer_names = names
        fresh = {name: object_ for name, object_ in objects.items() if name not in old}
        return fresh, {name: None for name in old if name not in names}

    def read(self, name: bytes) -> bytes | None:
        """Return the object of this name, from what is being written or from disk."""
        key = object_key(name)
        return self._writing.get(key) or self._reader.get(TABLE_STATE, key)

    def work(self, ctx: Context) -> None:
        """Write, drop and delete a little."""
        if not self._is_paused:
            self._drop_unneeded()
            self._look_for_leftovers()
        if not self._writing and (self._is_paused or not self._deleting):
            return
        size = 0
        for key in _first(self._writing, OBJECTS_PER_STEP_MAX):
            value = self._writing.pop(key)
            ctx.write(TABLE_STATE, key, value)
            size += len(value)
            if size >= WRITE_BYTES_PER_STEP:
                break
        for key in _first(self._deleting, 0 if self._is_paused else OBJECTS_PER_STEP_MAX):
            del self._deleting[key]
            ctx.write(TABLE_STATE, key, None)
        ctx.flush()

    def pause(self) -> None:
        """Delete nothing for now: a state is being fetched, and may share what we let go."""
        self._is_paused = True
        self._live = None

    def go_on(self) -> None:
        """End the pause."""
        self._is_paused = False

    def _drop_unneeded(self) -> None:
        """Keep the newest, the newest written, the accepted one and the newest milestones."""
        if len(self._kept) < 2:
            return
        written = [k for k in self._kept if self._is_written(k)]
        milestones = [k for k in self._kept if k.record.is_milestone]
        accepted = [k for k in milestones if k.record.height <= self.accepted_height]
        needed = [self._kept[-1], *written[-1:], *accepted[-1:], *milestones[-MILESTONES_KEPT:]]
        heights = dict.fromkeys(kept.record.height for kept in needed)
        for kept in [k for k in self._kept if k.record.height not in heights]:
            self._drop(self._kept.index(kept))

    def _drop(self, place: int) -> None:
        """Forget one kept snapshot, and delete the objects that only it holds."""
        kept = self._kept
        dropped, after = kept[place], kept[place + 1]
        key = record_key(dropped.record.height)
        self._writing.pop(key, None)
        self._deleting[key] = None
        earlier, later = kept[1 : place + 1], kept[place + 2 :]
        for name in after.gone:
            # It began here (the first one's names have no beginning), or it is held before too.
            if place and name not in dropped.fresh:
                continue
            if any(name in k.gone for k in earlier) or any(name in k.fresh for k in later):
                continue
            self._writing.pop(object_key(name), None)
            self._deleting[object_key(name)] = None
        if place:
            after.fresh, after.gone = (
                _without(dropped.fresh, after.gone) | _without(after.fresh, dropped.gone),
                _without(dropped.gone, after.fresh) | _without(after.gone, dropped.fresh),
            )
        else:
            after.fresh, after.gone = {}, {}
        del kept[place]

    def _look_for_leftovers(self) -> None:
        """Delete objects of snapshots that a crash cut off, or that were dropped by it."""
        if self._live is None:
            return
        scan = self._reader.scan(TABLE_STATE, self._looked_at, bytes((TREE_KEY[0] + 1,)))
        for count, (key, _) in enumerate(scan):
            if count == OBJECTS_PER_STEP_MAX:
                self._looked_at = key
                return
            if key[1:] not in self._live:
                self._deleting[key] = None
        self._live = None


def objects_of_chunks(chunks: list[bytes]) -> dict[Digest, bytes]:
    """Return the objects of some chunks, without any node above them."""
    objects: dict[Digest, bytes] = {}
    for chunk in chunks:
        objects.update(objects_of([chunk]))
    return objects


def _first(keys: dict[bytes, bytes] | dict[bytes, None], most: int) -> list[bytes]:
    return [key for key, _ in zip(keys, range(most), strict=False)]


def _without(names: dict[Digest, None], others: dict[Digest, None]) -> dict[Digest, None]:
    return {name: None for name in names if name not in others}


def newest_record(reader: Reader) -> SnapshotRecord | None:
    """Return the newest snapshot that is whole on disk."""
    records = list(reader.scan(TABLE_STATE, RECORD_KEY, bytes((RECORD_KEY[0] + 1,))))
    return decode(SnapshotRecord, records[-1][1]) if records else None
