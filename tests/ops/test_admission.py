"""The edge check of commands: what passes, what does not, and that the clock decides only here."""

from __future__ import annotations

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

import ops.admission as admission
from consensus.command import (
    COMMAND_BYTES_MAX,
    EXPIRY_DOOR_MAX_MS,
    Command,
    command_id,
    decode_command,
    encode_command,
)
from consensus.crypto import Address
from consensus.digest import domain_separator
from matcher.actions import (
    AuthoriseSession,
    Batch,
    CancelAll,
    CancelOrder,
    RevokeSession,
    Withdraw,
    encode_action,
)
from matcher.genesis import devnet_genesis
from ops.admission import (
    AdmittedCommand,
    Refusal,
    SigningDomain,
    admit_command,
    admit_commands,
    verify_bodies,
    verify_body,
)
from ops.client_keys import InvalidAction, TraderKey
from tests.ops.door_cases import Door, bad_commands

NOW_MS = 1_700_000_000_000
CHAIN_ID = 31_337
VAULT = b"\xaa" * 20
DOMAIN = SigningDomain(bytes(range(32)), domain_separator("Fairlane", "1", CHAIN_ID, VAULT))
DOOR = Door("", DOMAIN, NOW_MS, TraderKey(b"\x01" * 32), TraderKey(b"\x02" * 32), 0)
LISTED = devnet_genesis()


def test_every_bad_command_is_refused_by_its_reason() -> None:
    for name, body, reason in bad_commands(DOOR):
        verdict = admit_command(body, NOW_MS, DOMAIN, LISTED)
        assert isinstance(verdict, Refusal), name
        assert verdict.reason == reason, name


def test_a_forgotten_signature_check_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the check on purpose: the cases above then see commands pass that must not."""
    monkeypatch.setattr(admission, "recover_address", lambda _d, _s: DOOR.session.address)
    passed = [
        name
        for name, body, _ in bad_commands(DOOR)
        if isinstance(admit_command(body, NOW_MS, DOMAIN, LISTED), AdmittedCommand)
    ]
    assert "bad signature" in passed
    assert "another network's signature" in passed


def test_peers_bodies_are_judged_without_clock_or_listing() -> None:
    """What only the door may refuse stays valid in a batch, or honest replicas would split."""
    only_at_the_door = {"expired", "expires_too_late", "unknown_instrument"}
    at_any_qty = "more than the instrument's maximum"
    for name, body, reason in bad_commands(DOOR):
        assert (verify_body(body, DOMAIN) is not None) == (
            reason in only_at_the_door or name == at_any_qty
        ), name


@pytest.mark.parametrize(
    ("ahead_ms", "reason"),
    [
        (-1, "expired"),
        (0, "expired"),
        (1, None),
        (EXPIRY_DOOR_MAX_MS, None),
        (EXPIRY_DOOR_MAX_MS + 1, "expires_too_late"),
    ],
)
def test_the_expiry_has_exact_edges(ahead_ms: int, reason: str | None) -> None:
    verdict = admit_command(DOOR.order(1, ahead_ms=ahead_ms).body, NOW_MS, DOMAIN)
    assert (verdict.reason if isinstance(verdict, Refusal) else None) == reason


def test_every_kind_of_action_passes_with_its_own_signature() -> None:
    wallet, session = DOOR.wallet, DOOR.session
    place = DOOR.place(1)
    cancel = CancelOrder(wallet.address, 0, 7)
    signed = [
        session.sign(DOMAIN, place, NOW_MS + 1),
        session.sign(DOMAIN, cancel, NOW_MS + 1),
        wallet.sign(DOMAIN, CancelAll(wallet.address, 0), NOW_MS + 1),
        session.sign(DOMAIN, Batch((place, cancel)), NOW_MS + 1),
        wallet.sign(
            DOMAIN,
            AuthoriseSession(wallet.address, session.address, 1, NOW_MS + 9),
            NOW_MS + 1,
        ),
        wallet.sign(DOMAIN, RevokeSession(wallet.address, session.address), NOW_MS + 1),
        wallet.sign(DOMAIN, Withdraw(wallet.address, 0, 5, b"\x09" * 20, b"\x01" * 32), NOW_MS + 1),
    ]
    bodies = [command.body for command in signed]
    for command, verdict in zip(
        signed, admit_commands(bodies, NOW_MS, DOMAIN, LISTED), strict=True
    ):
        assert verdict == AdmittedCommand(command.id, command.body)
        assert command.id == command_id(DOMAIN.network, decode_command(command.body))
    assert verify_bodies(bodies, DOMAIN) == [command.id for command in signed]


def test_a_wallet_of_another_make_signs_what_we_check() -> None:
    """An independent EIP-712 implementation is the oracle for a withdrawal's signature."""
    account = Account.from_key(b"\x05" * 32)
    wallet = Address(bytes.fromhex(account.address[2:]))
    expires = NOW_MS + 5
    action = Withdraw(wallet, 3, 12_345, b"\x09" * 20, b"\x07" * 32)
    fields = [
        ("wallet", "address"),
        ("subaccount", "uint8"),
        ("amount", "uint256"),
        ("recipient", "address"),
        ("clientId", "bytes32"),
        ("expiresMs", "uint64"),
    ]
    message = encode_typed_data(
        {"name": "Fairlane", "version": "1", "chainId": CHAIN_ID, "verifyingContract": VAULT},
        {"Withdraw": [{"name": name, "type": type_} for name, type_ in fields]},
        {
            "wallet": wallet,
            "subaccount": 3,
            "amount": 12_345,
            "recipient": b"\x09" * 20,
            "clientId": b"\x07" * 32,
            "expiresMs": expires,
        },
    )
    signature = bytes(account.sign_message(message).signature)
    body = encode_command(Command(expires, wallet, encode_action(action), signature))
    assert isinstance(admit_command(body, NOW_MS, DOMAIN), AdmittedCommand)
    ours = TraderKey(b"\x05" * 32).sign(DOMAIN, action, expires)
    assert decode_command(ours.body).signature[:64] == signature[:64]
    other = DOMAIN._replace(vault_separator=domain_separator("Fairlane", "1", 1, VAULT))
    assert isinstance(admit_command(body, NOW_MS, other), Refusal)


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_no_bytes_raise(body: bytes) -> None:
    assert isinstance(admit_command(body, NOW_MS, DOMAIN, LISTED), Refusal)
    assert verify_body(body, DOMAIN) is None


@settings(max_examples=300)
@given(st.data())
def test_a_changed_command_is_refused_or_the_same(data: st.DataObject) -> None:
    """Nobody can turn a signed command into another one; a changed signature changes no id."""
    command = DOOR.order(1)
    at = data.draw(st.integers(0, len(command.body) - 1))
    body = bytearray(command.body)
    body[at] ^= data.draw(st.integers(1, 255))
    assert verify_body(bytes(body), DOMAIN) in (None, command.id)


def test_an_oversize_body_is_not_even_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: bytes) -> Command:
        raise AssertionError("decoded")

    monkeypatch.setattr(admission, "decode_command", fail)
    verdict = admit_command(bytes(COMMAND_BYTES_MAX + 1), NOW_MS, DOMAIN)
    assert isinstance(verdict, Refusal) and verdict.reason == "too_large"


def test_the_client_refuses_to_sign_what_no_door_takes() -> None:
    with pytest.raises(InvalidAction, match="bad_qty"):
        DOOR.session.sign(DOMAIN, DOOR.place(1, qty=0), NOW_MS)
    with pytest.raises(InvalidAction, match="expires_ms"):
        DOOR.session.sign(DOMAIN, DOOR.place(1), -1)
