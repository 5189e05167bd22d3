"""What is given and what happens: each table of a scenario made into blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from matcher.actions import (
    ANY_INSTRUMENT,
    ANY_SIDE,
    BUY,
    FOK,
    GTC,
    IOC,
    LIMIT,
    MARKET,
    SCOPE_CANCEL,
    SCOPE_TRADE,
    SELL,
    Action,
    AuthoriseSession,
    Batch,
    CancelAll,
    CancelOrder,
    PlaceOrder,
    RevokeSession,
    Withdraw,
)
from matcher.genesis import GenesisError, Instrument, MarketGenesis, Underlying, devnet_genesis
from matcher.outcome import ActionResult, CommandOutcome, Event
from tests.matcher.scenarios import values
from tests.matcher.scenarios.exchange import RISK_TICK_MS, Exchange
from tests.matcher.scenarios.text import Row, Scenario, ScenarioError, Section
from tests.matcher.scenarios.values import BadValue

BLOCKS_MAX: Final = 20_000
"""One `time passes` makes at most this many blocks."""

SETTINGS: Final[dict[str, tuple[str, Callable[[str], int]]]] = {
    "maker fee": ("maker_fee", values.percent),
    "taker fee": ("taker_fee", values.percent),
    "liquidation fee": ("liquidation_fee", values.percent),
    "liquidation share": ("liquidation_share", values.percent),
    "liquidation minimum": ("liquidation_min", values.usdc),
    "liquidation window": ("liquidation_step_ms", values.duration),
    "liquidation patience": ("liquidation_patience_ms", values.duration),
    "price age": ("oracle_max_age_ms", values.duration),
    "largest dispersion": ("dispersion_max", values.percent),
    "confidence needed": ("confidence_min", values.percent),
    "confidence factor": ("confidence_factor", values.percent),
    "smallest first deposit": ("deposit_min", values.usdc),
    "smallest withdrawal": ("withdrawal_min", values.usdc),
    "orders per second": ("orders_per_s", values.integer),
    "orders at once": ("orders_burst", values.integer),
    "cancels per second": ("cancels_per_s", values.integer),
    "cancels at once": ("cancels_burst", values.integer),
    "open orders": ("open_orders_max", values.integer),
    "session keys": ("sessions_max", values.integer),
}
"""What `given settings` may name; `replicas` and `faulty replicas` besides."""

DOES: Final = ("buy", "sell", "cancel", "cancel by client id", "cancel all", "resend")
HOWS: Final = ("ioc", "fok", "post-only", "reduce-only")


class Run:
    """One scenario at work: its exchange, and what has happened since the last `when`."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.exchange = _exchange(scenario)
        self.events: list[Event] = []
        self.results: dict[str, tuple[Action, CommandOutcome | ActionResult]] = {}
        self.actions: dict[str, Action] = {}
        self.labels: dict[tuple[bytes, int], str] = {}
        _prepare(self)

    def fail(self, row: Row, message: str) -> ScenarioError:
        return ScenarioError(self.scenario.path, row.line, message)

    def each(self, rows: list[Row], step: Callable[[Row], Any]) -> list[Any]:
        """Apply `step` to each row. Errors: ScenarioError, where a cell is no value."""
        done = []
        for row in rows:
            try:
                done.append(step(row))
            except BadValue as error:
                raise self.fail(row, str(error)) from None
        return done

    def happen(self, section: Section) -> None:
        """Carry out one `when`."""
        self.events = []
        _WHENS[section.heading](self, section)

    def order_label(self, order_id: int) -> str:
        """Return what the scenario calls an order of the engine's."""
        for label, (_, result) in self.results.items():
            if result.order_id == order_id and isinstance(self.actions[label], PlaceOrder):
                return label
        return f"#{order_id}"


