"""Consuming the inbox: every message gets one event, and every deposit's money lands somewhere.

The money goes to the subaccount named; or, when that one cannot be opened, to the wallet's
*suspense* subaccount (255); or, when suspense is full, to the insurance fund. So net total =
deposited - withdrawn whatever comes. Suspense follows into the wallet's own subaccount with the
wallet's next deposit that reaches or opens one (and counts towards its minimum), or leaves by a
withdrawal from 255. Anybody may deposit to the fee account and the insurance fund, which are
subaccounts 254 and 253 of the genesis' wallets.
"""

from __future__ import annotations

from matcher import ledger
from matcher.actions import SUBACCOUNT_SUSPENSE, SUBACCOUNTS_MAX
from matcher.inbox import KIND_DEPOSIT, chain, decode_message
from matcher.outcome import Deposited, InboxRefused, Moved
from matcher.state import Account, State
from matcher.units import AMOUNT_MAX, NET_MAX, wide


def consume(state: State, messages: tuple[bytes, ...], inbox_hash: bytes) -> None:
    """Take in the newly anchored messages, in order; their hash chain must end at `inbox_hash`."""
    for message in messages:
        state.inbox_count += 1
        state.inbox_hash = chain(state.inbox_hash, message)
        _consume_one(state, message)
    assert state.inbox_hash == inbox_hash, "the inbox's hash chain does not end where it should"


def _consume_one(state: State, message: bytes) -> None:
    decoded = decode_message(message)
    reason: str | None = None
    if decoded is None:
        reason = "inbox_malformed"
    elif decoded.kind != KIND_DEPOSIT:
        reason = "inbox_kind"
    elif decoded.amount == 0:
        reason = "inbox_zero"
    if reason is not None or decoded is None:
        state.events.append(InboxRefused(state.inbox_count, reason or ""))
        return
    _credit(state, decoded.wallet, decoded.subaccount, decoded.amount)


def _credit(state: State, address: bytes, sub: int, amount: int) -> None:
    wallet = state.wallets.get(address)
    account = None
    if wallet is not None and sub != SUBACCOUNT_SUSPENSE:
        account = wallet.accounts.get(sub)
    held = wallet.accounts.get(SUBACCOUNT_SUSPENSE) if wallet is not None else None
    waiting = held.cash if held is not None else 0
    if amount > AMOUNT_MAX or amount - state.vault > NET_MAX:
        _suspend(state, address, amount, "deposit_amount")
    elif account is None and sub >= SUBACCOUNTS_MAX:
        _suspend(state, address, amount, "deposit_subaccount")
    elif account is None and amount + waiting < state.genesis.deposit_min:
        _suspend(state, address, amount, "deposit_min")
    elif account is None and _traders(state) >= state.genesis.accounts_max:
        _suspend(state, address, amount, "accounts_full")
    else:
        if account is None:
            account = state.open_account(state.wallet_of(address), sub)
        ledger.deposit(state, account, amount)
        state.events.append(Deposited(state.inbox_count, address, sub, account.index, amount))
        if held is not None and 0 < waiting <= NET_MAX and -state.vault <= NET_MAX:
            ledger.transfer(state, held, account, waiting)
            state.events.append(Moved(address, account.index, waiting))


def _traders(state: State) -> int:
    """Return the number of accounts that are neither the engine's own nor suspense."""
    return len(state.accounts) - 2 - state.suspense_count


def _suspend(state: State, address: bytes, amount: int, reason: str) -> None:
    """Hold the amount for the wallet where it can be reached."""
    account: Account | None = None
    wallet = state.wallets.get(address)
    if wallet is not None:
        account = wallet.accounts.get(SUBACCOUNT_SUSPENSE)
    if account is None:
        if state.suspense_count >= state.genesis.suspense_max:
            account, reason = state.insurance, "suspense_full"
        else:
            account = state.open_account(state.wallet_of(address), SUBACCOUNT_SUSPENSE)
            state.suspense_count += 1
    ledger.deposit(state, account, amount)
    state.events.append(
        Deposited(state.inbox_count, address, account.sub, account.index, wide(amount), reason)
    )
