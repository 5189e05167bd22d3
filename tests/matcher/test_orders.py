"""Orders, one rule a test: what is accepted, refused, traded, cancelled, and why."""

from __future__ import annotations

from msgspec.structs import replace

from matcher.actions import (
    FOK,
    IOC,
    AuthoriseSession,
    Batch,
    CancelAll,
    CancelOrder,
    RevokeSession,
)
from matcher.outcome import Fill, OrderUpdate
from matcher.state import CLIENT_IDS_MAX
from tests.matcher.market import BUY, World, free_genesis, ready, wallet

SELL = 1
A, B, C = wallet(0), wallet(1), wallet(2)


def lots(world: World, who: bytes, instrument: int = 0) -> int:
    held = world.state.wallets[who].accounts[0].positions.get(instrument)
    return held.lots if held else 0


def test_price_then_time_and_the_makers_price() -> None:
    world = ready(1_000, 1_000, 1_000)
    worse = world.place(A, SELL, 23_620, 5).order_id
    first = world.place(A, SELL, 23_610, 5).order_id
    second = world.place(B, SELL, 23_610, 5).order_id
    events = world.block(world.command(world.order(C, BUY, 23_650, 12))).events
    fills = [event for event in events if isinstance(event, Fill)]
    assert [(f.maker_order, f.price, f.qty) for f in fills] == [
        (first, 23_610, 5),
        (second, 23_610, 5),
        (worse, 23_620, 2),
    ]
    assert [(e.order_id, e.state, e.open) for e in events if isinstance(e, OrderUpdate)] == [
        (first, "filled", 0),
        (second, "filled", 0),
        (worse, "partially_filled", 3),
    ]
    assert events[-1].status == "filled" and events[-1].filled == 12  # type: ignore[union-attr]
    assert (lots(world, A), lots(world, B), lots(world, C)) == (-7, -5, 12)


