"""What is kept of the state: whole at every crash, shared between snapshots, and nothing more."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus import shelf as shelf_module
from consensus.committee import Committee, Parameters
from consensus.digest import CHUNK_BYTES_MAX, Digest, parts_digest
from consensus.effects import Persist, Write
from consensus.messages import Head
from consensus.sequencer import Sequencer
from consensus.shelf import Shelf, newest_record
from consensus.snapshot import (
    TABLE_STATE,
    SnapshotError,
    SnapshotRecord,
    State,
    object_key,
    read_state,
    state_digest,
)
from matcher.chunks import ChunkTree
from ops.sim.disk import SimDisk

KEYS = tuple(bytes((i,)) * 32 for i in range(4))
HEADS = tuple(Head(0, bytes(32)) for _ in KEYS)


class Cells:
    """A state of numbered cells, some of them long."""

    is_milestone = False

    def __init__(self, count: int) -> None:
        self.cells = [b"%d:" % i for i in range(count)]
        self._tree = ChunkTree()
        self._touched = dict.fromkeys(range(count))

    def put(self, place: int, content: bytes) -> None:
        place = min(place, len(self.cells))
        self.cells[place : place + 1] = [b"%d:" % place + content]
        self._touched[place] = None

    def trees(self) -> tuple[ChunkTree, ...]:
        for place in sorted(self._touched):
            self._tree.set(place, self.cells[place])
        self._touched.clear()
        return (self._tree,)

    def digest(self) -> Digest:
        return parts_digest([(len(tree), tree.root()) for tree in self.trees()])

    def load(self, parts: Sequence[Sequence[bytes]]) -> None:
        raise NotImplementedError

    successor = begin_epoch = execute = load


class Bench:
    """A shelf, the state before it and the disk behind it."""

    def __init__(self, cells: int) -> None:
        self.disk = SimDisk()
        committee = Committee(b"n" * 32, 1, KEYS)
        self.sequencer = Sequencer(committee, Parameters(), HEADS, 0)
        self.executor = Cells(cells)
        self.shelf = Shelf(self.disk, self.sequencer, self.executor)  # type: ignore[arg-type]
        self.height = 0
        self.states: dict[int, tuple[bytes, list[bytes]]] = {}
        self._writes: list[Write] = []

    def write(self, table: str, key: bytes, value: bytes | None) -> None:
        self._writes.append(Write(table, key, value))

    def flush(self) -> None:
        self.disk.persist(Persist(tuple(self._writes), sync=False))
        self._writes.clear()

    def work(self) -> None:
        self.shelf.work(self)  # type: ignore[arg-type]

    def take(self, is_milestone: bool) -> None:
        self.height += 8
        self.sequencer.height = self.height
        root = state_digest(self.sequencer.digest(), self.executor.digest())
        self.states[self.height] = (root, list(self.executor.cells))
        self.shelf.take(self.height, root, is_milestone)

    def settle(self) -> None:
        while self.shelf.backlog:
            self.work()

    def read(self, record: SnapshotRecord, names: dict[Digest, None]) -> State:
        return read_state(self.shelf.read, record.root, names)

    def check(self, record: SnapshotRecord, names: dict[Digest, None]) -> None:
        root, cells = self.states[record.height]
        assert record.root == root
        assert self.read(record, names).executor == [cells]


changes = st.lists(
    st.tuples(st.integers(0, 90), st.sampled_from([b"", b"a", b"b", b"L"])),
    max_size=6,
)
histories = st.lists(
    st.tuples(changes, st.booleans(), st.integers(0, 4), st.booleans()), min_size=1, max_size=14
)


@settings(deadline=None, max_examples=150)
@given(histories, st.integers(1, 70))
def test_every_kept_snapshot_is_whole_and_nothing_else_stays(
    history: list[tuple[list[tuple[int, bytes]], bool, int, bool]], cells: int
) -> None:
    """Whatever changes, comes back or is dropped: kept ones read back, and disk holds no more."""
    bench = Bench(cells)
    for number, (changed, is_milestone, pieces, accepts) in enumerate(history):
        for place, content in changed:
            bench.executor.put(place, content * (CHUNK_BYTES_MAX if content == b"L" else 1))
        bench.take(is_milestone)
        if accepts:
            bench.shelf.accepted_height = bench.height - 16
        for _ in range(pieces):
            bench.work()
        for record in bench.shelf.kept:
            bench.check(record, {})
        if number % 3 == 2:
            bench.settle()
    bench.settle()
    bench.work()
    bench.settle()
    names: dict[Digest, None] = {}
    for record in bench.shelf.kept:
        bench.check(record, names)
    held = {key for key, _ in bench.disk.scan(TABLE_STATE, b"o", b"p")}
    assert held == {object_key(name) for name in names}
    records = [key for key, _ in bench.disk.scan(TABLE_STATE, b"s", b"t")]
    assert len(records) == len(bench.shelf.kept)
    heights = [record.height for record in bench.shelf.kept]
    milestones = [record.height for record in bench.shelf.kept if record.is_milestone]
    assert bench.height in heights
    assert len(heights) <= shelf_module.MILESTONES_KEPT + 2
    accepted = [h for h in milestones if h <= bench.shelf.accepted_height]
    assert len(accepted) <= 1 + shelf_module.MILESTONES_KEPT


def test_a_crash_at_any_write_leaves_a_whole_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a restart finds named is all there, and it deletes what belongs to no snapshot."""
    monkeypatch.setattr(shelf_module, "OBJECTS_PER_STEP_MAX", 7)
    for seed in range(60):
        rng = random.Random(seed)
        bench = Bench(90)
        taken = 0
        for _ in range(rng.randrange(4, 90)):
            for _ in range(rng.randrange(5)):
                bench.executor.put(rng.randrange(95), b"%d" % rng.randrange(3))
            if rng.random() < 0.2 and bench.shelf.may_take():
                bench.take(rng.random() < 0.5)
                taken += 1
            bench.work()
        bench.disk.crash(rng)
        record = newest_record(bench.disk)
        if record is None:
            continue
        names: dict[Digest, None] = {}
        after = Bench(0)
        after.disk, after.states = bench.disk, bench.states
        after.shelf = Shelf(bench.disk, bench.sequencer, bench.executor)  # type: ignore[arg-type]
        after.check(record, names)
        after.shelf.resume(record, names)
        for _ in range(60):
            after.work()
        after.check(record, {})
        held = {key for key, _ in after.disk.scan(TABLE_STATE, b"o", b"p")}
        assert held == {object_key(name) for name in names}, f"seed {seed}"
        assert len(list(after.disk.scan(TABLE_STATE, b"s", b"t"))) == 1


