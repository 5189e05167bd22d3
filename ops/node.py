"""One node: keys, disk, core, transport, chain and door, put together and run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path

import trio

from consensus.codec import CodecError
from consensus.committee import Member
from consensus.crypto import Ed25519Signer
from consensus.effects import Halt, L1Observed, Write
from consensus.messages import LogBatch
from consensus.recovery import CorruptState
from ops.admission import signing_domain
from ops.bundle.collect import KINDS, collect
from ops.bundle.file import BundleError, save_bundle
from ops.clock import Clock
from ops.config import (
    ConfigError,
    Genesis,
    NodeConfig,
    load_config,
    load_genesis,
    parse_endpoint,
)
from ops.driver import Driver
from ops.gateway.app import serve
from ops.gateway.limits import Limits
from ops.journal import Journal, pending_here
from ops.keys import KeyLock, NodeKeys, read_keys, read_passphrase
from ops.metric_sources import ChainCounts
from ops.metrics import Metrics
from ops.nodeport import NodeView
from ops.observe import Observer
from ops.prices import poll_prices
from ops.replica import AcceptedContent, ExchangeReplica, Executed
from ops.store import Store, StoreCorrupt, StoreError, begin_anew
from ops.wiring import admission, checkpoints_separator, replica_config
from p2p.transport import Transport
from settlement.checkpoint import Accepted, SubmitCheckpoint
from settlement.errors import ChainError
from settlement.ethereum import Addresses, SettlementClient, open_client
from settlement.shares import BlsGroup, BlsShareSigner
from settlement.submitter import Submitter
from settlement.watcher import (
    ORIGIN,
    ChainEvent,
    CheckpointAccepted,
    Cursor,
    InboxAdvance,
    Watcher,
)

log = logging.getLogger("fairlane.node")

OFFER_AGAIN_S = 0.1
LIMITS = Limits(graceful_seconds=3.0)
STOP_S = 5.0
"""After so long a stop waits for nobody; the door has given up on its clients before that."""


class NodeError(Exception):
    """The node cannot start as it is configured; the text says what to do."""


class Node:
    """Everything of one replica in one process."""

    driver_type = Driver

    def __init__(
        self, config: NodeConfig, genesis: Genesis, keys: NodeKeys, home: Path | None = None
    ) -> None:
        """A bundle, should the node diverge, goes into `home`; without one there is none.

        Errors: NodeError, StoreError, CorruptState, KeyFileError.
        """
        network = genesis.network_id()
        member = _own_member(config, genesis, keys)
        self._lock = KeyLock(member.consensus_key, Path(config.keys_file))
        self._config, self._genesis, self._keys = config, genesis, keys
        self._home = home
        self._clock = Clock()
        self._domain = signing_domain(network, genesis.chain_id, genesis.contracts.vault)
        self._store = Store.open(Path(config.data_dir), network)
        try:
            replica = self.make_replica(network, keys)
        except CorruptState as error:
            where = Path(config.data_dir)
            raise StoreCorrupt(f"{where}: {error}. {begin_anew(where)}") from None
        self._market = replica.config.market
        self._journal = Journal(self._store, config.index)
        self._journal.resume(
            outcomes=replica.exchange.outcomes,
            trades=replica.engine.state.next_trade - 1,
            seen=pending_here(replica.consensus.ctx),
        )
        self.metrics = Metrics(
            replica=config.index,
            replicas=genesis.n,
            version=version("fairlane"),
            core=lambda: replica.consensus.ctx.counters,
            transport=lambda: self.transport.stats(),
            chain=self._chain_counts,
            inbox=lambda: self.driver.inbox.stats(),
            measure=self._measure,
        )
        self._observer = Observer(self.metrics, replica, self._store)
        self.driver = self._make_driver(replica)
        self.transport = self._make_transport()
        self.driver.attach(self.transport)
        self.view = NodeView(
            version("fairlane"),
            genesis,
            network,
            self.driver,
            self._journal,
            self._clock,
            self.metrics,
            self._observer.own,
            self.transport,
            self._store,
        )
        self._client: SettlementClient | None = None
        self._submitter: Submitter | None = None
        self._watcher: Watcher | None = None
        self._accepted_unformed: CheckpointAccepted | None = None

    def _make_driver(self, replica: ExchangeReplica) -> Driver:
        return self.driver_type(
            replica,
            admission(self._genesis, self._domain),
            self._store,
            self._clock,
            self.metrics,
            on_record=self._on_record,
            on_logged=self._journal.on_logged,
            on_executed=self._on_executed,
            on_reply=lambda reply: self.view.on_reply(reply),
            on_submit=self._on_submit,
            on_installed=self._on_installed,
            on_halt=self._on_halt,
        )

    def _make_transport(self) -> Transport:
        members = self._genesis.members
        return Transport(
            self._keys.network_seed,
            self._config.index,
            [(m.network_key, *parse_endpoint(m.endpoint)) for m in members],
            parse_endpoint(self._config.p2p_listen),
            on_frame=self.driver.on_frame,
            on_up=self.driver.on_up,
            on_malformed=lambda peer, why: self.metrics.peers.blamed(peer, why.split(":", 1)[0]),
        )

    def make_replica(self, network: bytes, keys: NodeKeys) -> ExchangeReplica:
        """Return the deterministic whole, as this node's disk has it. Errors: NodeError."""
        genesis = self._genesis
        separator = checkpoints_separator(genesis)
        config = replica_config(genesis, self._config.index)
        if keys.share_secret is None:
            raise NodeError("the key file has no share of the group key: run the key ceremony")
        return ExchangeReplica(
            config,
            Ed25519Signer(network, keys.consensus_seed),
            BlsShareSigner(separator, keys.share_secret, keys.operator_secret),
            BlsGroup(
                separator,
                genesis.group_key,
                [m.share_key for m in genesis.members],
                [m.operator for m in genesis.members],
                config.committee.quorum,
            ),
            self._store,
            None if self._config.archive else self._config.retain_blocks,
        )

    def _on_record(self, event: Executed | LogBatch, writes: list[Write]) -> None:
        self._journal.record(event, self._clock.now_ms(), writes)

    def _on_executed(self, executed: Executed) -> None:
        void = self._journal.on_executed(executed)
        for id_ in void:
            self._observer.own.forget(id_)
        if void:
            self.metrics.order.void(len(void))
        if not executed.replayed:
            self._observer.executed(executed)
        if self._accepted_unformed is not None:
            self._on_accepted(self._accepted_unformed)

    def _on_installed(self, height: int) -> None:
        """The state was taken over from peers: outcomes go on after those it has counted."""
        log.warning("took over the state of height %d: older outcomes are not here", height)
        self._resume_journal()

    def _resume_journal(self) -> None:
        replica = self.driver.replica
        self._journal.resume(
            outcomes=replica.exchange.outcomes,
            trades=replica.engine.state.next_trade - 1,
            seen=pending_here(replica.consensus.ctx),
        )

    def _on_submit(self, effect: SubmitCheckpoint) -> None:
        if self._submitter is not None:
            self._submitter.offer(effect)

    def _on_halt(self, halt: Halt) -> None:
        """Write the bundle of a divergence; what else a halt leaves is the command's matter."""
        if halt.kind not in KINDS or self._home is None:
            return
        path = self._home / f"diverged-{self.driver.replica.consensus.height}.bundle"
        try:
            genesis_file = Path(self._config.genesis_file).read_bytes()
            replica = self.driver.replica
            bundle = collect(self._genesis, genesis_file, replica, self._store, halt)
            size = save_bundle(path, bundle)
        except (BundleError, CodecError, ConfigError, CorruptState, OSError, StoreError) as error:
            log.critical("no bundle could be written: %s; keep the whole home", error)
            return
        log.critical("wrote %s (%d bytes): fairlane replay-bundle %s", path, size, path)

    def _measure(self) -> None:
        """Set the gauges that nobody pushes; called before each scrape."""
        self._observer.measure(self._clock.now_ms())
        self.metrics.node.waiting(self.driver.waiting)
        seen = self._watcher.cursor.count if self._watcher is not None else 0
        anchored = self.driver.replica.consensus.ctx.sequencer.inbox_count
        self.metrics.checkpoints.inbox(seen, anchored)

    def _chain_counts(self) -> ChainCounts:
        submitter, watcher = self._submitter, self._watcher
        if submitter is None or watcher is None:
            return ChainCounts()
        return ChainCounts(
            accepted=submitter.submitted,
            already=submitter.already,
            reverted=submitter.refused,
            failed=submitter.failures,
            errors=submitter.failures + watcher.failures,
            height=max(watcher.final_block, 0),
        )

    async def run(self, shutdown: trio.Event, started: Callable[[int], None]) -> None:
        """Run until `shutdown`, then let what the door has taken end; `started` gets its port.

        Errors: Halted, HostError, OSError for a taken port, StoreError, WrongChain.
        """
        try:
            async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
                nursery.start_soon(_end_after, shutdown, nursery.cancel_scope)
                await self._start(stack, nursery)
                await self._serve(shutdown, started)
                # The door is shut and everybody answered: what goes on now is durable or lost
                # in any order, as after a crash.
                nursery.cancel_scope.cancel()
        finally:
            self._close()

    async def _start(self, stack: AsyncExitStack, nursery: trio.Nursery) -> None:
        """Bring up all but the door."""
        client = await stack.enter_async_context(
            open_client(
                self._config.rpc_url,
                self._genesis.chain_id,
                _addresses(self._genesis),
                self._keys.operator_secret,
            )
        )
        self._client = client
        self._submitter = Submitter(client)
        start = Cursor(self._genesis.start_block - 1, ORIGIN.count, ORIGIN.hash)
        self._watcher = Watcher(client, self._config.finality, start)
        await nursery.start(self.transport.run)
        nursery.start_soon(self.driver.run)
        nursery.start_soon(self._submitter.run)
        nursery.start_soon(self._watcher.run, self._on_chain)
        if self._config.price_url:
            nursery.start_soon(poll_prices, self._config.price_url, self.driver.offer)

    async def _serve(self, shutdown: trio.Event, started: Callable[[int], None]) -> None:
        """Keep the door open until `shutdown`, and return once it has shut."""
        host, port = parse_endpoint(self._config.gateway_listen)
        async with trio.open_nursery() as door:
            bound = await door.start(
                partial(
                    serve,
                    self.view,
                    self._domain,
                    self._market,
                    host,
                    port,
                    shutdown,
                    metrics=self.metrics.gateway,
                    limits=LIMITS,
                )
            )
            started(bound)

    def _close(self) -> None:
        """Put the last records on disk and give up what only one process may hold."""
        try:
            self._store.sync()
        finally:
            try:
                self._store.close()
            finally:
                self._lock.release()

    async def _on_chain(self, event: ChainEvent) -> None:
        """Give what became final on chain to the core, and wait until it has taken it."""
        match event:
            case InboxAdvance(since, messages, hash_):
                keeper = self.driver.replica.consensus.keeper
                while keeper.next_inbox() < since + len(messages):
                    self.driver.offer(L1Observed(since, messages, hash_))
                    await trio.sleep(OFFER_AGAIN_S)
            case CheckpointAccepted(number, digest, transaction):
                self.driver.insist(Accepted(number, digest))
                self._on_accepted(event)
                if transaction and number not in self.driver.replica.formed:
                    await self._take_content(transaction, digest)

    async def _take_content(self, transaction: bytes, digest: bytes) -> None:
        """Tell the core what the newest checkpoint says: far behind, it begins from its state."""
        assert self._client is not None
        try:
            checkpoint = await self._client.submitted(transaction)
        except ChainError as error:
            log.warning("the newest checkpoint cannot be read, the next one will do: %s", error)
            return
        self.driver.insist(AcceptedContent(checkpoint, digest))

    def _on_accepted(self, event: CheckpointAccepted) -> None:
        """Take note of an accepted checkpoint as soon as we have formed it too."""
        formed = self.driver.replica.formed.get(event.number)
        self._accepted_unformed = event if formed is None else None
        if formed is not None and formed.digest == event.digest:
            self._journal.on_accepted(formed)
            self._observer.accepted(formed.height)


async def _end_after(shutdown: trio.Event, scope: trio.CancelScope) -> None:
    """Bound the stop, whatever hangs."""
    await shutdown.wait()
    scope.deadline = trio.current_time() + STOP_S


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


def open_node(home: Path, node_type: type[Node] = Node) -> Node:
    """Return the node whose files are in `home`.

    Errors: ConfigError, KeyFileError, NodeError, StoreError, CorruptState.
    """
    config = load_config(home)
    genesis = load_genesis(Path(config.genesis_file))
    configured = Path(config.passphrase_file) if config.passphrase_file else None
    keys = read_keys(Path(config.keys_file), read_passphrase(configured, os.environ))
    return node_type(config, genesis, keys, home)


def _addresses(genesis: Genesis) -> Addresses:
    contracts = genesis.contracts
    return Addresses(
        token=contracts.token,
        vault=contracts.vault,
        inbox=contracts.inbox,
        checkpoints=contracts.checkpoints,
    )
