"""Risk ticks and liquidation: marks as stated, everybody below maintenance found, nobody else."""

from __future__ import annotations

import heapq
from itertools import pairwise
from random import Random

import pytest

from matcher import risk
from matcher.outcome import Fill, InsurancePaid, Liquidation, MarkMoved, OrderUpdate
from tests.matcher import naive_margin as naive
from tests.matcher.market import BUY, USDC, World, changed_instruments, free_genesis, ready, wallet

SELL = 1
A, B, C = wallet(0), wallet(1), wallet(2)


def account(world: World, who: bytes):  # type: ignore[no-untyped-def]
    return world.state.wallets[who].accounts[0]


def test_the_mark_is_the_stated_median() -> None:
    world = ready(1_000_000, 1_000_000)
    market = world.state.markets[0]
    assert market.mark == 236_000_000, "an empty book: the index"
    world.place(A, BUY, 23_700, 10)
    world.block(after_ms=500)
    assert market.mark == 236_000_000, "one side is no mid"
    world.place(A, SELL, 23_720, 10)
    marks = []
    for _ in range(240):
        (moved,) = [
            event
            for event in world.block(after_ms=500).events
            if isinstance(event, MarkMoved) and event.instrument == 0
        ]
        marks.append(moved.mark)
    # No trade yet, so the median is the smoothed basis: 1.1 USDC x (1 - e**(-t / 30 s)).
    assert marks == sorted(marks)
    assert abs(marks[59] - (236_000_000 + 695_333)) < 5
    world.place(B, BUY, 23_720, 10)
    world.place(A, SELL, 23_720, 10)
    world.block(after_ms=500)
    assert market.mark == 237_100_000, "last 237.2 > mid 237.1 > smoothed"
    world.move_spot(0, 230_000_000)
    assert market.mark == 231_150_000, "mid and last within half a percent of the index"


def test_marks_stand_still_between_ticks_and_while_stale() -> None:
    world = ready(1_000)
    world.block(after_ms=500 - world.now % 500)
    world.spot[0] = 240_000_000
    world.block(after_ms=499)
    assert world.state.markets[0].mark == 236_000_000
    world.block(after_ms=1)
    assert world.state.markets[0].mark == 240_000_000
    world.quiet = True
    for _ in range(30):
        world.block(after_ms=500)
    assert not world.state.feeds[0].fresh
    assert world.state.markets[0].mark == 240_000_000


