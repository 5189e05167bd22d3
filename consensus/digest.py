"""Domain-tagged digests, and the Keccak and EIP-712 helpers for what the EVM must check.

A digest of ours is SHA-256 over `len(tag) | tag | data`, so that no two kinds of data can share
one. Ethereum's are Keccak-256 over ABI words.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import NewType

from tiny_keccak import keccak256 as _keccak256

Digest = NewType("Digest", bytes)
"""32 bytes of SHA-256 over tagged data."""

ZERO_DIGEST = Digest(bytes(32))


def tagged(tag: bytes, data: bytes) -> Digest:
    """Return the digest of `data` in the domain `tag` (1 to 255 bytes)."""
    return Digest(sha256(b"%c%b%b" % (len(tag), tag, data)).digest())


def keccak(data: bytes) -> bytes:
    """Return Keccak-256 of `data`, as the EVM computes it."""
    return _keccak256(data)


INBOX_START_HASH = keccak(b"fairlane.inbox.v1")
"""The contract's inbox before its first message."""


def inbox_chain(hash_: bytes, messages: Iterable[bytes]) -> bytes:
    """Return the inbox's chained hash after `messages`, as the Inbox contract computes it."""
    for message in messages:
        hash_ = keccak(hash_ + keccak(message))
    return hash_


def word(value: int | bytes) -> bytes:
    """Return one ABI word: an unsigned integer, or bytes padded as `bytes32` (left for addresses).

    Shape: 32 bytes. A 20-byte value is an address; a 32-byte one stays as it is.
    """
    if isinstance(value, bytes):
        assert len(value) in (20, 32), len(value)
        return value.rjust(32, b"\0")
    assert 0 <= value < 1 << 256, value
    return value.to_bytes(32, "big")


def signed_word(value: int) -> bytes:
    """Return the ABI word of an `int256`."""
    return (value % (1 << 256)).to_bytes(32, "big")


_DOMAIN_TYPEHASH = keccak(
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)


def domain_separator(name: str, version: str, chain_id: int, contract: bytes) -> bytes:
    """Return the EIP-712 domain separator of `contract` (20 bytes) on `chain_id`."""
    return keccak(
        _DOMAIN_TYPEHASH
        + keccak(name.encode())
        + keccak(version.encode())
        + word(chain_id)
        + word(contract)
    )


def typed_data_hash(separator: bytes, struct_hash: bytes) -> bytes:
    """Return what an EIP-712 signature signs. Source: EIP-712."""
    return keccak(b"\x19\x01" + separator + struct_hash)


STATE_FANOUT = 64
"""Names in one node of a state's tree."""
CHUNK_BYTES_MAX = 256 << 10
"""A longer chunk of state is kept and sent in pieces of this size."""


def chunk_name(chunk: bytes) -> Digest:
    """Return what names a chunk of state: the digest of it, or of the names of its pieces."""
    if len(chunk) <= CHUNK_BYTES_MAX:
        return tagged(b"fairlane/chunk", chunk)
    return long_name(b"".join(chunk_name(piece) for piece in pieces_of(chunk)))


def pieces_of(chunk: bytes) -> list[bytes]:
    """Return a long chunk in pieces of CHUNK_BYTES_MAX, the last one shorter."""
    size = CHUNK_BYTES_MAX
    return [chunk[start : start + size] for start in range(0, len(chunk), size)]


def long_name(names: bytes) -> Digest:
    """Return what names a long chunk, from the names of its pieces one after the other."""
    return tagged(b"fairlane/long-chunk", names)


def node_name(level: int, names: bytes) -> Digest:
    """Return what names a node of a state's tree, from its children's names.

    Shape: 1 to STATE_FANOUT names one after the other; chunks are children of level 1.
    """
    return tagged(b"fairlane/state-node", b"%c%b" % (level, names))
