"""The trader's client against real doors: nothing is lost, nobody's single word is believed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

import ops.client as client_module
from consensus.command import CommandId
from matcher.genesis import devnet_genesis
from ops.admission import SigningDomain
from ops.client import Client, Config, GatewayError, Journal, JournalFull, Result, open_client
from ops.client_keys import SignedCommand, TraderKey
from ops.gateway.app import serve
from ops.gateway.limits import Limits
from ops.gateway.port import Outcome
from ops.metrics import Metrics
from tests.ops.door_cases import Door
from tests.ops.tiny_node import NETWORK, VAULT, TinyLedger, TinyNode

NOW_MS = 1_700_000_000_000
DOMAIN = SigningDomain(NETWORK, b"\x5a" * 32)
DOOR = Door("", DOMAIN, NOW_MS, TraderKey(b"\x01" * 32), TraderKey(b"\x02" * 32), 0)


class Network:
    """Doors of small nodes that agree on one ledger; each can be closed and opened again."""

    def __init__(self, nodes: Sequence[TinyNode], ledger: TinyLedger) -> None:
        self.ledger = ledger
        self.nodes = list(nodes)
        self.ports = [0] * len(nodes)
        self._scopes: list[trio.CancelScope | None] = [None] * len(nodes)

    async def open(self, nursery: trio.Nursery, index: int) -> None:
        self.ports[index] = await nursery.start(partial(self._serve, index))

    async def _serve(self, index: int, task_status: Any) -> None:
        metrics = Metrics(replica=index, replicas=5, version="test", process=False)
        with trio.CancelScope() as scope:
            self._scopes[index] = scope
            await serve(
                self.nodes[index],
                DOMAIN,
                devnet_genesis(),
                "127.0.0.1",
                self.ports[index],
                trio.Event(),
                metrics=metrics.gateway,
                limits=Limits(),
                task_status=task_status,
            )

    def kill(self, index: int) -> None:
        scope = self._scopes[index]
        assert scope is not None
        scope.cancel()

    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def holders(self, id_: CommandId) -> int:
        return sum(id_ in node.log for node in self.nodes)


@asynccontextmanager
async def network(count: int, make: Callable[..., TinyNode] = TinyNode) -> AsyncIterator[Network]:
    ledger = TinyLedger(NOW_MS)
    nodes = [make(ledger, replica=index, auto=False) for index in range(count)]
    at = Network(nodes, ledger)
    async with trio.open_nursery() as nursery:
        for index in range(count):
            await at.open(nursery, index)
        yield at
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client_of(
    at: Network, journal: Journal | None = None, faults: int = 1
) -> AsyncIterator[Client]:
    config = Config(
        gateways=at.urls(),
        domain=DOMAIN,
        faults=faults,
        poll_wait_ms=300,
        request_seconds=2,
    )
    async with open_client(config, journal, lambda: at.ledger.block_time_ms) as client:
        yield client


async def execute_forever(at: Network) -> None:
    """Make a block every 20 ms of everything that any node has logged."""
    while True:
        await trio.sleep(0.02)
        for node in at.nodes:
            node.execute()


async def test_a_command_reaches_f_plus_one_logs_and_comes_back_executed() -> None:
    with trio.fail_after(10):
        async with network(4) as at, client_of(at) as client:
            command = DOOR.order(1)
            pending = await client.submit(command)
            await pending.seen()
            assert at.holders(command.id) == 2
            for node in at.nodes:
                node.execute()
            assert await pending.done() == Result(
                kind="executed", status="accepted", sequence=1, details={"qty": 5}
            )
            assert not client.pending()


async def test_an_engines_reject_is_an_outcome() -> None:
    with trio.fail_after(10):
        async with network(4) as at, client_of(at) as client, trio.open_nursery() as nursery:
            nursery.start_soon(execute_forever, at)
            pending = await client.submit(DOOR.order(1, qty=13))
            result = await pending.done()
            assert (result.kind, result.status, result.reason) == (
                "executed",
                "rejected",
                "unlucky",
            )
            nursery.cancel_scope.cancel()


async def test_nothing_is_lost_or_doubled_while_gateways_come_and_go() -> None:
    """300 commands over 5 gateways, of which each in turn is killed and opened again; seed 3."""
    random = Random(3)
    with trio.fail_after(40):
        async with network(5) as at, client_of(at) as client, trio.open_nursery() as nursery:
            nursery.start_soon(execute_forever, at)

            async def trouble() -> None:
                while True:
                    index = random.randrange(5)
                    at.kill(index)
                    await trio.sleep(0.1)
                    await at.open(nursery, index)

            nursery.start_soon(trouble)
            waiting = []
            for i in range(300):
                waiting.append(await client.submit(DOOR.order(i)))
                await trio.sleep(0.005)
            results = [await pending.done() for pending in waiting]
            assert {result.kind for result in results} == {"executed"}
            assert sorted(result.sequence for result in results) == list(range(1, 301))
            assert len(at.ledger.outcomes) == 300
            nursery.cancel_scope.cancel()


async def test_a_full_log_is_waited_for() -> None:
    with trio.fail_after(10):
        async with network(2) as at, client_of(at) as client, trio.open_nursery() as nursery:
            for node in at.nodes:
                node.room = 0
            pending = await client.submit(DOOR.order(1))
            await trio.sleep(0.2)
            assert at.holders(pending.command.id) == 0
            assert pending.result is None
            for node in at.nodes:
                node.room = 10
            nursery.start_soon(execute_forever, at)
            assert (await pending.done()).kind == "executed"
            nursery.cancel_scope.cancel()


class Liar(TinyNode):
    """Says that it has logged what it drops, and that all was executed and refused."""

    def _take(self, command: Any) -> Any:
        result = super()._take(command)
        self.log.pop(command.id, None)
        self.heard = [*getattr(self, "heard", []), command.id]
        return result

    def outcomes(self, after: int, limit: int) -> Sequence[Outcome]:
        return [
            Outcome(
                sequence=after + 1 + i,
                id=id_,
                status="rejected",
                reason="a lie",
                height=1,
                executed_at_ms=NOW_MS,
                details={},
            )
            for i, id_ in enumerate(getattr(self, "heard", []))
        ]


def one_liar(ledger: TinyLedger, *, replica: int, auto: bool) -> TinyNode:
    return (Liar if replica == 0 else TinyNode)(ledger, replica=replica, auto=auto)


async def test_one_lying_gateway_neither_swallows_nor_misreports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "SWEEP_AFTER_SECONDS", 0.5)
    with trio.fail_after(20):
        async with (
            network(5, one_liar) as at,
            client_of(at) as client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(execute_forever, at)
            waiting = await client.submit_many([DOOR.order(i) for i in range(20)])
            results = [await pending.done() for pending in waiting]
            assert {(r.kind, r.status) for r in results} == {("executed", "accepted")}
            nursery.cancel_scope.cancel()


async def test_a_client_of_too_few_gateways_would_believe_the_lie() -> None:
    """The test above can fail: told that no gateway lies, the client believes the one that does."""
    with trio.fail_after(20):
        async with network(5, one_liar) as at, client_of(at, faults=0) as client:
            waiting = await client.submit_many([DOOR.order(i) for i in range(5)])
            result = await waiting[-1].done()
            assert result.reason == "a lie"


async def test_a_refusal_needs_more_than_one_gateway() -> None:
    """One gateway's clock is a minute off: its refusal of a good command decides nothing."""
    with trio.fail_after(10):
        async with network(3) as at, client_of(at) as client, trio.open_nursery() as nursery:
            at.nodes[1].clock_ms = NOW_MS - 100_000
            nursery.start_soon(execute_forever, at)
            waiting = await client.submit_many([DOOR.order(i) for i in range(6)])
            assert {(await pending.done()).kind for pending in waiting} == {"executed"}
            bad = await client.submit(_by_a_stranger(DOOR.order(99)))
            assert await bad.done() == Result(kind="refused", reason="bad_signature")
            assert not client.pending()
            nursery.cancel_scope.cancel()


