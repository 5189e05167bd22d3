"""The genesis: what all replicas of a network start from, and the network id that it makes.

It is a JSON file without floats; the SHA-256 of its canonical form is the network id, which every
signature covers. It is read strictly: an unknown or doubled field, or a value that no network
could run on, is refused and named.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct
from nacl.bindings import crypto_core_ed25519_is_valid_point

from consensus.committee import REPLICAS_MAX, Committee, Member, Parameters, faults, quorum
from consensus.crypto import g2_point
from consensus.digest import tagged
from consensus.fairorder import thresholds
from matcher.genesis import GenesisError, MarketGenesis, validate
from ops.fields import (
    ConfigError,
    demand,
    exactly,
    from_hex,
    in_range,
    named,
    no_doubles,
    no_float,
    parse_endpoint,
    read_bounded,
    write_whole,
)
from settlement.shares import consistent

GENESIS_BYTES_MAX: Final = 4 << 20
GENESIS_FILE: Final = "genesis.json"
INTERVAL_MAX_MS: Final = 3_600_000


class Contracts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Addresses (20 bytes) of the settlement contracts and of the token that they hold."""

    token: bytes
    vault: bytes
    inbox: bytes
    checkpoints: bytes


class Genesis(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all replicas of a network start from.

    Units: milliseconds where the name says so. Shape: `members` in replica order; `group_key` 96
    bytes of BLS in G2; `inbox_hash` 32 bytes. The contracts are not on chain before `start_block`.
    """

    version: int = 1
    chain_id: int
    contracts: Contracts
    start_block: int = 0
    epoch: int = 1
    members: tuple[Member, ...]
    group_key: bytes
    parameters: Parameters
    checkpoint_interval_ms: int
    time_ms: int
    inbox_hash: bytes
    market: MarketGenesis

    @property
    def n(self) -> int:
        """The number of replicas."""
        return len(self.members)

    def network_id(self) -> bytes:
        """Return the 32 bytes that stand for this network in every signature."""
        return tagged(b"fairlane/genesis", canonical_json(_to_json(self)))

    def committee(self) -> Committee:
        """Return the committee of the genesis' epoch."""
        keys = tuple(member.consensus_key for member in self.members)
        return Committee(self.network_id(), self.epoch, keys)


def canonical_json(value: object) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, ASCII, no floats."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def load_genesis(path: Path) -> Genesis:
    """Return the checked genesis in `path`. Errors: ConfigError."""
    return parse_genesis(read_bounded(path, GENESIS_BYTES_MAX), str(path))


def parse_genesis(data: bytes, name: str = "genesis") -> Genesis:
    """Return the checked genesis in a JSON text. Errors: ConfigError."""
    try:
        document = json.loads(
            data, object_pairs_hook=no_doubles, parse_float=no_float, parse_constant=no_float
        )
        if not isinstance(document, dict):
            raise ValueError("not an object")
        claimed = document.pop("network_id", None)
        genesis = _from_json(document)
        check_genesis(genesis)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors.
        raise ConfigError(f"{name}: {error}") from None
    actual = genesis.network_id().hex()
    if claimed is not None and claimed != actual:
        raise ConfigError(
            f"{name}: network_id says {str(claimed)[:80]}, the content is {actual}: it was edited"
        )
    return genesis


def save_genesis(path: Path, genesis: Genesis) -> bytes:
    """Check and write `genesis`, and return its network id. Errors: ConfigError."""
    try:
        check_genesis(genesis)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    network = genesis.network_id()
    document = {"network_id": network.hex(), **_to_json(genesis)}
    write_whole(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
    return network


def check_genesis(genesis: Genesis) -> None:
    """Refuse a genesis that no network could run on. Errors: ValueError, naming the field."""
    demand(genesis.version == 1, "version: this program reads version 1")
    demand(0 < genesis.chain_id < 1 << 63, "chain_id: not in 1..2**63-1")
    demand(0 <= genesis.start_block < 1 << 48, "start_block: not in 0..2**48-1")
    demand(0 < genesis.epoch < 1 << 32, "epoch: not in 1..2**32-1")
    demand(0 <= genesis.time_ms < 1 << 48, "time_ms: not in 0..2**48-1")
    in_range(genesis.checkpoint_interval_ms, 1, 86_400_000, "checkpoint_interval_ms")
    exactly(genesis.inbox_hash, 32, "inbox_hash")
    for field in Contracts.__struct_fields__:
        exactly(getattr(genesis.contracts, field), 20, f"contracts.{field}")
    _check_members(genesis.members)
    _check_market(genesis.market)
    share_keys = [member.share_key for member in genesis.members]
    demand(
        consistent(genesis.group_key, share_keys, quorum(genesis.n)),
        "group_key: the members' share keys are not shares of it",
    )
    check_parameters(genesis.parameters, genesis.n)


def check_parameters(parameters: Parameters, n: int) -> None:
    """Refuse dials that stop a network of `n` or void its promises. Errors: ValueError."""
    for field in Parameters.__struct_fields__:
        in_range(getattr(parameters, field), 1, INTERVAL_MAX_MS, f"parameters.{field}")
    p = parameters
    demand(p.batch_interval_ms <= p.idle_batch_ms, "parameters.idle_batch_ms: below batch's")
    demand(
        p.block_interval_ms <= p.empty_block_ms and 2 * p.empty_block_ms < p.round_timer_ms,
        "parameters.empty_block_ms: must be in block_interval_ms .. under half of round_timer_ms",
    )
    demand(p.round_timer_ms <= p.round_timer_max_ms, "parameters.round_timer_max_ms: too low")
    demand(p.introduce_max(n) >= 1, f"parameters.entries_max: below the {n} replicas")
    demand(p.head_cap <= p.log_window, "parameters.head_cap: above log_window")
    demand(
        p.gamma_numerator <= p.gamma_denominator <= 1_000_000
        and 2 * p.gamma_numerator > p.gamma_denominator,
        "parameters.gamma: must be over 1/2 and at most 1",
    )
    try:
        thresholds(n, faults(n), p.gamma_numerator, p.gamma_denominator)
    except ValueError as error:
        raise ValueError(f"parameters.gamma: {error}; raise gamma or n") from None


def _check_market(market: MarketGenesis) -> None:
    """Refuse a market that its own rules refuse. Errors: ValueError."""
    try:
        validate(market)
    except GenesisError as error:
        raise ValueError(f"market: {error}") from None


def _check_members(members: tuple[Member, ...]) -> None:
    demand(1 <= len(members) <= REPLICAS_MAX, f"members: not 1..{REPLICAS_MAX}")
    for i, member in enumerate(members):
        for name in ("network_key", "consensus_key"):
            key = getattr(member, name)
            exactly(key, 32, f"members[{i}].{name}")
            valid = crypto_core_ed25519_is_valid_point(key)
            demand(valid, f"members[{i}].{name}: not an Ed25519 key")
        exactly(member.operator, 20, f"members[{i}].operator")
        named(f"members[{i}].share_key", g2_point, member.share_key)
        _, port = named(f"members[{i}].endpoint", parse_endpoint, member.endpoint)
        demand(port > 0, f"members[{i}].endpoint: port 0")
    ed25519 = [key for member in members for key in (member.network_key, member.consensus_key)]
    demand(len(set(ed25519)) == len(ed25519), "members: an Ed25519 key is used twice")
    for name in ("share_key", "operator", "endpoint"):
        values = {getattr(member, name) for member in members}
        demand(len(values) == len(members), f"members: two have one {name}")


def _to_json(genesis: Genesis) -> dict[str, Any]:
    """Return the genesis as plain JSON values: bytes in hex, members and contracts as objects."""
    contracts = genesis.contracts
    return {
        "version": genesis.version,
        "chain_id": genesis.chain_id,
        "contracts": {
            name: "0x" + getattr(contracts, name).hex() for name in Contracts.__struct_fields__
        },
        "start_block": genesis.start_block,
        "epoch": genesis.epoch,
        "members": [
            {
                "network_key": member.network_key.hex(),
                "consensus_key": member.consensus_key.hex(),
                "share_key": member.share_key.hex(),
                "operator": "0x" + member.operator.hex(),
                "endpoint": member.endpoint,
            }
            for member in genesis.members
        ],
        "group_key": genesis.group_key.hex(),
        "parameters": msgspec.to_builtins(genesis.parameters),
        "checkpoint_interval_ms": genesis.checkpoint_interval_ms,
        "time_ms": genesis.time_ms,
        "inbox_hash": genesis.inbox_hash.hex(),
        # With every default written out: the id must cover all numbers that the engine uses.
        "market": msgspec.to_builtins(genesis.market),
    }


class _MemberJson(Struct, frozen=True, forbid_unknown_fields=True):
    network_key: str
    consensus_key: str
    share_key: str
    operator: str
    endpoint: str


class _ContractsJson(Struct, frozen=True, forbid_unknown_fields=True):
    token: str
    vault: str
    inbox: str
    checkpoints: str


class _GenesisJson(Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    chain_id: int
    contracts: _ContractsJson
    start_block: int
    epoch: int
    members: tuple[_MemberJson, ...]
    group_key: str
    parameters: dict[str, int]
    checkpoint_interval_ms: int
    time_ms: int
    inbox_hash: str
    market: MarketGenesis


def _from_json(document: dict[str, Any]) -> Genesis:
    plain = msgspec.convert(document, _GenesisJson)
    unknown = set(plain.parameters) - set(Parameters.__struct_fields__)
    demand(not unknown, f"parameters: unknown {', '.join(sorted(unknown))}")
    contracts = {
        name: from_hex(getattr(plain.contracts, name), f"contracts.{name}")
        for name in Contracts.__struct_fields__
    }
    members = tuple(_member(i, member) for i, member in enumerate(plain.members))
    return Genesis(
        version=plain.version,
        chain_id=plain.chain_id,
        contracts=Contracts(**contracts),
        start_block=plain.start_block,
        epoch=plain.epoch,
        members=members,
        group_key=from_hex(plain.group_key, "group_key"),
        parameters=Parameters(**plain.parameters),
        checkpoint_interval_ms=plain.checkpoint_interval_ms,
        time_ms=plain.time_ms,
        inbox_hash=from_hex(plain.inbox_hash, "inbox_hash"),
        market=plain.market,
    )


def _member(i: int, plain: _MemberJson) -> Member:
    return Member(
        network_key=from_hex(plain.network_key, f"members[{i}].network_key"),
        consensus_key=from_hex(plain.consensus_key, f"members[{i}].consensus_key"),
        share_key=from_hex(plain.share_key, f"members[{i}].share_key"),
        operator=from_hex(plain.operator, f"members[{i}].operator"),
        endpoint=plain.endpoint,
    )
