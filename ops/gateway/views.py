"""The engine's state and events in the door's words."""

from __future__ import annotations

from typing import Any, Final

from matcher import views
from matcher.outcome import CommandOutcome, Fill
from matcher.state import State
from ops.gateway.port import (
    AccountView,
    BookLevel,
    BookView,
    InstrumentView,
    OrderView,
    PositionView,
    SessionView,
    Trade,
)

SIDES: Final = ("buy", "sell")
SCOPES: Final = {1: "trade", 2: "cancel"}


def book_view(state: State, instrument: int, depth: int) -> BookView | None:
    """Return the best `depth` levels of each side; None for an unknown instrument."""
    if not 0 <= instrument < len(state.markets):
        return None
    book = state.markets[instrument].book
    bids, asks = (
        tuple(BookLevel(price=price, lots=lots) for price, lots in book.depth(side, depth))
        for side in (0, 1)
    )
    return BookView(
        instrument=instrument,
        height=state.height,
        block_time_ms=state.time_ms,
        bids=bids,
        asks=asks,
    )


def account_view(state: State, wallet: bytes, subaccount: int) -> AccountView | None:
    """Return the subaccount, or None when it does not exist."""
    found: dict[str, Any] = views.account(state, wallet, subaccount)
    if not found:
        return None
    return AccountView(
        wallet=wallet,
        subaccount=subaccount,
        index=found["index"],
        height=state.height,
        cash=found["cash"],
        equity=found["equity"],
        initial_margin=found["initial_margin"],
        maintenance_margin=found["maintenance_margin"],
        in_liquidation=found["in_liquidation"],
        positions=tuple(PositionView(**position) for position in found["positions"]),
        orders=tuple(
            OrderView(
                order_id=order["order_id"],
                client_id=order["client_id"],
                instrument=order["instrument"],
                side=SIDES[order["side"]],
                price=order["price"],
                lots=order["qty"],
                open=order["open"],
            )
            for order in found["orders"]
        ),
        sessions=tuple(
            SessionView(
                address=bytes.fromhex(session["key"]),
                scope=SCOPES[session["scope"]],
                expires_ms=session["expires_ms"],
            )
            for session in found["sessions"]
        ),
    )


def instrument_views(state: State) -> list[InstrumentView]:
    """Return all instruments by id."""
    found = []
    for market in state.markets:
        spec, feed = market.spec, market.feed
        decimals = spec.lot_decimals
        found.append(
            InstrumentView(
                id=market.id,
                symbol=spec.name,
                kind=spec.kind,
                tick_size=spec.tick_size,
                lot_size="0." + "1".zfill(decimals) if decimals else "1",
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
        )
    return found


def outcome_details(outcome: CommandOutcome) -> dict[str, object]:
    """Return what `Outcome.details` and `ExecutedStage.details` carry of an engine's outcome.

    An outcome of a batch has `results`, one object per action; any other has the object's fields.
    """
    if outcome.results:
        return {
            "results": [
                {
                    "status": result.status,
                    "reason": result.reason or "",
                    "order_id": result.order_id,
                    "filled": result.filled,
                    "remaining": result.remaining,
                }
                for result in outcome.results
            ]
        }
    return {
        "order_id": outcome.order_id,
        "filled": outcome.filled,
        "remaining": outcome.remaining,
    }


def trade_view(fill: Fill, height: int, block_time_ms: int) -> Trade:
    """Return one fill of the block `height`; the engine numbers trades from 1."""
    return Trade(
        sequence=fill.trade,
        instrument=fill.instrument,
        price=fill.price,
        lots=fill.qty,
        taker_side=SIDES[fill.taker_side],
        taker_order=fill.taker_order,
        maker_order=fill.maker_order,
        height=height,
        block_time_ms=block_time_ms,
    )
