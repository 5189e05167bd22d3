"""What a wallet signs: EIP-712 hashes of the actions that no session key may take.

The domain is "Fairlane", version "1", with the chain's id and the Vault's address; `expires_ms`
is the command envelope's, so that a signature cannot be put into another envelope.
Source: EIP-712.
"""

from __future__ import annotations

from consensus.digest import keccak, typed_data_hash, word
from matcher.actions import Action, AuthoriseSession, RevokeSession, Withdraw, parse

AUTHORISE_TYPE = (
    b"AuthoriseSession(address wallet,address session,uint8 scope,"
    b"uint64 sessionExpiresMs,uint64 expiresMs)"
)
REVOKE_TYPE = b"RevokeSession(address wallet,address session,uint64 expiresMs)"
WITHDRAW_TYPE = (
    b"Withdraw(address wallet,uint8 subaccount,uint256 amount,address recipient,"
    b"bytes32 clientId,uint64 expiresMs)"
)
_AUTHORISE = keccak(AUTHORISE_TYPE)
_REVOKE = keccak(REVOKE_TYPE)
_WITHDRAW = keccak(WITHDRAW_TYPE)


def wallet_action_hash(separator: bytes, action: Action, expires_ms: int) -> bytes | None:
    """Return the 32 bytes that the wallet itself must sign, or None if a session key may sign.

    `separator` is `digest.domain_separator("Fairlane", "1", chain id, Vault)`; `action` is within
    its bounds (`actions.parse`). For None the signature covers `command.command_digest`.
    """
    match action:
        case AuthoriseSession(wallet, session, scope, until):
            head = word(wallet) + word(session) + word(scope) + word(until)
            return _hash(separator, _AUTHORISE, head, expires_ms)
        case RevokeSession(wallet, session):
            return _hash(separator, _REVOKE, word(wallet) + word(session), expires_ms)
        case Withdraw(wallet, subaccount, amount, recipient, client_id):
            head = word(wallet) + word(subaccount) + word(amount) + word(recipient) + client_id
            return _hash(separator, _WITHDRAW, head, expires_ms)
        case _:
            return None


def wallet_payload_hash(separator: bytes, payload: bytes, expires_ms: int) -> bytes | None:
    """Return `wallet_action_hash` of the action in `payload`; None when it cannot be parsed too."""
    action = parse(payload)
    if isinstance(action, str):
        return None
    return wallet_action_hash(separator, action, expires_ms)


def _hash(separator: bytes, type_: bytes, head: bytes, expires_ms: int) -> bytes:
    return typed_data_hash(separator, keccak(type_ + head + word(expires_ms)))
