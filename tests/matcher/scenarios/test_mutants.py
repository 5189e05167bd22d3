"""The engine broken on purpose, one rule at a time: a named scenario must fail, and say where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from matcher import access, funding, ledger, liquidation, margin, orders, risk
from matcher.book import Book
from tests.matcher.scenarios.checks import ScenarioFailed
from tests.matcher.scenarios.runner import play

Patch = pytest.MonkeyPatch


def the_newest_order_trades_first(patch: Patch) -> None:
    real = Book.place

    def broken(self: Any, order_id: int, owner: int, side: int, price: int, qty: int) -> None:
        waiting = [one for one in self.orders(side) if one.price == price]
        for one in waiting:
            self.cancel(one.order_id)
        real(self, order_id, owner, side, price, qty)
        for one in waiting:
            real(self, one.order_id, one.owner, side, price, one.qty)

    patch.setattr(Book, "place", broken)


def fill_or_kill_fills_in_part(patch: Patch) -> None:
    patch.setattr(orders, "_fillable", lambda state, market, taker: True)


def reduce_only_is_not_trimmed(patch: Patch) -> None:
    patch.setattr(orders, "_reducible", lambda position, side: 1 << 40)


def sessions_never_expire(patch: Patch) -> None:
    real = access.refusal

    def broken(*args: Any) -> str | None:
        reason = real(*args)
        return None if reason == "session_expired" else reason

    patch.setattr(access, "refusal", broken)


def premium_is_ignored(patch: Patch) -> None:
    patch.setattr(funding, "premium", lambda market: 0)


def the_whole_position_goes_at_once(patch: Patch) -> None:
    real = liquidation._reduce

    def broken(state: Any, account: Any, current: Any) -> None:
        current.opening *= 5
        real(state, account, current)

    patch.setattr(liquidation, "_reduce", broken)


def orders_need_no_margin(patch: Patch) -> None:
    patch.setattr(orders, "_refusal", lambda *rest: None)


def the_band_is_twice_as_wide(patch: Patch) -> None:
    real = risk._move_mark

    def broken(state: Any, market: Any) -> None:
        real(state, market)
        market.band_low -= (market.band_high - market.band_low) // 2
        market.band_high += market.band_high - market.band_low

    patch.setattr(risk, "_move_mark", broken)


MUTANTS: tuple[tuple[Callable[[Patch], None], str, str], ...] = (
    (the_newest_order_trades_first, "time-priority", "maker: expected alice, got bob"),
    (fill_or_kill_fills_in_part, "fok-all-or-nothing", "reason: expected fill_or_kill"),
    (reduce_only_is_not_trimmed, "reduce-only-is-trimmed", "expected rejected, got"),
    (sessions_never_expire, "session-key-expires", "expected rejected, got resting"),
    (premium_is_ignored, "funding-flips", "funding rate: expected 0.15 %, got 0.01 %"),
    (the_whole_position_goes_at_once, "partial-liquidation-of-a-long", "qty: expected 0.2, got"),
    (orders_need_no_margin, "margin-is-6-5-percent", "expected rejected, got resting"),
    (the_band_is_twice_as_wide, "price-band", "expected rejected, got resting"),
)


@pytest.mark.parametrize(
    ("mutant", "name", "message"), MUTANTS, ids=[each[0].__name__ for each in MUTANTS]
)
def test_a_broken_rule_fails_its_scenario(
    mutant: Callable[[Patch], None], name: str, message: str, monkeypatch: Patch
) -> None:
    assert play(name) is None
    mutant(monkeypatch)
    with pytest.raises(ScenarioFailed) as caught:
        play(name)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{name}.txt:")


def test_money_from_nowhere_is_seen_without_any_table(monkeypatch: Patch) -> None:
    real = ledger.transfer

    def broken(state: Any, payer: Any, payee: Any, amount: int) -> None:
        real(state, payer, payee, amount)
        payee.cash += 1

    monkeypatch.setattr(ledger, "transfer", broken)
    with pytest.raises(AssertionError, match="told"):
        play("partial-liquidation-of-a-long")


def test_a_liquidation_above_maintenance_is_seen_without_any_table(monkeypatch: Patch) -> None:
    real = margin.maintenance_margin
    monkeypatch.setattr(
        margin, "maintenance_margin", lambda state, account: real(state, account) - 1_000_000
    )
    with pytest.raises(AssertionError, match="to spare"):
        play("margin-call-at-the-exact-price")