async def test_a_refusal_by_the_clock_is_not_the_last_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gateway may log what it claims to refuse: the client must not call that undone."""
    monkeypatch.setattr(client_module, "SWEEP_AFTER_SECONDS", 0.3)
    with trio.fail_after(10):
        async with network(3) as at, client_of(at) as client:
            for node in at.nodes:
                node.clock_ms = NOW_MS - 100_000
            command = DOOR.order(1)
            pending = await client.submit(command)
            await trio.sleep(0.3)
            assert set(pending.refusals.values()) == {"expires_too_late"}
            assert len(pending.refusals) >= 2 and pending.result is None
            at.nodes[0].log[command.id] = command.body
            at.nodes[0].execute()
            assert (await pending.done()).kind == "executed"


def _by_a_stranger(command: SignedCommand) -> SignedCommand:
    body = bytearray(command.body)
    body[-64] ^= 1
    return command._replace(body=bytes(body))


@pytest.mark.parametrize("tells_void", [True, False])
async def test_a_command_that_nobody_ordered_in_time_is_void(
    monkeypatch: pytest.MonkeyPatch, tells_void: bool
) -> None:
    """A node may say void, or only that block time has passed the expiry."""
    monkeypatch.setattr(client_module, "SWEEP_AFTER_SECONDS", 0.2)
    with trio.fail_after(10):
        async with network(3) as at, client_of(at) as client:
            pending = await client.submit(DOOR.order(1, ahead_ms=1_000))
            await pending.seen()
            at.ledger.block_time_ms += 3_000
            for node in at.nodes:
                node.tells_void = tells_void
                node.execute()
            assert await pending.done() == Result(kind="void")
            assert not at.ledger.outcomes


async def test_a_killed_client_finds_its_commands_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Sent before the kill and executed, sent and not yet, never sent, expired: each is told."""
    monkeypatch.setattr(client_module, "SWEEP_AFTER_SECONDS", 0.2)
    path = tmp_path / "journal"
    executed, logged, unsent = (DOOR.order(i) for i in range(3))
    expired = DOOR.order(4, ahead_ms=500)
    with trio.fail_after(20):
        async with network(3) as at:
            async with client_of(at, Journal(path)) as client:
                first = await client.submit_many([executed, expired])
                for pending in first:
                    await pending.seen()
            at.ledger.block_time_ms += 600
            for node in at.nodes:
                node.execute()
            at.nodes[0].log[logged.id] = logged.body
            left = Journal(path)
            assert {c.id for c in left.entries()} == {executed.id, expired.id}
            left.add([logged, unsent])
            left.close()
            with path.open("a") as file:
                file.write("+ 00ff")  # The line that a kill cut short.
            async with client_of(at, Journal(path)) as client, trio.open_nursery() as nursery:
                nursery.start_soon(execute_forever, at)
                waiting = client.pending()
                assert [p.command.id for p in waiting] == [
                    c.id for c in (executed, expired, logged, unsent)
                ]
                results = [(await pending.done()).kind for pending in waiting]
                assert results == ["executed", "void", "executed", "executed"]
                nursery.cancel_scope.cancel()
            assert len(at.ledger.outcomes) == 3
    assert len(Journal(path)) == 0


