"""Both margin modes against an oracle that shares no code with them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from matcher import portfolio, scenarios, standard
from ops.marginfile import evaluate, parse
from tests.matcher import margin_oracle as oracle
from tests.matcher.portfolios import portfolio as random_portfolio

SEED = 20_150_502
VECTORS = Path(__file__).parents[1] / "vectors/margin"
MICRO = oracle.MP.mpf("1e-6")
TOTALS = ("mtm", "equity", "initial_margin", "maintenance_margin")


def read(text: str) -> Any:
    return oracle.MP.mpf(text)


def cases(mode: str, count: int) -> list[dict[str, Any]]:
    random = Random(SEED)
    return [random_portfolio(random, mode) for _ in range(count)]


def test_the_published_case_comes_out() -> None:
    answer = evaluate(parse((VECTORS / "portfolio.json").read_text()))
    expected = json.loads((VECTORS / "portfolio.expected.json").read_text())
    for name in ("mtm", "initial_margin", "maintenance_margin"):
        assert abs(read(answer[name]) - read(expected[name])) < MICRO
    assert abs(read(answer["worst_scenario"]["pnl"]) - read(expected["worst_scenario"])) < MICRO


def test_portfolio_mode_is_the_oracles() -> None:
    worst = oracle.MP.mpf(0)
    for made in cases("portfolio", 120):
        answer, right = evaluate(made), oracle.portfolio_margin(made)
        pairs = [(read(answer[name]), right[name]) for name in (*TOTALS, "basis")]
        pairs.append((read(answer["worst_scenario"]["pnl"]), right["worst"]))
        rows = [read(row["pnl"]) for row in answer["scenarios"]]
        pairs += zip(rows, right["pnls"], strict=True)
        found = max(abs(a - b) for a, b in pairs)
        assert found < MICRO, json.dumps(made)
        worst = max(worst, found)
    print(f"portfolio mode: worst of 120 with seed {SEED}: {oracle.MP.nstr(worst, 3)} USDC")


def test_standard_mode_is_the_oracles() -> None:
    worst = oracle.MP.mpf(0)
    for made in cases("standard", 400):
        answer, right = evaluate(made), oracle.standard_margin(made)
        found = max(abs(read(answer[name]) - right[name]) for name in TOTALS)
        assert found < MICRO / 10, json.dumps(made)
        worst = max(worst, found)
    print(f"standard mode: worst of 400 with seed {SEED}: {oracle.MP.nstr(worst, 3)} USDC")


def test_quantlib_prices_the_same_portfolios() -> None:
    quantlib = pytest.importorskip("QuantLib")

    def price(forward: Any, strike: Any, deviation: Any, call: bool) -> Any:
        kind = quantlib.Option.Call if call else quantlib.Option.Put
        value = quantlib.blackFormula(kind, float(strike), float(forward), float(deviation))
        return oracle.MP.mpf(value)

    for made in cases("portfolio", 60):
        answer, right = evaluate(made), oracle.portfolio_margin(made, price)
        scale = 1 + read(made["spot"])
        for name in TOTALS:
            assert abs(read(answer[name]) - right[name]) < scale * MICRO / 1_000, json.dumps(made)


def wrong(mode: str, count: int) -> int:
    """How many random portfolios come out differently from the oracle's."""
    found = 0
    for made in cases(mode, count):
        answer, right = evaluate(made), getattr(oracle, f"{mode}_margin")(made)
        pairs = [(read(answer[name]), right[name]) for name in TOTALS]
        rows = [read(row["pnl"]) for row in answer["scenarios"]]
        pairs += zip(rows, right.get("pnls", []), strict=True)
        found += any(abs(a - b) > MICRO for a, b in pairs)
    return found


PORTFOLIO_MUTANTS = {
    "naked shorts ignore the other right": (
        portfolio, "naked_shorts", lambda calls, puts: max(0, -calls) + max(0, -puts)
    ),
    "the settlement window is forgotten": (scenarios, "fixed_part", lambda *_: 0),
    "skews are not capped below": (
        scenarios, "_skew", lambda cap, width, k: min(cap, k * cap // width)
    ),
    "linear exposure loses a hundredth": (
        portfolio, "slope", lambda factor, one, _: (factor - 10**18) * one * 99 // 10**20
    ),
}  # fmt: skip
STANDARD_MUTANTS = {
    "the loss is never counted": (standard, "worst_loss", lambda _: 0),
    "doubt is never counted": (standard, "_doubt", lambda *_: 0),
}


@pytest.mark.parametrize("name", PORTFOLIO_MUTANTS)
def test_a_portfolio_rule_taken_away_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, attribute, mutant = PORTFOLIO_MUTANTS[name]
    monkeypatch.setattr(module, attribute, mutant)
    if attribute == "fixed_part":
        monkeypatch.setattr("ops.marginfile.fixed_part", mutant)
    assert wrong("portfolio", 40) > 0


@pytest.mark.parametrize("name", STANDARD_MUTANTS)
def test_a_standard_rule_taken_away_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, attribute, mutant = STANDARD_MUTANTS[name]
    monkeypatch.setattr(module, attribute, mutant)
    assert wrong("standard", 60) > 0
