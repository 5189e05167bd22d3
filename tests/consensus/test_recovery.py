"""From any disk that a crash can leave the replica comes back, or says what is gone."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from consensus import committer
from consensus.codec import decode
from consensus.context import (
    KEY_OWN_HEAD,
    KEY_SAFETY,
    TABLE_BATCHES,
    TABLE_BLOCKS,
    TABLE_BODIES,
    TABLE_CHAIN,
    TABLE_LOG,
    TABLE_SAFETY,
    height_key,
)
from consensus.effects import Broadcast, Connected, Persist, Send, Start, Write
from consensus.logkeeper import REPEATED_MAX
from consensus.messages import CommitVote, LogBatch, RoundInfo, Timeout, Vote
from consensus.ownlog import OwnHead
from consensus.recovery import CorruptState
from consensus.replica import Replica
from consensus.safety import Safety, SafetyRecord
from consensus.snapshot import TABLE_STATE
from ops.sim.disk import SimDisk
from ops.sim.executor import HashChain
from ops.sim.host import WALL_START_MS
from ops.sim.world import World
from tests.sim.runs import quick

SNAPSHOT_EVERY = 16
RUN_MS = 4_000


class Recording(SimDisk):
    """Remembers every Persist."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Persist] = []

    def persist(self, effect: Persist) -> None:
        self.log.append(effect)
        super().persist(effect)


@pytest.fixture(scope="module")
def history() -> Iterator[tuple[World, list[Persist]]]:
    """A run with timeouts, and what replica 0 persisted in it, snapshots included."""
    patch = pytest.MonkeyPatch()
    patch.setattr(committer, "SNAPSHOT_INTERVAL", SNAPSHOT_EVERY)
    world = World(quick("storm", 4, 5))
    disk = Recording()
    world.hosts[0].disk = disk
    world.start()
    world.loop.run_until(RUN_MS * 1_000, lambda: True)
    assert world.chain.height > 2 * SNAPSHOT_EVERY, "long enough for two snapshots"
    yield world, disk.log
    patch.undo()


def disk_after(log: list[Persist]) -> SimDisk:
    disk = SimDisk()
    for effect in log:
        disk.persist(Persist(effect.writes, sync=True))
    return disk


def come_back(world: World, disk: SimDisk, executor: HashChain | None = None) -> Replica:
    return world._core(0, disk, executor or HashChain())


def record(disk: SimDisk) -> SafetyRecord | None:
    raw = disk.get(TABLE_SAFETY, KEY_SAFETY)
    return decode(SafetyRecord, raw) if raw is not None else None


def test_it_comes_back_from_every_point_at_which_it_can_die(
    history: tuple[World, list[Persist]],
) -> None:
    """Every prefix of its Persists: the same chain, state and promises as it had there."""
    world, log = history
    print(f"{len(log) + 1} crash points")
    heights = set()
    for point in range(len(log) + 1):
        disk = disk_after(log[:point])
        core = come_back(world, disk)
        heights.add(core.height)
        if core.height:
            assert core.tip[0] == world.chain.block(core.height)
        for height in range(8, core.height + 1, 8):
            digest = core.executed_digest(height)
            assert digest in (None, world.chain._states[height])
        kept = record(disk)
        wanted = kept or Safety.fresh(1, world._genesis_digest)
        assert core.ctx.safety.record() == wanted
        own = disk.get(TABLE_SAFETY, KEY_OWN_HEAD)
        assert core.ctx.own.head.seq == (decode(OwnHead, own).head.seq if own else 0)
    assert len(heights) > SNAPSHOT_EVERY