def test_a_step_writes_a_bounded_part_and_only_what_changed() -> None:
    bench = Bench(5_000)
    bench.take(True)
    first = bench.shelf.backlog
    steps = 0
    while bench.shelf.backlog:
        before = bench.shelf.backlog
        bench.work()
        steps += 1
        assert before - bench.shelf.backlog <= 2 * shelf_module.OBJECTS_PER_STEP_MAX
    assert steps >= first // (2 * shelf_module.OBJECTS_PER_STEP_MAX)
    bench.executor.put(17, b"changed")
    bench.take(True)
    # The cell, its three nodes, the sequencer's cut, the manifest, the record.
    assert bench.shelf.backlog <= 8


def test_a_lost_object_is_noticed() -> None:
    bench = Bench(70)
    bench.take(True)
    bench.settle()
    record = bench.shelf.kept[0]
    names: dict[Digest, None] = {}
    bench.check(record, names)
    for name in names:
        whole = bench.disk.get(TABLE_STATE, object_key(name))
        assert whole is not None
        bench.disk.persist(Persist((Write(TABLE_STATE, object_key(name), None),), True))
        with pytest.raises(SnapshotError):
            bench.read(record, {})
        bench.disk.persist(Persist((Write(TABLE_STATE, object_key(name), whole),), True))
