"""Standard margin of linear instruments, open orders included.

Per market an account's *contribution* is lots x value - requirement - loss, and its margin is
cash + the sum of contributions. The requirement is that of the larger of |lots + buys| and
|lots - sells| at mark; `loss` is what the open orders would lose against mark at their limits.
Requirements round up. Marks, rates and surcharge stand still between risk ticks, so sums of
contributions are kept per account and only what an action touches is computed again.
Options and portfolio mode will be further terms of the same sum.
"""

from __future__ import annotations

from matcher.state import Account, Market, Order, Position, State


def requirement(market: Market, worst: int, num: int, den: int) -> int:
    """Return the requirement of `worst` lots at the rate num/den, times max(1, notional/base)."""
    notional = worst * market.lot_mark
    if notional <= market.size_base:
        return -(-notional * num // den)
    return -(-notional * notional * num // (den * market.size_base))


def initial_contribution(market: Market, lots: int, buys: int, sells: int, loss: int) -> int:
    """Return lots x value - initial requirement - loss."""
    up = lots + buys
    down = sells - lots
    worst = up if up > down else down
    notional = worst * market.lot_mark
    if notional <= market.size_base:
        need = -(-notional * market.initial_num // market.initial_den)
    else:
        need = requirement(market, worst, market.initial_num, market.initial_den)
    if market.surcharge_num:
        need += -(-worst * market.surcharge_num // market.surcharge_den)
    return lots * market.value - need - loss


def maintenance_contribution(market: Market, lots: int, buys: int, sells: int, loss: int) -> int:
    """Return lots x value - maintenance requirement - loss."""
    worst = max(lots + buys, sells - lots)
    need = requirement(market, worst, market.maintenance_num, market.maintenance_den)
    return lots * market.value - need - loss


def unit_loss(market: Market, side: int, price: int) -> int:
    """Return what one lot of an order at `price` would lose against mark, at least 0."""
    ahead = market.lot_mark - price * market.tick_value
    if side == 0:
        ahead = -ahead
    return ahead if ahead > 0 else 0


def refresh(state: State, account: Account) -> None:
    """Bring the account's sums to this risk tick."""
    if account.tick == state.tick:
        return
    account.tick = state.tick
    positions = account.positions
    for position in positions.values():
        position.loss = 0
    for order in account.orders.values():
        loss = unit_loss(order.market, order.side, order.price)
        if loss:
            positions[order.market.id].loss += loss * order.open
    free = 0
    for position in positions.values():
        position.contribution = initial_contribution(
            position.market, position.lots, position.buys, position.sells, position.loss
        )
        free += position.contribution
    account.free = free


def update(account: Account, position: Position) -> None:
    """Compute one position's contribution again; the account's `tick` must be the current one."""
    fresh = initial_contribution(
        position.market, position.lots, position.buys, position.sells, position.loss
    )
    account.free += fresh - position.contribution
    position.contribution = fresh


def initial_margin(state: State, account: Account) -> int:
    """Return cash + contributions at the initial rates: what must stay >= 0."""
    refresh(state, account)
    return account.cash + account.free


def maintenance_margin(state: State, account: Account) -> int:
    """Return cash + contributions at the maintenance rates: below 0 means liquidation."""
    refresh(state, account)
    return account.cash + sum(
        maintenance_contribution(p.market, p.lots, p.buys, p.sells, p.loss)
        for p in account.positions.values()
    )


def equity(account: Account) -> int:
    """Return cash + all positions at their markets' values."""
    return account.cash + sum(p.lots * p.market.value for p in account.positions.values())


def has_position(account: Account) -> bool:
    """Say whether the account holds any lots (open orders alone do not count)."""
    return any(p.lots for p in account.positions.values())


def position_of(account: Account, market: Market) -> Position:
    """Return the account's position in `market`, a new empty one if it has none."""
    position = account.positions.get(market.id)
    if position is None:
        position = Position(market)
        account.positions[market.id] = position
    return position


def drop_if_empty(account: Account, position: Position) -> None:
    """Forget a position without lots and orders: it contributes nothing."""
    if position.lots == 0 and position.orders == 0:
        account.free -= position.contribution
        del account.positions[position.market.id]


def order_opened(state: State, account: Account, position: Position, order: Order) -> None:
    """Count a new resting order; the account is refreshed."""
    if order.side == 0:
        position.buys += order.open
    else:
        position.sells += order.open
    position.orders += 1
    position.loss += unit_loss(order.market, order.side, order.price) * order.open
    update(account, position)
    state.margin_changed(account)


def order_closed(state: State, position: Position, order: Order, lots: int, gone: bool) -> None:
    """Count `lots` fewer of a resting order, and with `gone` one order fewer."""
    if order.side == 0:
        position.buys -= lots
    else:
        position.sells -= lots
    if gone:
        position.orders -= 1
    account = order.account
    if account.tick == state.tick:
        position.loss -= unit_loss(order.market, order.side, order.price) * lots
        update(account, position)
