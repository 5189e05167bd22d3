"""What a scenario expects, compared with the engine; a difference names the row and both values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from matcher import margin
from matcher.actions import CancelAll, CancelOrder, PlaceOrder
from matcher.outcome import Deposited, Fill, InsurancePaid, Liquidation, OrderUpdate, Withdrawn
from matcher.state import Market
from matcher.units import narrow
from tests.matcher.scenarios import values
from tests.matcher.scenarios.steps import Run
from tests.matcher.scenarios.text import VOCABULARY, Row, Section
from tests.matcher.scenarios.values import BadValue

Facts = dict[str, str]
"""What the engine says, column by column, as it would be written in the table."""

SIDES: Final = ("buy", "sell")


class ScenarioFailed(AssertionError):
    """The engine does not do what a table expects."""

    def __init__(self, path: str, line: int, heading: str, details: Sequence[str]) -> None:
        super().__init__("\n".join((f"{path}:{line}: {heading}", *details)))


def check(run: Run, section: Section) -> None:
    """Compare one `then`. Errors: ScenarioFailed, ScenarioError."""
    if section.heading in _LISTS:
        _check_list(run, section, _LISTS[section.heading](run))
    else:
        facts = run.each(section.rows, lambda row: _FACTS[section.heading](run, row))
        for row, fact in zip(section.rows, facts, strict=True):
            wrong = _differences(run, section, row, fact)
            if wrong:
                raise ScenarioFailed(
                    run.scenario.path, row.line, section.heading, [f"  {row.text}", *wrong]
                )


def _differences(run: Run, section: Section, row: Row, fact: Facts) -> list[str]:
    """Return a line for every cell that is not as the engine says."""
    wrong = []
    for column in section.columns:
        expected, got = row.cells.get(column), fact.get(column, "")
        if expected is None and column in VOCABULARY[section.heading][1]:
            if column != "reason":
                continue
            expected = ""
        if _normal(run, row, expected or "") != got:
            wrong.append(f"  {column}: expected {expected or 'none'}, got {got or 'none'}")
    return wrong


def _normal(run: Run, row: Row, text: str) -> str:
    """Return a cell as the engine's side would be written: 1,000.50 is 1000.5."""
    try:
        if text.endswith("%"):
            return values.show_percent(values.percent(text))
        return values.show(values.number(text))
    except BadValue:
        return text


def _check_list(run: Run, section: Section, facts: list[Facts]) -> None:
    """Compare a table that lists everything, in order."""
    path, columns = run.scenario.path, section.columns
    told = ["  the engine has:"]
    told += ["    | " + " | ".join(fact.get(name, "") for name in columns) + " |" for fact in facts]
    if not facts:
        told.append("    nothing")
    for row, fact in zip(section.rows, facts, strict=False):
        wrong = _differences(run, section, row, fact)
        if wrong:
            details = [f"  {row.text}", *wrong, *told]
            raise ScenarioFailed(path, row.line, section.heading, details)
    if len(section.rows) > len(facts):
        row = section.rows[len(facts)]
        details = [f"  {row.text}", "  expected this row, got no more", *told]
        raise ScenarioFailed(path, row.line, section.heading, details)
    if len(facts) > len(section.rows):
        details = [f"  expected {len(section.rows)} rows, got {len(facts)}", *told]
        raise ScenarioFailed(path, section.line, section.heading, details)


def _market(run: Run, instrument: int) -> Market:
    return run.exchange.engine.state.markets[instrument]


def _result(run: Run, row: Row) -> Facts:
    label = row.cells["order"]
    if label not in run.results:
        raise BadValue(f"no order is called `{label}`")
    action, result = run.results[label]
    fact = {"status": result.status.replace("_", " "), "reason": result.reason or ""}
    fact["order"] = label
    market = None
    if isinstance(action, PlaceOrder):
        market = _market(run, action.instrument)
    elif isinstance(action, CancelAll):
        fact["count"] = str(result.order_id)
    elif isinstance(action, CancelOrder):
        targets = [a for a, r in run.results.values() if r.order_id == result.order_id]
        placed = [a for a in targets if isinstance(a, PlaceOrder)]
        market = _market(run, placed[0].instrument) if placed else None
    if market is not None:
        fact["filled"] = values.show_qty(result.filled, market)
        fact["open"] = values.show_qty(result.remaining, market)
    return fact


def _fills(run: Run) -> list[Facts]:
    facts = []
    for event in run.events:
        if isinstance(event, Fill):
            market = _market(run, event.instrument)
            facts.append(
                {
                    "taker": run.exchange.name(event.taker_account),
                    "side": SIDES[event.taker_side],
                    "maker": run.exchange.name(event.maker_account),
                    "instrument": market.spec.name,
                    "qty": values.show_qty(event.qty, market),
                    "price": values.show_price(event.price, market),
                    "taker fee": values.show_usdc(event.taker_fee),
                    "maker fee": values.show_usdc(event.maker_fee),
                }
            )
    return facts