def test_money_of_one_trade_to_the_last_unit() -> None:
    world = ready(1_000, 1_000)
    world.place(A, SELL, 23_611, 7)
    world.place(B, BUY, 23_611, 7)
    cash = [account.cash - 1_000_000_000 for account in world.state.accounts[2:]]
    notional = 7 * 23_611
    taker, maker = -(-notional * 5 // 10_000), -(-notional * 2 // 10_000)
    assert cash == [notional - maker, -notional - taker]
    assert world.state.fees.cash == taker + maker


def test_a_remainder_rests_and_is_reported() -> None:
    world = ready(1_000, 1_000)
    world.place(A, SELL, 23_610, 5)
    done = world.place(B, BUY, 23_610, 9)
    assert (done.status, done.filled, done.remaining) == ("partially_filled", 5, 4)
    assert world.engine.book_view(0, 5)["bids"] == [[23_610, 4]]


def test_ioc_market_and_fok_never_rest() -> None:
    world = ready(1_000, 1_000)
    world.place(A, SELL, 23_610, 5)
    killed = world.place(B, BUY, 23_610, 6, tif=FOK)
    assert (killed.status, killed.reason, killed.filled) == ("cancelled", "fill_or_kill", 0)
    taken = world.place(B, BUY, 23_610, 2, tif=FOK)
    assert (taken.status, taken.filled) == ("filled", 2)
    part = world.place(B, BUY, 23_610, 9, tif=IOC)
    assert (part.status, part.reason, part.filled) == ("cancelled", "no_liquidity", 3)
    nothing = world.place(B, BUY, 0, 9)
    assert (nothing.status, nothing.filled) == ("cancelled", 0)
    assert not world.state.orders


def test_a_market_order_stops_at_the_band() -> None:
    world = ready(100_000, 100_000)
    edge = world.state.markets[0].band_high
    assert edge == 23_600 * 105 // 100
    world.place(A, SELL, edge, 5)
    world.move_spot(0, 220_000_000)
    assert world.place(B, BUY, 0, 9).filled == 0, "the order is now outside the band"
    world.move_spot(0, 236_000_000)
    assert world.place(B, BUY, 0, 9).filled == 5


def test_a_limit_outside_the_band_is_refused_on_both_sides() -> None:
    world = ready(100_000)
    market = world.state.markets[0]
    for side in (BUY, SELL):
        for edge, outwards in ((market.band_low, -1), (market.band_high, 1)):
            assert world.place(A, side, edge, 1).status == "resting"
            world.cancel_all(A)
            assert world.place(A, side, edge + outwards, 1).reason == "price_band"


def test_post_only_never_takes() -> None:
    world = ready(1_000, 1_000)
    world.place(A, SELL, 23_610, 5)
    assert world.place(B, BUY, 23_610, 1, post_only=True).reason == "would_cross"
    assert world.place(B, BUY, 23_609, 1, post_only=True).status == "resting"


def test_reduce_only_is_trimmed_to_the_position() -> None:
    world = ready(1_000, 1_000, 1_000)
    assert world.place(B, SELL, 0, 3, reduce_only=True).reason == "reduce_only"
    world.place(A, SELL, 23_600, 5)
    world.place(B, BUY, 23_600, 5)
    world.place(C, BUY, 23_600, 50)
    assert world.place(B, BUY, 0, 3, reduce_only=True).reason == "reduce_only"
    resting = world.place(B, SELL, 23_700, 3, reduce_only=True)
    assert resting.reason == "reduce_only_resting"
    done = world.place(B, SELL, 23_600, 99, tif=IOC, reduce_only=True)
    assert (done.status, done.filled) == ("filled", 5)
    assert lots(world, B) == 0


def test_a_wallet_never_trades_with_itself() -> None:
    world = ready(1_000, 1_000)
    world.deposit(A, 1_000_000_000, sub=4)
    world.place(B, SELL, 23_609, 2)
    mine = world.place(A, SELL, 23_610, 5, sub=4).order_id
    done = world.place(A, BUY, 23_620, 9)
    assert (done.status, done.reason, done.filled) == ("cancelled", "self_trade", 2)
    assert mine in world.state.orders
    killed = world.place(A, BUY, 23_620, 1, tif=FOK)
    assert killed.reason == "fill_or_kill"


def test_a_resend_does_nothing_again() -> None:
    world = ready(1_000)
    order = world.order(A, BUY, 23_500, 5)
    assert world.run(order).status == "resting"
    assert world.run(order).reason == "duplicate_client_id"
    world.cancel_all(A)
    assert world.run(order).reason == "duplicate_client_id", "nor after it is gone"
    assert world.run(replace(order, subaccount=0, client_id=0)).status == "resting"
    for _ in range(CLIENT_IDS_MAX):
        world.place(A, BUY, 23_500, 5)
        world.cancel_all(A)
    assert world.run(order).reason == "client_id_too_low", "nor when it is forgotten"


def test_a_refused_order_may_come_again_with_its_id() -> None:
    world = ready(1_000)
    order = world.order(A, BUY, 23_500, 10_000_000)
    assert world.run(order).reason == "insufficient_margin"
    assert world.run(replace(order, qty=5)).status == "resting"


def test_cancels() -> None:
    world = ready(1_000, 1_000)
    one, two = world.place(A, BUY, 23_500, 5), world.place(A, SELL, 23_700, 6)
    eth = world.place(A, BUY, 2_390, 7, instrument=1)
    assert world.run(CancelOrder(B, 0, one.order_id)).reason == "unknown_order", "not B's"
    gone = world.run(CancelOrder(A, 0, one.order_id))
    assert (gone.status, gone.reason, gone.remaining) == ("cancelled", "user", 5)
    assert world.run(CancelOrder(A, 0, one.order_id)).reason == "unknown_order"
    by_client = world.state.orders[two.order_id].client_id
    assert world.run(CancelOrder(A, 0, 0, by_client)).order_id == two.order_id
    world.place(A, SELL, 23_700, 6)
    assert world.run(CancelAll(A, 0, instrument=0)).order_id == 1
    assert list(world.state.orders) == [eth.order_id]
    assert world.run(CancelAll(A, 0, side=SELL)).order_id == 0
    assert world.run(CancelAll(A, 0, instrument=2)).reason == "unknown_instrument"
    assert world.run(CancelAll(A, 0, instrument=-1)).reason == "unknown_instrument"
    assert world.run(CancelAll(A, 0)).remaining == 7
    assert not world.state.orders and not world.state.accounts[2].positions


def test_a_batch_is_applied_in_order_each_with_its_result() -> None:
    world = ready(1_000)
    batch = Batch(
        (
            world.order(A, BUY, 23_500, 5),
            world.order(A, BUY, 1, 5),
            CancelAll(A, 0),
            world.order(A, SELL, 23_700, 5),
        )
    )
    done = world.run(batch, A)
    assert done.status == "done"
    assert [(r.status, r.reason) for r in done.results] == [
        ("resting", None),
        ("rejected", "price_band"),
        ("done", None),
        ("resting", None),
    ]


def test_margin_limits_what_may_be_open() -> None:
    world = ready(100)
    # 100 USDC at 6.5 % carry 1,538 USDC: 65,189 lots of .0236 USDC, less the fee of one order.
    most = 100_000_000 * 1000 // 65 // 23_600
    assert world.place(A, BUY, 23_600, most + 1).reason == "insufficient_margin"
    assert world.place(A, BUY, 23_600, most - 1_000).status == "resting"
    assert world.place(A, BUY, 23_500, 2_000).reason == "insufficient_margin"
    assert world.place(A, SELL, 23_700, most - 2_000).status == "resting", "only one side counts"


def test_below_initial_margin_one_may_only_reduce() -> None:
    world = ready(100, 100_000, 100_000)
    world.place(B, SELL, 23_600, 60_000)
    assert world.place(A, BUY, 23_600, 60_000).status == "filled"
    world.place(B, BUY, 23_350, 100_000)
    world.move_spot(0, 234_000_000)
    state, account = world.state, world.state.wallets[A].accounts[0]
    view = world.engine.account_view(A, 0)
    assert view["initial_margin"] < 0 < view["maintenance_margin"]  # type: ignore[operator]
    assert world.place(A, BUY, 23_400, 1).reason == "insufficient_margin"
    assert world.place(A, SELL, 23_400, 60_001).reason == "insufficient_margin"
    low = state.markets[0].band_low
    assert world.place(A, SELL, low, 60_000, tif=IOC).reason == "insufficient_margin", (
        "at that price it could leave a deficit"
    )
    assert world.place(A, SELL, 23_350, 30_000).status == "filled"
    assert account.positions[0].lots == 30_000
    world.cancel_all(B)


def test_limits_on_orders_rate_and_instruments() -> None:
    world = ready(1_000, genesis=free_genesis(open_orders_max=2))
    assert world.place(A, BUY, 23_500, 1, instrument=2).reason == "unknown_instrument"
    assert world.place(A, BUY, 23_500, 100_000_001).reason == "bad_qty"
    for _ in range(2):
        assert world.place(A, BUY, 23_500, 1).status == "resting"
    assert world.place(A, BUY, 23_500, 1).reason == "too_many_orders"
    assert world.place(A, BUY, 23_500, 1, tif=IOC).reason == "no_liquidity"
    slow = ready(1_000, genesis=free_genesis(orders_per_s=2, orders_burst=3, cancels_burst=1,
                                             cancels_per_s=1))  # fmt: skip
    got = [slow.place(A, BUY, 23_500, 1).reason for _ in range(5)]
    assert got == [None, None, None, "rate_limit", "rate_limit"]
    slow.block(after_ms=500)
    got = [slow.place(A, BUY, 23_500, 1).reason for _ in range(2)]
    assert got == [None, "rate_limit"]
    first = next(iter(slow.state.orders))
    assert slow.cancel(A, first).status == "cancelled", "cancels have their own bucket"
    assert slow.cancel(A, first).reason == "rate_limit"
    assert slow.cancel_all(A).status == "done", "cancel-all always passes"


def test_sessions_act_within_scope_and_time() -> None:
    world = ready(1_000)
    key, weak = wallet(50), wallet(51)
    order = world.order(A, BUY, 23_500, 5)
    assert world.run(order, key).reason == "unknown_session"
    grant = AuthoriseSession(A, key, 1, world.now + 1_000)
    assert world.run(grant, key).reason == "wallet_only"
    assert world.run(grant).status == "done"
    assert world.run(AuthoriseSession(A, weak, 2, world.now + 9_000)).status == "done"
    assert world.run(order, key).status == "resting"
    assert world.run(world.order(A, BUY, 23_500, 5), weak).reason == "session_scope"
    assert world.run(CancelAll(A, 0), weak).status == "done"
    world.block(after_ms=1_000)
    assert world.run(world.order(A, BUY, 23_500, 5), key).reason == "session_expired"
    assert world.run(RevokeSession(A, weak), weak).reason == "wallet_only"
    assert world.run(RevokeSession(A, weak)).status == "done"
    assert world.run(CancelAll(A, 0), weak).reason == "unknown_session"
    assert world.run(AuthoriseSession(A, weak, 2, world.now)).reason == "session_expired"


def test_a_wallet_has_a_bounded_number_of_sessions() -> None:
    world = ready(1_000, genesis=free_genesis(sessions_max=2))
    for number in (60, 61):
        grant = AuthoriseSession(A, wallet(number), 1, world.now + 1_000)
        assert world.run(grant).status == "done"
    assert world.run(grant).status == "done", "renewing needs no room"
    more = AuthoriseSession(A, wallet(62), 1, world.now + 5_000)
    assert world.run(more).reason == "too_many_sessions"
    world.block(after_ms=1_000)
    assert world.run(more).status == "done", "expired ones make room"
    assert len(world.state.wallets[A].sessions) == 1
