"""What one operator sets for one node: a TOML file in the node's home, read strictly.

The genesis is re-exported here, so that a node's two files have one place to come from.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from consensus.committee import REPLICAS_MAX
from consensus.statesync import SNAPSHOT_GAP
from ops.fields import (
    ConfigError,
    demand,
    in_range,
    named,
    parse_endpoint,
    read_bounded,
    write_whole,
)
from ops.genesis import (
    GENESIS_FILE,
    Contracts,
    Genesis,
    load_genesis,
    parse_genesis,
    save_genesis,
)

__all__ = [
    "CONFIG_FILE",
    "GENESIS_FILE",
    "ConfigError",
    "Contracts",
    "Genesis",
    "NodeConfig",
    "check_config",
    "load_config",
    "load_genesis",
    "parse_endpoint",
    "parse_genesis",
    "save_config",
    "save_genesis",
]

CONFIG_BYTES_MAX: Final = 64 << 10
CONFIG_FILE: Final = "node.toml"
FINALITY_DEPTH_MAX: Final = 1_000
RETAIN_BLOCKS_MIN: Final = 2 * SNAPSHOT_GAP
"""Peers that are less than a gap behind ask for blocks; below it they take a snapshot."""
RETAIN_BLOCKS_MAX: Final = 1 << 40


class NodeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node's settings; relative paths start at its home.

    `finality` is the Ethereum block tag to follow, or a depth below the newest block where the
    chain has no such tag. `price_url` is where index prices come from; empty means none.
    `retain_blocks` is how many blocks below the newest are kept, with their batches and commands;
    with `archive` all are.
    """

    index: int
    p2p_listen: str
    gateway_listen: str
    rpc_url: str
    price_url: str = ""
    genesis_file: str = GENESIS_FILE
    keys_file: str = "keys.json"
    passphrase_file: str = ""
    data_dir: str = "data"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    finality: Literal["finalized", "safe"] | int = "finalized"
    retain_blocks: int = 100_000
    archive: bool = False


def load_config(home: Path) -> NodeConfig:
    """Return the checked settings of the node in `home`, its paths made whole.

    Errors: ConfigError.
    """
    path = home / CONFIG_FILE
    try:
        table = tomllib.loads(read_bounded(path, CONFIG_BYTES_MAX).decode())
        config = msgspec.convert(table, NodeConfig)
        check_config(config)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None
    whole = {
        name: str((home / value).absolute())
        for name in ("genesis_file", "keys_file", "passphrase_file", "data_dir")
        if (value := getattr(config, name))
    }
    return msgspec.structs.replace(config, **whole)


def save_config(home: Path, config: NodeConfig) -> None:
    """Check and write a node's settings. Errors: ConfigError."""
    path = home / CONFIG_FILE
    try:
        check_config(config)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    fields = msgspec.to_builtins(config).items()
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields]
    write_whole(path, "".join(lines).encode())


def check_config(config: NodeConfig) -> None:
    """Refuse settings that cannot work. Errors: ValueError, naming the field."""
    in_range(config.index, 0, REPLICAS_MAX - 1, "index")
    for name in ("p2p_listen", "gateway_listen"):
        named(name, parse_endpoint, getattr(config, name))
    for name, needed in (("rpc_url", True), ("price_url", False)):
        url = getattr(config, name)
        if url or needed:
            shaped = re.fullmatch(r"https?://[^\s/]+(/\S*)?", url) is not None
            demand(shaped, f"{name}: {url[:300]!r} is not an http(s) URL")
    for name in NodeConfig.__struct_fields__:
        value = getattr(config, name)
        if isinstance(value, str):
            demand(value.isprintable(), f"{name}: holds a control character")
    for name in ("genesis_file", "keys_file", "data_dir"):
        demand(getattr(config, name) != "", f"{name}: is empty")
    in_range(config.retain_blocks, RETAIN_BLOCKS_MIN, RETAIN_BLOCKS_MAX, "retain_blocks")
    if isinstance(config.finality, int):
        in_range(config.finality, 0, FINALITY_DEPTH_MAX, "finality")
