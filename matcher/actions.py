"""What a command asks for: one tagged union, its bounds, and who must sign what.

Shape: MessagePack arrays with the tag first, e.g. `["place", wallet, subaccount, ..]`; the codec
refuses what is not canonical. Addresses are 20 bytes, prices ticks, quantities lots, money
micro-USDC. Bounds are checked in `parse`, so that the engine sees only sane numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from consensus.codec import CodecError, Shape, encode
from matcher.units import AMOUNT_MAX, ID_MAX, PRICE_MAX, QTY_MAX, TIME_MAX_MS

BUY: Final = 0
SELL: Final = 1

LIMIT: Final = 0
MARKET: Final = 1
"""Never rests; its limit price is the price band's edge."""
KINDS_MAX: Final = 15
"""2..15 are kept for triggers (stop and take-profit, to market or to limit)."""

GTC: Final = 0
IOC: Final = 1
FOK: Final = 2
TIF_MAX: Final = 15
"""3 is kept for good-til-time."""

SCOPE_TRADE: Final = 1
SCOPE_CANCEL: Final = 2

SUBACCOUNTS_MAX: Final = 32
SUBACCOUNT_INSURANCE: Final = 253
SUBACCOUNT_FEES: Final = 254
SUBACCOUNT_SUSPENSE: Final = 255
"""Numbers from 32 are the engine's own: nobody trades there."""

ANY_INSTRUMENT: Final = (1 << 32) - 1
ANY_SIDE: Final = 2
BATCH_ACTIONS_MAX: Final = 50
PAYLOAD_BYTES_MAX: Final = 8_192


class PlaceOrder(Struct, frozen=True, array_like=True, tag="place"):
    """Buy or sell `qty` lots. `client_id` makes a resend harmless: see `state.ClientIds`.

    `price` is the limit; of a market order it must be 0. `side`, `kind`, `tif`: the constants
    above. A market order with `tif` GTC is the same as with IOC.
    """

    wallet: bytes
    subaccount: int
    instrument: int
    client_id: int
    side: int
    kind: int
    price: int
    qty: int
    tif: int = GTC
    post_only: bool = False
    reduce_only: bool = False


class CancelOrder(Struct, frozen=True, array_like=True, tag="cancel"):
    """Cancel one live order of the subaccount, by order id, or by client id when that is 0."""

    wallet: bytes
    subaccount: int
    order_id: int
    client_id: int = 0


class CancelAll(Struct, frozen=True, array_like=True, tag="cancel_all"):
    """Cancel the subaccount's orders in `instrument` and on `side`; by default all of them."""

    wallet: bytes
    subaccount: int
    instrument: int = ANY_INSTRUMENT
    side: int = ANY_SIDE


TradeAction = PlaceOrder | CancelOrder | CancelAll


class Batch(Struct, frozen=True, array_like=True, tag="batch"):
    """Up to 50 actions, applied in order, each with its own result; one does not undo another."""

    actions: tuple[TradeAction, ...]


class AuthoriseSession(Struct, frozen=True, array_like=True, tag="authorise"):
    """Let `session` sign for `wallet` within `scope` until block time `session_expires_ms`."""

    wallet: bytes
    session: bytes
    scope: int
    session_expires_ms: int


class RevokeSession(Struct, frozen=True, array_like=True, tag="revoke"):
    """Take a session key's authority away at once."""

    wallet: bytes
    session: bytes


class Withdraw(Struct, frozen=True, array_like=True, tag="withdraw"):
    """Debit `amount` and append a withdrawal leaf for `recipient`; `client_id` is 32 bytes."""

    wallet: bytes
    subaccount: int
    amount: int
    recipient: bytes
    client_id: bytes


WalletAction = AuthoriseSession | RevokeSession | Withdraw
Action = PlaceOrder | CancelOrder | CancelAll | Batch | AuthoriseSession | RevokeSession | Withdraw


def encode_action(action: Action) -> bytes:
    """Return the payload that carries `action`."""
    return encode(action)


