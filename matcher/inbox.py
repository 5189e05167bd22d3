"""The queue from chain to engine: its messages and its hash chain.

A message is abi.encode(uint256 kind, address wallet, uint256 subaccount, uint256 amount); the
hash chain is `consensus.digest.inbox_chain`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from consensus.digest import INBOX_START_HASH, inbox_chain, word

INBOX_START: Final = INBOX_START_HASH
MESSAGE_BYTES: Final = 128
KIND_DEPOSIT: Final = 1
"""2 and above are kept for forced withdrawals, cancels, closes and revocations."""


class InboxMessage(NamedTuple):
    """One decoded message. Units: `amount` micro-USDC."""

    kind: int
    wallet: bytes
    subaccount: int
    amount: int


def chain(previous: bytes, message: bytes) -> bytes:
    """Return the inbox's hash after `message`."""
    return inbox_chain(previous, (message,))


def deposit_message(wallet: bytes, subaccount: int, amount: int) -> bytes:
    """Return the message that the contract enqueues for a deposit."""
    return word(KIND_DEPOSIT) + word(wallet) + word(subaccount) + word(amount)


def decode_message(message: bytes) -> InboxMessage | None:
    """Return the message's fields, or None when it is not one. Errors: none."""
    if len(message) != MESSAGE_BYTES or message[32:44] != bytes(12):
        return None
    return InboxMessage(
        int.from_bytes(message[:32], "big"),
        message[44:64],
        int.from_bytes(message[64:96], "big"),
        int.from_bytes(message[96:], "big"),
    )
