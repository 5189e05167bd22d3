"""The format is strict: what it does not know it refuses by file and line, and failures say why."""

from __future__ import annotations

import pytest

from tests.matcher.scenarios import values
from tests.matcher.scenarios.checks import ScenarioFailed
from tests.matcher.scenarios.runner import UnexpectedSuccess, run_scenario
from tests.matcher.scenarios.text import ScenarioError, parse

GOOD = """scenario: one bid rests
given prices
  | index | price |
  | BTC   | 50000 |
given accounts
  | who   | cash  |
  | alice | 10000 |
when orders
  | order | who   | does | instrument | qty | price |
  | bid   | alice | buy  | BTC-PERP   | 0.1 | 49000 |
then results
  | order | status  |
  | bid   | resting |
"""


def played(text: str) -> str | None:
    return run_scenario(parse("x.txt", text))


def test_the_good_one_holds() -> None:
    assert played(GOOD) is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("scenario: one bid rests", "one bid rests", "x.txt:1: a file begins with"),
        ("when orders", "when orders come", "x.txt:8: unknown heading or line `when orders come`"),
        ("when orders", "whenever", "x.txt:8: unknown heading or line `whenever`"),
        ("then results", "then nothing", "x.txt:11: unknown heading"),
        ("then results", "given prices", "x.txt:11: `given prices` is there already"),
        ("then results", "given settings", "x.txt:11: what is given comes before"),
        ("when orders", "expected failure: x\nwhen orders", "x.txt:9: only a `then`"),
        ("then results", "expected failure:\nthen results", "x.txt:11: an expected failure needs"),
        ("| who   | cash", "| who   | money", "x.txt:6: `given accounts` has no column `money`"),
        ("| order | status  |", "| order | order |", "x.txt:12: a column is there twice"),
        ("| order | status  |", "| order |", "x.txt:12: `then results` needs the column `status`"),
        ("| bid   | resting |", "| bid |", "x.txt:13: 1 cells under 2 columns"),
        ("| bid   | resting |", "| bid   | resting", "x.txt:13: a table row ends with"),
        ("| bid   | resting |", "| bid   |  |", "x.txt:13: the cell under `status` is empty"),
        ("| bid   | resting |", "| bud   | resting |", "x.txt:13: no order is called `bud`"),
        ("| alice | buy ", "| alice | hold", "x.txt:10: nobody does `hold`"),
        ("| bid   | alice | buy ", "| bid   | zoe   | buy ", "x.txt:10: nobody is called `zoe`"),
        ("BTC-PERP", "BTC-PARP", "x.txt:10: no instrument `BTC-PARP`"),
        ("0.1 | 49000", "0.00001 | 49000", "x.txt:10: `0.00001` is not a whole number of lots"),
        ("49000", "49000.001", "x.txt:10: `49000.001` is not a whole number of ticks"),
        ("49000", "49,00", "x.txt:10: `49,00` is not a number"),
        ("| alice | 10000 |", "| alice | 0.0000001 |", "not a whole number of micro-USDC"),
        ("| BTC   | 50000 |", "| XRP   | 50000 |", "x.txt:4: no index `XRP`"),
        ("| bid   | resting |", "", None),
    ],
)
def test_whatever_is_unknown_is_refused_where_it_stands(
    old: str, new: str, message: str | None
) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new)
    if message is None:
        assert played(text) is None, "results are looked up row by row: none is fine"
        return
    with pytest.raises(ScenarioError) as caught:
        played(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("given settings\n | name | value |\n | luck | 1 |", "no setting `luck`"),
        ("given settings\n | name | value |\n | taker fee | 0.05 |", "`0.05` needs a %"),
        ("given settings\n | name | value |\n | price age | 10 |", "`10` is no time"),
        ("given settings\n | name | value |\n | taker fee | 99 % |", "fees out of range"),
    ],
)
def test_settings_are_checked(table: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=r"^x\.txt:\d+: ") as caught:
        played(GOOD.replace("given prices", f"{table}\ngiven prices"))
    assert message in str(caught.value)


def test_a_failing_row_is_printed_with_both_values() -> None:
    with pytest.raises(ScenarioFailed) as caught:
        played(GOOD.replace("| bid   | resting |", "| bid   | filled |"))
    assert str(caught.value).splitlines() == [
        "x.txt:13: then results",
        "  | bid   | filled |",
        "  status: expected filled, got resting",
    ]


RESTING = """then resting
  | who   | side | instrument | qty | price |
  | alice | buy  | BTC-PERP   | 0.1 | 49000 |
"""
ROW = "  | alice | buy  | BTC-PERP   | 0.1 | 49000 |\n"


def test_lists_are_exact_in_both_directions() -> None:
    assert played(GOOD + RESTING) is None
    assert played(GOOD + RESTING.replace("49000", "49,000.00")) is None
    with pytest.raises(ScenarioFailed, match=r"x\.txt:14: then resting\n  expected 0 rows, got 1"):
        played(GOOD + RESTING.replace(ROW, ""))
    with pytest.raises(ScenarioFailed, match=r"x\.txt:17: .*\n.*\n  expected this row, got no"):
        played(GOOD + RESTING + ROW)
    with pytest.raises(ScenarioFailed, match=r"qty: expected 0\.2, got 0\.1"):
        played(GOOD + RESTING.replace("0.1", "0.2"))


def test_an_expected_failure_must_fail() -> None:
    wrong = GOOD.replace("| bid   | resting |", "| bid   | filled |")
    marked = wrong.replace("then results", "expected failure: not built\nthen results")
    assert played(marked) == "not built"
    with pytest.raises(UnexpectedSuccess, match=r"x\.txt:12: then results holds"):
        played(GOOD.replace("then results", "expected failure: not built\nthen results"))


def test_an_unexpected_reason_is_a_difference() -> None:
    text = GOOD.replace("49000", "40000").replace("resting", "rejected")
    assert played(text) is None, "without the column it is not asked"
    rows = "| order | status | reason |\n | bid | rejected | |\n"
    asked = GOOD.replace("49000", "40000").replace(
        "| order | status  |\n  | bid   | resting |", rows
    )
    with pytest.raises(ScenarioFailed, match="reason: expected none, got price_band"):
        played(asked)


@pytest.mark.parametrize("text", ["0.1", "1234.56", "-3", "0", "0.000001"])
def test_numbers_come_back_as_they_were_written(text: str) -> None:
    assert values.show(values.number(text)) == text


@pytest.mark.parametrize(
    ("text", "ms"), [("500 ms", 500), ("60 s", 60_000), ("1.5 h", 5_400_000), ("5 min", 300_000)]
)
def test_times(text: str, ms: int) -> None:
    assert values.duration(text) == ms
