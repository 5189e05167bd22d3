"""A genesis has one digest and no way to be half right; a node's settings are read strictly."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from consensus.committee import Member, Parameters, quorum
from consensus.crypto import address_of
from matcher.genesis import MarketGenesis, devnet_genesis
from ops.config import (
    ConfigError,
    Contracts,
    Genesis,
    NodeConfig,
    load_config,
    load_genesis,
    parse_endpoint,
    parse_genesis,
    save_config,
    save_genesis,
)
from settlement.dealer import deal


def _genesis(n: int = 5, **changes: Any) -> Genesis:
    dealing = deal(b"test entropy, thirty-two bytes or more", n, quorum(n))
    members = tuple(
        Member(
            network_key=bytes(SigningKey(bytes((1, i)) * 16).verify_key),
            consensus_key=bytes(SigningKey(bytes((2, i)) * 16).verify_key),
            share_key=dealing.share_keys[i],
            operator=address_of(PrivateKey(bytes((3, i)) * 16).public_key),
            endpoint=f"127.0.0.1:{4000 + i}",
        )
        for i in range(n)
    )
    values: dict[str, Any] = {
        "chain_id": 31337,
        "contracts": Contracts(
            token=b"\1" * 20, vault=b"\2" * 20, inbox=b"\3" * 20, checkpoints=b"\4" * 20
        ),
        "members": members,
        "group_key": dealing.group_key,
        "parameters": Parameters(),
        "checkpoint_interval_ms": 2_000,
        "time_ms": 1_700_000_000_000,
        "inbox_hash": bytes(32),
        "market": devnet_genesis(),
    }
    return Genesis(**(values | changes))


GENESIS = _genesis()


@pytest.fixture(name="document")
def _document(tmp_path: Path) -> dict[str, Any]:
    save_genesis(tmp_path / "genesis.json", GENESIS)
    loaded: dict[str, Any] = json.loads((tmp_path / "genesis.json").read_text())
    return loaded


def _parse(document: object) -> Genesis:
    return parse_genesis(json.dumps(document).encode())


def test_a_genesis_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "genesis.json"
    network = save_genesis(path, GENESIS)
    assert load_genesis(path) == GENESIS
    assert network == GENESIS.network_id() == GENESIS.committee().network
    assert json.loads(path.read_text())["network_id"] == network.hex()
    assert (GENESIS.committee().n, GENESIS.committee().quorum) == (5, 4)


def test_the_network_id_is_pinned() -> None:
    """Two releases that differ here cannot talk: change the version with it."""
    assert GENESIS.network_id().hex() == (
        "1230551a6e7e09ac729e23e7bdf68000d292591a4aafea7a68245589378b6e69"
    )


def test_the_id_does_not_depend_on_how_the_file_is_written(document: dict[str, Any]) -> None:
    shuffled = dict(reversed(document.items()))
    shuffled["group_key"] = "0x" + shuffled["group_key"].upper()
    text = json.dumps(shuffled, indent=7).encode()
    assert parse_genesis(text).network_id() == GENESIS.network_id()


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    inner = [found for key, child in children for found in _paths(child, (*path, key))]
    return [path, *inner] if path else inner


def _changed(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    result = copy.deepcopy(document)
    place = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return result


@pytest.mark.parametrize("value", [1.5, None, "x", True, -1, [], {"a": 1}, 1 << 70])
def test_every_field_is_in_the_id_or_refused(document: dict[str, Any], value: Any) -> None:
    """Replace each value in the file: the claimed network id must never fit the result."""
    for path in _paths(document):
        try:
            changed = _parse(_changed(document, path, value))
        except ConfigError:
            continue
        assert path == ("network_id",), path
        assert value is None
        assert changed == GENESIS


def test_an_edited_genesis_is_noticed(document: dict[str, Any]) -> None:
    edited = _changed(document, ("market", "taker_fee"), 7)
    with pytest.raises(ConfigError, match="it was edited"):
        _parse(edited)
    del edited["network_id"]
    assert _parse(edited).network_id() != GENESIS.network_id()


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (("extra",), 1, "unknown field `extra`"),
        (("contracts", "bank"), "0x", "unknown field"),
        (("members", 0, "extra"), "", "unknown field"),
        (("parameters", "speed"), 1, "unknown speed"),
        (("chain_id",), 0, "chain_id"),
        (("version",), 2, "version"),
        (("contracts", "vault"), "0x00", r"contracts\.vault: 1 bytes"),
        (("inbox_hash",), "0g", "inbox_hash: not hexadecimal"),
        (("group_key",), "00" * 96, "group_key"),
        (("members", 1, "share_key"), "c0" + "00" * 95, r"members\[1\]\.share_key: identity"),
        (("members", 1, "network_key"), "00" * 32, r"members\[1\].*not an Ed25519 key"),
        (("members", 1, "endpoint"), "nowhere", r"members\[1\]\.endpoint.*host:port"),
        (("members", 1, "endpoint"), "a:0", "port 0"),
        (("members", 1, "endpoint"), "127.0.0.1:4000", "one endpoint"),
        (("members",), [], "members"),
        (("market", "taker_fee"), 0.5, "not an integer"),
        (("market", "taker_fee"), -1, "market: fees out of range"),
        (("market", "extra"), 1, "unknown field"),
        (("market", "instruments", 0, "underlying"), 7, "BTC-PERP: unknown underlying"),
        (("parameters", "round_timer_ms"), 700, "empty_block_ms"),
        (("parameters", "gamma_numerator"), 2, "gamma"),
        (("parameters", "entries_max"), 4, "entries_max"),
        (("parameters", "head_cap"), 1000, "head_cap"),
    ],
)
def test_a_wrong_field_is_named(
    document: dict[str, Any], path: tuple[Any, ...], value: Any, why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        _parse(_changed(document, path, value))


def test_a_key_is_used_once(document: dict[str, Any]) -> None:
    key = document["members"][0]["consensus_key"]
    for name in ("network_key", "consensus_key"):
        with pytest.raises(ConfigError, match="used twice"):
            _parse(_changed(document, ("members", 1, name), key))


def test_shares_must_be_of_the_group_key(document: dict[str, Any]) -> None:
    members = document["members"]
    members[0]["share_key"], members[4]["share_key"] = (
        members[4]["share_key"],
        members[0]["share_key"],
    )
    with pytest.raises(ConfigError, match="not shares of it"):
        _parse(document)


def test_doubled_fields_are_refused() -> None:
    with pytest.raises(ConfigError, match="'epoch' stands twice"):
        parse_genesis(b'{"epoch": 1, "epoch": 2}')


@given(st.binary(max_size=300))
def test_any_bytes_are_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_genesis(data)


def test_deep_nesting_is_an_error_of_ours() -> None:
    with pytest.raises(ConfigError):
        parse_genesis(b"[" * 100_000)


def test_a_gamma_that_would_order_nothing_is_refused() -> None:
    """n=7, f=2, gamma=6/7: S=7 logs, but two of seven may never speak."""
    parameters = Parameters(gamma_numerator=6, gamma_denominator=7)
    with pytest.raises(ConfigError, match=r"gamma: .*S=7.*n-f=5"):
        parse_genesis(
            json.dumps(
                _without_check(_genesis(7, parameters=parameters)),
            ).encode()
        )
    parse_genesis(json.dumps(_without_check(_genesis(5, parameters=parameters))).encode())


def _without_check(genesis: Genesis) -> dict[str, Any]:
    from ops.genesis import _to_json

    return _to_json(genesis)


def test_a_default_that_is_left_out_is_in_the_id_all_the_same(document: dict[str, Any]) -> None:
    """Else two releases with two defaults would run two engines under one network id."""
    assert document["market"].pop("risk_tick_ms") == 500
    assert _parse(document).network_id() == GENESIS.network_id()
    document["market"]["risk_tick_ms"] = 501
    with pytest.raises(ConfigError, match="it was edited"):
        _parse(document)


def test_a_genesis_that_is_wrong_is_not_saved(tmp_path: Path) -> None:
    empty = MarketGenesis(underlyings=(), instruments=())
    with pytest.raises(ConfigError, match="market: "):
        save_genesis(tmp_path / "g.json", _genesis(market=empty))
    assert not list(tmp_path.iterdir())


CONFIG = NodeConfig(
    index=3,
    p2p_listen="127.0.0.1:4003",
    gateway_listen="[::1]:8003",
    rpc_url="http://127.0.0.1:8545",
    passphrase_file='/run/secrets/pässphrase "quoted"\\',
)


def test_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    for config in (CONFIG, msgspec.structs.replace(CONFIG, finality=2, price_url="https://x/y")):
        save_config(tmp_path, config)
        loaded = load_config(tmp_path)
        assert loaded == msgspec.structs.replace(
            config,
            genesis_file=str(tmp_path / "genesis.json"),
            keys_file=str(tmp_path / "keys.json"),
            data_dir=str(tmp_path / "data"),
        )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("speed = 1", "unknown field `speed`"),
        ("index = -1", "index"),
        ("index = true", "index"),
        ("index = 1.0", "index"),
        ('p2p_listen = "4000"', "p2p_listen.*host:port"),
        ('gateway_listen = "a:99999"', "gateway_listen: port 99999"),
        ('rpc_url = "ws://x"', "rpc_url"),
        ('log_level = "loud"', "log_level"),
        ('finality = "latest"', "finality"),
        ("finality = 5000", "finality"),
        ('data_dir = ""', "data_dir: is empty"),
        ('data_dir = "a\\u0000b"', "control character"),
        ("index = ", "node.toml"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, line: str, why: str) -> None:
    save_config(tmp_path, CONFIG)
    path = tmp_path / "node.toml"
    name = line.split(" =")[0]
    kept = [old for old in path.read_text().splitlines() if old.split(" =")[0] != name]
    path.write_text("\n".join([*kept, line]))
    with pytest.raises(ConfigError, match=why) as caught:
        load_config(tmp_path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"node\.toml: No such file"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match=r"g\.json: No such file"):
        load_genesis(tmp_path / "g.json")


@pytest.mark.parametrize("text", ["", ":1", "a:", "a:b", "::1:80", "a b:1", "a:65536", "[::1]"])
def test_odd_endpoints_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|65535"):
        parse_endpoint(text)