def _resting(run: Run) -> list[Facts]:
    """Return every order of every book: bids, then asks, as they would trade."""
    return [
        {
            "who": run.exchange.name(order.owner),
            "side": SIDES[order.side],
            "instrument": market.spec.name,
            "qty": values.show_qty(order.qty, market),
            "price": values.show_price(order.price, market),
            "order": run.order_label(order.order_id),
        }
        for market in run.exchange.engine.state.markets
        for order in market.book.export()
    ]


def _cancelled(run: Run) -> list[Facts]:
    return [
        {
            "order": run.order_label(event.order_id),
            "reason": event.reason or "",
            "qty": values.show_qty(event.open, _market(run, event.instrument)),
        }
        for event in run.events
        if isinstance(event, OrderUpdate) and event.state == "cancelled"
    ]


def _position(run: Run, row: Row) -> Facts:
    market = run.exchange.market(row.cells["instrument"])
    held = run.exchange.account(row.cells["who"]).positions.get(market.id)
    fact = {name: row.cells[name] for name in ("who", "instrument")}
    return fact | {"qty": values.show_qty(held.lots if held else 0, market)}


def _account(run: Run, row: Row) -> Facts:
    account, state = run.exchange.account(row.cells["who"]), run.exchange.engine.state
    return {
        "who": row.cells["who"],
        "cash": values.show_usdc(account.cash),
        "equity": values.show_usdc(margin.equity(account)),
        "initial margin": values.show_usdc(margin.initial_margin(state, account)),
        "maintenance margin": values.show_usdc(margin.maintenance_margin(state, account)),
        "liquidating": values.show_yes(account.liquidation is not None),
    }


def _price(run: Run, row: Row) -> Facts:
    market = run.exchange.market(row.cells["instrument"])
    return {
        "instrument": market.spec.name,
        "mark": values.show_usdc(market.mark),
        "index price": values.show_usdc(market.feed.value),
        "band low": values.show_price(market.band_low, market),
        "band high": values.show_price(market.band_high, market),
        "trading": values.show_yes(run.exchange.engine.state.is_live(market)),
        "open interest": values.show_qty(market.open_interest, market),
        "funding rate": values.show_percent(market.funding_rate),
        "initial rate": values.show_percent(market.initial_rate),
    }


def _funding(run: Run, row: Row) -> Facts:
    market = run.exchange.market(row.cells["instrument"])
    key = run.exchange.account(row.cells["who"]).index, market.id
    fact = {name: row.cells[name] for name in ("who", "instrument")}
    return fact | {"paid": values.show_usdc(run.exchange.funding_paid.get(key, 0))}


def _liquidations(run: Run) -> list[Facts]:
    facts = []
    for event in run.events:
        if isinstance(event, Liquidation):
            fact = {"who": run.exchange.name(event.account), "stage": event.stage}
            if event.stage == "reduced":
                market = _market(run, event.instrument)
                fact["instrument"] = market.spec.name
                fact["qty"] = values.show_qty(event.qty, market)
                fact["fee"] = values.show_usdc(event.fee)
            facts.append(fact)
    return facts


def _insurance(run: Run) -> list[Facts]:
    return [
        {
            "who": run.exchange.name(event.account),
            "paid": values.show_usdc(event.amount),
            "uncovered": values.show_usdc(event.uncovered),
        }
        for event in run.events
        if isinstance(event, InsurancePaid)
    ]


def _deposits(run: Run) -> list[Facts]:
    return [
        {
            "who": run.exchange.name(event.account),
            "amount": values.show_usdc(narrow(event.amount)),
            "reason": event.reason or "",
        }
        for event in run.events
        if isinstance(event, Deposited)
    ]


def _withdrawals(run: Run) -> list[Facts]:
    facts = []
    for event in run.events:
        if isinstance(event, Withdrawn):
            account = run.exchange.engine.state.wallets[event.wallet].accounts[event.subaccount]
            who = run.exchange.name(account.index)
            facts.append({"who": who, "amount": values.show_usdc(event.amount)})
    return facts


_LISTS: Final[dict[str, Callable[[Run], list[Facts]]]] = {
    "then fills": _fills,
    "then resting": _resting,
    "then cancelled": _cancelled,
    "then liquidations": _liquidations,
    "then insurance payments": _insurance,
    "then deposits": _deposits,
    "then withdrawals": _withdrawals,
}
"""Tables that list everything since the last `when`, or all that rests, in order."""

_FACTS: Final[dict[str, Callable[[Run, Row], Facts]]] = {
    "then results": _result,
    "then positions": _position,
    "then accounts": _account,
    "then prices": _price,
    "then funding paid": _funding,
}
"""Tables of rows looked up one by one."""
