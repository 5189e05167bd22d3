"""The genesis: JSON and back without loss, and nothing absurd gets past `validate`."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from matcher.engine import Engine
from matcher.genesis import GenesisError, MarketGenesis, address, devnet_genesis, validate
from matcher.units import WAD, div_ceil, div_floor, narrow, wide
from tests.matcher.market import changed_instruments

GENESIS = devnet_genesis()


def test_json_round_trip() -> None:
    text = msgspec.json.encode(GENESIS)
    assert msgspec.json.decode(text, type=MarketGenesis) == GENESIS
    for number in msgspec.json.decode(text)["instruments"][0].values():
        assert isinstance(number, int | str)


def test_an_unknown_field_is_refused() -> None:
    text = msgspec.json.encode(GENESIS).replace(b'"maker_fee"', b'"maker_feee"')
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=MarketGenesis)


@pytest.mark.parametrize(
    "changes",
    [
        {"underlyings": ()},
        {"instruments": ()},
        {"maker_fee": -WAD * 6 // 10_000},
        {"taker_fee": -1},
        {"taker_fee": WAD},
        {"risk_tick_ms": 0},
        {"deposit_min": 0},
        {"orders_burst": 1 << 51},
        {"oracle_max_age_ms": 0},
        {"confidence_factor": WAD + 1},
        {"liquidation_fee": WAD},
        {"oracle_ahead_max_ms": -1},
        {"fee_wallet": "zz"},
        {"insurance_wallet": "0xabcd"},
    ],
)
def test_absurd_numbers_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(GenesisError):
        Engine(replace(GENESIS, **changes), 5, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "option"},
        {"underlying": 2},
        {"tick_size": 10_001},
        {"tick_size": 0},
        {"lot_decimals": 13},
        {"qty_max": 0},
        {"initial_rate": WAD // 20},
        {"initial_rate": WAD},
        {"maintenance_rate": 0},
        {"price_band": 0},
        {"price_band": WAD},
        {"mark_clamp": 0},
        {"open_interest_high": 0},
        {"size_base": 0},
        {"impact_notional": 0},
        {"last_qty_min": 0},
        {"basis_ema_ms": 0},
        {"funding_clamp": -1},
    ],
)
def test_absurd_instruments_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(GenesisError):
        validate(changed_instruments(GENESIS, **changes))


def test_the_devnets_ticks_are_whole_micro_usdc() -> None:
    validate(GENESIS)
    assert [instrument.tick_value for instrument in GENESIS.instruments] == [1, 10]
    assert address("0x" + "ab" * 20) == address("ab" * 20) == b"\xab" * 20


def test_divisions_and_wide_integers() -> None:
    assert (div_floor(-7, 2), div_ceil(-7, 2), div_floor(7, 2), div_ceil(7, 2)) == (-4, -3, 3, 4)
    with pytest.raises(AssertionError):
        div_floor(1, 0)
    for power in (0, 7, 8, 62, 63, 64, 127, 255, 300):
        for value in (1 << power, -(1 << power), (1 << power) - 1, -(1 << power) - 1):
            assert narrow(wide(value)) == value
            assert isinstance(wide(value), int) == (-(1 << 63) <= value < 1 << 63)
