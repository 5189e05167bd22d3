"""One node: keys, disk, core, transport, chain and door, put together and run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path

import msgspec
import trio

from consensus.admission import Admission
from consensus.batches import log_start
from consensus.blocktree import genesis_block
from consensus.committee import Member
from consensus.crypto import Ed25519Signer
from consensus.digest import domain_separator
from consensus.effects import L1Observed, Write
from matcher.genesis import MarketGenesis
from ops.admission import SigningDomain, signing_domain, verify_body
from ops.clock import Clock
from ops.config import Genesis, NodeConfig, load_config, load_genesis, parse_endpoint
from ops.driver import Driver
from ops.gateway.app import serve
from ops.journal import Journal
from ops.keys import KeyLock, NodeKeys, read_keys, read_passphrase
from ops.metrics import Metrics
from ops.nodeport import NodeView
from ops.observe import observe_executed
from ops.prices import poll_prices
from ops.replica import ExchangeReplica, Executed, ReplicaConfig
from ops.store import Store
from p2p.transport import Transport
from settlement.checkpoint import Accepted
from settlement.ethereum import Addresses, open_client
from settlement.shares import BlsGroup, BlsShareSigner
from settlement.submitter import Submitter
from settlement.watcher import ChainEvent, CheckpointAccepted, InboxAdvance, Watcher

log = logging.getLogger("fairlane.node")

OFFER_AGAIN_S = 0.1
METRICS_INTERVAL_S = 1.0


class NodeError(Exception):
    """The node cannot start as it is configured; the text says what to do."""


class Node:
    """Everything of one replica in one process."""

    def __init__(self, config: NodeConfig, genesis: Genesis, keys: NodeKeys) -> None:
        """Errors: NodeError, StoreError, CorruptState, KeyFileError."""
        network = genesis.network_id()
        member = _own_member(config, genesis, keys)
        self._lock = KeyLock(member.consensus_key)
        self._config, self._genesis, self._keys = config, genesis, keys
        self._clock = Clock()
        self._market = msgspec.convert(genesis.market, MarketGenesis)
        self._domain = signing_domain(network, genesis.chain_id, genesis.contracts.vault)
        self._store = Store.open(Path(config.data_dir), network)
        replica = self._replica(network, keys)
        self._journal = Journal(self._store, config.index)
        self.metrics = Metrics(
            replica=config.index,
            replicas=genesis.n,
            version=version("fairlane"),
            core=lambda: replica.consensus.ctx.counters,
            transport=lambda: self.transport.stats(),
        )
        self.driver = Driver(
            replica,
            _admission(genesis, self._domain),
            self._store,
            self._clock,
            self.metrics,
            on_executed=self._on_executed,
            on_reply=lambda reply: self.view.on_reply(reply),
            on_submit=lambda effect: self._submitter.offer(effect),
        )
        peers = [(m.network_key, *parse_endpoint(m.endpoint)) for m in genesis.members]
        self.transport = Transport(
            keys.network_seed,
            config.index,
            peers,
            parse_endpoint(config.p2p_listen),
            on_frame=self.driver.on_frame,
            on_up=self.driver.on_up,
            on_malformed=lambda peer, why: self.metrics.peers.blamed(peer, why.split(":", 1)[0]),
        )
        self.driver.attach(self.transport)
        self.view = NodeView(
            version("fairlane"),
            genesis,
            network,
            self.driver,
            self._journal,
            self._clock,
            self.metrics,
            self.transport,
        )
        self._submitter: Submitter

    def _replica(self, network: bytes, keys: NodeKeys) -> ExchangeReplica:
        genesis = self._genesis
        separator = domain_separator(
            "Fairlane", "1", genesis.chain_id, genesis.contracts.checkpoints
        )
        committee = genesis.committee()
        if keys.share_secret is None:
            raise NodeError("the key file has no share of the group key: run the key ceremony")
        return ExchangeReplica(
            ReplicaConfig(
                committee=committee,
                parameters=genesis.parameters,
                market=self._market,
                genesis_time_ms=genesis.time_ms,
                checkpoint_interval_ms=genesis.checkpoint_interval_ms,
                checkpoints_separator=separator,
                me=self._config.index,
            ),
            Ed25519Signer(network, keys.consensus_seed),
            BlsShareSigner(separator, keys.share_secret, keys.operator_secret),
            BlsGroup(
                separator,
                genesis.group_key,
                [m.share_key for m in genesis.members],
                [m.operator for m in genesis.members],
                committee.quorum,
            ),
            self._store,
        )

    def _on_executed(self, executed: Executed, writes: list[Write]) -> None:
        now_ms = self._clock.now_ms()
        self._journal.on_executed(executed, now_ms, writes)
        if not executed.replayed:
            observe_executed(self.metrics, executed, now_ms)

    async def run(self, shutdown: trio.Event, started: Callable[[int], None]) -> None:
        """Run until `shutdown`; `started` is told the door's port.

        Errors: Halted, HostError, OSError for a taken port, StoreError, WrongChain.
        """
        host, port = parse_endpoint(self._config.gateway_listen)
        try:
            async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
                client = await stack.enter_async_context(
                    open_client(
                        self._config.rpc_url,
                        self._genesis.chain_id,
                        _addresses(self._genesis),
                        self._keys.operator_secret,
                    )
                )
                self._submitter = Submitter(client)
                watcher = Watcher(client, self._config.finality)
                await nursery.start(self.transport.run)
                nursery.start_soon(self.driver.run)
                nursery.start_soon(self._submitter.run)
                nursery.start_soon(watcher.run, self._on_chain)
                if self._config.price_url:
                    nursery.start_soon(poll_prices, self._config.price_url, self.driver.offer)
                nursery.start_soon(self._measure)
                bound = await nursery.start(
                    partial(
                        serve,
                        self.view,
                        self._domain,
                        self._market,
                        host,
                        port,
                        shutdown,
                        metrics=self.metrics.gateway,
                    )
                )
                started(bound)
                await shutdown.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._store.close()
            self._lock.release()

    async def _on_chain(self, event: ChainEvent) -> None:
        """Give what became final on chain to the core, and wait until it has taken it."""
        match event:
            case InboxAdvance(since, messages, hash_):
                keeper = self.driver.replica.consensus.keeper
                while keeper.next_inbox() < since + len(messages):
                    self.driver.offer(L1Observed(since, messages, hash_))
                    await trio.sleep(OFFER_AGAIN_S)
            case CheckpointAccepted(number, digest):
                self.driver.insist(Accepted(number, digest))
                formed = self.driver.replica.formed.get(number)
                if formed is not None and formed.digest == digest:
                    self._journal.on_accepted(formed)
                self.metrics.checkpoints.accepted(number, None)

    async def _measure(self) -> None:
        """Refresh the gauges that nobody pushes."""
        while True:
            self.driver.measure()
            await trio.sleep(METRICS_INTERVAL_S)


def _own_member(config: NodeConfig, genesis: Genesis, keys: NodeKeys) -> Member:
    """Return our place in the genesis. Errors: NodeError when the keys are another's."""
    if config.index >= genesis.n:
        raise NodeError(f"index {config.index}: the genesis has {genesis.n} replicas")
    member, public = genesis.members[config.index], keys.public()
    ours = (public.network, public.consensus, public.share, public.operator)
    theirs = (member.network_key, member.consensus_key, member.share_key, member.operator)
    for name, mine, named in zip(
        ("network", "consensus", "share", "operator"), ours, theirs, strict=True
    ):
        if mine != named:
            raise NodeError(f"the {name} key is not replica {config.index}'s in the genesis")
    return member


def open_node(home: Path) -> Node:
    """Return the node whose files are in `home`.

    Errors: ConfigError, KeyFileError, NodeError, StoreError, CorruptState.
    """
    config = load_config(home)
    genesis = load_genesis(Path(config.genesis_file))
    configured = Path(config.passphrase_file) if config.passphrase_file else None
    keys = read_keys(Path(config.keys_file), read_passphrase(configured, os.environ))
    return Node(config, genesis, keys)


def _addresses(genesis: Genesis) -> Addresses:
    contracts = genesis.contracts
    return Addresses(
        token=contracts.token,
        vault=contracts.vault,
        inbox=contracts.inbox,
        checkpoints=contracts.checkpoints,
    )


def _admission(genesis: Genesis, domain: SigningDomain) -> Admission:
    committee = genesis.committee()
    starts = tuple(log_start(committee.network, committee.epoch, i) for i in range(committee.n))
    _, digest = genesis_block(committee.network, committee.epoch, starts)
    return Admission(committee, genesis.parameters, digest, lambda body: verify_body(body, domain))
