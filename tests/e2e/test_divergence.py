"""A node that computes another state than the others: it stops, and its bundle says why."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from click.testing import CliRunner, Result
from msgspec.structs import replace

import ops.bundle.replay
from consensus.committee import quorum
from matcher.genesis import devnet_genesis
from ops.bundle.file import Bundle, BundleError, load_bundle
from ops.bundle.replay import AGREES, NEITHER, REPRODUCES, Replay, Report
from ops.commands.replay_bundle import command
from ops.devnet.plan import Plan, make_genesis, make_plan, write_homes
from ops.devnet.prices import PriceBoard, serve_prices
from ops.replica import Exchange
from settlement.checkpoint import Checkpoint, OtherCheckpoint
from settlement.deploy import Deployed
from tests.e2e.broken import BrokenExchange
from tests.e2e.one_node import ADDRESSES, BTC, CHAIN_ID, DEAD_URL

pytestmark = pytest.mark.e2e

NODES = 4
BROKEN = 2
HEIGHT = 21
"""Digests are taken at multiples of 8: that of 24 is the first to differ."""
FIRST_DIGEST = 24
END_S = 90
GO_ON = 24
"""Blocks that the others must add after one has stopped."""


def make_network(home: Path) -> Plan:
    """Write the homes of a network that forms no checkpoint: digests alone tell of the fault."""
    plan = make_plan(home, NODES)
    genesis = make_genesis(plan, CHAIN_ID, Deployed(ADDRESSES, 0), devnet_genesis())
    write_homes(plan, replace(genesis, checkpoint_interval_ms=86_400_000), DEAD_URL, "error")
    return plan


class Network:
    """Four nodes without a chain, of which one is broken."""

    def __init__(self, plan: Plan, stack: ExitStack) -> None:
        self.plan = plan
        self.processes = [
            stack.enter_context(self._spawn(node.home, node.index == BROKEN)) for node in plan.nodes
        ]

    @staticmethod
    def _spawn(home: Path, broken: bool) -> subprocess.Popen[bytes]:
        program = ["tests.e2e.broken", str(home), str(HEIGHT)]
        sound = ["ops", "node", "--home", str(home)]
        return subprocess.Popen(
            [sys.executable, "-m", *(program if broken else sound)],
            stdout=subprocess.DEVNULL,
            stderr=(home / "log").open("wb"),
        )

    async def statuses(self) -> list[dict[str, Any]]:
        """Return what the sound nodes say."""
        async with httpx.AsyncClient(trust_env=False) as http:
            return [
                (await http.get(f"{node.url}/v1/status")).json()
                for node in self.plan.nodes
                if node.index != BROKEN
            ]

    async def run(self) -> None:
        """Wait until the broken one has stopped and the others have gone on; then stop all."""
        async with trio.open_nursery() as nursery:
            board = PriceBoard({0: BTC, 1: BTC // 20})
            await nursery.start(serve_prices, board, "127.0.0.1", self.plan.price_port)
            with trio.fail_after(END_S):
                await trio.to_thread.run_sync(self.processes[BROKEN].wait, abandon_on_cancel=True)
                stopped = max(each["height"] for each in await self.statuses())
                while True:
                    self.last = await self.statuses()
                    if min(each["height"] for each in self.last) >= stopped + GO_ON:
                        break
                    await trio.sleep(0.1)
            nursery.cancel_scope.cancel()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a node that has diverged, the network around it having been watched."""
    plan = make_network(tmp_path_factory.mktemp("diverged"))
    with ExitStack() as stack:
        network = Network(plan, stack)
        try:
            trio.run(network.run)
        finally:
            for process in network.processes:
                process.kill()
    node = plan.nodes[BROKEN].home
    said = (node / "log").read_text()
    assert network.processes[BROKEN].returncode == 3, said
    (path,) = node.glob("diverged-*.bundle")
    assert f"fairlane replay-bundle {path}" in said
    assert f"state digest at height {FIRST_DIGEST} differs from a quorum's" in said
    digests: dict[int, str] = {}
    for each in network.last:
        for height, digest in each["recent_digests"]:
            assert digests.setdefault(height, digest) == digest, "the others agree"
    assert max(digests) > FIRST_DIGEST
    return path


def replay(path: Path) -> Result:
    return CliRunner().invoke(command, [str(path), "--json"])


