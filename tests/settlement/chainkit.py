"""A whole embedded chain inside one test: served over HTTP, mined fast, contracts deployed.

Time is the chain's own: each block is a second later, whatever the test's clock says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass

import trio
from coincurve import PrivateKey

from consensus.committee import quorum
from consensus.crypto import address_of
from consensus.digest import domain_separator, keccak
from ops.chain.embedded import EmbeddedChain
from ops.chain.server import serve
from settlement.checkpoint import EMPTY_DATA_HASH, Checkpoint, checkpoint_digest
from settlement.dealer import Dealing, deal
from settlement.deploy import Deployed, Terms, deploy, mint, send_ether
from settlement.ethereum import Pace, SettlementClient
from settlement.rpc import open_rpc
from settlement.shares import BlsGroup, BlsShareSigner
from settlement.transactions import Transactor

CHAIN_ID = 31_337
ETHER = 10**18
BLOCK_TIME_S = 0.02
INTERVAL_MS = 2_000
START_S = 1_700_000_000
PACE = Pace(poll_s=0.02, stuck_s=2.0, timeout_s=20.0)
N = 5


def key(name: str) -> tuple[bytes, bytes]:
    """Return a secret and its address."""
    secret = keccak(name.encode())
    return secret, address_of(PrivateKey(secret).public_key)


DEPLOYER = key("deployer")


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait for what real sockets and threads bring about, on their time."""
    with trio.fail_after(timeout_s):
        while not condition():  # noqa: ASYNC110  nobody could set an event
            await trio.sleep(BLOCK_TIME_S / 4)


class ChainProcess:
    """The chain's server as something that can be switched off and on at one port."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._scope: trio.CancelScope | None = None
        self.port = 0
        self.block_time_s = BLOCK_TIME_S
        self.chain = EmbeddedChain(CHAIN_ID, {DEPLOYER[1]: 10**6 * ETHER}, START_S)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def up(self) -> None:
        scope, started = trio.CancelScope(), trio.Event()

        async def run() -> None:
            with scope:
                async with trio.open_nursery() as inner:
                    args = (self.chain, "127.0.0.1", self.port, self.block_time_s, lambda: 0.0)
                    self.port = await inner.start(serve, *args)
                    started.set()

        self._scope = scope
        self._nursery.start_soon(run)
        await started.wait()

    def down(self) -> None:
        assert self._scope is not None
        self._scope.cancel()

    async def restart(self, block_time_s: float) -> None:
        """Serve on with another pace; the first block comes at once."""
        self.down()
        self.block_time_s = block_time_s
        await self.up()
        await trio.sleep(0.05)

    async def mine(self, blocks: int = 1) -> None:
        """Wait until the chain is that many blocks further."""
        goal = self.chain.number + blocks
        await until(lambda: self.chain.number >= goal)


@dataclass
class Kit:
    """A served chain with the contracts of a dealt committee of five."""

    process: ChainProcess
    deployed: Deployed
    dealing: Dealing
    separator: bytes
    clients: dict[str, SettlementClient]

    @property
    def chain(self) -> EmbeddedChain:
        return self.process.chain

    def signers(self) -> list[BlsShareSigner]:
        return [
            BlsShareSigner(self.separator, secret, key(f"operator {i}")[0])
            for i, secret in enumerate(self.dealing.secrets)
        ]

    def group(self) -> BlsGroup:
        operators = [key(f"operator {i}")[1] for i in range(N)]
        dealing = self.dealing
        return BlsGroup(self.separator, dealing.group_key, dealing.share_keys, operators, quorum(N))

    def signature(self, checkpoint: Checkpoint, voters: tuple[int, ...] = (0, 2, 3, 4)) -> bytes:
        digest = checkpoint_digest(self.separator, checkpoint)
        signers = self.signers()
        shares = [(i, signers[i].sign(1, checkpoint.number, digest)[0]) for i in voters]
        signature = self.group().combine(shares)
        assert signature is not None
        return signature

    def checkpoint(
        self,
        number: int,
        inbox_count: int,
        inbox_hash: bytes,
        deposited: int,
        withdrawn: int = 0,
        withdrawals_root: bytes = b"\x07" * 32,
    ) -> Checkpoint:
        """Return what the network would commit to after the given deposits; `number` from 0 on."""
        first = START_S * 1_000 // INTERVAL_MS
        return Checkpoint(
            epoch=1,
            number=first + number,
            height=number + 1,
            block_time_ms=(first + number) * INTERVAL_MS,
            state_root=b"\x05" * 32,
            snapshot_root=b"\x06" * 32,
            withdrawals_root=withdrawals_root,
            withdrawn_total=withdrawn,
            inbox_count=inbox_count,
            inbox_hash=inbox_hash,
            net_total=deposited - withdrawn,
            positive_total=deposited - withdrawn,
            data_since=0,
            data_hash=EMPTY_DATA_HASH,
            next_epoch_hash=bytes(32),
        )


NAMES = ("alice", "bob", "operator 0")
DEALING = deal(b"tests only".ljust(32, b"."), N, quorum(N))
_MADE: list[tuple[EmbeddedChain, Deployed]] = []


async def _deploy(process: ChainProcess) -> Deployed:
    """Deploy the contracts and fund everybody."""
    async with open_rpc(process.url) as rpc:
        sender = Transactor(rpc, CHAIN_ID, DEPLOYER[0], PACE)
        terms = Terms(
            group_key=DEALING.group_key,
            interval_ms=INTERVAL_MS,
            inclusion_delay_s=86_400,
            dispute_delay_s=0,
            minimum_deposit=1_000_000,
        )
        deployed = await deploy(rpc, sender, terms)
        await send_ether(sender, [(key(name)[1], 10 * ETHER) for name in NAMES])
        token = deployed.addresses.token
        await mint(rpc, sender, token, [(key(name)[1], 10**12) for name in NAMES])
        return deployed


@asynccontextmanager
async def running() -> AsyncIterator[Kit]:
    """Serve a chain with the contracts, and "alice", "bob" and "operator 0" funded."""
    async with trio.open_nursery() as nursery:
        process = ChainProcess(nursery)
        if _MADE:  # A copy of the chain as it was when this was done for an earlier test.
            process.chain, deployed = deepcopy(_MADE[0])
            await process.up()
        else:
            await process.up()
            deployed = await _deploy(process)
            _MADE.append((deepcopy(process.chain), deployed))
        async with open_rpc(process.url) as rpc:
            clients = {
                name: SettlementClient(rpc, CHAIN_ID, deployed.addresses, key(name)[0], PACE)
                for name in NAMES
            }
            checkpoints = deployed.addresses.checkpoints
            separator = domain_separator("Fairlane", "1", CHAIN_ID, checkpoints)
            yield Kit(process, deployed, DEALING, separator, clients)
        nursery.cancel_scope.cancel()
