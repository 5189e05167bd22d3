"""The same inputs give the same bytes: in any process, under any hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from matcher.engine import Engine
from matcher.snapshot import SnapshotError
from tests.matcher.flows import funded, perform, random_flow
from tests.matcher.market import USDC, World, free_genesis, ready, wallet

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
from hashlib import sha256
from consensus.codec import encode
from tests.matcher.flows import funded, perform, random_flow
world, seen = funded(), sha256()
for step in random_flow(seed=7, length=400):
    seen.update(encode(perform(world, step)[1]))
    seen.update(world.engine.state_digest())
print(seen.hexdigest(), world.engine.checkpoint_state().state_root.hex())
"""


def run(hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_events_and_digests_do_not_depend_on_the_hash_seed() -> None:
    assert run("0") == run("1") == run("4242")


def test_the_digest_covers_each_part() -> None:
    """Each change alone changes the digest, and undoing nothing brings the old one back."""
    world = ready(1_000, 1_000)
    seen = {world.engine.state_digest()}

    def step(what: str) -> None:
        digest = world.engine.state_digest()
        assert digest not in seen, what
        seen.add(digest)

    world.place(wallet(0), 0, 23_500, 5)
    step("an order")
    world.place(wallet(1), 0, 23_500, 5)
    step("another's order at the same price")
    world.cancel_all(wallet(0))
    step("a cancel: buckets, ids and heights remain")
    world.deposit(wallet(0), 5 * USDC)
    step("a deposit")
    world.block()
    step("the height alone")


def test_priority_is_part_of_the_state() -> None:
    """Two books with the same orders in another order are different states."""
    digests = []
    for first, second in ((0, 1), (1, 0)):
        world = ready(1_000, 1_000)
        for who in (first, second):
            world.client = 50
            world.place(wallet(who), 0, 23_500, 5)
        digests.append(world.engine.state_digest())
    assert digests[0] != digests[1]


def test_a_digest_from_scratch_equals_the_incremental_one() -> None:
    world = funded()
    for number, step in enumerate(random_flow(seed=3, length=200)):
        perform(world, step)
        if number % 20 == 0:
            kept = world.engine.state_digest()
            fresh = Engine(world.genesis, world.n, world.f)
            fresh.restore_state(world.engine.export_state())
            assert fresh.state_digest() == kept


def test_rubbish_is_no_snapshot_and_changes_nothing() -> None:
    world = ready(1_000)
    before = world.engine.state_digest()
    data = world.engine.export_state()
    other = World(free_genesis(deposit_min=1)).engine
    for bad in (b"", data[:-1], data + b"\0", data[: len(data) // 2], other.export_state()):
        with pytest.raises(SnapshotError):
            world.engine.restore_state(bad)
    for at in range(0, len(data), 7):
        changed = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
        twin = Engine(world.genesis, world.n, world.f)
        try:
            twin.restore_state(changed)
        except SnapshotError:
            continue
        assert twin.state_digest() != before, "a changed snapshot must show"
    assert world.engine.state_digest() == before
