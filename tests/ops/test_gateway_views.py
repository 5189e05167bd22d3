"""What the door says of a real engine's state."""

from __future__ import annotations

import msgspec

from matcher.actions import SCOPE_CANCEL, AuthoriseSession, Batch, CancelOrder
from matcher.outcome import Fill
from ops.gateway import wire
from ops.gateway.port import (
    BookLevel,
    OrderView,
    PositionView,
    SessionView,
)
from ops.gateway.views import (
    account_view,
    book_view,
    instrument_views,
    outcome_details,
    trade_view,
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
    trade = trade_view(fill, world.height, world.now)
    assert (trade.sequence, trade.price, trade.lots, trade.taker_side) == (1, PRICE, 30, "buy")
    assert (trade.height, trade.block_time_ms) == (world.height, world.now)
    account = account_view(world.state, ALICE, 0)
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
            order_id=trade.taker_order,
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
    book = book_view(world.state, 0, 5)
    assert book is not None
    assert (book.bids, book.asks) == ((BookLevel(price=PRICE, lots=20),), ())
    listed = instrument_views(world.state)
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
    account = account_view(world.state, ALICE, 0)
    assert account is not None
    assert account.sessions == (
        SessionView(address=session, scope="cancel", expires_ms=world.now + 99_000),
    )


def test_what_does_not_exist_is_none() -> None:
    world = ready(10_000)
    assert account_view(world.state, wallet(9), 0) is None
    assert account_view(world.state, ALICE, 1) is None
    assert book_view(world.state, 2, 5) is None
    assert book_view(world.state, -1, 5) is None


def test_a_batch_tells_of_each_action() -> None:
    world = ready(10_000)
    order = world.order(ALICE, BUY, PRICE, 5)
    outcome = world.run(Batch((order, CancelOrder(ALICE, 0, 999))), ALICE)
    details = outcome_details(outcome)
    assert details == {
        "results": [
            {"status": "resting", "reason": "", "order_id": 1, "filled": 0, "remaining": 5},
            {
                "status": "rejected",
                "reason": "unknown_order",
                "order_id": 0,
                "filled": 0,
                "remaining": 0,
            },
        ]
    }
    single = outcome_details(world.place(ALICE, BUY, PRICE, 7))
    assert single == {"order_id": 2, "filled": 0, "remaining": 7}


def test_every_view_of_the_engine_reads_back_at_the_client() -> None:
    world = ready(10_000, 20_000)
    world.place(BOB, SELL, PRICE, 30)
    world.place(ALICE, BUY, PRICE, 50)
    world.run(AuthoriseSession(ALICE, b"\x07" * 20, SCOPE_CANCEL, world.now + 99_000))
    account, book = account_view(world.state, ALICE, 0), book_view(world.state, 0, 5)
    assert account is not None and book is not None
    data = msgspec.json.encode(wire.view_answer(account))
    read = msgspec.json.decode(data, type=wire.AccountAnswer, strict=False)
    assert (read.cash, read.positions[0].value) == (account.cash, account.positions[0].value)
    data = msgspec.json.encode(wire.view_answer(book))
    assert msgspec.json.decode(data, type=wire.BookAnswer).bids[0].lots == 20