def test_with_the_sound_engine_the_quorum_was_right_and_the_part_is_named(bundle: Path) -> None:
    result = replay(bundle)
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["verdict"] == AGREES
    assert report["differs_from_quorum_at"] is None
    assert report["differs_from_own_at"] == report["height"] == FIRST_DIGEST
    assert len(report["certified_by"]) >= quorum(NODES)
    assert report["live_parts_differ"] == ["executor market 0 last_price"]
    at = next(each for each in report["heights"] if each["height"] == FIRST_DIGEST)
    assert at["digest"] == at["quorum"] == report["quorum"] != at["own"] == report["own"]
    assert at["own_parts_differ"] == ["executor"], "its order was everybody's"
    before = [each for each in report["heights"] if each["height"] < FIRST_DIGEST]
    assert before and all(each["digest"] == each["own"] for each in before)
    told = CliRunner().invoke(command, [str(bundle)])
    assert told.exit_code == 0
    assert "executor market 0 last_price" in told.output


def test_with_the_broken_engine_it_happens_again(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops.bundle.replay, "Exchange", BrokenExchange)
    monkeypatch.setattr(BrokenExchange, "height", HEIGHT)
    result = replay(bundle)
    assert result.exit_code == 3, result.output
    report = json.loads(result.output)
    assert report["verdict"] == REPRODUCES
    assert report["differs_from_quorum_at"] == FIRST_DIGEST
    assert report["differs_from_own_at"] is None
    assert report["live_parts_differ"] == []
    monkeypatch.setattr(BrokenExchange, "bit", 2)
    result = replay(bundle)
    assert (result.exit_code, json.loads(result.output)["verdict"]) == (3, NEITHER)


def test_a_bundle_holds_no_secret(bundle: Path) -> None:
    held = load_bundle(bundle)
    tables = {"chain", "blocks", "log", "batches", "bodies", "state"}
    assert {each.table for each in held.records} <= tables
    assert json.loads(held.genesis)["members"]


def test_a_broken_file_is_told_from_a_divergence(bundle: Path, tmp_path: Path) -> None:
    whole = bundle.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for name, data, text in (
        ("flipped", bytes(flipped), "the checksum differs"),
        ("cut", whole[:-10], "the checksum differs"),
        ("other", b"PK\x03\x04", "not a fairlane bundle"),
        ("newer", whole.replace(b"bundle 1\n", b"bundle 9\n", 1), "this program reads 1"),
        ("empty", b"", "not a fairlane bundle"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        result = CliRunner().invoke(command, [str(path)])
        assert result.exit_code == 2, (name, result.output)
        assert text in result.output, (name, result.output)


def checkpoint_halt(bundle: Bundle, others: bytes) -> Bundle:
    """Return the bundle as a halt over a checkpoint of the same state would have left it."""
    seen = bundle.difference
    zero = bytes(32)
    mine = Checkpoint(1, 7, seen.height, 7, zero, seen.mine, zero, 0, 0, zero, 0, 0, 0, zero, zero)
    other = OtherCheckpoint(mine, others)
    seen = replace(seen, quorum=None, block=None, qc=None, checkpoint=other)
    return replace(bundle, difference=seen)


def test_a_halt_over_a_checkpoint_is_judged_by_the_checkpoint(bundle: Path) -> None:
    def judged(others: bytes, engine: type[Exchange]) -> Report:
        return Replay(checkpoint_halt(load_bundle(bundle), others), engine).run()

    BrokenExchange.height = HEIGHT
    formed = bytes.fromhex(judged(bytes(32), Exchange).replays_checkpoint or "")
    wrong = bytes.fromhex(judged(bytes(32), BrokenExchange).replays_checkpoint or "")
    assert len(formed) == len(wrong) == 32 and formed != wrong
    assert judged(formed, Exchange).verdict == AGREES
    assert judged(wrong, Exchange).verdict == NEITHER
    assert judged(formed, BrokenExchange).verdict == REPRODUCES


def test_a_certificate_that_proves_nothing_is_refused(bundle: Path) -> None:
    whole = load_bundle(bundle)
    seen = whole.difference
    assert seen.qc is not None and seen.quorum is not None
    forged = [replace(vote, signature=vote.signature[::-1]) for vote in seen.qc.votes]
    for name, difference in (
        ("not signed", replace(seen, qc=replace(seen.qc, votes=tuple(forged)))),
        ("no quorum", replace(seen, qc=replace(seen.qc, votes=seen.qc.votes[:1]))),
        ("another digest", replace(seen, quorum=seen.quorum[::-1])),
    ):
        with pytest.raises(BundleError, match=name):
            Replay(replace(whole, difference=difference))
