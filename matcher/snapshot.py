"""The engine's state as chunks: its digest, its export, and back.

A chunk is the canonical encoding of one part: meta, one market, one wallet with its subaccounts
and their open orders, or up to 256 withdrawals. No two chunks of a state are equal. The books are
not stored: priority is price, then order id, so the orders rebuild them. Integers that may pass 64
bits travel as signed big-endian bytes. The digest and the export are over the same chunks: what
one covers, the other restores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from consensus.codec import CodecError, decode, encode
from consensus.digest import Digest, tagged
from matcher.chunks import ChunkTree
from matcher.genesis import MarketGenesis
from matcher.state import (
    Account,
    ClientIds,
    LiquidationState,
    Market,
    Order,
    Position,
    State,
    Wallet,
)
from matcher.tree import withdrawal_leaf
from matcher.units import Wide, narrow, wide

WITHDRAWALS_PER_CHUNK: Final = 256
SNAPSHOT_BYTES_MAX: Final = 1 << 34
_VERSION: Final = 2


class SnapshotError(ValueError):
    """The bytes are no export of an engine with this genesis."""


class MetaChunk(Struct, frozen=True, array_like=True, tag="meta"):
    """What belongs to no market and no wallet; feeds are (value, time_ms, dispersion, fresh)."""

    version: int
    genesis: bytes
    n: int
    f: int
    height: int
    time_ms: int
    tick: int
    tick_ms: int
    next_order: int
    next_trade: int
    inbox_count: int
    inbox_hash: bytes
    vault: Wide
    withdrawn_total: Wide
    accounts: int
    withdrawals: int
    feeds: tuple[tuple[int, int, int, bool], ...]


class MarketChunk(Struct, frozen=True, array_like=True, tag="market"):
    """One market's numbers, as `state.Market` names them."""

    id: int
    mark: int
    mark_ms: int
    lot_mark: int
    funding: Wide
    funding_acc: Wide
    funding_rate: int
    basis_wad: Wide
    last_price: int
    premium_sum: Wide
    premium_ms: int
    open_interest: Wide
    initial_rate: int
    surcharge_num: Wide
    surcharge_den: Wide
    band_low: int
    band_high: int


class OrderRow(Struct, frozen=True, array_like=True):
    """One open order."""

    id: int
    instrument: int
    client_id: int
    side: int
    price: int
    qty: int
    open: int


class AccountRow(Struct, frozen=True, array_like=True):
    """One subaccount: positions by instrument, orders by id; liquidation as in `state`."""

    index: int
    sub: int
    cash: Wide
    positions: tuple[tuple[int, Wide], ...]
    orders: tuple[OrderRow, ...]
    client_ids: tuple[int, ...]
    withdrawal_ids: tuple[bytes, ...]
    liquidation: tuple[int, Wide, int, Wide] | None


class WalletChunk(Struct, frozen=True, array_like=True, tag="wallet"):
    """One wallet: sessions (key, scope, expiry) by key, subaccounts by number."""

    address: bytes
    sessions: tuple[tuple[bytes, int, int], ...]
    orders_milli: int
    cancels_milli: int
    bucket_ms: int
    accounts: tuple[AccountRow, ...]


class WithdrawalsChunk(Struct, frozen=True, array_like=True, tag="withdrawals"):
    """Up to 256 withdrawals, (recipient, amount) each, from the index `first` on."""

    first: int
    rows: tuple[tuple[bytes, int], ...]


class Export(Struct, frozen=True, array_like=True):
    """All chunks, in the order of the digest: `system` is meta, then the markets."""

    system: tuple[bytes, ...]
    wallets: tuple[bytes, ...]
    withdrawals: tuple[bytes, ...]


def genesis_digest(genesis: MarketGenesis, n: int, f: int) -> Digest:
    """Return what binds a snapshot to its genesis."""
    return tagged(b"fairlane/market-genesis", encode((genesis, n, f)))


