"""Each rule broken on purpose: the invariants must see it within a few seeded flows."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from matcher import (
    access,
    deposits,
    ledger,
    liquidation,
    margin,
    orders,
    risk,
    snapshot,
    trading,
)
from matcher.snapshot import SnapshotError
from matcher.state import ClientIds, State
from tests.matcher import test_risk
from tests.matcher.flows import funded, random_flow
from tests.matcher.invariants import checked

Patch = pytest.MonkeyPatch
SEEDS = range(8)
LENGTH = 140


def run_flows() -> None:
    for seed in SEEDS:
        world = funded()
        for step in random_flow(seed, LENGTH):
            checked(world, step)


def test_unbroken_the_flows_pass_and_reach_every_part(monkeypatch: Patch) -> None:
    stages: set[str] = set()
    reasons: set[str | None] = set()
    for seed in SEEDS:
        world = funded()
        for step in random_flow(seed, LENGTH):
            for event in checked(world, step):
                stages.add(getattr(event, "stage", ""))
                reasons.add(getattr(event, "reason", None))
    assert {"started", "reduced"} <= stages
    assert {"self_trade", "insufficient_margin", "oracle_stale", "duplicate_client_id"} <= reasons


def fee_not_posted(patch: Patch) -> None:
    real = ledger.settle_trade

    def broken(state: State, *rest: Any) -> None:
        real(state, *rest)
        state.fees.cash -= rest[3]

    patch.setattr(trading, "settle_trade", broken)


def fees_round_for_the_payer(patch: Patch) -> None:
    real = trading._settle

    def broken(state: State, market: Any, *rest: Any) -> None:
        first = len(state.events)
        real(state, market, *rest)
        for at in range(first, len(state.events)):
            if type(state.events[at]).__name__ == "Fill":
                fields = [getattr(state.events[at], n) for n in state.events[at].__struct_fields__]
                fields[-1] = max(0, fields[-1] - 1)
                state.events[at] = type(state.events[at])(*fields)

    patch.setattr(trading, "_settle", broken)


def funding_paid_by_one_side(patch: Patch) -> None:
    real = ledger.settle_trade

    def broken(state: State, buyer: Any, seller: Any, amount: int, *fees: int) -> None:
        real(state, buyer, seller, amount, *fees)
        buyer.cash += 1

    patch.setattr(trading, "settle_trade", broken)


def one_side_gets_no_lots(patch: Patch) -> None:
    def broken(state: State, market: Any, buying: Any, selling: Any, lots: int) -> None:
        buying.lots += lots

    patch.setattr(trading, "_move_lots", broken)


def open_orders_do_not_count(patch: Patch) -> None:
    real = margin.initial_contribution
    patch.setattr(
        margin, "initial_contribution", lambda m, lots, b, s, loss: real(m, lots, 0, 0, 0)
    )


def loss_against_mark_does_not_count(patch: Patch) -> None:
    patch.setattr(margin, "unit_loss", lambda market, side, price: 0)


def fills_leave_the_cached_margin(patch: Patch) -> None:
    patch.setattr(margin, "update", lambda account, position: None)


def stale_prices_trade(patch: Patch) -> None:
    patch.setattr(State, "is_live", lambda self, market: market.lot_mark > 0)


def marks_move_while_stale(patch: Patch) -> None:
    real = risk._move_rates

    def broken(state: State, market: Any) -> None:
        if not market.feed.fresh and market.feed.value:
            risk._move_mark(state, market)
        real(state, market)

    patch.setattr(risk, "_move_rates", broken)


def client_ids_are_forgotten(patch: Patch) -> None:
    patch.setattr(ClientIds, "refusal", lambda self, client_id: None)


def withdrawals_are_not_counted(patch: Patch) -> None:
    real = ledger.withdraw

    def broken(state: State, account: Any, amount: int) -> None:
        real(state, account, amount)
        state.withdrawn_total -= amount

    patch.setattr(ledger, "withdraw", broken)


def withdrawals_ignore_margin(patch: Patch) -> None:
    blind = SimpleNamespace(initial_margin=lambda state, account: 1 << 70)
    patch.setattr(access, "margin", blind)


def refused_deposits_vanish(patch: Patch) -> None:
    patch.setattr(deposits, "_suspend", lambda state, *rest: None)


def insurance_prints_money(patch: Patch) -> None:
    def broken(state: State, account: Any) -> None:
        account.cash = 0

    patch.setattr(liquidation, "_cover", broken)


def nobody_is_checked(patch: Patch) -> None:
    patch.setattr(risk, "_check", lambda state, account: True)


def leaves_go_stale(patch: Patch) -> None:
    patch.setattr(State, "cash_changed", lambda self, account: self.touch(account.wallet))


def digests_miss_changes(patch: Patch) -> None:
    patch.setattr(State, "touch", lambda self, wallet: None)


def snapshots_forget_the_basis(patch: Patch) -> None:
    real = snapshot._restore_market

    def broken(market: Any, chunk: Any) -> None:
        real(market, chunk)
        market.premium_sum = 0
        market.open_interest = 0

    patch.setattr(snapshot, "_restore_market", broken)


def takers_skip_the_margin_check(patch: Patch) -> None:
    patch.setattr(orders, "_refusal", lambda *rest: None)


MUTATIONS: tuple[Callable[[Patch], None], ...] = (
    fee_not_posted,
    fees_round_for_the_payer,
    funding_paid_by_one_side,
    one_side_gets_no_lots,
    open_orders_do_not_count,
    loss_against_mark_does_not_count,
    fills_leave_the_cached_margin,
    stale_prices_trade,
    marks_move_while_stale,
    client_ids_are_forgotten,
    withdrawals_are_not_counted,
    refused_deposits_vanish,
    nobody_is_checked,
    leaves_go_stale,
    digests_miss_changes,
    snapshots_forget_the_basis,
    withdrawals_ignore_margin,
    takers_skip_the_margin_check,
)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_the_invariants_see(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    with pytest.raises((AssertionError, SnapshotError)):
        run_flows()


def test_a_fund_that_prints_money_is_seen(monkeypatch: Patch) -> None:
    insurance_prints_money(monkeypatch)
    with pytest.raises(AssertionError):
        test_risk.test_a_gap_is_covered_by_the_insurance_fund_once_and_exactly()
