"""Double entry: money only moves between accounts, and in and out through the vault's contra.

Every function posts entries that sum to zero, so cash of all accounts + `State.vault` is zero
after each of them. `State.vault` is minus what the chain's vault holds for the engine's accounts.
Units: micro-USDC.
"""

from __future__ import annotations

from matcher.state import Account, State


class LedgerBroken(AssertionError):
    """The entries no longer sum to zero: stop, an operator must look."""

    def __init__(self, total: int) -> None:
        super().__init__(f"the ledger's entries sum to {total}")


def transfer(state: State, payer: Account, payee: Account, amount: int) -> None:
    """Move `amount` (which may be negative) from one account to another."""
    payer.cash -= amount
    payee.cash += amount
    state.cash_changed(payer)
    state.cash_changed(payee)


def deposit(state: State, account: Account, amount: int) -> None:
    """Credit what came into the vault."""
    assert amount >= 0
    state.vault -= amount
    account.cash += amount
    state.cash_changed(account)


def withdraw(state: State, account: Account, amount: int) -> None:
    """Debit what leaves the vault, and count it."""
    assert amount > 0
    account.cash -= amount
    state.vault += amount
    state.withdrawn_total += amount
    state.cash_changed(account)


def settle_trade(
    state: State, buyer: Account, seller: Account, amount: int, buyer_fee: int, seller_fee: int
) -> None:
    """Move a trade's money from buyer to seller, and both fees to the fee account.

    `amount` = lots x (price x tick value - cumulative funding per lot): see `Account.cash`.
    Entries: buyer -(amount + buyer_fee), seller +(amount - seller_fee), fees + both: zero.
    """
    buyer.cash -= amount + buyer_fee
    seller.cash += amount - seller_fee
    state.accounts[0].cash += buyer_fee + seller_fee
    if not buyer.leaf_stale or not buyer.wallet.touched:
        state.cash_changed(buyer)
    if not seller.leaf_stale or not seller.wallet.touched:
        state.cash_changed(seller)
    fees = state.accounts[0]
    if not fees.leaf_stale or not fees.wallet.touched:
        state.cash_changed(fees)


def net_total(state: State) -> int:
    """Return the sum of all equities: positions net to zero, so it is the sum of all cash."""
    return -state.vault


def check_sum_zero(state: State) -> None:
    """Add everything up again. Errors: LedgerBroken."""
    total = state.vault + sum(account.cash for account in state.accounts)
    if total != 0:
        raise LedgerBroken(total)
    for market in state.markets:
        lots = sum(
            account.positions[market.id].lots
            for account in state.accounts
            if market.id in account.positions
        )
        if lots != 0:
            raise LedgerBroken(lots)
