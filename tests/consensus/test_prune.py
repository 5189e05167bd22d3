"""The disk stays level, and whoever asks for what is gone hears so and gets on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consensus import committer, context, prune, statesync
from consensus.context import TABLE_BATCHES, TABLE_BLOCKS, TABLE_BODIES, TABLE_CHAIN
from consensus.replica import Replica
from consensus.snapshot import TABLE_STATE
from ops.sim import clients
from ops.sim.disk import SimDisk
from ops.sim.executor import HashChain
from ops.sim.host import WALL_START_MS
from ops.sim.plan import Crash, Plan
from tests.consensus.test_statesync import LATE, ChainWorld, check, late
from tests.sim.runs import QUICK

RETAIN = 60


class PruningWorld(ChainWorld):
    """Replicas that keep few blocks; the disk of one is measured now and then."""

    def __init__(self, plan: Plan, retain: int | None = RETAIN) -> None:
        self.retain = retain
        self.sizes: list[dict[str, int]] = []
        # A long run outgrows what the audit allows to containers whose bounds it does not know.
        super().__init__(plan, frozenset({"memory"}))

    def _core(self, me: int, disk: SimDisk, executor: HashChain) -> Replica:
        return Replica(
            self.committee,
            self.plan.parameters,
            me,
            self._keys.signers[me],
            disk,
            executor,
            WALL_START_MS,
            self.retain,
        )

    def start(self) -> None:
        super().start()
        self.loop.after(2_000_000, self._measure)

    def _measure(self) -> None:
        tables = self.hosts[0].disk._tables
        self.sizes.append({name: len(records) for name, records in tables.items()})
        total = sum(len(k) + len(v) for records in tables.values() for k, v in records.items())
        self.sizes[-1]["bytes"] = total
        self.loop.after(2_000_000, self._measure)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statesync, "SNAPSHOT_GAP", 40)
    monkeypatch.setattr(committer, "SNAPSHOT_INTERVAL", 32)
    monkeypatch.setattr(prune, "PRUNE_EVERY", 16)
    monkeypatch.setattr(prune, "RECENT_MAX", 8)
    # Bodies go when they have expired: soon enough to be seen, later than any is ordered here.
    monkeypatch.setattr(clients, "PATIENT_EXPIRY_MS", 8_000)


def plan(seed: int, seconds: int = 56, **more: object) -> Plan:
    base = Plan(nodes=4, seed=seed, duration_ms=seconds * 1_000, parameters=QUICK)
    return replace(base, **more)  # type: ignore[arg-type]


def check_level(seconds: int, retentions: int) -> None:
    """Records and bytes of every table at the end are those of the middle."""
    world = PruningWorld(plan(1, seconds, liars={2: "fork"}))
    world.run()
    assert not world.ledger.violations, world.ledger.violations
    heights = [host.height for host in world.hosts]
    assert min(heights) > retentions * RETAIN, heights
    quarter = len(world.sizes) // 4
    early, end = world.sizes[quarter : 2 * quarter], world.sizes[-quarter:]
    for what in end[-1]:
        most = max(sizes.get(what, 0) for sizes in early)
        now = max(sizes.get(what, 0) for sizes in end)
        print(f"{what}: {most} records by then, {now} at the end")
        assert now <= 1.25 * most + 30, what
    core = world.hosts[0].core
    assert core is not None and core.ctx.counters["records_pruned"] > 500 * retentions


def test_the_disk_is_level() -> None:
    """The same run as those in which something is left out below."""
    check_level(30, 8)


@pytest.mark.slow
def test_the_disk_is_level_over_many_times_the_retention() -> None:
    """Twenty times, with a replica whose log forks."""
    check_level(56, 20)


@pytest.mark.slow
@pytest.mark.parametrize("left_out", ["index", TABLE_CHAIN, TABLE_BODIES, TABLE_BATCHES])
def test_what_is_forgotten_in_pruning_is_seen_to_grow(
    monkeypatch: pytest.MonkeyPatch, left_out: str
) -> None:
    """Each of these taken out of the pruner leaves a table that grows."""
    honest = prune.Pruner._forget

    def forgetful(self: prune.Pruner, table: str, key: bytes, value: bytes) -> None:
        kind = "index" if table == TABLE_STATE and key[:1] == b"b" else table
        if kind != left_out:
            honest(self, table, key, value)

    monkeypatch.setattr(prune.Pruner, "_forget", forgetful)
    with pytest.raises(AssertionError, match=r"assert \d+ <="):
        check_level(30, 8)


def test_an_archive_keeps_all() -> None:
    world = PruningWorld(plan(2, 12), retain=None)
    world.run()
    assert not world.ledger.violations
    disk = world.hosts[1].disk
    for height in range(1, world.hosts[1].height + 1):
        digest = disk.get(TABLE_CHAIN, context.height_key(height))
        assert digest is not None and disk.get(TABLE_BLOCKS, digest) is not None
    assert len(list(disk.scan(TABLE_BATCHES, b"", b"\xff" * 60))) > 4 * 10 * 10


@pytest.mark.parametrize("seed", range(1))
def test_a_replica_that_asks_for_what_is_gone_takes_the_state_instead(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when it is not far behind by itself: its peers have no blocks as old any more."""
    monkeypatch.setattr(statesync, "SNAPSHOT_GAP", 1 << 30)
    world = PruningWorld(plan(seed, 26, faults=(Crash(LATE, 300, 18_000),), calm_ms=18_400))
    world.run()
    check(world)
    core = late(world)
    assert core.ctx.counters["peers_pruned"] and core.ctx.counters["snapshots_installed"] == 1


def test_crashes_among_deletions_leave_a_disk_that_opens() -> None:
    """Power is lost again and again while records go: nothing that is needed has gone."""
    for seed in range(1):
        crashes = tuple(Crash(k % 4, 3_000 + 700 * k, 150) for k in range(16))
        world = PruningWorld(plan(seed, 24, faults=crashes, calm_ms=15_000))
        world.run()
        check(world)
        floors = [host.core.ctx.chain_floor for host in world.hosts if host.core is not None]
        assert min(floors) > RETAIN
