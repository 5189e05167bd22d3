"""The inbox's hash chain, as the contract computes it.

hash_0 = keccak256("fairlane.inbox.v1"), hash_k = keccak256(hash_{k-1} || keccak256(message_k)).
"""

from __future__ import annotations

from collections.abc import Iterable

from consensus.digest import keccak

INBOX_HASH_0 = keccak(b"fairlane.inbox.v1")


def chained(hash_: bytes, messages: Iterable[bytes]) -> bytes:
    """Return the inbox hash after `messages`, starting from `hash_`."""
    for message in messages:
        hash_ = keccak(hash_ + keccak(message))
    return hash_
