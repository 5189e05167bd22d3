"""What of a genesis and a node's keys each deterministic part is told, in one place."""

from __future__ import annotations

import msgspec

from consensus.admission import Admission
from consensus.batches import log_start
from consensus.blocktree import genesis_block
from consensus.digest import Digest, domain_separator
from matcher.genesis import MarketGenesis
from ops.admission import SigningDomain, verify_body
from ops.genesis import Genesis
from ops.replica import ReplicaConfig


def checkpoints_separator(genesis: Genesis) -> bytes:
    """Return the EIP-712 domain separator of the network's checkpoints."""
    return domain_separator("Fairlane", "1", genesis.chain_id, genesis.contracts.checkpoints)


def replica_config(genesis: Genesis, me: int) -> ReplicaConfig:
    """Return what replica `me` of the network is told."""
    return ReplicaConfig(
        committee=genesis.committee(),
        parameters=genesis.parameters,
        market=msgspec.convert(genesis.market, MarketGenesis),
        genesis_time_ms=genesis.time_ms,
        checkpoint_interval_ms=genesis.checkpoint_interval_ms,
        checkpoints_separator=checkpoints_separator(genesis),
        me=me,
    )


def genesis_digest(genesis: Genesis) -> Digest:
    """Return the digest of the network's block 0."""
    committee = genesis.committee()
    starts = tuple(log_start(committee.network, committee.epoch, i) for i in range(committee.n))
    return genesis_block(committee.network, committee.epoch, starts)[1]


def admission(genesis: Genesis, domain: SigningDomain) -> Admission:
    """Return the check of what peers say in this network."""
    return Admission(
        genesis.committee(),
        genesis.parameters,
        genesis_digest(genesis),
        lambda body: verify_body(body, domain),
    )