def _exchange(scenario: Scenario) -> Exchange:
    """Return the exchange that settings and instruments describe."""
    given = {section.heading: section for section in scenario.sections}
    genesis, replicas, faulty = devnet_genesis(), 5, 1
    row = Row(1, "", {})
    try:
        for row in _rows(given, "given instruments"):
            if row is _rows(given, "given instruments")[0]:
                genesis = replace(genesis, underlyings=(), instruments=())
            genesis = _with_instrument(genesis, row.cells)
        for row in _rows(given, "given settings"):
            name, value = row.cells["name"], row.cells["value"]
            if name == "replicas":
                replicas = values.integer(value)
            elif name == "faulty replicas":
                faulty = values.integer(value)
            elif name in SETTINGS:
                field, convert = SETTINGS[name]
                genesis = replace(genesis, **{field: convert(value)})
            else:
                known = ", ".join((*SETTINGS, "replicas", "faulty replicas"))
                raise BadValue(f"no setting `{name}`; there are {known}")
        return Exchange(genesis, replicas, faulty)
    except (BadValue, GenesisError) as error:
        raise ScenarioError(scenario.path, row.line, str(error)) from None


def _rows(given: dict[str, Section], heading: str) -> list[Row]:
    return given[heading].rows if heading in given else []


def _with_instrument(genesis: MarketGenesis, cells: dict[str, str]) -> MarketGenesis:
    names = [one.name for one in genesis.underlyings]
    if cells["index"] not in names:
        names.append(cells["index"])
    decimals = 0
    lot = values.number(cells["lot"])
    while lot < 1 and decimals < 12:
        lot, decimals = lot * 10, decimals + 1
    if lot != 1:
        raise BadValue(f"a lot is 1, 0.1, 0.01 .., not `{cells['lot']}`")
    scale = 10**decimals
    fields: dict[str, tuple[str, Callable[[str], int]]] = {
        "initial": ("initial_rate", values.percent),
        "maintenance": ("maintenance_rate", values.percent),
        "price band": ("price_band", values.percent),
        "size base": ("size_base", values.usdc),
        "open interest low": ("open_interest_low", lambda t: values.whole(t, scale, "lots")),
        "open interest high": ("open_interest_high", lambda t: values.whole(t, scale, "lots")),
        "impact notional": ("impact_notional", values.usdc),
        "smallest last trade": ("last_qty_min", lambda t: values.whole(t, scale, "lots")),
        "mark clamp": ("mark_clamp", values.percent),
        "basis average": ("basis_ema_ms", values.duration),
        "largest order": ("qty_max", lambda t: values.whole(t, scale, "lots")),
    }
    given = {fields[name][0]: fields[name][1](cells[name]) for name in fields if name in cells}
    instrument: Instrument = replace(
        devnet_genesis().instruments[0],
        name=cells["name"],
        underlying=names.index(cells["index"]),
        tick_size=values.usdc(cells["tick"]),
        lot_decimals=decimals,
        **given,
    )
    return replace(
        genesis,
        underlyings=tuple(Underlying(name=name) for name in names),
        instruments=(*genesis.instruments, instrument),
    )


def _prepare(run: Run) -> None:
    """Bring prices, accounts and positions about, by blocks as any other."""
    exchange = run.exchange
    given = {section.heading: section for section in run.scenario.sections}
    run.each(_rows(given, "given prices"), lambda row: _set_price(exchange, row, None))
    exchange.block()

    def deposit(row: Row) -> None:
        amount = values.usdc(row.cells["cash"])
        exchange.block(deposits=((*exchange.who(row.cells["who"], new=True), amount),))

    run.each(_rows(given, "given accounts"), deposit)
    run.each(_rows(given, "given positions"), lambda row: _trade(run, row))


def _trade(run: Run, row: Row) -> None:
    """Give a position: the long's bid rests, the short sells into it."""
    exchange, cells = run.exchange, row.cells
    market = exchange.market(cells["instrument"])
    price, qty = values.ticks(cells["price"], market), values.lots(cells["qty"], market)
    for who, side, tif in ((cells["long"], BUY, GTC), (cells["short"], SELL, FOK)):
        wallet, sub = exchange.who(who)
        order = PlaceOrder(
            wallet, sub, market.id, exchange.client_id(), side, LIMIT, price, qty, tif
        )
        (outcome,) = _outcomes(exchange.block((exchange.command(order, wallet),)))
        if outcome.status != ("filled" if side else "resting"):
            raise BadValue(f"{who} cannot have this position: {outcome.status} {outcome.reason}")


def _outcomes(events: tuple[Event, ...]) -> list[CommandOutcome]:
    return [event for event in events if isinstance(event, CommandOutcome)]


