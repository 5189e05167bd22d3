"""The files of a devnet: keys, genesis, one home a node."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from consensus.batches import INBOX_START_HASH
from consensus.committee import Member, Parameters, quorum
from matcher.genesis import MarketGenesis
from ops.config import Contracts, Genesis, NodeConfig, save_config, save_genesis
from ops.keys import NodeKeys, generate_keys, write_keys
from settlement.dealer import Dealing, deal
from settlement.deploy import Deployed

HOST = "127.0.0.1"
CHECKPOINT_INTERVAL_MS = 2_000
PARAMETERS = Parameters(batch_interval_ms=25, idle_batch_ms=250, block_interval_ms=50)
PASSPHRASE_FILE = "passphrase"


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node's place: its home and the ports it serves on, all of loopback."""

    index: int
    home: Path
    keys: NodeKeys
    p2p_port: int
    gateway_port: int

    @property
    def url(self) -> str:
        """Where its door is."""
        return f"http://{HOST}:{self.gateway_port}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A network before its contracts exist."""

    nodes: tuple[NodePlan, ...]
    dealing: Dealing
    price_port: int


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on now."""
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def make_plan(home: Path, n: int) -> Plan:
    """Draw keys and ports for `n` nodes below `home`. The settlement key is dealt: see dealer."""
    dealing = deal(secrets.token_bytes(64), n, quorum(n))
    ports = free_ports(2 * n + 1)
    nodes = tuple(
        NodePlan(
            index=i,
            home=home / f"node{i}",
            keys=generate_keys(dealing.secrets[i]),
            p2p_port=ports[2 * i],
            gateway_port=ports[2 * i + 1],
        )
        for i in range(n)
    )
    return Plan(nodes, dealing, ports[-1])


def make_genesis(plan: Plan, chain_id: int, deployed: Deployed, market: MarketGenesis) -> Genesis:
    """Return the genesis of the planned network on these contracts, beginning now."""
    addresses = deployed.addresses
    members = []
    for node in plan.nodes:
        public = node.keys.public()
        assert public.share is not None
        members.append(
            Member(
                network_key=public.network,
                consensus_key=public.consensus,
                share_key=public.share,
                operator=public.operator,
                endpoint=f"{HOST}:{node.p2p_port}",
            )
        )
    return Genesis(
        chain_id=chain_id,
        contracts=Contracts(
            token=addresses.token,
            vault=addresses.vault,
            inbox=addresses.inbox,
            checkpoints=addresses.checkpoints,
        ),
        start_block=deployed.block,
        members=tuple(members),
        group_key=plan.dealing.group_key,
        parameters=PARAMETERS,
        checkpoint_interval_ms=CHECKPOINT_INTERVAL_MS,
        time_ms=time.time_ns() // 1_000_000,
        inbox_hash=INBOX_START_HASH,
        market=market,
    )


def write_homes(plan: Plan, genesis: Genesis, rpc_url: str, log_level: str) -> None:
    """Write every node's home: node.toml, genesis.json, keys.json and its passphrase."""
    for node in plan.nodes:
        node.home.mkdir(parents=True, mode=0o700, exist_ok=True)
        passphrase = secrets.token_hex(16)
        path = node.home / PASSPHRASE_FILE
        path.touch(mode=0o600)
        path.write_text(passphrase)
        write_keys(node.home / "keys.json", node.keys, passphrase.encode(), "interactive")
        save_genesis(node.home / "genesis.json", genesis)
        save_config(node.home, _config(node, plan.price_port, rpc_url, log_level))


def _config(node: NodePlan, price_port: int, rpc_url: str, log_level: str) -> NodeConfig:
    fields = {
        "index": node.index,
        "p2p_listen": f"{HOST}:{node.p2p_port}",
        "gateway_listen": f"{HOST}:{node.gateway_port}",
        "rpc_url": rpc_url,
        "price_url": f"http://{HOST}:{price_port}/prices",
        "passphrase_file": PASSPHRASE_FILE,
        "log_level": log_level,
    }
    return msgspec.convert(fields, NodeConfig)


def operators(nodes: Sequence[NodePlan]) -> list[bytes]:
    """Return the addresses that submit checkpoints and so need gas."""
    return [node.keys.public().operator for node in nodes]
