"""What must hold after every block, whatever it brought: one place for flows and mutations."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

from matcher import margin
from matcher.engine import Engine
from matcher.ledger import check_sum_zero
from matcher.outcome import CommandOutcome, FeedChanged, Fill, MarkMoved, Withdrawn
from matcher.reasons import REASONS
from matcher.tree import DenseTree, account_leaf, state_root, value_leaf
from tests.matcher import naive_margin as naive
from tests.matcher.flows import Step, perform
from tests.matcher.market import World, wallet

ACCEPTED = ("resting", "partially_filled", "filled", "cancelled")


def checked(world: World, step: Step) -> Any:
    """Let a step happen, and check the block and the state after it."""
    before = world.last, dict(world.accepted)
    commands, events = perform(world, step)
    check_outcomes(commands, events)
    check_fills(world, events)
    check_resend(world, step, before, events)
    check_margins(world, step, events)
    check_state(world)
    if world.height % 7 == 0:
        check_digest(world)
    return events


def check_outcomes(commands: tuple[Any, ...], events: tuple[Any, ...]) -> None:
    """One outcome a command, in order, each reason documented."""
    outcomes = [event for event in events if isinstance(event, CommandOutcome)]
    assert [outcome.id for outcome in outcomes] == [command.id for command in commands]
    for outcome in outcomes:
        results: tuple[Any, ...] = (outcome, *outcome.results)
        for one in results:
            assert one.reason is None or one.reason in REASONS
            assert (one.status == "rejected") <= (one.reason is not None)


def check_fills(world: World, events: tuple[Any, ...]) -> None:
    """Fees round up, marks follow fresh prices only, and so do trades."""
    for event in events:
        if isinstance(event, Fill):
            market = world.state.markets[event.instrument]
            assert market.feed.fresh, "a trade on a stale price"
            assert event.instrument in world.marked, "a trade before the mark followed the index"
            spec = market.spec
            money = event.qty * event.price * Fraction(spec.tick_size, 10**spec.lot_decimals)
            rates = world.genesis.taker_fee, world.genesis.maker_fee
            taker, maker = (ceil(money * Fraction(rate, 10**18)) for rate in rates)
            assert event.maker_fee == maker
            assert event.taker_fee in (taker, 0)
        if isinstance(event, FeedChanged) and not event.fresh:
            gone = [m.id for m in world.state.markets if m.spec.underlying == event.feed]
            world.marked -= set(gone)
        if isinstance(event, MarkMoved):
            world.marked.add(event.instrument)
            assert world.state.markets[event.instrument].feed.fresh, "a mark from a stale price"


def check_resend(world: World, step: Step, before: Any, events: tuple[Any, ...]) -> None:
    """A payload that was accepted once is never accepted again."""
    last, accepted = before
    if step.kind == "resend" and last is not None and accepted.get(last.payload):
        assert events[-1].reason in ("duplicate_client_id", "rate_limit", "bad_qty")
    if world.last is None or not events or step.kind not in ("place", "resend"):
        return
    if isinstance(events[-1], CommandOutcome) and events[-1].status in ACCEPTED:
        world.accepted[world.last.payload] = True


def check_margins(world: World, step: Step, events: tuple[Any, ...]) -> None:
    """Money leaves only what initial margin does not need; orders never start below maintenance."""
    state = world.state
    for event in events:
        if isinstance(event, Withdrawn):
            account = state.wallets[event.wallet].accounts[event.subaccount]
            assert naive.margin(state, account, True) >= 0, "withdrew what margin needs"
    placed = isinstance(events[-1], CommandOutcome) if events else False
    if placed and step.kind == "place" and events[-1].status in ACCEPTED:
        who, sub = step.arguments[:2]
        account = state.wallets[wallet(who)].accounts[sub]
        assert naive.margin(state, account, False) >= 0, "an order began below maintenance"


def check_state(world: World) -> None:
    """Money, books, margins, checkpoint."""
    state = world.state
    check_sum_zero(state)
    naive.check_money(state, world.deposited)
    naive.check_books(state)
    for account in state.accounts:
        assert margin.initial_margin(state, account) == naive.margin(state, account, True)
        low = naive.margin(state, account, False)
        assert margin.maintenance_margin(state, account) == low
        if low < 0:
            assert account.margin_stale or account.liquidation is not None, "nobody noticed"
        if account.index != 1 and account.liquidation is None and not account.positions:
            assert account.cash >= 0
    checkpoint = world.engine.checkpoint_state()
    assert checkpoint.net_total == world.deposited - checkpoint.withdrawn_total
    assert checkpoint.positive_total == naive.positive_total(state)
    assert checkpoint.state_root == root_from_scratch(world)
    assert checkpoint.withdrawn_total == sum(amount for _, amount in state.withdrawals)


def root_from_scratch(world: World) -> bytes:
    """The state root built anew from the accounts and values."""
    accounts, values = DenseTree(), DenseTree()
    for index, account in enumerate(world.state.accounts):
        lots = sorted((id_, held.lots) for id_, held in account.positions.items() if held.lots)
        wallet = account.wallet.address
        accounts.set(index, account_leaf(index, wallet, account.sub, account.cash, lots))
    for market in world.state.markets:
        values.set(market.id, value_leaf(market.id, market.lot_mark - market.funding))
    return state_root(accounts.root(), values.root())


def check_digest(world: World) -> None:
    """The incremental digest is that of an engine restored from the export."""
    kept = world.engine.state_digest()
    fresh = Engine(world.genesis, world.n, world.f)
    fresh.restore_state(world.engine.export_state())
    assert fresh.state_digest() == kept
