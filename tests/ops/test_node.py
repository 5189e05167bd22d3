"""`fairlane node` as an operator meets it: how it stops, and what it says when it cannot go on."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from click.testing import CliRunner

from matcher.actions import CancelAll
from ops.client_keys import SignedCommand, TraderKey
from ops.commands.node import command as node_command
from ops.devnet.plan import free_ports
from ops.driver import Halted
from tests.e2e.one_node import Home, make_home, running
from tests.ops.door_cases import JSON, many, single

pytestmark = pytest.mark.e2e

STOP_S = 8.0
READY_S = 60.0
KEY = TraderKey(b"\x05" * 32)


class Process:
    """One node process."""

    def __init__(self, home: Path, file_bytes_max: int | None, program: Sequence[str]) -> None:
        self.home = home
        self.errors = (home / "stderr").open("w+")
        limit = (resource.RLIMIT_FSIZE, (file_bytes_max or -1, file_bytes_max or -1))
        self.popen = subprocess.Popen(
            [sys.executable, *program, "--home", str(home)],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            preexec_fn=partial(resource.setrlimit, *limit) if file_bytes_max else None,
        )

    async def ready(self) -> str:
        """Wait for the door; return its address."""
        assert self.popen.stdout is not None
        with trio.fail_after(READY_S):
            line = await trio.to_thread.run_sync(self.popen.stdout.readline)
        assert line.startswith(b"ready "), self.said()
        return f"http://127.0.0.1:{int(line.split()[1])}"

    def said(self) -> str:
        """Return what it wrote to standard error."""
        self.errors.flush()
        return (self.home / "stderr").read_text()

    async def status(self) -> int:
        """Wait for its end; return the exit status."""
        with trio.fail_after(READY_S):
            return await trio.to_thread.run_sync(self.popen.wait)


@asynccontextmanager
async def started(
    home: Path,
    file_bytes_max: int | None = None,
    program: Sequence[str] = ("-m", "ops", "node"),
) -> AsyncIterator[Process]:
    process = Process(home, file_bytes_max, program)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.wait()
        process.errors.close()
        assert process.popen.stdout is not None
        process.popen.stdout.close()


async def stopped_in(process: Process, *signals: signal.Signals) -> tuple[int, float]:
    """Send signals a moment apart; return the exit status and how long it took."""
    began = time.monotonic()
    for each in signals:
        process.popen.send_signal(each)
        await trio.sleep(0.3)
    return await process.status(), time.monotonic() - began


async def silence(port: int, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    """Accept connections and never say a word."""

    async def hang(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    await trio.serve_tcp(hang, port, host="127.0.0.1", task_status=task_status)


def commands(home: Home, first: int, count: int) -> list[SignedCommand]:
    """Return commands that get an outcome without any account: a rejection."""
    expires_ms = time.time_ns() // 1_000_000 + 60_000
    return [
        KEY.sign(home.domain, CancelAll(KEY.address, n % 32), expires_ms + n)
        for n in range(first, first + count)
    ]


async def test_a_stop_ends_well_beside_a_chain_and_peers_that_hang(tmp_path: Path) -> None:
    """SIGTERM to one of four whose peers, chain and price source accept and never answer."""
    (dead,) = free_ports(1)
    home = make_home(tmp_path, nodes=4, rpc_url=f"http://127.0.0.1:{dead}")
    plan = home.plan
    async with trio.open_nursery() as nursery:
        for port in (dead, plan.price_port, *(node.p2p_port for node in plan.nodes[1:])):
            await nursery.start(silence, port)
        async with started(home.first) as process:
            url = await process.ready()
            await trio.sleep(1.0)
            async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
                assert (await http.get("/readyz")).status_code == 503, "it has no quorum"
            status, seconds = await stopped_in(process, signal.SIGTERM)
            assert (status, process.said()) == (0, "")
            assert seconds < STOP_S
        nursery.cancel_scope.cancel()


async def test_a_stop_waits_for_clients_a_while_and_a_second_signal_for_nobody(
    tmp_path: Path,
) -> None:
    """A client that never finishes its request holds a stop up, within bounds."""
    home = make_home(tmp_path)
    for signals, expected, least_s, most_s in (
        ((signal.SIGTERM, signal.SIGTERM), -signal.SIGTERM, 0.0, 2.0),
        ((signal.SIGINT,), 0, 2.0, STOP_S),
    ):
        async with started(home.first) as process:
            await process.ready()
            slow = socket.create_connection(("127.0.0.1", home.plan.nodes[0].gateway_port))
            slow.send(b"POST /v1/commands HTTP/1.1\r\nhost: x\r\n")
            slow.send(b"content-type: application/json\r\ncontent-length: 500\r\n\r\n{")
            await trio.sleep(0.3)
            status, seconds = await stopped_in(process, *signals)
            slow.close()
            assert (status, process.said()) == (expected, "")
            assert least_s < seconds < most_s


async def test_what_a_stopping_door_has_promised_happens(tmp_path: Path) -> None:
    """Commands come in while the node stops: those answered "seen" have an outcome later."""
    home = make_home(tmp_path)
    wishes = commands(home, 0, 200)
    seen: list[SignedCommand] = []

    async def submit(http: httpx.AsyncClient, wish: SignedCommand) -> None:
        try:
            response = await http.post("/v1/commands", content=single(wish.body), headers=JSON)
        except httpx.HTTPError:
            return
        if response.status_code == 200:
            assert response.json()["results"][0]["status"] == "seen"
            seen.append(wish)

    async with running(home) as one:
        receipts = one.http.get("/v1/outcomes?after=100000&wait_ms=10000")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_is_answered, receipts)
            for place, wish in enumerate(wishes):
                nursery.start_soon(submit, one.http, wish)
                await trio.sleep(0.002)
                if place == 100:
                    one.shutdown.set()
    assert 0 < len(seen) < len(wishes), "the stop came in the middle"
    async with running(home) as one:
        for wish in seen:
            assert (await one.executed(wish))["reason"] == "unknown_account"


async def _is_answered(request: Awaitable[httpx.Response]) -> None:
    """Who waits for news at the door is sent home, not cut off."""
    with trio.fail_after(STOP_S):
        response = await request
    assert (response.status_code, response.json()["outcomes"]) == (200, [])


async def test_a_full_disk_ends_it_with_a_message(tmp_path: Path) -> None:
    """The kernel refuses to let files grow: exit 1, the reason in one line, no traceback."""
    home = make_home(tmp_path)
    async with started(home.first, file_bytes_max=400_000) as process:
        url = await process.ready()
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            with trio.move_on_after(30), contextlib.suppress(httpx.HTTPError):
                for first in range(0, 50_000, 50):
                    bodies = [wish.body for wish in commands(home, first, 50)]
                    await http.post("/v1/commands", content=many(bodies), headers=JSON)
        assert await process.status() == 1, process.said()
        said = process.said()
        assert said.startswith("fairlane node: ") and said.count("\n") == 1, said
        assert str(home.first / "data") in said


async def test_a_taken_port_is_said(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", home.plan.nodes[0].gateway_port))
        taken.listen()
        async with started(home.first) as process:
            assert await process.status() == 1
            said = process.said()
            assert said.startswith("fairlane node: ") and "in use" in said, said
            assert said.count("\n") == 1, said


async def test_a_key_in_use_is_said(tmp_path: Path) -> None:
    """Two processes with one key could sign two things: the second does not start."""
    home = make_home(tmp_path)
    async with started(home.first) as process:
        await process.ready()
        second = await trio.run_process(
            [sys.executable, "-m", "ops", "node", "--home", str(home.first)],
            capture_stderr=True,
            check=False,
        )
        assert second.returncode == 1
        assert second.stderr.startswith(b"fairlane node: another node on this machine runs")
        assert process.popen.poll() is None


HANGING = """
import time
import ops.commands.node as node
from ops.store import Store
node.STOP_MAX_S = 1.5
Store.sync = lambda store: time.sleep(60)
node.command()
"""


async def test_a_stop_that_cannot_be_cancelled_says_where_it_hangs(tmp_path: Path) -> None:
    """A disk that never answers holds a thread for ever; the process ends all the same."""
    home = make_home(tmp_path)
    async with started(home.first, program=["-c", HANGING]) as process:
        await process.ready()
        await trio.sleep(0.5)
        status, seconds = await stopped_in(process, signal.SIGTERM)
        assert status == 1
        assert seconds < STOP_S
        assert "Timeout" in process.said()


def test_a_halt_leaves_its_dump_and_its_own_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator must look: the status differs from what a restart could mend."""
    home = make_home(tmp_path)

    class Halting:
        async def run(self, *_: object) -> None:
            async with trio.open_nursery():
                raise Halted("two blocks of one height", b"evidence")

    monkeypatch.setattr("ops.commands.node.open_node", lambda home: Halting())
    result = CliRunner().invoke(node_command, ["--home", str(home.first)])
    assert result.exit_code == 3
    assert (home.first / "halted.dump").read_bytes() == b"evidence"
