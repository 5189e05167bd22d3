"""The engine's state: wallets, accounts, positions, orders, markets, feeds.

Everything here is part of the state digest, or derived from it and then said to be. Rows are
made once and changed in place, so that a command touches only what it names.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final

from matcher.actions import SUBACCOUNT_FEES, SUBACCOUNT_INSURANCE
from matcher.book import Book
from matcher.genesis import Instrument, MarketGenesis, address
from matcher.inbox import INBOX_START
from matcher.outcome import Event
from matcher.tree import DenseTree
from matcher.units import reduced

CLIENT_IDS_MAX: Final = 256
"""Client ids remembered per subaccount: the highest that were accepted."""
WITHDRAWAL_IDS_MAX: Final = 64
"""Withdrawals' client ids remembered per subaccount: the latest."""


class ClientIds:
    """The highest client ids that a subaccount has used; each is accepted at most once, ever.

    An id is refused when it is remembered, and, once the memory is full, when it is below all
    that are remembered: it may have been used and forgotten. So ids should grow (a counter, a
    time), in any order within the last 256.
    """

    __slots__ = ("ids",)

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def refusal(self, client_id: int) -> str | None:
        """Return the reason to refuse `client_id`, or None."""
        ids = self.ids
        if not ids or client_id > ids[-1]:
            return None
        at = bisect_left(ids, client_id)
        if ids[at] == client_id:
            return "duplicate_client_id"
        return "client_id_too_low" if at == 0 and len(ids) >= CLIENT_IDS_MAX else None

    def add(self, client_id: int) -> None:
        """Remember an accepted id."""
        ids = self.ids
        if not ids or client_id > ids[-1]:
            ids.append(client_id)
        else:
            insort(ids, client_id)
        if len(ids) > CLIENT_IDS_MAX:
            del ids[0]


class Wallet:
    """A wallet: its sessions (key -> scope, expiry), token buckets and subaccounts.

    `orders_milli`, `cancels_milli` are the buckets' tokens in thousandths at `bucket_ms`.
    `touched`: changed since the last digest (derived).
    """

    __slots__ = (
        "accounts",
        "address",
        "bucket_ms",
        "cancels_milli",
        "index",
        "orders_milli",
        "sessions",
        "touched",
    )

    def __init__(self, index: int, address_: bytes, genesis: MarketGenesis, now_ms: int) -> None:
        self.index = index
        self.address = address_
        self.sessions: dict[bytes, tuple[int, int]] = {}
        self.accounts: dict[int, Account] = {}
        self.orders_milli = 1_000 * genesis.orders_burst
        self.cancels_milli = 1_000 * genesis.cancels_burst
        self.bucket_ms = now_ms
        self.touched = False


class Account:
    """A subaccount. `cash` is normalised: equity = cash + sum of lots x the market's value.

    Derived: `free`, the sum of the positions' contributions to initial margin as of risk tick
    `tick`; `by_client`; `leaf_stale` (the account tree has an older leaf); `margin_stale` (its
    maintenance must be checked at the next risk tick); `check`, the number of its last check.
    """

    __slots__ = (
        "by_client",
        "cash",
        "check",
        "client_ids",
        "free",
        "index",
        "leaf_stale",
        "liquidation",
        "margin_stale",
        "orders",
        "positions",
        "sub",
        "tick",
        "wallet",
        "withdrawal_ids",
    )

    def __init__(self, index: int, wallet: Wallet, sub: int) -> None:
        self.index = index
        self.wallet = wallet
        self.sub = sub
        self.cash = 0
        self.positions: dict[int, Position] = {}
        self.orders: dict[int, Order] = {}
        self.by_client: dict[int, Order] = {}
        self.client_ids = ClientIds([])
        self.withdrawal_ids: dict[bytes, None] = {}
        self.liquidation: LiquidationState | None = None
        self.free = 0
        self.tick = -1
        self.check = 0
        self.leaf_stale = False
        self.margin_stale = False


