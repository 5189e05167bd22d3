"""Every machine-readable reason, in one table: why something was refused, cancelled or moved."""

from __future__ import annotations

from typing import Final

REASONS: Final[dict[str, str]] = {
    # A payload that no state could make valid: the door may refuse it too.
    "malformed": "The payload is not the canonical encoding of an action.",
    "bad_address": "A wallet, session or recipient is not a usable 20-byte address.",
    "bad_subaccount": "Subaccounts are 0 to 31.",
    "bad_client_id": "A client id is 0 to 2**63 - 1, a withdrawal's 32 bytes.",
    "bad_order_id": "An order id is 0 to 2**63 - 1.",
    "bad_side": "Side is 0 (buy) or 1 (sell); a filter also takes 2 (both).",
    "bad_qty": "Quantity is at least one lot and at most the instrument's maximum.",
    "bad_price": "A limit price is at least one tick and in range; a market order's is 0.",
    "bad_amount": "An amount is at least 1 micro-USDC and below 2**63.",
    "bad_scope": "A session's scope is 1 (trade) or 2 (cancel only).",
    "bad_time": "A time is outside 0 to 2**63 - 1 milliseconds.",
    "batch_size": "A batch has 1 to 50 actions.",
    "batch_wallets": "All actions of a batch belong to one wallet.",
    "unsupported": "This kind of order or time in force is not offered yet.",
    "post_only_taker": "Post-only needs a resting limit order (good till cancelled).",
    "unknown_instrument": "No instrument has this id.",
    "withdrawal_min": "The withdrawal is smaller than the market's minimum.",
    # Authority.
    "unknown_account": "The wallet has no such subaccount: its first deposit opens it.",
    "unknown_session": "The signer is neither the wallet nor one of its sessions.",
    "session_expired": "The session key's authority has expired.",
    "session_scope": "The session key may only cancel.",
    "wallet_only": "Only the wallet itself may sign this.",
    "too_many_sessions": "The wallet has as many live sessions as it may.",
    "system_account": "The insurance fund pays nobody on request.",
    "rate_limit": "The wallet's token bucket is empty: slow down.",
    # Orders.
    "duplicate_client_id": "The subaccount has used this client id: nothing was done again.",
    "client_id_too_low": "The id is below all remembered ones: ids should grow.",
    "oracle_stale": "Too few fresh prices: cancel only, and no withdrawal with positions.",
    "in_liquidation": "The subaccount is being liquidated.",
    "price_band": "The limit price is outside the band around the mark.",
    "would_cross": "A post-only order would have traded at once.",
    "reduce_only": "Reduce-only, and there is no opposite position to reduce.",
    "reduce_only_resting": "A reduce-only order cannot rest yet: use IOC or market.",
    "insufficient_margin": "Initial margin would fall below zero.",
    "too_many_orders": "The subaccount has as many open orders as it may.",
    "too_many_positions": "The subaccount has positions or orders in too many instruments.",
    "unknown_order": "No live order of the subaccount has this id.",
    "fill_or_kill": "The book could not fill the whole order at once.",
    "no_liquidity": "Nothing more within the limit: the remainder was cancelled.",
    "self_trade": "The next order is the same wallet's: the taker's remainder was cancelled.",
    "user": "Cancelled by its owner.",
    "liquidation": "Cancelled because the subaccount is below maintenance margin.",
    "liquidation_self_trade": "Stood in the way of its own wallet's liquidation.",
    # Sequencing.
    "expiry_too_far": "The command expires too far ahead of block time.",
    "order_full": "Too many commands waited to be ordered when this one first appeared.",
    # Inbox.
    "inbox_malformed": "The message is not kind, wallet, subaccount, amount in 128 bytes.",
    "inbox_kind": "This kind of inbox message is not served yet.",
    "inbox_zero": "A deposit of nothing.",
    "deposit_min": "Too small to open a subaccount: held in suspense for the wallet.",
    "deposit_subaccount": "No such subaccount can be opened: held in suspense for the wallet.",
    "deposit_amount": "More than the engine counts in one market: held in suspense for the wallet.",
    "accounts_full": "No more subaccounts can be opened: held in suspense for the wallet.",
    "suspense_full": "No more wallets fit into suspense: the insurance fund took the amount.",
}
