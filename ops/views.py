"""The engine's state as the door shows it: plain numbers turned into the port's records."""

from __future__ import annotations

from matcher import margin
from matcher.engine import Engine
from matcher.state import Market
from matcher.tree import DenseTree, withdrawal_leaf
from ops.gateway.port import (
    AccountView,
    BookLevel,
    BookView,
    InstrumentView,
    OrderView,
    PositionView,
    SessionView,
    WithdrawalProofView,
)
from ops.replica import FormedCheckpoint

SIDES = ("buy", "sell")
SCOPES = {1: "trade", 2: "cancel"}


def instruments(engine: Engine) -> list[InstrumentView]:
    """Return every instrument's terms and present prices."""
    return [_instrument(engine, market) for market in engine.state.markets]


def _instrument(engine: Engine, market: Market) -> InstrumentView:
    spec = market.spec
    feed = engine.state.feeds[spec.underlying]
    return InstrumentView(
        id=market.id,
        symbol=spec.name,
        kind=spec.kind,
        tick_size=spec.tick_size,
        lot_size=_lot_size(spec.lot_decimals),
        tick_value=spec.tick_value,
        qty_max=spec.qty_max,
        index_price=feed.value,
        mark_price=market.mark,
        funding_rate=market.funding_rate,
        last_price=market.last_price,
        band_low=market.band_low,
        band_high=market.band_high,
        open_interest=market.open_interest,
        state="open" if feed.fresh else "cancel_only",
    )


def _lot_size(decimals: int) -> str:
    """Return 10**-decimals as a decimal string."""
    return "0." + "1".zfill(decimals) if decimals else "1"


def book(engine: Engine, instrument: int, depth: int) -> BookView | None:
    """Return the best levels of a book, or None for an unknown instrument."""
    state = engine.state
    if not 0 <= instrument < len(state.markets):
        return None
    levels = state.markets[instrument].book
    return BookView(
        instrument=instrument,
        height=state.height,
        block_time_ms=state.time_ms,
        bids=tuple(BookLevel(price=p, lots=q) for p, q in levels.depth(0, depth)),
        asks=tuple(BookLevel(price=p, lots=q) for p, q in levels.depth(1, depth)),
    )


def account(engine: Engine, address: bytes, subaccount: int) -> AccountView | None:
    """Return what a subaccount has, or None when it does not exist."""
    state = engine.state
    wallet = state.wallets.get(address)
    held = wallet.accounts.get(subaccount) if wallet is not None else None
    if wallet is None or held is None:
        return None
    return AccountView(
        wallet=address,
        subaccount=subaccount,
        index=held.index,
        height=state.height,
        cash=held.cash,
        equity=margin.equity(held),
        initial_margin=margin.initial_margin(state, held),
        maintenance_margin=margin.maintenance_margin(state, held),
        in_liquidation=held.liquidation is not None,
        positions=tuple(
            PositionView(
                instrument=id_,
                lots=position.lots,
                open_buys=position.buys,
                open_sells=position.sells,
                value=position.lots * position.market.value,
            )
            for id_, position in sorted(held.positions.items())
        ),
        orders=tuple(
            OrderView(
                order_id=order.id,
                client_id=order.client_id,
                instrument=order.market.id,
                side=SIDES[order.side],
                price=order.price,
                lots=order.qty,
                open=order.open,
            )
            for _, order in sorted(held.orders.items())
        ),
        sessions=tuple(
            SessionView(address=key, scope=SCOPES[scope], expires_ms=until)
            for key, (scope, until) in sorted(wallet.sessions.items())
        ),
    )


class WithdrawalProofs:
    """Proofs against accepted checkpoints, whose tree is a prefix of the engine's present one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tree = DenseTree()

    def proof(self, index: int, checkpoint: FormedCheckpoint | None) -> WithdrawalProofView | None:
        """Return the proof of withdrawal `index` in `checkpoint`, or None when it is not in it."""
        if checkpoint is None or not 0 <= index < checkpoint.withdrawals:
            return None
        if len(self._tree) > checkpoint.withdrawals:
            self._tree = DenseTree()
        withdrawals = self._engine.state.withdrawals
        for place in range(len(self._tree), checkpoint.withdrawals):
            recipient, amount = withdrawals[place]
            self._tree.set(place, withdrawal_leaf(place, recipient, amount))
        if self._tree.root() != checkpoint.withdrawals_root:
            return None
        recipient, amount = withdrawals[index]
        return WithdrawalProofView(
            index=index,
            recipient=recipient,
            amount=amount,
            checkpoint=checkpoint.number,
            withdrawals_root=checkpoint.withdrawals_root,
            siblings=self._tree.proof(index),
        )
