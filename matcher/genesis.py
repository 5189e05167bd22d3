"""The market's constitution: what trades, and every number that its rules use.

JSON-serialisable: plain integers, strings, lists. The same bytes at every replica.
"""

from __future__ import annotations

from msgspec import Struct

from matcher.units import FEED_VALUE_MAX, QTY_MAX, TICK_VALUE_MAX, WAD, div_floor

UNDERLYINGS_MAX = 64
INSTRUMENTS_MAX = 4_096
POSITIONS_MAX = 128
"""A subaccount holds positions or orders in at most this many instruments."""
LOT_DECIMALS_MAX = 12
LIMIT_MAX = WAD
"""No amount, count, rate per second or time of the genesis is above this."""
BUCKET_MAX = 1 << 50
"""No token bucket is larger: in thousandths it must fit into 64 bits."""


class GenesisError(ValueError):
    """The genesis breaks a rule; the network must not start on it."""


class Underlying(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One price feed; its number is its place in `MarketGenesis.underlyings`."""

    name: str


class Instrument(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One perpetual; its id is its place in `MarketGenesis.instruments`.

    `kind` is "perpetual"; "future" and "option" have their place. `tick_size` is micro-USDC per
    whole unit of the underlying, one lot is 10**-lot_decimals units. Rates, bands and clamps are
    WAD, `size_base`, `impact_notional` micro-USDC, quantities lots. `maintenance_rate` and
    `initial_rate` are of the notional at mark, times max(1, notional / size_base);
    `initial_rate` rises linearly to 1 between the two open-interest caps.
    """

    name: str
    underlying: int
    kind: str = "perpetual"
    tick_size: int
    lot_decimals: int
    qty_max: int
    price_band: int = WAD * 5 // 100
    initial_rate: int = WAD * 65 // 1000
    maintenance_rate: int = WAD * 5 // 100
    size_base: int
    open_interest_low: int
    open_interest_high: int
    impact_notional: int
    last_qty_min: int
    mark_clamp: int = WAD * 5 // 1000
    basis_ema_ms: int = 30_000
    funding_interest: int = WAD // 10_000
    funding_clamp: int = WAD * 5 // 10_000

    @property
    def tick_value(self) -> int:
        """Money per tick per lot. Units: micro-USDC."""
        return div_floor(self.tick_size, int(10**self.lot_decimals))


class MarketGenesis(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that `Engine` is told once.

    Fees are WAD of the notional (the maker's may be negative, their sum not). `dispersion_max` is
    the dispersion over the median at which confidence is 0; below `confidence_min` the initial
    requirement grows by `confidence_factor` x (1 - confidence) x spot per unit. Rates are per
    wallet and second of block time, bursts are the buckets' sizes. Wallets are hex addresses.
    """

    underlyings: tuple[Underlying, ...]
    instruments: tuple[Instrument, ...]
    maker_fee: int = WAD * 2 // 10_000
    taker_fee: int = WAD * 5 // 10_000
    liquidation_fee: int = WAD * 50 // 10_000
    fee_wallet: str = "00000000000000000000000000000000000000fe"
    insurance_wallet: str = "00000000000000000000000000000000000000fd"
    oracle_max_age_ms: int = 10_000
    oracle_ahead_max_ms: int = 2_000
    dispersion_max: int = WAD // 50
    confidence_min: int = WAD * 4 // 10
    confidence_factor: int = WAD * 4 // 10
    risk_tick_ms: int = 500
    deposit_min: int = 10_000_000
    withdrawal_min: int = 1_000_000
    accounts_max: int = 1 << 20
    suspense_max: int = 1 << 16
    open_orders_max: int = 256
    sessions_max: int = 16
    orders_per_s: int = 200
    orders_burst: int = 1_000
    cancels_per_s: int = 1_000
    cancels_burst: int = 5_000
    liquidation_step_ms: int = 5_000
    liquidation_share: int = WAD // 5
    liquidation_min: int = 1_000_000_000
    liquidation_patience_ms: int = 60_000


def validate(genesis: MarketGenesis) -> None:
    """Check every number. Errors: GenesisError."""
    if not 0 < len(genesis.underlyings) <= UNDERLYINGS_MAX:
        raise GenesisError("underlyings")
    if not 0 < len(genesis.instruments) <= INSTRUMENTS_MAX:
        raise GenesisError("instruments")
    for instrument in genesis.instruments:
        _validate_instrument(genesis, instrument)
    for wallet in (genesis.fee_wallet, genesis.insurance_wallet):
        address(wallet)
    if not (0 <= genesis.taker_fee < WAD // 10 and -WAD // 10 < genesis.maker_fee < WAD // 10):
        raise GenesisError("fees out of range")
    if genesis.maker_fee + genesis.taker_fee < 0:
        raise GenesisError("a trade must not cost the fee account money")
    positive = (
        *(genesis.oracle_max_age_ms, genesis.dispersion_max, genesis.risk_tick_ms),
        *(genesis.deposit_min, genesis.withdrawal_min, genesis.accounts_max),
        *(genesis.suspense_max, genesis.open_orders_max, genesis.sessions_max),
        *(genesis.orders_per_s, genesis.orders_burst, genesis.cancels_per_s),
        *(genesis.cancels_burst, genesis.liquidation_step_ms, genesis.liquidation_share),
        *(genesis.liquidation_min, genesis.liquidation_patience_ms),
    )
    if any(not 0 < value <= LIMIT_MAX for value in positive):
        raise GenesisError("a limit is not in 1..LIMIT_MAX")
    if max(genesis.orders_burst, genesis.cancels_burst) > BUCKET_MAX:
        raise GenesisError("a token bucket is too large")
    if not (0 <= genesis.confidence_min <= WAD and 0 <= genesis.confidence_factor <= WAD):
        raise GenesisError("confidence")
    if not 0 <= genesis.liquidation_fee <= WAD // 20 or genesis.oracle_ahead_max_ms < 0:
        raise GenesisError("liquidation_fee or oracle_ahead_max_ms")


def _validate_instrument(genesis: MarketGenesis, instrument: Instrument) -> None:
    name = instrument.name
    if instrument.kind != "perpetual":
        raise GenesisError(f"{name}: only perpetuals trade yet")
    if not 0 <= instrument.underlying < len(genesis.underlyings):
        raise GenesisError(f"{name}: unknown underlying")
    if not 0 <= instrument.lot_decimals <= LOT_DECIMALS_MAX:
        raise GenesisError(f"{name}: lot_decimals")
    unit = 10**instrument.lot_decimals
    if not 0 < instrument.tick_size <= FEED_VALUE_MAX or instrument.tick_size % unit:
        raise GenesisError(f"{name}: tick_value is not a whole number of micro-USDC")
    if instrument.tick_value > TICK_VALUE_MAX or not 0 < instrument.qty_max <= QTY_MAX:
        raise GenesisError(f"{name}: tick_value or qty_max out of range")
    if not 0 < instrument.maintenance_rate < instrument.initial_rate <= WAD // 3:
        raise GenesisError(f"{name}: rates: 0 < maintenance < initial <= 1/3")
    if not 0 < instrument.price_band <= WAD // 2 or not 0 < instrument.mark_clamp <= WAD // 2:
        raise GenesisError(f"{name}: price_band or mark_clamp")
    if not 0 <= instrument.open_interest_low < instrument.open_interest_high:
        raise GenesisError(f"{name}: open-interest caps")
    positive = (
        *(instrument.size_base, instrument.impact_notional, instrument.last_qty_min),
        instrument.basis_ema_ms,
    )
    if any(not 0 < value < 1 << 62 for value in positive):
        raise GenesisError(f"{name}: a number is not positive")
    if not (0 <= instrument.funding_interest <= WAD and 0 <= instrument.funding_clamp <= WAD):
        raise GenesisError(f"{name}: funding")


def address(text: str) -> bytes:
    """Return the 20 bytes of a hex address, with or without 0x. Errors: GenesisError."""
    try:
        raw = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise GenesisError(f"not an address: {text!r}") from None
    if len(raw) != 20:
        raise GenesisError(f"not an address: {text!r}")
    return raw


def devnet_genesis() -> MarketGenesis:
    """Return the example genesis: BTC-PERP in cents and 0.0001 BTC, ETH-PERP likewise in 0.001.

    One tick of one lot is 1 micro-USDC (BTC) and 10 (ETH).
    """
    return MarketGenesis(
        underlyings=(Underlying(name="BTC"), Underlying(name="ETH")),
        instruments=(
            Instrument(
                name="BTC-PERP",
                underlying=0,
                tick_size=10_000,
                lot_decimals=4,
                qty_max=100_000_000,
                size_base=5_000_000_000_000,
                open_interest_low=1_000_000_000,
                open_interest_high=4_000_000_000,
                impact_notional=1_000_000_000,
                last_qty_min=10,
            ),
            Instrument(
                name="ETH-PERP",
                underlying=1,
                tick_size=10_000,
                lot_decimals=3,
                qty_max=100_000_000,
                size_base=5_000_000_000_000,
                open_interest_low=1_000_000_000,
                open_interest_high=4_000_000_000,
                impact_notional=1_000_000_000,
                last_qty_min=10,
            ),
        ),
    )