class Position:
    """An account's lots and open orders in one market.

    Derived from the orders: `buys`, `sells` (open lots), `orders` (their count). Derived as of
    the account's `tick`: `loss` of the open orders against mark, `contribution` to initial margin.
    """

    __slots__ = ("buys", "contribution", "loss", "lots", "market", "orders", "sells")

    def __init__(self, market: Market) -> None:
        self.market = market
        self.lots = 0
        self.buys = 0
        self.sells = 0
        self.orders = 0
        self.loss = 0
        self.contribution = 0


class Order:
    """A resting order; `open` is what remains of `qty`."""

    __slots__ = ("account", "client_id", "id", "market", "open", "price", "qty", "side")

    def __init__(
        self, id_: int, account: Account, market: Market, client_id: int, side: int, price: int,
        qty: int, open_: int,
    ) -> None:  # fmt: skip
        self.id = id_
        self.account = account
        self.market = market
        self.client_id = client_id
        self.side = side
        self.price = price
        self.qty = qty
        self.open = open_


class LiquidationState:
    """Where an account's liquidation stands.

    `opening` is the notional of its positions when it began; `window_used` what was reduced in
    the window that began at `window_ms`. Units: micro-USDC, ms.
    """

    __slots__ = ("opening", "since_ms", "window_ms", "window_used")

    def __init__(self, since_ms: int, opening: int, window_ms: int, window_used: int) -> None:
        self.since_ms = since_ms
        self.opening = opening
        self.window_ms = window_ms
        self.window_used = window_used


class Feed:
    """An underlying's price: the median of fresh observations, and how old and wide it is.

    `value` 0 means none yet. `fresh` says whether `now - time_ms` is within the maximum age.
    """

    __slots__ = ("dispersion", "fresh", "time_ms", "value")

    def __init__(self) -> None:
        self.value = 0
        self.time_ms = 0
        self.dispersion = 0
        self.fresh = False


class Market:
    """One instrument at work.

    State: `mark` (micro-USDC per unit), `lot_mark` and `value` (per lot; value = lot_mark -
    funding), `funding` (cumulative, per lot) and its exact accumulator, the basis' average (WAD),
    the last trade, the premium's time-weighted sum since the last risk tick, open interest,
    the initial rate and confidence surcharge of this risk tick, the band in ticks.
    Derived: `travelled`, `due` (see `risk`), reduced fractions of rates.
    """

    __slots__ = (
        "band_high",
        "band_low",
        "basis_wad",
        "book",
        "due",
        "feed",
        "funding",
        "funding_acc",
        "funding_rate",
        "id",
        "initial_den",
        "initial_num",
        "initial_rate",
        "last_price",
        "leaf_value",
        "lot_mark",
        "lot_units",
        "maintenance_den",
        "maintenance_num",
        "maker_den",
        "maker_num",
        "mark",
        "mark_ms",
        "open_interest",
        "premium_ms",
        "premium_sum",
        "qty_max",
        "size_base",
        "spec",
        "surcharge_den",
        "surcharge_num",
        "taker_den",
        "taker_num",
        "tick_value",
        "travelled",
        "value",
    )

    def __init__(self, id_: int, spec: Instrument, genesis: MarketGenesis, feed: Feed) -> None:
        self.id = id_
        self.spec = spec
        self.feed = feed
        self.book = Book()
        self.tick_value = spec.tick_value
        self.lot_units = int(10**spec.lot_decimals)
        self.qty_max = spec.qty_max
        self.size_base = spec.size_base
        self.maintenance_num, self.maintenance_den = reduced(spec.maintenance_rate)
        self.maker_num, self.maker_den = reduced(genesis.maker_fee)
        self.taker_num, self.taker_den = reduced(genesis.taker_fee)
        self.mark = 0
        self.mark_ms = 0
        self.lot_mark = 0
        self.funding = 0
        self.value = 0
        self.leaf_value: int | None = None
        self.funding_acc = 0
        self.funding_rate = 0
        self.basis_wad = 0
        self.last_price = 0
        self.premium_sum = 0
        self.premium_ms = 0
        self.open_interest = 0
        self.initial_rate = 0
        self.set_initial_rate(spec.initial_rate)
        self.surcharge_num = 0
        self.surcharge_den = 1
        self.band_low = 0
        self.band_high = 0
        self.travelled = 0
        self.due: list[tuple[int, int, int]] = []

    def set_initial_rate(self, rate: int) -> None:
        """Use the initial requirement `rate` (WAD) from now on."""
        if rate != self.initial_rate:
            self.initial_rate = rate
            self.initial_num, self.initial_den = reduced(rate)


