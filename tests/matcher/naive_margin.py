"""Margin and ledger invariants from scratch, in Fractions: the engine's independent oracle.

It reads only what the state says happened (cash, lots, live orders, marks, genesis), never the
engine's sums, and follows the market rules' words rather than the engine's code.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from matcher.state import Account, Market, State

WAD = 10**18


def fraction(rate: int) -> Fraction:
    return Fraction(rate, WAD)


def initial_rate(market: Market) -> Fraction:
    """6.5 %, rising linearly to 1 between the open-interest caps; as of the last risk tick."""
    return fraction(market.initial_rate)


def requirement(state: State, account: Account, market: Market, initial: bool) -> int:
    lots = account.positions[market.id].lots if market.id in account.positions else 0
    orders = [order for order in account.orders.values() if order.market is market]
    buys = sum(order.open for order in orders if order.side == 0)
    sells = sum(order.open for order in orders if order.side == 1)
    worst = max(abs(lots + buys), abs(lots - sells))
    notional = Fraction(worst * market.lot_mark)
    rate = initial_rate(market) if initial else fraction(market.spec.maintenance_rate)
    need = ceil(notional * rate * max(Fraction(1), notional / market.spec.size_base))
    if initial and market.surcharge_num:
        need += ceil(Fraction(worst * market.surcharge_num, market.surcharge_den))
    for order in orders:
        worth = order.price * market.spec.tick_size // 10**market.spec.lot_decimals
        loss = worth - market.lot_mark if order.side == 0 else market.lot_mark - worth
        need += max(0, loss) * order.open
    return need


def margin(state: State, account: Account, initial: bool) -> int:
    """cash + unrealised PnL and funding - requirements."""
    total = account.cash
    for market in state.markets:
        if market.id in account.positions:
            total += account.positions[market.id].lots * (market.lot_mark - market.funding)
        total -= requirement(state, account, market, initial)
    return total


def equity(state: State, account: Account) -> int:
    return account.cash + sum(
        position.lots * (state.markets[id_].lot_mark - state.markets[id_].funding)
        for id_, position in account.positions.items()
    )


def check_books(state: State) -> None:
    """The engine's orders, the books and the accounts tell one story."""
    resting = {}
    for market in state.markets:
        for row in market.book.export():
            assert row.order_id not in resting
            resting[row.order_id] = (market.id, row.owner, row.side, row.price, row.qty)
        bid, ask = market.book.best(0), market.book.best(1)
        assert bid is None or ask is None or bid < ask, f"crossed book {bid} {ask}"
    told = {
        order.id: (order.market.id, account.index, order.side, order.price, order.open)
        for account in state.accounts
        for order in account.orders.values()
    }
    assert resting == told
    assert set(state.orders) == set(told)
    for account in state.accounts:
        assert len(account.orders) == len(account.by_client)
        for id_, position in account.positions.items():
            mine = [o for o in account.orders.values() if o.market.id == id_]
            assert position.buys == sum(o.open for o in mine if o.side == 0)
            assert position.sells == sum(o.open for o in mine if o.side == 1)
            assert position.orders == len(mine)
            assert position.lots or mine, "an empty position is kept"


def check_money(state: State, deposited: int) -> None:
    """Nothing is made or lost: cash, lots, equities, open interest."""
    cash = sum(account.cash for account in state.accounts)
    assert cash == deposited - state.withdrawn_total == -state.vault
    assert sum(equity(state, account) for account in state.accounts) == cash
    for market in state.markets:
        lots = [
            account.positions[market.id].lots
            for account in state.accounts
            if market.id in account.positions
        ]
        assert sum(lots) == 0
        assert market.open_interest == sum(held for held in lots if held > 0)


def positive_total(state: State) -> int:
    return sum(max(0, equity(state, account)) for account in state.accounts if account.index != 1)