def test_a_restart_says_again_what_was_said_and_signs_nothing_older(
    history: tuple[World, list[Persist]],
) -> None:
    world, log = history
    for point in range(20, len(log), 37):
        disk = disk_after(log[:point])
        kept = record(disk)
        core = come_back(world, disk)
        said = [
            effect.message
            for effect in core.step(WALL_START_MS + RUN_MS, Start())
            if isinstance(effect, Broadcast)
        ]
        assert kept is not None
        kept_words = (kept.proposal, kept.vote, kept.commit_vote, kept.timeout)
        assert all(word in said for word in kept_words if word is not None)
        newest = max(w.round for w in (kept.vote, kept.timeout, kept.commit_vote) if w is not None)
        for message in said:
            if isinstance(message, Vote | Timeout | CommitVote):
                assert message in kept_words or message.round > min(newest, kept.last_voted)
        base = core.ctx.logs.bases[0].seq
        batches = [m.seq for m in said if isinstance(m, LogBatch)]
        assert batches == list(range(base + 1, core.ctx.own.head.seq + 1))


def test_a_peer_that_connects_hears_again_what_links_lost(
    history: tuple[World, list[Persist]],
) -> None:
    """The first words after a restart reach nobody: no link is up yet."""
    world, log = history
    repeated = 0
    for point in range(20, len(log), 11):
        disk = disk_after(log[:point])
        core = come_back(world, disk)
        core.step(WALL_START_MS + RUN_MS, Start())
        heard = [
            effect.message
            for effect in core.step(WALL_START_MS + RUN_MS, Connected(2))
            if isinstance(effect, Send) and effect.peer == 2
        ]
        safety = core.ctx.safety
        for word in (safety.vote, safety.commit_vote, safety.timeout):
            if word is not None and word.round >= core.rounds.round - 1:
                assert word in heard
                repeated += 1
        base = core.ctx.logs.bases[0].seq
        batches = [m.seq for m in heard if isinstance(m, LogBatch)]
        assert batches == list(range(base + 1, core.ctx.own.head.seq + 1))[-REPEATED_MAX:]
        assert isinstance(heard[0], RoundInfo)
    assert repeated > 10


def test_coming_back_twice_is_coming_back_once(history: tuple[World, list[Persist]]) -> None:
    world, log = history
    disk = disk_after(log)
    first, second = HashChain(), HashChain()
    one, two = come_back(world, disk, first), come_back(world, disk, second)
    assert one.tip == two.tip
    assert first.export() == second.export()
    assert one.ctx.sequencer.export() == two.ctx.sequencer.export()


def test_a_snapshot_saves_the_blocks_before_it(history: tuple[World, list[Persist]]) -> None:
    """With it the old blocks are not read; without it they are replayed to the same state."""
    world, log = history
    disk = disk_after(log)
    with_snapshot, replayed = HashChain(), HashChain()
    one = come_back(world, disk, with_snapshot)
    records = list(disk.scan(TABLE_STATE, b"s", b"t"))
    assert records
    disk.persist(Persist(tuple(Write(TABLE_STATE, key, None) for key, _ in records), True))
    two = come_back(world, disk, replayed)
    assert one.tip == two.tip
    assert with_snapshot.export() == replayed.export()
    assert one.ctx.sequencer.digest() == two.ctx.sequencer.digest()


def test_what_is_missing_on_disk_is_named_and_nothing_else_is_raised(
    history: tuple[World, list[Persist]],
) -> None:
    """Any one record of the committed chain gone: CorruptState, or it was not needed."""
    world, log = history
    rng = random.Random(3)
    whole = disk_after(log)
    height = come_back(world, whole).height
    refused = 0
    for table in (TABLE_BLOCKS, TABLE_LOG, TABLE_BATCHES, TABLE_BODIES, TABLE_CHAIN):
        keys = [key for key, _ in whole.scan(table, b"", b"\xff" * 50)]
        for key in rng.sample(keys, 12):
            disk = disk_after(log)
            disk.persist(Persist((Write(table, key, None),), True))
            try:
                core = come_back(world, disk)
            except CorruptState:
                refused += 1
            else:
                assert core.height <= height
    assert refused > 10


def test_a_lost_end_of_the_chain_is_only_a_shorter_chain(
    history: tuple[World, list[Persist]],
) -> None:
    world, log = history
    disk = disk_after(log)
    height = come_back(world, disk).height
    disk.persist(Persist((Write(TABLE_CHAIN, height_key(height), None),), True))
    assert come_back(world, disk).height == height - 1