def test_initial_rate_rises_with_open_interest() -> None:
    genesis = changed_instruments(free_genesis(), open_interest_low=1_000, open_interest_high=3_000)
    world = ready(1_000_000, 1_000_000, genesis=genesis)
    market = world.state.markets[0]
    for qty, rate in ((1_000, 65), (1_000, 65 + 935 // 2), (1_000, 1_000), (1_000, 1_000)):
        world.place(A, SELL, 23_600, qty)
        world.place(B, BUY, 23_600, qty)
        world.block(after_ms=500)
        assert market.initial_rate // 10**15 == rate


def levered(seed: int, traders: int) -> tuple[World, Random]:
    """Traders at random leverage up to the limit, against one rich maker, with open orders."""
    rng = Random(seed)
    genesis = changed_instruments(
        free_genesis(liquidation_min=10 * USDC), size_base=3_000 * USDC, last_qty_min=1 << 39
    )
    world = ready(50_000_000, *([200] * traders), genesis=genesis)
    for number in range(1, traders + 1):
        for instrument, price in ((0, 23_600), (1, 2_400)):
            side, qty = rng.randrange(2), rng.randint(30_000, 110_000)
            world.place(wallet(0), 1 - side, price, qty, instrument=instrument)
            world.place(wallet(number), side, price, qty, instrument=instrument)
            world.cancel_all(wallet(0))
            away = price + (1 if side else -1) * rng.randint(1, 100) * price // 10_000
            world.place(wallet(number), side, away, rng.randint(1, 20_000), instrument=instrument)
    return world, rng


def walk(world: World, rng: Random, ticks: int) -> int:
    """Move prices; everybody below maintenance must be seen. Return the number of checks."""
    checks = 0
    real = risk._check

    def counted(state, account):  # type: ignore[no-untyped-def]
        nonlocal checks
        checks += 1
        return real(state, account)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(risk, "_check", counted)
        for _ in range(ticks):
            for feed in (0, 1):
                world.spot[feed] += int(world.spot[feed] * rng.gauss(0, 0.002))
            world.block(after_ms=500)
            for one in world.state.accounts:
                if naive.margin(world.state, one, False) < 0:
                    assert one.margin_stale or one.liquidation is not None, "nobody noticed"
    return checks


def test_safe_distances_miss_nobody_and_spare_most() -> None:
    hurt = 0
    for seed in range(6):
        world, rng = levered(seed, 20)
        checks = walk(world, rng, 150)
        naive.check_money(world.state, world.deposited)
        assert checks < 150 * 20 // 2, f"seed {seed}: {checks} checks are no saving"
        hurt += world.state.insurance.cash > 0 or len(world.state.liquidating) > 0
    assert hurt >= 2, "the walks must hurt somebody"


def test_a_safe_distance_too_long_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutation: believe a check for longer than it proves."""
    real = heapq.heappush
    monkeypatch.setattr(risk, "heappush", lambda heap, row: real(heap, (row[0] + 1_000, *row[1:])))
    with pytest.raises(AssertionError, match="nobody noticed"):
        walk(*levered(0, 20), 150)


def short_of_margin(insurance: int = 0, balance: int = 100) -> World:
    """A holds 60,000 lots (1,416 USDC) long on 100 USDC; B is rich, C bids."""
    world = ready(balance, 1_000_000, 1_000_000)
    if insurance:
        world.deposit(bytes.fromhex(world.genesis.insurance_wallet), insurance * USDC, 253)
    world.place(B, SELL, 23_600, 60_000)
    assert world.place(A, BUY, 23_600, 60_000).status == "filled"
    return world


def test_stage_one_cancelling_orders_may_be_enough() -> None:
    world = short_of_margin(balance=110)
    assert world.place(A, BUY, 23_300, 1_000).status == "resting"
    # At 22,935 equity is 69.4; with the order 69.9 + .4 are needed, without it 68.8.
    events = world.move_spot(0, 229_350_000).events
    assert [e.reason for e in events if isinstance(e, OrderUpdate)] == ["liquidation"]
    assert not [e for e in events if isinstance(e, Liquidation)]
    assert account(world, A).positions[0].lots == 60_000
    assert naive.margin(world.state, account(world, A), False) >= 0


def test_stage_two_reduces_in_steps_until_initial_margin_is_met() -> None:
    genesis = free_genesis(liquidation_min=1 * USDC)
    world = World(genesis)
    world.block()
    for who, amount in ((A, 100), (B, 1_000_000), (C, 1_000_000)):
        world.deposit(who, amount * USDC)
    world.place(B, SELL, 23_600, 60_000)
    world.place(A, BUY, 23_600, 60_000)
    world.place(C, BUY, 23_100, 1_000_000)
    world.move_spot(0, 230_800_000)
    held = [account(world, A).positions[0].lots]
    started = world.now
    while account(world, A).liquidation is not None:
        events = world.block(after_ms=500).events
        fills = [e for e in events if isinstance(e, Fill)]
        for fill in fills:
            low = world.state.markets[0].lot_mark * (2 - 0.05) / 2
            assert fill.price >= low and fill.taker_fee == 0
        if fills:
            assert (world.now - started) % 5_000 == 0, "one step a window"
            held.append(account(world, A).positions[0].lots)
        assert world.now < started + 60_000
    steps = [before - after for before, after in pairwise(held)]
    assert all(step <= 12_000 for step in steps)
    assert held[0] == 48_000, "the first fifth went at once"
    assert naive.margin(world.state, account(world, A), True) >= 0
    assert account(world, A).positions, "and not more than that"
    assert world.state.insurance.cash > 0, "the liquidation fee"
    naive.check_money(world.state, world.deposited)


def test_a_gap_is_covered_by_the_insurance_fund_once_and_exactly() -> None:
    world = short_of_margin(insurance=500)
    world.move_spot(0, 212_000_000)
    assert world.place(C, BUY, 21_100, 200_000).status == "resting"
    paid = []
    for _ in range(300):
        paid += [e for e in world.block(after_ms=500).events if isinstance(e, InsurancePaid)]
        if not account(world, A).positions:
            break
    assert not account(world, A).positions and account(world, A).cash == 0
    assert len(paid) == 1 and paid[0].uncovered == 0
    lost = 60_000 * (23_600 - 21_100) - 100 * USDC
    assert lost < paid[0].amount < lost + 1 * USDC, "the loss and the fee of the opening trade"
    assert account(world, A).liquidation is None
    naive.check_money(world.state, world.deposited)


def test_an_empty_fund_means_no_trade_below_bankruptcy() -> None:
    world = short_of_margin()
    world.move_spot(0, 212_000_000)
    world.place(C, BUY, 21_100, 200_000)
    for _ in range(200):
        assert not [e for e in world.block(after_ms=500).events if isinstance(e, Fill)]
    assert account(world, A).positions[0].lots == 60_000
    assert world.place(A, SELL, 21_200, 1).reason == "in_liquidation"
    total = world.engine.checkpoint_state().positive_total
    assert total == naive.positive_total(world.state) > world.deposited
    world.move_spot(0, 236_000_000)
    world.block(after_ms=500)
    assert account(world, A).liquidation is None, "the price came back"


def test_a_deposit_ends_a_liquidation() -> None:
    world = short_of_margin()
    world.move_spot(0, 230_000_000)
    assert account(world, A).liquidation is not None
    world.deposit(A, 1_000 * USDC)
    world.block(after_ms=500)
    assert account(world, A).liquidation is None
    assert world.place(A, SELL, 23_200, 1).status == "resting"


def test_nobody_is_liquidated_on_a_stale_price() -> None:
    world = short_of_margin()
    world.spot[0] = 230_000_000
    world.quiet = True
    for _ in range(40):
        world.block(after_ms=500)
    assert account(world, A).liquidation is None
    world.spot[0] = 236_000_000
    world.quiet = False
    world.block(after_ms=500)
    assert account(world, A).liquidation is None
    world.move_spot(0, 230_000_000)
    assert account(world, A).liquidation is not None


def test_a_stale_market_holds_back_the_whole_accounts_liquidation() -> None:
    world = short_of_margin()
    world.place(B, SELL, 2_400, 1, instrument=1)
    world.place(A, BUY, 2_400, 1, instrument=1)
    world.spot[0] = 230_000_000
    only_btc = (((0, 230_000_000, world.now + 20_000),),) * 5
    world.block(after_ms=20_000, observations=only_btc)
    assert world.state.feeds[0].fresh and not world.state.feeds[1].fresh
    assert naive.margin(world.state, account(world, A), False) < 0
    assert account(world, A).liquidation is None
    world.block(after_ms=500)
    assert account(world, A).liquidation is not None


def test_the_own_wallets_orders_do_not_block_its_liquidation() -> None:
    world = short_of_margin()
    world.deposit(A, 1_000 * USDC, sub=1)
    world.place(A, BUY, 23_100, 1_000, sub=1)
    world.place(C, BUY, 23_090, 200_000)
    events = world.move_spot(0, 231_000_000).events
    reasons = [e.reason for e in events if isinstance(e, OrderUpdate) and e.reason]
    assert reasons == ["liquidation_self_trade"]
    assert [e for e in events if isinstance(e, Fill)]


def test_what_lowers_the_requirement_most_goes_first() -> None:
    world = ready(150, 1_000_000, 1_000_000)
    for instrument, price, qty in ((0, 23_600, 60_000), (1, 2_400, 25_000)):
        world.place(B, SELL, price, qty, instrument=instrument)
        world.place(A, BUY, price, qty, instrument=instrument)
        world.place(C, BUY, price * 98 // 100, 1_000_000, instrument=instrument)
    world.spot = [229_000_000, 23_300_000]
    events = world.block(after_ms=500).events
    reduced = [e for e in events if isinstance(e, Liquidation) and e.stage == "reduced"]
    assert reduced and reduced[0].instrument == 0