class StateDigest:
    """The digest of one `State`, kept up to date by what it says was touched."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._genesis = genesis_digest(state.genesis, state.n, state.f)
        self._system = ChunkTree()
        self._wallets = ChunkTree()
        self._withdrawals = ChunkTree()
        self._withdrawn = 0

    def trees(self) -> tuple[ChunkTree, ChunkTree, ChunkTree]:
        """Return the trees over system, wallets and withdrawals, brought up to date."""
        state = self._state
        for place, chunk in enumerate(system_chunks(state, self._genesis)):
            self._system.set(place, chunk)
        for wallet in sorted(state.touched, key=lambda wallet: wallet.index):
            wallet.touched = False
            self._wallets.set(wallet.index, wallet_chunk(wallet))
        state.touched.clear()
        first = self._withdrawn // WITHDRAWALS_PER_CHUNK
        if len(state.withdrawals) > self._withdrawn:
            for number, chunk in enumerate(withdrawal_chunks(state, first), first):
                self._withdrawals.set(number, chunk)
            self._withdrawn = len(state.withdrawals)
        return self._system, self._wallets, self._withdrawals

    def digest(self) -> Digest:
        """Return the digest of all that the next block depends on."""
        parts = tuple((len(tree), tree.root()) for tree in self.trees())
        return tagged(b"fairlane/engine-state", encode(parts))


def export(state: State) -> bytes:
    """Return the canonical snapshot: equal states export equal bytes."""
    genesis = genesis_digest(state.genesis, state.n, state.f)
    return encode(
        Export(
            tuple(system_chunks(state, genesis)),
            tuple(wallet_chunk(wallet) for wallet in state.wallet_list),
            tuple(withdrawal_chunks(state, 0)),
        )
    )


def system_chunks(state: State, genesis: bytes) -> list[bytes]:
    """Return the chunks of everything global and of the markets."""
    return [meta_chunk(state, genesis), *(market_chunk(market) for market in state.markets)]


def meta_chunk(state: State, genesis: bytes) -> bytes:
    """Return the chunk of everything global."""
    return encode(
        MetaChunk(
            _VERSION,
            genesis,
            state.n,
            state.f,
            state.height,
            state.time_ms,
            state.tick,
            state.tick_ms,
            state.next_order,
            state.next_trade,
            state.inbox_count,
            state.inbox_hash,
            wide(state.vault),
            wide(state.withdrawn_total),
            len(state.accounts),
            len(state.withdrawals),
            tuple((feed.value, feed.time_ms, feed.dispersion, feed.fresh) for feed in state.feeds),
        )
    )


_WIDE_FIELDS = (
    *("funding", "funding_acc", "basis_wad", "premium_sum", "open_interest"),
    *("surcharge_num", "surcharge_den"),
)


def market_chunk(market: Market) -> bytes:
    """Return one market's chunk."""
    values = {name: getattr(market, name) for name in MarketChunk.__struct_fields__}
    for name in _WIDE_FIELDS:
        values[name] = wide(values[name])
    return encode(MarketChunk(**values))


def wallet_chunk(wallet: Wallet) -> bytes:
    """Return one wallet's chunk."""
    return encode(
        WalletChunk(
            wallet.address,
            tuple((key, *held) for key, held in sorted(wallet.sessions.items())),
            wallet.orders_milli,
            wallet.cancels_milli,
            wallet.bucket_ms,
            tuple(_account_row(account) for _, account in sorted(wallet.accounts.items())),
        )
    )


def _account_row(account: Account) -> AccountRow:
    held = account.liquidation
    return AccountRow(
        account.index,
        account.sub,
        wide(account.cash),
        tuple((id_, wide(p.lots)) for id_, p in sorted(account.positions.items()) if p.lots),
        tuple(
            OrderRow(o.id, o.market.id, o.client_id, o.side, o.price, o.qty, o.open)
            for _, o in sorted(account.orders.items())
        ),
        tuple(account.client_ids.ids),
        tuple(account.withdrawal_ids),
        None
        if held is None
        else (held.since_ms, wide(held.opening), held.window_ms, wide(held.window_used)),
    )


def withdrawal_chunks(state: State, first: int) -> list[bytes]:
    """Return the chunks of withdrawals from chunk number `first` on."""
    rows = state.withdrawals
    size = WITHDRAWALS_PER_CHUNK
    return [
        encode(WithdrawalsChunk(at, tuple(rows[at : at + size])))
        for at in range(first * size, len(rows), size)
    ]


def restore(genesis: MarketGenesis, n: int, f: int, data: bytes) -> State:
    """Return the state behind an export. Errors: SnapshotError."""
    try:
        whole = decode(Export, data, SNAPSHOT_BYTES_MAX)
    except CodecError as error:
        raise SnapshotError(str(error)) from None
    state = load(genesis, n, f, (whole.system, whole.wallets, whole.withdrawals))
    if export(state) != data:
        raise SnapshotError("not what an engine would export")
    return state


