"""Read-only views of the state: for checkpoints, and as JSON-friendly dicts for the door."""

from __future__ import annotations

from matcher import margin
from matcher.state import Account, Order, State
from matcher.tree import account_leaf, state_root, value_leaf

DEPTH_MAX = 1_000


def checkpoint(state: State) -> tuple[bytes, bytes, int, int, bytes, int, int]:
    """Return state root, withdrawals root, withdrawn total, inbox count and hash, net, positive."""
    for account in state.leaves_stale:
        account.leaf_stale = False
    for account in sorted(state.leaves_stale, key=lambda account: account.index):
        lots = [(id_, p.lots) for id_, p in sorted(account.positions.items()) if p.lots]
        leaf = account_leaf(account.index, account.wallet.address, account.sub, account.cash, lots)
        state.account_tree.set(account.index, leaf)
    state.leaves_stale.clear()
    for market in state.markets:
        if market.leaf_value != market.value:
            market.leaf_value = market.value
            state.value_tree.set(market.id, value_leaf(market.id, market.value))
    return (
        state_root(state.account_tree.root(), state.value_tree.root()),
        state.withdrawal_tree.root(),
        state.withdrawn_total,
        state.inbox_count,
        state.inbox_hash,
        -state.vault,
        positive_total(state),
    )


def positive_total(state: State) -> int:
    """Return the sum of the positive equities without the insurance fund's.

    All equities sum to minus the vault's contra. Negative equity means negative margin, so only
    accounts in liquidation or waiting for a check can have it: no need to look at the others.
    """
    suspects = {account.index: account for account in state.margins_stale}
    suspects.update(state.liquidating)
    negative = sum(min(0, margin.equity(account)) for account in suspects.values())
    return -state.vault - state.insurance.cash - negative


def account(state: State, address: bytes, sub: int) -> dict[str, object]:
    """Return what a subaccount has; an empty dict when it does not exist."""
    wallet = state.wallets.get(address)
    held = wallet.accounts.get(sub) if wallet is not None else None
    if wallet is None or held is None:
        return {}
    return {
        "wallet": address.hex(),
        "subaccount": sub,
        "index": held.index,
        "cash": held.cash,
        "equity": margin.equity(held),
        "initial_margin": margin.initial_margin(state, held),
        "maintenance_margin": margin.maintenance_margin(state, held),
        "in_liquidation": held.liquidation is not None,
        "positions": [
            {
                "instrument": id_,
                "lots": position.lots,
                "open_buys": position.buys,
                "open_sells": position.sells,
                "value": position.lots * position.market.value,
            }
            for id_, position in sorted(held.positions.items())
        ],
        "orders": [_order(order) for _, order in sorted(held.orders.items())],
        "sessions": [
            {"key": key.hex(), "scope": scope, "expires_ms": until}
            for key, (scope, until) in sorted(wallet.sessions.items())
        ],
    }


def _order(order: Order) -> dict[str, object]:
    return {
        "order_id": order.id,
        "client_id": order.client_id,
        "instrument": order.market.id,
        "side": order.side,
        "price": order.price,
        "qty": order.qty,
        "open": order.open,
    }


def book(state: State, instrument: int, depth: int) -> dict[str, object]:
    """Return the best levels of one book. Errors: IndexError for an unknown instrument."""
    if not 0 <= instrument < len(state.markets):
        raise IndexError(f"no instrument {instrument}")
    market = state.markets[instrument]
    levels = min(max(depth, 0), DEPTH_MAX)
    return {
        "instrument": instrument,
        "name": market.spec.name,
        "height": state.height,
        "time_ms": state.time_ms,
        "bids": [list(level) for level in market.book.depth(0, levels)],
        "asks": [list(level) for level in market.book.depth(1, levels)],
    }


def status(state: State) -> dict[str, object]:
    """Return the engine's totals, feeds and markets."""
    uncovered = sum(max(0, -account.cash) for account in _bankrupt(state))
    return {
        "height": state.height,
        "time_ms": state.time_ms,
        "accounts": len(state.accounts),
        "open_orders": len(state.orders),
        "trades": state.next_trade - 1,
        "inbox_count": state.inbox_count,
        "withdrawals": len(state.withdrawals),
        "withdrawn_total": state.withdrawn_total,
        "net_total": -state.vault,
        "fees": state.fees.cash,
        "insurance": state.insurance.cash,
        "liquidating": len(state.liquidating),
        "uncovered": uncovered,
        "feeds": [
            {
                "name": spec.name,
                "index": feed.value,
                "time_ms": feed.time_ms,
                "dispersion": feed.dispersion,
                "fresh": feed.fresh,
            }
            for spec, feed in zip(state.genesis.underlyings, state.feeds, strict=True)
        ],
        "markets": [
            {
                "instrument": market.id,
                "name": market.spec.name,
                "mark": market.mark,
                "value": market.value,
                "funding": market.funding,
                "funding_rate_8h": market.funding_rate,
                "open_interest": market.open_interest,
                "last_price": market.last_price,
                "band": [market.band_low, market.band_high],
                "open_orders": len(market.book),
                "live": state.is_live(market),
            }
            for market in state.markets
        ],
    }


def _bankrupt(state: State) -> list[Account]:
    return [account for account in state.liquidating.values() if not account.positions]
