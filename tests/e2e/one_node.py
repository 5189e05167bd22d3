"""A network of one real node in this process: its home, its door, its prices and deposits.

No chain is behind it: the endpoint is a port where nobody listens, so whatever works here works
while Ethereum is away. Deposits enter where the watcher would bring them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import trio

from consensus.effects import L1Observed, PricesObserved
from consensus.messages import Observation
from matcher.genesis import devnet_genesis
from matcher.inbox import INBOX_START, chain, deposit_message
from ops.admission import SigningDomain, signing_domain
from ops.client_keys import SignedCommand, TraderKey
from ops.devnet.plan import Plan, make_genesis, make_plan, write_homes
from ops.node import Node, open_node
from settlement.deploy import Deployed
from settlement.ethereum import Addresses
from tests.ops.door_cases import JSON, Door, single

CHAIN_ID = 31_337
DEAD_URL = "http://127.0.0.1:9"
ADDRESSES = Addresses(
    token=b"\x01" * 20, vault=b"\x02" * 20, inbox=b"\x03" * 20, checkpoints=b"\x04" * 20
)
BTC = 50_000_000_000
"""The index price: 5,000,000 ticks of a cent."""
PRICES_S = 0.2
PATIENCE_S = 10.0
POLL_S = 0.02


class Home(NamedTuple):
    """The files of a network, whose nodes may run or not."""

    plan: Plan
    domain: SigningDomain

    @property
    def first(self) -> Path:
        """The home of replica 0."""
        return self.plan.nodes[0].home

    @property
    def url(self) -> str:
        """The door of replica 0."""
        return self.plan.nodes[0].url


def make_home(home: Path, nodes: int = 1, rpc_url: str = DEAD_URL) -> Home:
    """Write the homes of a network of one node, or of more."""
    plan = make_plan(home, nodes)
    genesis = make_genesis(plan, CHAIN_ID, Deployed(ADDRESSES, 0), devnet_genesis())
    write_homes(plan, genesis, rpc_url, "error")
    return Home(plan, signing_domain(genesis.network_id(), CHAIN_ID, ADDRESSES.vault))


class OneNode:
    """A running node and a client of its door."""

    def __init__(self, node: Node, http: httpx.AsyncClient, home: Home, shutdown: trio.Event):
        self.node = node
        self.http = http
        self.shutdown = shutdown
        self.domain = home.domain

    @property
    def now_ms(self) -> int:
        """The node's clock."""
        return self.node.view.now_ms()

    def door(self, wallet: TraderKey, session: TraderKey) -> Door:
        """Return the door as the cases want it."""
        return Door(str(self.http.base_url), self.domain, self.now_ms, wallet, session, 0)

    def sign(self, key: TraderKey, action: Any, ahead_ms: int = 30_000) -> SignedCommand:
        """Return a signed command."""
        return key.sign(self.domain, action, self.now_ms + ahead_ms)

    def deposit(self, *messages: bytes) -> None:
        """Let the inbox hold these messages, from its first one on."""
        hash_ = INBOX_START
        for message in messages:
            hash_ = chain(hash_, message)
        assert self.node.driver.offer(L1Observed(0, messages, hash_))

    async def post(self, body: bytes) -> httpx.Response:
        """Submit one command."""
        return await self.http.post("/v1/commands", content=single(body), headers=JSON)

    async def get(self, path: str) -> Any:
        """Return the JSON of what must be there."""
        response = await self.http.get(path)
        assert response.status_code == 200, (path, response.text)
        return response.json()

    async def account(self, wallet: bytes) -> dict[str, Any]:
        """Return an account as it stands, whatever the height."""
        answer: dict[str, Any] = await self.get(f"/v1/account?wallet=0x{wallet.hex()}")
        del answer["height"]
        return answer

    async def outcome(self, command: SignedCommand) -> dict[str, Any]:
        """Submit a command and return what the engine did with it."""
        response = await self.post(command.body)
        assert response.status_code == 200, response.text
        return await self.executed(command)

    async def executed(self, command: SignedCommand) -> dict[str, Any]:
        """Wait for a command's outcome."""
        path = f"/v1/receipts/0x{command.id.hex()}"
        receipt = await self.until(lambda: self.get(path), lambda r: "executed" in r)
        executed: dict[str, Any] = receipt["executed"]
        return executed

    async def until(self, ask: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
        """Ask until the answer holds, and return it."""
        with trio.fail_after(PATIENCE_S):
            while True:
                answer = await ask()
                if holds(answer):
                    return answer
                await trio.sleep(POLL_S)

    async def ready(self) -> None:
        """Wait until the node takes commands and has a fresh index."""
        await self.until(lambda: self.http.get("/readyz"), lambda r: r.status_code == 200)
        await self.until(
            lambda: self.get("/v1/instruments"),
            lambda answer: answer["instruments"][0]["mark_price"] != "0",
        )

    async def feed_prices(self) -> None:
        """Observe the same price for ever, as a price source would."""
        while True:
            seen = Observation(0, BTC, self.now_ms)
            self.node.driver.offer(PricesObserved((seen,)))
            await trio.sleep(PRICES_S)


@asynccontextmanager
async def running(home: Home) -> AsyncIterator[OneNode]:
    """Run the node of `home` for as long as the context lasts, and stop it as SIGTERM does."""
    node = await trio.to_thread.run_sync(open_node, home.first)
    shutdown = trio.Event()
    async with trio.open_nursery() as nursery:
        opened = trio.Event()
        nursery.start_soon(node.run, shutdown, lambda _: opened.set())
        await opened.wait()
        async with httpx.AsyncClient(base_url=home.url, trust_env=False) as http:
            one = OneNode(node, http, home, shutdown)
            async with trio.open_nursery() as feed:
                feed.start_soon(one.feed_prices)
                await one.ready()
                yield one
                feed.cancel_scope.cancel()
        shutdown.set()


def deposits(*parts: tuple[TraderKey, int]) -> list[bytes]:
    """Return the inbox messages of deposits. Units: micro-USDC."""
    return [deposit_message(bytes(key.address), 0, amount) for key, amount in parts]