def _set_price(exchange: Exchange, row: Row, replica: int | None) -> None:
    cells = row.cells
    feed = exchange.feed(cells["index"])
    price = None if cells["price"] == "silent" else values.usdc(cells["price"])
    for at in range(exchange.replicas) if replica is None else (replica,):
        exchange.prices[feed][at] = price


def _action(run: Run, row: Row) -> Action:
    """Return what one row of `when orders` or `when batch` asks for."""
    exchange, cells = run.exchange, row.cells
    does, (wallet, sub) = cells["does"], exchange.who(cells["who"])
    if does not in DOES:
        raise BadValue(f"nobody does `{does}`; known are {', '.join(DOES)}")
    if does in ("buy", "sell"):
        return _order(exchange, cells, wallet, sub)
    for name in ("qty", "price", "how", "client id"):
        if name in cells:
            raise BadValue(f"`{does}` has no {name}")
    if does == "cancel all":
        of = cells.get("of", "both")
        if of not in ("buys", "sells", "both"):
            raise BadValue(f"cancel all is of buys, sells or both, not `{of}`")
        side = {"buys": BUY, "sells": SELL, "both": ANY_SIDE}[of]
        market = exchange.market(cells["instrument"]).id if "instrument" in cells else None
        return CancelAll(wallet, sub, ANY_INSTRUMENT if market is None else market, side)
    of = cells.get("of", "")
    if does == "cancel" and of.startswith("#"):
        return CancelOrder(wallet, sub, values.integer(of[1:]))
    target = run.actions.get(of)
    if not isinstance(target, PlaceOrder):
        raise BadValue(f"`{does}` needs under `of` an order from above, not `{of}`")
    if does == "resend":
        return target
    if does == "cancel by client id":
        return CancelOrder(wallet, sub, 0, target.client_id)
    if of not in run.results:
        raise BadValue(f"`{of}` is of the same block: its id is unknown, cancel by client id")
    return CancelOrder(wallet, sub, run.results[of][1].order_id or (1 << 62))


def _order(exchange: Exchange, cells: dict[str, str], wallet: bytes, sub: int) -> PlaceOrder:
    missing = [name for name in ("instrument", "qty", "price") if name not in cells]
    if missing or "of" in cells:
        raise BadValue(f"an order needs its {missing[0]}" if missing else "an order has no `of`")
    market = exchange.market(cells["instrument"])
    hows = cells.get("how", "").split()
    unknown = [how for how in hows if how not in HOWS]
    if unknown or len(set(hows)) != len(hows) or {"ioc", "fok"} <= set(hows):
        raise BadValue(f"`how` is of {', '.join(HOWS)}, not `{cells['how']}`")
    at_market = cells["price"] == "market"
    client = values.integer(cells["client id"]) if "client id" in cells else exchange.client_id()
    return PlaceOrder(
        wallet,
        sub,
        market.id,
        client,
        BUY if cells["does"] == "buy" else SELL,
        MARKET if at_market else LIMIT,
        0 if at_market else values.ticks(cells["price"], market),
        values.lots(cells["qty"], market),
        FOK if "fok" in hows else IOC if "ioc" in hows else GTC,
        "post-only" in hows,
        "reduce-only" in hows,
    )


def _note(run: Run, row: Row, action: Action) -> None:
    label = row.cells["order"]
    if label in run.actions:
        raise BadValue(f"`{label}` is there already: each row has its own name")
    run.actions[label] = action


def _signer(run: Run, row: Row) -> bytes:
    cells = row.cells
    return run.exchange.address(cells["signer"]) if "signer" in cells else (
        run.exchange.who(cells["who"])[0]
    )  # fmt: skip


def _send(run: Run, section: Section, build: Callable[[Run, Row], Action]) -> None:
    """Send one command a row, all in one block, in the rows' order."""

    def command(row: Row) -> tuple[str, Action, bytes]:
        action = build(run, row)
        _note(run, row, action)
        return row.cells["order"], action, _signer(run, row)

    sent = run.each(section.rows, command)
    commands = tuple(run.exchange.command(action, signer) for _, action, signer in sent)
    events = run.exchange.block(commands)
    run.events.extend(events)
    for (label, action, _), outcome in zip(sent, _outcomes(events), strict=True):
        run.results[label] = action, outcome


