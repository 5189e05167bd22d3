"""Who may do what, how often, and the wallet's own actions: sessions and withdrawals."""

from __future__ import annotations

from matcher import ledger, margin
from matcher.actions import (
    SCOPE_TRADE,
    SUBACCOUNT_INSURANCE,
    AuthoriseSession,
    RevokeSession,
    Withdraw,
)
from matcher.outcome import DONE, REJECTED, ActionResult, SessionChanged, Withdrawn
from matcher.state import WITHDRAWAL_IDS_MAX, State, Wallet
from matcher.tree import LEAVES_MAX, withdrawal_leaf


def refusal(state: State, wallet: Wallet | None, signer: bytes, scope: int) -> str | None:
    """Return why `signer` may not act for `wallet` within `scope`, or None."""
    if wallet is None:
        return "unknown_account"
    if signer == wallet.address:
        return None
    session = wallet.sessions.get(signer)
    if session is None:
        return "unknown_session"
    if session[1] <= state.time_ms:
        return "session_expired"
    return "session_scope" if session[0] != SCOPE_TRADE and scope == SCOPE_TRADE else None


def take_token(state: State, wallet: Wallet, cancels: bool) -> bool:
    """Take one token of the wallet's bucket, filled by block time; False when it is empty."""
    genesis = state.genesis
    elapsed = state.time_ms - wallet.bucket_ms
    if elapsed:
        wallet.bucket_ms = state.time_ms
        orders = wallet.orders_milli + elapsed * genesis.orders_per_s
        wallet.orders_milli = min(orders, 1_000 * genesis.orders_burst)
        cancelled = wallet.cancels_milli + elapsed * genesis.cancels_per_s
        wallet.cancels_milli = min(cancelled, 1_000 * genesis.cancels_burst)
    if not wallet.touched:
        state.touch(wallet)
    if cancels:
        if wallet.cancels_milli < 1_000:
            return False
        wallet.cancels_milli -= 1_000
        return True
    if wallet.orders_milli < 1_000:
        return False
    wallet.orders_milli -= 1_000
    return True


def authorise(state: State, wallet: Wallet, action: AuthoriseSession) -> ActionResult:
    """Give a session key authority; a key that has some gets the new scope and expiry."""
    now = state.time_ms
    if action.session_expires_ms <= now:
        return ActionResult(REJECTED, "session_expired")
    live = {key: held for key, held in wallet.sessions.items() if held[1] > now}
    if action.session not in live and len(live) >= state.genesis.sessions_max:
        return ActionResult(REJECTED, "too_many_sessions")
    live[action.session] = (action.scope, action.session_expires_ms)
    wallet.sessions = live
    state.touch(wallet)
    state.events.append(
        SessionChanged(wallet.address, action.session, action.scope, action.session_expires_ms)
    )
    return ActionResult(DONE)


def revoke(state: State, wallet: Wallet, action: RevokeSession) -> ActionResult:
    """Take a session key's authority away."""
    if wallet.sessions.pop(action.session, None) is None:
        return ActionResult(REJECTED, "unknown_session")
    state.touch(wallet)
    state.events.append(SessionChanged(wallet.address, action.session, 0, state.time_ms))
    return ActionResult(DONE)


def withdraw(state: State, wallet: Wallet, action: Withdraw) -> ActionResult:
    """Debit a subaccount and append the withdrawal's leaf.

    Initial margin must stay >= 0, and with positions or open orders every price they need must
    be fresh. Less than the market's minimum only leaves if it is all. Suspense (255) pays out
    the same way; the insurance fund (253) never does.
    """
    account = wallet.accounts.get(action.subaccount)
    reason: str | None = None
    if action.subaccount == SUBACCOUNT_INSURANCE:
        reason = "system_account"
    elif account is None:
        reason = "unknown_account"
    elif action.client_id in account.withdrawal_ids:
        reason = "duplicate_client_id"
    elif action.amount < state.genesis.withdrawal_min and action.amount != account.cash:
        reason = "withdrawal_min"
    elif account.liquidation is not None:
        reason = "in_liquidation"
    elif not all(state.is_live(position.market) for position in account.positions.values()):
        reason = "oracle_stale"
    elif margin.initial_margin(state, account) < action.amount:
        reason = "insufficient_margin"
    if reason is not None or account is None:
        return ActionResult(REJECTED, reason)
    index = len(state.withdrawals)
    assert index < LEAVES_MAX
    account.withdrawal_ids[action.client_id] = None
    if len(account.withdrawal_ids) > WITHDRAWAL_IDS_MAX:
        del account.withdrawal_ids[next(iter(account.withdrawal_ids))]
    ledger.withdraw(state, account, action.amount)
    state.margin_changed(account)
    state.withdrawals.append((action.recipient, action.amount))
    state.withdrawal_tree.set(index, withdrawal_leaf(index, action.recipient, action.amount))
    state.events.append(
        Withdrawn(index, wallet.address, action.subaccount, action.recipient, action.amount)
    )
    return ActionResult(DONE, None, index)
