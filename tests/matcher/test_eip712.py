"""Wallet-signed hashes against eth-account's own EIP-712 encoder."""

from __future__ import annotations

from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.digest import domain_separator
from matcher.actions import (
    AuthoriseSession,
    CancelAll,
    PlaceOrder,
    RevokeSession,
    Withdraw,
    encode_action,
)
from matcher.eip712 import wallet_action_hash, wallet_payload_hash

CHAIN, VAULT = 31337, b"\x77" * 20
SEPARATOR = domain_separator("Fairlane", "1", CHAIN, VAULT)
DOMAIN = {
    "name": "Fairlane",
    "version": "1",
    "chainId": CHAIN,
    "verifyingContract": "0x" + VAULT.hex(),
}
TYPES = {
    "AuthoriseSession": "address wallet,address session,uint8 scope,uint64 sessionExpiresMs,"
    "uint64 expiresMs",
    "RevokeSession": "address wallet,address session,uint64 expiresMs",
    "Withdraw": "address wallet,uint8 subaccount,uint256 amount,address recipient,"
    "bytes32 clientId,uint64 expiresMs",
}


def oracle(type_: str, *values: object) -> bytes:
    fields = [field.split(" ") for field in TYPES[type_].split(",")]
    message = {name: value for (_, name), value in zip(fields, values, strict=True)}
    types = {type_: [{"type": kind, "name": name} for kind, name in fields]}
    return bytes(_hash_eip191_message(encode_typed_data(DOMAIN, types, message)))


addresses = st.binary(min_size=20, max_size=20)
times = st.integers(0, (1 << 63) - 1)
words = st.binary(min_size=32, max_size=32)


@given(addresses, addresses, st.integers(1, 2), times, times)
@settings(max_examples=25, deadline=None)
def test_sessions(wallet: bytes, key: bytes, scope: int, until: int, expires: int) -> None:
    a = AuthoriseSession(wallet, key, scope, until)
    hexed = ("0x" + wallet.hex(), "0x" + key.hex())
    expected = oracle("AuthoriseSession", *hexed, scope, until, expires)
    assert wallet_action_hash(SEPARATOR, a, expires) == expected
    revoked = wallet_action_hash(SEPARATOR, RevokeSession(wallet, key), expires)
    assert revoked == oracle("RevokeSession", *hexed, expires)


@given(addresses, st.integers(0, 255), st.integers(1, (1 << 63) - 1), words, times)
@settings(max_examples=25, deadline=None)
def test_withdrawals(wallet: bytes, sub: int, amount: int, client: bytes, expires: int) -> None:
    to = b"\x09" * 20
    action = Withdraw(wallet, sub, amount, to, client)
    hexed = ("0x" + wallet.hex(), sub, amount, "0x" + to.hex(), client)
    assert wallet_action_hash(SEPARATOR, action, expires) == oracle("Withdraw", *hexed, expires)
    if any(wallet):
        assert wallet_payload_hash(SEPARATOR, encode_action(action), expires) == oracle(
            "Withdraw", *hexed, expires
        )


def test_sessions_may_sign_the_rest() -> None:
    wallet = b"\x01" * 20
    assert wallet_action_hash(SEPARATOR, CancelAll(wallet, 0), 5) is None
    assert wallet_action_hash(SEPARATOR, PlaceOrder(wallet, 0, 0, 1, 0, 0, 1, 1), 5) is None
    assert wallet_payload_hash(SEPARATOR, b"rubbish", 5) is None