def _when_orders(run: Run, section: Section) -> None:
    _send(run, section, _action)


def _when_batch(run: Run, section: Section) -> None:
    """Send all rows as one command of the first row's signer."""

    def one(row: Row) -> tuple[str, Action]:
        action = _action(run, row)
        _note(run, row, action)
        return row.cells["order"], action

    sent = run.each(section.rows, one)
    (signer,) = run.each(section.rows[:1], lambda row: _signer(run, row))
    actions: tuple[Any, ...] = tuple(action for _, action in sent)
    events = run.exchange.block((run.exchange.command(Batch(actions), signer),))
    run.events.extend(events)
    (outcome,) = _outcomes(events)
    results: tuple[CommandOutcome | ActionResult, ...] = outcome.results
    results = results or (outcome,) * len(sent)
    for (label, action), result in zip(sent, results, strict=True):
        run.results[label] = action, result


def _key(run: Run, row: Row) -> Action:
    cells = row.cells
    wallet, _ = run.exchange.who(cells["who"])
    key = run.exchange.address(cells["key"], new=True)
    if cells["does"] == "revoke":
        return RevokeSession(wallet, key)
    scopes = {"trade": SCOPE_TRADE, "cancel": SCOPE_CANCEL}
    if cells["does"] != "authorise" or cells.get("scope") not in scopes or "for" not in cells:
        raise BadValue("revoke a key, or authorise it with scope trade or cancel for a time")
    until = run.exchange.now + values.duration(cells["for"])
    return AuthoriseSession(wallet, key, scopes[cells["scope"]], until)


def _withdrawal(run: Run, row: Row) -> Action:
    cells = row.cells
    wallet, sub = run.exchange.who(cells["who"])
    client = values.integer(cells["client id"]) if "client id" in cells else (
        run.exchange.client_id()
    )  # fmt: skip
    return Withdraw(wallet, sub, values.usdc(cells["amount"]), wallet, client.to_bytes(32, "big"))


def _after(run: Run, section: Section, default_ms: int) -> int:
    """Return how long after the last block this table's block comes."""

    def one(row: Row) -> int:
        return values.duration(row.cells["after"]) if "after" in row.cells else default_ms

    afters = run.each(section.rows, one)
    if len(set(afters)) != 1:
        raise run.fail(section.rows[-1], "the rows of one table happen at one time")
    return int(afters[0])


def _when_deposits(run: Run, section: Section) -> None:
    def one(row: Row) -> tuple[bytes, int, int]:
        wallet, sub = run.exchange.who(row.cells["who"], new=True)
        return wallet, sub, values.usdc(row.cells["amount"])

    deposits = tuple(run.each(section.rows, one))
    run.events.extend(run.exchange.block((), _after(run, section, 0), deposits))


def _when_prices(run: Run, section: Section) -> None:
    """Let the oracle say something else, and a block pass (half a second, or `after`)."""

    def one(row: Row) -> None:
        replica = None
        if "replica" in row.cells:
            replica = values.integer(row.cells["replica"]) - 1
            if not 0 <= replica < run.exchange.replicas:
                raise BadValue(f"replicas are 1 to {run.exchange.replicas}")
        _set_price(run.exchange, row, replica)

    run.each(section.rows, one)
    run.events.extend(run.exchange.block(after_ms=_after(run, section, RISK_TICK_MS)))


def _when_time(run: Run, section: Section) -> None:
    def one(row: Row) -> None:
        left = values.duration(row.cells["for"])
        step = values.duration(row.cells["in blocks of"]) if "in blocks of" in row.cells else left
        if not 0 < step <= left or left > step * BLOCKS_MAX:
            raise BadValue(f"a time above 0, in at most {BLOCKS_MAX} blocks")
        while left:
            run.events.extend(run.exchange.block(after_ms=min(step, left)))
            left -= min(step, left)

    run.each(section.rows, one)


_WHENS: Final[dict[str, Callable[[Run, Section], None]]] = {
    "when orders": _when_orders,
    "when batch": _when_batch,
    "when keys": lambda run, section: _send(run, section, _key),
    "when withdrawals": lambda run, section: _send(run, section, _withdrawal),
    "when deposits": _when_deposits,
    "when prices move": _when_prices,
    "when replicas report": _when_prices,
    "when time passes": _when_time,
}
