"""Disks that went back in time, under load and beside liars: nothing is signed twice."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from ops.sim.disk import SimDisk
from ops.sim.host import Host
from ops.sim.plan import Plan
from ops.sim.report import run
from ops.sim.world import World
from tests.sim import mutants
from tests.sim.runs import QUICK, assert_held, quick, seeds

BACKUP_US = 900_000
RESTORE_US = 1_800_000
END_US = 5_000_000
SET_BACK = frozenset(("silent",))
Restore = Callable[[SimDisk], SimDisk]


def empty(_: SimDisk) -> SimDisk:
    return SimDisk()


def same(backup: SimDisk) -> SimDisk:
    return backup


def set_back(world: World, nodes: tuple[int, ...], restore: Restore) -> None:
    """Run a world in which the disks of `nodes` are replaced by older ones, all at once."""
    world.start()
    world.loop.run_until(BACKUP_US, lambda: True)
    backups = {node: copy.deepcopy(world.hosts[node].disk) for node in nodes}
    world.loop.run_until(RESTORE_US, lambda: True)
    for node, backup in backups.items():
        host: Host = world.hosts[node]
        if host.is_up:
            world.carrier.crash(host)
        host.disk = restore(backup)
    for node in nodes:
        world.boot(world.hosts[node])
    world.loop.run_until(END_US, lambda: True)


@pytest.mark.parametrize(
    ("n", "nodes", "liars", "restore"),
    [
        (4, (1,), {}, same),
        (5, (2,), {}, empty),
        (7, (1, 4), {}, empty),
        (7, (5,), {2: "mute"}, same),
        (7, (5,), {2: "echo"}, empty),
        (7, (5,), {2: "equivocate"}, same),
    ],
)
def test_an_older_disk_makes_silent_and_follows(
    n: int, nodes: tuple[int, ...], liars: dict[int, str], restore: Restore
) -> None:
    """A backup of the whole directory, or an empty one; at most f replicas are off in all. The
    others go on, and those that are silent commit and execute the same as they do."""
    for seed in seeds(1):
        plan = quick("plain", n, seed, liars)
        print(f"seed {seed}")
        world = World(plan, SET_BACK)
        set_back(world, nodes, restore)
        assert world.ledger.is_clean, world.ledger.violations
        heights = [host.height for host in world.hosts if host.is_honest]
        for node in nodes:
            core = world.hosts[node].core
            assert core is not None
            assert core.guard.silence is not None, "its peers know more of its key than it does"
            assert core.height >= max(heights) - 3
            assert core.height > world_height_at(world, RESTORE_US) > 5
            assert world.hosts[node].executor.executed > 0


def world_height_at(world: World, at_us: int) -> int:
    """Return how high the chain is likely to have been: rounds of at most 80 ms, and some spare."""
    return at_us // 1_000 // QUICK.empty_block_ms // 2


def test_two_disks_set_back_among_four_stop_the_network_and_do_not_fork_it() -> None:
    """More than f: none of the two signs, and what is left is no quorum. That is the safe end."""
    world = World(quick("plain", 4, 3), SET_BACK)
    set_back(world, (1, 2), same)
    assert all(host.core is not None for host in world.hosts)
    silent = [h.me for h in world.hosts if h.core is not None and h.core.guard.silence is not None]
    assert silent == [1, 2]
    assert world.ledger.is_clean, world.ledger.violations


def test_all_disks_lost_their_unsynced_end_and_nobody_is_silent() -> None:
    """Power loss everywhere: records are as new as what left, and all ask all at once."""

    def plans() -> list[Plan]:
        return [quick("power", n, seed) for n in (4, 5) for seed in seeds(1)]

    for plan in plans():
        world = World(plan)
        world.run()
        assert world.ledger.is_clean, world.ledger.violations
        for host in world.hosts:
            if host.is_honest and host.core is not None:
                assert host.core.guard.silence is None
                assert host.core.ctx.may_sign


def test_a_replica_that_forgets_its_vote_hears_of_it_and_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The record without the last vote, which forks without the guard (test_mutations)."""
    silent = 0
    with monkeypatch.context() as patch:
        patch.setattr("consensus.recovery.Safety", mutants.ForgetsVotes)
        for seed in range(4):
            plan = quick("power", 4, seed)
            ignored = frozenset(("durability", "liveness", "silent"))
            world = World(plan, ignored)
            world.run()
            assert world.ledger.is_clean, world.ledger.violations
            cores = [host.core for host in world.hosts if host.core is not None]
            silent += sum(core.guard.silence is not None for core in cores)
    assert silent > 2
    assert_held(run(quick("power", 4, 0)))
