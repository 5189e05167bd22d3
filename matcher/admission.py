"""What the door can refuse without state: malformed, out of bounds, unknown instrument."""

from __future__ import annotations

from matcher.actions import Action, Batch, PlaceOrder, parse
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
    placed = action.actions if isinstance(action, Batch) else (action,)
    for one in placed:
        if not isinstance(one, PlaceOrder):
            continue
        if not 0 <= one.instrument < len(genesis.instruments):
            return "unknown_instrument"
        if one.qty > genesis.instruments[one.instrument].qty_max:
            return "bad_qty"
        if one.reduce_only and one.kind == 0 and one.tif == 0:
            return "reduce_only_resting"
    return None
