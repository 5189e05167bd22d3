"""Machines that are not ideal: odd clocks, slow disks, full inboxes, long ways; and 31 of them."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.effects import Persist, Write
from ops.sim.disk import SimDisk
from ops.sim.host import PPM, WALL_START_MS, HostClock
from ops.sim.loop import Loop
from ops.sim.network import LOOP_DELAY_US, TAIL_TIMES_MAX, Network
from ops.sim.plan import SHORT_DIALS, MachineDials, NetworkDials, Plan, Stall
from ops.sim.report import finish, run
from ops.sim.wan import one_way_us
from ops.sim.world import World
from tests.sim.runs import assert_held, quick

HASTY = msgspec.structs.replace(
    SHORT_DIALS, round_timer_ms=120, round_timer_max_ms=200, order_deadline_ms=100
)
Steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"),
            st.lists(st.tuples(st.integers(0, 4), st.none() | st.binary(max_size=2)), max_size=3),
            st.booleans(),
        ),
        st.tuples(st.just("sync")),
        st.tuples(st.just("crash"), st.integers(0, 1 << 20)),
    ),
    max_size=25,
)


@given(st.integers(-450, 450), st.integers(-9_000, 9_000), st.lists(st.integers(-20_000, 20_000)))
def test_a_timer_is_due_at_the_first_moment_that_the_clock_shows_it(
    skew_ms: int, drift_ppm: int, rates: list[int]
) -> None:
    clock, now_us = HostClock(skew_ms, drift_ppm), 0
    for rate in [drift_ppm, *rates[:5]]:
        shown = clock.now_ms(now_us)
        clock.run_at(now_us, rate)
        assert clock.now_ms(now_us) == shown, "a change of rate is no jump"
        now_us += 123_457
        due_us = clock.due_us(clock.now_ms(now_us) + 7)
        assert clock.now_ms(due_us) >= clock.now_ms(now_us) + 7 > clock.now_ms(due_us - 2)


def test_a_clock_gains_what_its_rate_says() -> None:
    clock = HostClock(250, 2_000)
    assert clock.now_ms(0) == WALL_START_MS + 250
    assert clock.now_ms(10 * PPM) == WALL_START_MS + 250 + 10_000 + 20


@given(Steps)
def test_a_crash_leaves_a_beginning_of_what_was_written_and_all_that_was_synced(
    steps: list[tuple[object, ...]],
) -> None:
    """Each write is there whole or not at all, none without those before it."""
    disk = SimDisk()
    history: list[dict[bytes, bytes]] = [{}]
    safe = 0
    for step in steps:
        if step[0] == "write":
            assert isinstance(step[1], list)
            writes = tuple(Write("t", bytes([k]), value) for k, value in step[1])
            state = dict(history[-1])
            for write in writes:
                state.pop(write.key, None)
                if write.value is not None:
                    state[write.key] = write.value
            history.append(state)
            if step[2]:
                disk.persist(Persist(writes, sync=True))
                safe = len(history) - 1
            else:
                disk.write(writes)
        elif step[0] == "sync":
            disk.sync()
            safe = len(history) - 1
        else:
            assert isinstance(step[1], int)
            disk.crash(random.Random(step[1]))
            left = dict(disk.scan("t", b"", b"\xff"))
            assert left in history[safe:]
            history = [left]
            safe = 0
        assert dict(disk.scan("t", b"", b"\xff")) == history[-1]
        for k in range(5):
            assert disk.durable("t", bytes([k])) == history[safe].get(bytes([k]))


def test_what_waits_for_the_disk_leaves_only_when_it_is_durable() -> None:
    plan = replace(quick("plain", 4, 2), machines=MachineDials(sync_max_ms=8))
    slow, fast = run(plan), run(replace(plan, machines=MachineDials()))
    assert_held(slow)
    assert slow.latency_ms["p50"] > fast.latency_ms["p50"]
    assert run(plan) == slow


def test_a_disk_that_lies_about_a_sync_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(quick("plain", 4, 2), machines=MachineDials(sync_max_ms=8))
    monkeypatch.setattr(SimDisk, "sync", lambda self: None)
    assert run(plan).violations[0].startswith("[durability]")


def test_a_machine_that_stands_still_loses_what_its_inbox_cannot_hold() -> None:
    stall = Stall(node=1, at_ms=500, for_ms=900)
    plan = replace(quick("plain", 4, 3), faults=(stall,), calm_ms=1_400).with_calm()
    world = World(replace(plan, machines=MachineDials(inbox_frames_max=4)))
    assert_held(finish(world))
    assert world.carrier.overflowed > 10
    roomy = World(plan)
    assert_held(finish(roomy))
    assert roomy.carrier.overflowed == 0


def test_no_frame_is_quicker_than_its_way_and_a_tail_is_long() -> None:
    loop = Loop()
    arrived: list[int] = []
    dials = NetworkDials(wan="aws5", tail=True, delay_min_ms=1, delay_max_ms=11)
    net = Network(loop, random.Random(1), 5, dials, lambda a, b, f: arrived.append(loop.now_us))
    net.link(0, 4)
    for _ in range(2_000):
        net.send(0, 4, b"frame")
    loop.run_until(10_000_000)
    least_us = one_way_us("aws5", 5)[0][4] + LOOP_DELAY_US + 1_000
    delays = [at_us - least_us for at_us in arrived]
    assert len(delays) == 2_000 and min(delays) >= 0
    median_us = sorted(delays)[1_000]
    assert 4_000 < median_us < 6_000
    assert 4 * median_us < max(delays) <= TAIL_TIMES_MAX * 5_001


def test_thirty_one_replicas_with_four_liars_order_commands() -> None:
    liars = {0: "mute", 8: "reverse", 17: "censor", 26: "two-votes"}
    timed = msgspec.structs.replace(
        HASTY, batch_interval_ms=40, round_timer_ms=80, round_timer_max_ms=80
    )
    plan = Plan(nodes=31, seed=1, duration_ms=0, parameters=timed, liars=liars, commands_per_s=15)
    report = run(plan.with_calm())
    assert_held(report)
    assert report.executed > 8
    assert report.height > 20
