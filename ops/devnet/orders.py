"""From order flow to the traders' actions, and from order flow to an index price."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from matcher.actions import (
    BUY,
    GTC,
    IOC,
    LIMIT,
    MARKET,
    CancelOrder,
    PlaceOrder,
    TradeAction,
)
from matcher.book import OP_CANCEL, OP_LIMIT, Book
from matcher.genesis import Instrument
from ops.devnet.prices import PriceBoard
from ops.flow.event import FlowEvent

INDEX_STEP_DIVISOR = 200
"""The index follows the middle of the flow's own book by at most 1/200 at a time."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What a file's numbers are in the instrument's units: `lot` of the file's quantity a lot."""

    lot: int = 1


def to_action(event: FlowEvent, wallet: bytes, scale: Scale) -> TradeAction:
    """Return the action of `wallet` that one event of the flow stands for.

    The order's id in the flow is its client id, so that a cancel finds it.
    """
    client_id = event.id + 1
    if event.op == OP_CANCEL:
        return CancelOrder(wallet, 0, 0, client_id)
    qty = max(1, event.qty // scale.lot)
    if event.op == OP_LIMIT:
        return PlaceOrder(
            wallet, 0, event.instrument, client_id, event.side, LIMIT, event.price, qty, GTC
        )
    return PlaceOrder(wallet, 0, event.instrument, client_id, event.side, MARKET, 0, qty, IOC)


class IndexFollower:
    """Keeps the flow's own books and moves the board's prices to their middle."""

    def __init__(self, board: PriceBoard, instruments: tuple[Instrument, ...]) -> None:
        self._board = board
        self._instruments = instruments
        self._books = [Book() for _ in instruments]

    def take(self, event: FlowEvent) -> None:
        """Play one event, then let the index follow."""
        book = self._books[event.instrument]
        if event.op == OP_CANCEL:
            book.cancel(event.id)
            return
        if event.id in book or event.qty <= 0:
            return
        limit = event.price if event.op == OP_LIMIT else None
        left = event.qty - sum(fill.qty for fill in book.match(event.side, limit, event.qty))
        if left and event.op == OP_LIMIT:
            book.place(event.id, 0, event.side, event.price, left)
        self._follow(event.instrument, book)

    def _follow(self, instrument: int, book: Book) -> None:
        bid, ask = book.best(0), book.best(1)
        if bid is None or ask is None:
            return
        spec = self._instruments[instrument]
        value = self._board.value(spec.underlying)
        middle = (bid + ask) * spec.tick_size // 2
        step = max(1, value // INDEX_STEP_DIVISOR)
        self._board.set(spec.underlying, value + max(-step, min(step, middle - value)))


def first_price(events: Iterator[FlowEvent]) -> tuple[int, list[FlowEvent]]:
    """Return the first price of a flow, in ticks, and the events read to find it."""
    read: list[FlowEvent] = []
    for event in events:
        read.append(event)
        if event.op == OP_LIMIT and event.side == BUY:
            return event.price, read
    raise ValueError("the flow has no limit order to buy")