def load(genesis: MarketGenesis, n: int, f: int, parts: Sequence[Sequence[bytes]]) -> State:
    """Return the state behind the chunks of system, wallets and withdrawals.

    The caller compares the digest afterwards: that is what says whether to trust it.
    Errors: SnapshotError.
    """
    try:
        system, wallets, withdrawals = parts
        meta = decode(MetaChunk, system[0])
        if meta.version != _VERSION or meta.genesis != genesis_digest(genesis, n, f):
            raise SnapshotError("another version, genesis or committee size")
        state = State(genesis, n, f)
        _restore_meta(state, meta)
        for market, chunk in zip(state.markets, system[1:], strict=True):
            _restore_market(market, decode(MarketChunk, chunk))
        held = [decode(WalletChunk, chunk, SNAPSHOT_BYTES_MAX) for chunk in wallets]
        _restore_wallets(state, meta, held)
        for chunk in withdrawals:
            state.withdrawals.extend(decode(WithdrawalsChunk, chunk).rows)
    except (CodecError, IndexError, KeyError, ValueError, AssertionError) as error:
        raise SnapshotError(str(error)) from None
    if len(state.withdrawals) != meta.withdrawals:
        raise SnapshotError("withdrawals are missing")
    for index, (recipient, amount) in enumerate(state.withdrawals):
        state.withdrawal_tree.set(index, withdrawal_leaf(index, recipient, amount))
    return state


def _restore_meta(state: State, meta: MetaChunk) -> None:
    state.height, state.time_ms = meta.height, meta.time_ms
    state.tick, state.tick_ms = meta.tick, meta.tick_ms
    state.next_order, state.next_trade = meta.next_order, meta.next_trade
    state.inbox_count, state.inbox_hash = meta.inbox_count, meta.inbox_hash
    state.vault, state.withdrawn_total = narrow(meta.vault), narrow(meta.withdrawn_total)
    for feed, row in zip(state.feeds, meta.feeds, strict=True):
        feed.value, feed.time_ms, feed.dispersion, feed.fresh = row


def _restore_market(market: Market, chunk: MarketChunk) -> None:
    if chunk.id != market.id:
        raise SnapshotError("markets in another order")
    for name in MarketChunk.__struct_fields__:
        if name not in ("id", "initial_rate"):
            setattr(market, name, narrow(getattr(chunk, name)))
    market.set_initial_rate(chunk.initial_rate)
    market.value = market.lot_mark - market.funding


def _restore_wallets(state: State, meta: MetaChunk, chunks: list[WalletChunk]) -> None:
    """Rebuild wallets, accounts by index, orders, and the books in order of priority."""
    accounts: dict[int, Account] = {}
    for chunk in chunks:
        wallet = state.wallet_of(chunk.address)
        wallet.sessions = {key: (scope, until) for key, scope, until in chunk.sessions}
        wallet.orders_milli, wallet.cancels_milli = chunk.orders_milli, chunk.cancels_milli
        wallet.bucket_ms = chunk.bucket_ms
        for row in chunk.accounts:
            account = Account(row.index, wallet, row.sub)
            _restore_account(state, account, row)
            wallet.accounts[row.sub] = account
            accounts[row.index] = account
    state.accounts = [accounts[index] for index in range(meta.accounts)]
    if len(accounts) != meta.accounts or len(state.wallet_list) != len(chunks):
        raise SnapshotError("accounts or wallets are missing")
    state.suspense_count = sum(1 for account in state.accounts if account.sub == 255)
    for account in state.accounts:
        state.cash_changed(account)
        state.margin_changed(account)
        if account.liquidation is not None:
            state.liquidating[account.index] = account
    for _, order in sorted(state.orders.items()):
        order.market.book.place(order.id, order.account.index, order.side, order.price, order.open)


def _restore_account(state: State, account: Account, row: AccountRow) -> None:
    account.cash = narrow(row.cash)
    account.client_ids = ClientIds(list(row.client_ids))
    account.withdrawal_ids = dict.fromkeys(row.withdrawal_ids)
    if row.liquidation is not None:
        since, opening, window, used = row.liquidation
        account.liquidation = LiquidationState(since, narrow(opening), window, narrow(used))
    for id_, lots in row.positions:
        position = Position(state.markets[id_])
        position.lots = narrow(lots)
        account.positions[id_] = position
    for saved in row.orders:
        market = state.markets[saved.instrument]
        order = Order(
            saved.id,
            account,
            market,
            saved.client_id,
            saved.side,
            saved.price,
            saved.qty,
            saved.open,
        )
        held = account.positions.setdefault(market.id, Position(market))
        held.orders += 1
        if order.side == 0:
            held.buys += order.open
        else:
            held.sells += order.open
        state.orders[order.id] = order
        account.orders[order.id] = order
        account.by_client[order.client_id] = order
