"""Payloads: whatever the bytes are, an action within its bounds or a documented reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.codec import encode
from matcher import admission
from matcher.actions import (
    ANY_INSTRUMENT,
    FOK,
    IOC,
    MARKET,
    AuthoriseSession,
    Batch,
    CancelAll,
    CancelOrder,
    PlaceOrder,
    RevokeSession,
    Withdraw,
    encode_action,
    parse,
)
from matcher.genesis import devnet_genesis
from matcher.reasons import REASONS
from matcher.units import PRICE_MAX, QTY_MAX
from tests.matcher.market import wallet

W = wallet(1)
GOOD = (
    PlaceOrder(W, 0, 0, 7, 0, 0, 100, 5),
    PlaceOrder(W, 31, 1, 0, 1, MARKET, 0, 1, IOC, False, True),
    PlaceOrder(W, 0, 0, 7, 0, 0, PRICE_MAX, QTY_MAX, FOK),
    CancelOrder(W, 0, 9),
    CancelOrder(W, 0, 0, 9),
    CancelAll(W, 3),
    CancelAll(W, 3, 1, 1),
    Batch((CancelAll(W, 0), PlaceOrder(W, 0, 0, 7, 0, 0, 100, 5))),
    AuthoriseSession(W, wallet(2), 1, 5),
    RevokeSession(W, wallet(2)),
    Withdraw(W, 255, 1, wallet(2), bytes(32)),
)
BAD = (
    (PlaceOrder(W[:19], 0, 0, 7, 0, 0, 100, 5), "bad_address"),
    (PlaceOrder(W, 32, 0, 7, 0, 0, 100, 5), "bad_subaccount"),
    (PlaceOrder(W, 0, 0, -1, 0, 0, 100, 5), "bad_client_id"),
    (PlaceOrder(W, 0, 0, 1 << 63, 0, 0, 100, 5), "bad_client_id"),
    (PlaceOrder(W, 0, 0, 7, 2, 0, 100, 5), "bad_side"),
    (PlaceOrder(W, 0, 0, 7, 0, 0, 100, 0), "bad_qty"),
    (PlaceOrder(W, 0, 0, 7, 0, 0, 100, QTY_MAX + 1), "bad_qty"),
    (PlaceOrder(W, 0, 0, 7, 0, 0, 0, 5), "bad_price"),
    (PlaceOrder(W, 0, 0, 7, 0, 0, PRICE_MAX + 1, 5), "bad_price"),
    (PlaceOrder(W, 0, 0, 7, 0, MARKET, 1, 5), "bad_price"),
    (PlaceOrder(W, 0, 0, 7, 0, 2, 100, 5), "unsupported"),
    (PlaceOrder(W, 0, 0, 7, 0, 0, 100, 5, 3), "unsupported"),
    (PlaceOrder(W, 0, 0, 7, 0, 0, 100, 5, IOC, True), "post_only_taker"),
    (PlaceOrder(W, 0, 0, 7, 0, MARKET, 0, 5, 0, True), "post_only_taker"),
    (CancelOrder(W, 0, -1), "bad_order_id"),
    (CancelOrder(W, 0, 0, -1), "bad_client_id"),
    (CancelAll(W, 0, ANY_INSTRUMENT, 3), "bad_side"),
    (CancelAll(W + W, 0), "bad_address"),
    (CancelAll(W, -1), "bad_subaccount"),
    (Batch(()), "batch_size"),
    (Batch((CancelAll(W, 0),) * 51), "batch_size"),
    (Batch((CancelAll(W, 0), CancelAll(wallet(2), 0))), "batch_wallets"),
    (Batch((CancelAll(W, 99),)), "bad_subaccount"),
    (AuthoriseSession(W, W, 1, 5), "bad_address"),
    (AuthoriseSession(W, b"", 1, 5), "bad_address"),
    (AuthoriseSession(W, wallet(2), 3, 5), "bad_scope"),
    (AuthoriseSession(W, wallet(2), 1, -5), "bad_time"),
    (RevokeSession(W, b"x"), "bad_address"),
    (Withdraw(W, 0, 0, wallet(2), bytes(32)), "bad_amount"),
    (Withdraw(W, 0, 5, bytes(20), bytes(32)), "bad_address"),
    (Withdraw(W, 0, 5, wallet(2), bytes(31)), "bad_client_id"),
    (Withdraw(W, 256, 5, wallet(2), bytes(32)), "bad_subaccount"),
)


@pytest.mark.parametrize("action", GOOD)
def test_a_good_action_survives_the_trip(action: object) -> None:
    payload = encode_action(action)  # type: ignore[arg-type]
    assert parse(payload) == action
    assert admission.check_payload(payload) is None


@pytest.mark.parametrize(("action", "reason"), BAD)
def test_an_action_out_of_bounds_is_refused_with_its_reason(action: object, reason: str) -> None:
    payload = encode_action(action)  # type: ignore[arg-type]
    assert parse(payload) == admission.check_payload(payload) == reason
    assert reason in REASONS


@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    found = parse(data)
    assert not isinstance(found, str) or found in REASONS
    assert admission.check_payload(data, devnet_genesis()) in (None, *REASONS)


fields = st.recursive(
    st.one_of(st.integers(-(1 << 63), (1 << 64) - 1), st.binary(max_size=40), st.text(max_size=3),
              st.none(), st.booleans(), st.floats()),
    lambda inner: st.lists(inner, max_size=5),
)  # fmt: skip
TAGS = ("place", "cancel", "cancel_all", "batch", "authorise", "revoke", "withdraw", "", 7)


@given(st.sampled_from(TAGS), st.lists(fields, max_size=12))
def test_no_array_raises(tag: object, rest: list[object]) -> None:
    found = parse(encode([tag, *rest]))
    assert not isinstance(found, str) or found in REASONS


@given(st.sampled_from(GOOD), st.data())
def test_only_the_canonical_bytes_are_the_action(action: object, data: st.DataObject) -> None:
    payload = encode_action(action)  # type: ignore[arg-type]
    at = data.draw(st.integers(0, len(payload) - 1))
    changed = bytearray(payload)
    changed[at] ^= data.draw(st.integers(1, 255))
    found = parse(bytes(changed))
    assert found != action
    assert isinstance(found, str) or encode_action(found) == bytes(changed)


def test_the_door_knows_the_instruments() -> None:
    genesis = devnet_genesis()
    check = admission.check_payload
    unknown = encode_action(PlaceOrder(W, 0, 2, 7, 0, 0, 100, 5))
    assert check(unknown) is None
    assert check(unknown, genesis) == "unknown_instrument"
    inside = encode_action(Batch((CancelAll(W, 0), PlaceOrder(W, 0, -1, 7, 0, 0, 100, 5))))
    assert check(inside, genesis) == "unknown_instrument"
    assert check(encode_action(CancelAll(W, 0, 2)), genesis) == "unknown_instrument"
    large = encode_action(PlaceOrder(W, 0, 0, 7, 0, 0, 100, QTY_MAX))
    assert check(large, genesis) == "bad_qty"
    resting = encode_action(PlaceOrder(W, 0, 0, 7, 0, 0, 100, 5, 0, False, True))
    assert check(resting, genesis) == "reduce_only_resting"