async def test_a_journal_is_bounded_and_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, entries_max=10)
    commands = [DOOR.order(i) for i in range(200)]
    for command in commands:
        journal.add([command])
        journal.remove(command.id)
    assert len(path.read_text().splitlines()) <= 4 * 10 + 1
    journal.add(commands[:9])
    with pytest.raises(JournalFull):
        journal.add(commands[8:11])
    assert len(journal) == 9, "all or none"
    assert path.stat().st_mode & 0o077 == 0
    journal.close()
    assert [c.id for c in Journal(path, 10).entries()] == [c.id for c in commands[:9]]


async def test_reading_asks_another_gateway_when_one_is_down() -> None:
    with trio.fail_after(20):
        async with network(3) as at, client_of(at) as client:
            at.kill(0)
            at.kill(1)
            for _ in range(3):
                assert (await client.status()).replicas == 5
            assert (await client.account(VAULT)).cash == 10**18 + 1
            assert (await client.book(0, 3)).bids[0].price == 100
            assert (await client.instruments()).instruments[1].symbol == "ETH-PERP"
            assert (await client.withdrawal_proof(0)).amount == 10**17
            with pytest.raises(GatewayError, match="unknown_account"):
                await client.account(b"\x01" * 20)
            with pytest.raises(GatewayError, match="unknown_id"):
                await client.receipt(DOOR.order(1).id)