class State:
    """All of the engine's state, and the events of the block at work."""

    def __init__(self, genesis: MarketGenesis, n: int, f: int) -> None:
        self.genesis = genesis
        self.n = n
        self.f = f
        self.height = 0
        self.time_ms = 0
        self.tick = 0
        self.tick_ms = -1
        self.next_order = 1
        self.next_trade = 1
        self.inbox_count = 0
        self.inbox_hash = INBOX_START
        self.vault = 0
        self.withdrawn_total = 0
        self.suspense_count = 0
        self.feeds = [Feed() for _ in genesis.underlyings]
        self.markets = [
            Market(id_, spec, genesis, self.feeds[spec.underlying])
            for id_, spec in enumerate(genesis.instruments)
        ]
        self.wallets: dict[bytes, Wallet] = {}
        self.wallet_list: list[Wallet] = []
        self.accounts: list[Account] = []
        self.orders: dict[int, Order] = {}
        self.withdrawals: list[tuple[bytes, int]] = []
        self.liquidating: dict[int, Account] = {}
        # Derived.
        self.events: list[Event] = []
        self.touched: list[Wallet] = []
        self.leaves_stale: list[Account] = []
        self.margins_stale: list[Account] = []
        self.account_tree = DenseTree()
        self.value_tree = DenseTree()
        self.withdrawal_tree = DenseTree()

    def open_system_accounts(self) -> None:
        """Open the fee account (index 0) and the insurance fund (index 1)."""
        self.open_account(self.wallet_of(address(self.genesis.fee_wallet)), SUBACCOUNT_FEES)
        insurance = self.wallet_of(address(self.genesis.insurance_wallet))
        self.open_account(insurance, SUBACCOUNT_INSURANCE)

    @property
    def fees(self) -> Account:
        """The fee account."""
        return self.accounts[0]

    @property
    def insurance(self) -> Account:
        """The insurance fund."""
        return self.accounts[1]

    def wallet_of(self, address_: bytes) -> Wallet:
        """Return the wallet of an address, made now if it is new."""
        wallet = self.wallets.get(address_)
        if wallet is None:
            wallet = Wallet(len(self.wallet_list), address_, self.genesis, self.time_ms)
            self.wallets[address_] = wallet
            self.wallet_list.append(wallet)
            self.touch(wallet)
        return wallet

    def open_account(self, wallet: Wallet, sub: int) -> Account:
        """Open a subaccount with the next index."""
        assert sub not in wallet.accounts
        account = Account(len(self.accounts), wallet, sub)
        wallet.accounts[sub] = account
        self.accounts.append(account)
        self.touch(wallet)
        self.cash_changed(account)
        return account

    def is_live(self, market: Market) -> bool:
        """Say whether the market's index is fresh and its mark is of the last risk tick.

        After a stale time the index is fresh up to one tick before the mark follows it.
        """
        return market.feed.fresh and market.mark_ms == self.tick_ms

    def touch(self, wallet: Wallet) -> None:
        """Note that the wallet, or a subaccount of it, differs from the last digest."""
        if not wallet.touched:
            wallet.touched = True
            self.touched.append(wallet)

    def cash_changed(self, account: Account) -> None:
        """Note that the account's leaf is stale, and the digest's part."""
        if not account.leaf_stale:
            account.leaf_stale = True
            self.leaves_stale.append(account)
        wallet = account.wallet
        if not wallet.touched:
            wallet.touched = True
            self.touched.append(wallet)

    def margin_changed(self, account: Account) -> None:
        """Note that the account's maintenance margin may have fallen: check it at the next tick."""
        if not account.margin_stale:
            account.margin_stale = True
            self.margins_stale.append(account)
