"""What the door says of a real engine's state."""

from __future__ import annotations

import msgspec

from matcher.actions import SCOPE_CANCEL, AuthoriseSession
from matcher.outcome import Fill
from ops import views
from ops.gateway import wire
from ops.gateway.port import (
    BookLevel,
    OrderView,
    PositionView,
    SessionView,
)
from tests.matcher.market import BUY, USDC, ready, wallet

SELL = 1 - BUY
ALICE, BOB = wallet(0), wallet(1)
PRICE = 23_600


def test_a_trade_shows_in_accounts_book_and_trades() -> None:
    world = ready(10_000, 20_000)
    world.place(BOB, SELL, PRICE, 30)
    events = world.block(world.command(world.order(ALICE, BUY, PRICE, 50))).events
    (fill,) = [event for event in events if isinstance(event, Fill)]
    account = views.account(world.engine, ALICE, 0)
    assert account is not None
    assert account.cash < 10_000 * USDC, "the price and the fee are paid"
    assert account.positions == (
        PositionView(
            instrument=0,
            lots=30,
            open_buys=20,
            open_sells=0,
            value=account.positions[0].value,
        ),
    )
    assert account.orders == (
        OrderView(
            order_id=fill.taker_order,
            client_id=world.client,
            instrument=0,
            side="buy",
            price=PRICE,
            lots=50,
            open=20,
        ),
    )
    assert account.equity == account.cash + account.positions[0].value
    assert account.initial_margin <= account.maintenance_margin <= account.equity
    book = views.book(world.engine, 0, 5)
    assert book is not None
    assert (book.bids, book.asks) == ((BookLevel(price=PRICE, lots=20),), ())
    listed = views.instruments(world.engine)
    assert [view.symbol for view in listed] == ["BTC-PERP", "ETH-PERP"]
    assert (listed[0].last_price, listed[0].open_interest, listed[0].lot_size) == (
        PRICE,
        30,
        "0.0001",
    )
    assert (listed[0].index_price, listed[0].state) == (236 * USDC, "open")


def test_sessions_show_with_their_scope() -> None:
    world = ready(10_000)
    session = b"\x07" * 20
    world.run(AuthoriseSession(ALICE, session, SCOPE_CANCEL, world.now + 99_000))
    account = views.account(world.engine, ALICE, 0)
    assert account is not None
    assert account.sessions == (
        SessionView(address=session, scope="cancel", expires_ms=world.now + 99_000),
    )


def test_what_does_not_exist_is_none() -> None:
    world = ready(10_000)
    assert views.account(world.engine, wallet(9), 0) is None
    assert views.account(world.engine, ALICE, 1) is None
    assert views.book(world.engine, 2, 5) is None
    assert views.book(world.engine, -1, 5) is None


def test_every_view_of_the_engine_reads_back_at_the_client() -> None:
    world = ready(10_000, 20_000)
    world.place(BOB, SELL, PRICE, 30)
    world.place(ALICE, BUY, PRICE, 50)
    world.run(AuthoriseSession(ALICE, b"\x07" * 20, SCOPE_CANCEL, world.now + 99_000))
    account, book = views.account(world.engine, ALICE, 0), views.book(world.engine, 0, 5)
    assert account is not None and book is not None
    data = msgspec.json.encode(wire.view_answer(account))
    read = msgspec.json.decode(data, type=wire.AccountAnswer, strict=False)
    assert (read.cash, read.positions[0].value) == (account.cash, account.positions[0].value)
    data = msgspec.json.encode(wire.view_answer(book))
    assert msgspec.json.decode(data, type=wire.BookAnswer).bids[0].lots == 20