_ACTION: Shape[Action] = Shape(Action)


def parse(payload: bytes) -> Action | str:
    """Return the bounded action behind `payload`, or the reason to refuse it.

    Errors: none; the reasons are in `reasons.REASONS`.
    """
    try:
        action = _ACTION.decode(payload, PAYLOAD_BYTES_MAX)
    except CodecError:
        return "malformed"
    reason = bounds(action)
    return action if reason is None else reason


def bounds(action: Action) -> str | None:
    """Return why a decoded action is out of bounds, or None; instruments are not looked up."""
    return _BOUNDS[type(action)](action)


def _place_bounds(action: PlaceOrder) -> str | None:
    if len(action.wallet) != 20:
        return "bad_address"
    if not 0 <= action.subaccount < SUBACCOUNTS_MAX:
        return "bad_subaccount"
    if not 0 <= action.client_id <= ID_MAX:
        return "bad_client_id"
    if action.side not in (BUY, SELL):
        return "bad_side"
    if not 0 < action.qty <= QTY_MAX:
        return "bad_qty"
    if action.kind == LIMIT:
        if not 0 < action.price <= PRICE_MAX:
            return "bad_price"
    elif action.kind == MARKET:
        if action.price != 0 or action.post_only:
            return "bad_price" if action.price else "post_only_taker"
    else:
        return "unsupported"
    if action.tif not in (GTC, IOC, FOK):
        return "unsupported"
    if action.post_only and action.tif != GTC:
        return "post_only_taker"
    return None


def _cancel_bounds(action: CancelOrder) -> str | None:
    if len(action.wallet) != 20:
        return "bad_address"
    if not 0 <= action.subaccount < SUBACCOUNTS_MAX:
        return "bad_subaccount"
    if not 0 <= action.order_id <= ID_MAX:
        return "bad_order_id"
    return None if 0 <= action.client_id <= ID_MAX else "bad_client_id"


def _cancel_all_bounds(action: CancelAll) -> str | None:
    if len(action.wallet) != 20:
        return "bad_address"
    if not 0 <= action.subaccount < SUBACCOUNTS_MAX:
        return "bad_subaccount"
    return None if action.side in (BUY, SELL, ANY_SIDE) else "bad_side"


def _batch_bounds(action: Batch) -> str | None:
    actions = action.actions
    if not 0 < len(actions) <= BATCH_ACTIONS_MAX:
        return "batch_size"
    if any(other.wallet != actions[0].wallet for other in actions):
        return "batch_wallets"
    return next((why for why in map(bounds, actions) if why is not None), None)


def _authorise_bounds(action: AuthoriseSession) -> str | None:
    if len(action.wallet) != 20 or len(action.session) != 20 or action.session == action.wallet:
        return "bad_address"
    if action.scope not in (SCOPE_TRADE, SCOPE_CANCEL):
        return "bad_scope"
    return None if 0 <= action.session_expires_ms <= TIME_MAX_MS else "bad_time"


def _revoke_bounds(action: RevokeSession) -> str | None:
    return None if len(action.wallet) == 20 and len(action.session) == 20 else "bad_address"


def _withdraw_bounds(action: Withdraw) -> str | None:
    if len(action.wallet) != 20 or len(action.recipient) != 20:
        return "bad_address"
    if action.recipient == bytes(20):
        return "bad_address"
    if not 0 <= action.subaccount <= SUBACCOUNT_SUSPENSE:
        return "bad_subaccount"
    if not 0 < action.amount <= AMOUNT_MAX:
        return "bad_amount"
    return None if len(action.client_id) == 32 else "bad_client_id"


_BOUNDS: Final[dict[type[Action], Callable[[Any], str | None]]] = {
    PlaceOrder: _place_bounds,
    CancelOrder: _cancel_bounds,
    CancelAll: _cancel_all_bounds,
    Batch: _batch_bounds,
    AuthoriseSession: _authorise_bounds,
    RevokeSession: _revoke_bounds,
    Withdraw: _withdraw_bounds,
}
