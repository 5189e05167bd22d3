"""A replica that is frozen or killed costs its own link alone, and gets it back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import trio

from p2p.lanes import LANE_RULES
from p2p.link import HOLD_S, REDIAL_MAX_S
from p2p.transport import SILENCE_MAX_S, WATCH_S, Peer
from tests.p2p.mesh import Replica, mesh


@contextmanager
def _child(peers: list[Peer], index: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.p2p.child", str(index)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps([(key.hex(), *rest) for key, *rest in peers]).encode())
    process.stdin.close()
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def _echoes(one: Replica, child: int) -> None:
    """Assert that a frame comes back from the child."""
    marker = b"\0" + os.urandom(8)
    await one.until(partial(one.up.__contains__, child))
    assert one.transport.send(child, marker)
    await one.until(lambda: (child, marker) in one.received)


async def test_a_frozen_replica_is_dropped_and_comes_back() -> None:
    async with mesh(3, running=2) as replicas:
        one, other = replicas[0], replicas[1]
        with _child(one.peers, 2) as child:
            await _echoes(one, 2)
            child.send_signal(signal.SIGSTOP)
            took = await one.until(lambda: 2 not in one.up, seconds=15)
            assert took < SILENCE_MAX_S + WATCH_S + 1.5
            assert one.transport.stats()[2].silences == 1
            assert one.transport.send(1, b"\0meanwhile")
            await other.until(lambda: (0, b"\0meanwhile") in other.received)
            child.send_signal(signal.SIGCONT)
            assert await one.until(lambda: 2 in one.up, seconds=15) < 8
            await _echoes(one, 2)


async def test_a_frozen_replica_costs_bounded_memory() -> None:
    async with mesh(3, running=2) as replicas:
        one, other = replicas[0], replicas[1]
        with _child(one.peers, 2) as child:
            await _echoes(one, 2)
            child.send_signal(signal.SIGSTOP)
            sent = dropped = 0
            with trio.fail_after(20):
                while 2 in one.up:
                    for _ in range(10):
                        sent += 1
                        dropped += not one.transport.send(2, bytes(100_000))
                    assert one.transport.stats()[2].queued_bytes <= sum(
                        rule.bytes_max for rule in LANE_RULES.values()
                    )
                    await trio.sleep(0.05)
            assert one.transport.stats()[2].dropped_out >= dropped > 0
            await trio.sleep(HOLD_S + 0.1)
            assert not one.transport.send(2, b"\0late")
            assert one.transport.stats()[2].queued_bytes == 0
            assert one.transport.send(1, b"\0after")
            await other.until(lambda: (0, b"\0after") in other.received)


async def test_a_killed_replica_is_back_soon_after_its_restart() -> None:
    async with mesh(3, running=2) as (one, *_):
        with _child(one.peers, 2):
            await _echoes(one, 2)
        assert await one.until(lambda: 2 not in one.up) < 1
        with _child(one.peers, 2):
            # A process starts in about a second; its first dial wakes our own.
            assert await one.until(lambda: 2 in one.up) < REDIAL_MAX_S + 3
            await _echoes(one, 2)
        assert one.transport.stats()[2].reconnects == 1
