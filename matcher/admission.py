"""What the door can refuse without state: malformed, out of bounds, unknown instrument."""

from __future__ import annotations

from matcher.actions import ANY_INSTRUMENT, GTC, LIMIT, Action, Batch, CancelAll, PlaceOrder, parse
from matcher.genesis import MarketGenesis


def check_payload(payload: bytes, genesis: MarketGenesis | None = None) -> str | None:
    """Return why no state would accept `payload`, or None; with a genesis instruments count too.

    The reasons are the engine's own, `reasons.REASONS`. Errors: none.
    """
    action = parse(payload)
    if isinstance(action, str):
        return action
    return None if genesis is None else check_action(action, genesis)


def check_action(action: Action, genesis: MarketGenesis) -> str | None:
    """Return why no state of this genesis would accept a parsed action, or None."""
    actions = action.actions if isinstance(action, Batch) else (action,)
    return next((why for one in actions if (why := _check_one(one, genesis)) is not None), None)


def _check_one(action: Action, genesis: MarketGenesis) -> str | None:
    known = range(len(genesis.instruments))
    if isinstance(action, CancelAll):
        wanted = action.instrument
        return None if wanted == ANY_INSTRUMENT or wanted in known else "unknown_instrument"
    if not isinstance(action, PlaceOrder):
        return None
    if action.instrument not in known:
        return "unknown_instrument"
    if action.qty > genesis.instruments[action.instrument].qty_max:
        return "bad_qty"
    resting = action.kind == LIMIT and action.tif == GTC
    return "reduce_only_resting" if action.reduce_only and resting else None
