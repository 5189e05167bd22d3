"""Domain-tagged digests, and the Keccak and EIP-712 helpers for what the EVM must check.

A digest of ours is SHA-256 over `len(tag) | tag | data`, so that no two kinds of data can share
one. Ethereum's are Keccak-256 over ABI words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import NewType

from tiny_keccak import keccak256 as _keccak256

from consensus.codec import encode

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
CHUNK_OBJECT = b"\x00"
NAMES_OBJECT = b"\x01"
"""The first byte of what a name stands for: a chunk or piece, or the names of pieces or children.
The byte is not part of what is hashed; whoever follows a name knows which of both must be there."""


def chunk_name(chunk: bytes) -> Digest:
    """Return what names a chunk of state: the digest of it, or of the list of its pieces."""
    if len(chunk) <= CHUNK_BYTES_MAX:
        return tagged(b"fairlane/chunk", chunk)
    return long_name(split_chunk(chunk)[0])


def split_chunk(chunk: bytes) -> tuple[bytes, dict[Digest, bytes]]:
    """Return the list of a long chunk's pieces, and the pieces by name.

    Shape: the list is a salt and the names in order, 32 bytes each. The salt, the digest of the
    whole, makes pieces of different chunks different even where their bytes are the same.
    """
    salt = tagged(b"fairlane/whole-chunk", chunk)
    pieces: dict[Digest, bytes] = {}
    for place, start in enumerate(range(0, len(chunk), CHUNK_BYTES_MAX)):
        piece = chunk[start : start + CHUNK_BYTES_MAX]
        pieces[piece_name(salt, place, piece)] = piece
    return b"".join((salt, *pieces)), pieces


def piece_name(salt: bytes, place: int, piece: bytes) -> Digest:
    """Return what names the piece at `place` of the long chunk with this salt."""
    return tagged(b"fairlane/piece", b"%b%b%b" % (salt, place.to_bytes(4, "big"), piece))


def long_name(list_: bytes) -> Digest:
    """Return what names a long chunk, from the list of its pieces."""
    return tagged(b"fairlane/long-chunk", list_)


def node_name(level: int, names: bytes) -> Digest:
    """Return what names a node of a state's tree, from its children's names.

    Shape: 1 to STATE_FANOUT names one after the other; chunks are children of level 1.
    """
    return tagged(b"fairlane/state-node", b"%c%b" % (level, names))


def tree_root(names: Sequence[Digest]) -> Digest:
    """Return the root of the tree over these chunks: the only name, or that of the top node.

    The root of no chunks is 32 zero bytes.
    """
    row, level = list(names), 0
    while len(row) > 1:
        level += 1
        row = [
            node_name(level, b"".join(row[start : start + STATE_FANOUT]))
            for start in range(0, len(row), STATE_FANOUT)
        ]
    return row[0] if row else ZERO_DIGEST


def parts_digest(parts: Sequence[tuple[int, bytes]]) -> Digest:
    """Return the digest of a state in several trees: their numbers of chunks, and their roots."""
    return tagged(b"fairlane/state-parts", encode(tuple(parts)))
