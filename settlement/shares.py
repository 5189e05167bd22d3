"""Threshold shares over checkpoints: who signs them, who checks them, and their real scheme.

A share is a BLS signature in G1 by one Shamir share (of degree q-1) of the group's key; q of them
interpolate to the group's signature. It proves nothing about who made it, since any q holders
know every share, so each travels with its operator's secp256k1 signature, which the contract can
hold against the operator later (two digests for one number are two `ecrecover`s).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct
from py_arkworks_bls12381 import G2Point, Scalar

from consensus.crypto import (
    GROUP_ORDER,
    InvalidPoint,
    bls_combine,
    bls_sign,
    bls_verify,
    g2_point,
    recover_address,
    sign_recoverable,
)
from consensus.digest import keccak, typed_data_hash, word

SHARE_BYTES = 48
OPERATOR_SIGNATURE_BYTES = 65
NUMBER_MAX = (1 << 63) - 1

_VOTE_TYPEHASH = keccak(b"CheckpointVote(uint64 epoch,uint64 number,bytes32 digest)")


class Share(Struct, frozen=True, array_like=True, tag="share"):
    """One replica's threshold share for the checkpoint `number` with EIP-712 `digest`.

    `share` is 48 bytes (compressed G1); `operator_signature` (65 bytes) covers `vote_digest`.
    """

    epoch: int
    number: int
    digest: bytes
    voter: int
    share: bytes
    operator_signature: bytes


def vote_digest(separator: bytes, epoch: int, number: int, digest: bytes) -> bytes:
    """Return what an operator signs beside its share. Source: EIP-712, the checkpoints' domain."""
    words = word(epoch) + word(number) + word(digest)
    return typed_data_hash(separator, keccak(_VOTE_TYPEHASH + words))


def well_formed(share: Share) -> bool:
    """Say whether the fields have their sizes and ranges; nothing is said of signatures."""
    return (
        0 <= share.epoch <= NUMBER_MAX
        and 0 <= share.number <= NUMBER_MAX
        and share.voter >= 0
        and len(share.digest) == 32
        and len(share.share) == SHARE_BYTES
        and len(share.operator_signature) == OPERATOR_SIGNATURE_BYTES
    )


class ShareSigner(Protocol):
    """Signs for one replica; a remote signer can stand behind it. It must be deterministic."""

    def sign(self, epoch: int, number: int, digest: bytes) -> tuple[bytes, bytes]:
        """Return the share (48 bytes) and the operator's signature (65 bytes)."""


class ShareGroup(Protocol):
    """Checks and combines the shares of one epoch's committee; voters are replica indices."""

    def vouched(self, share: Share) -> bool:
        """Say whether the operator of `share.voter` signed this (epoch, number, digest)."""

    def combine(self, shares: Sequence[tuple[int, bytes]]) -> bytes | None:
        """Interpolate q (voter, share) pairs, unchecked; None when a share is not even a point."""

    def verify(self, digest: bytes, signature: bytes) -> bool:
        """Say whether `signature` is the group's over `digest`."""

    def verify_share(self, voter: int, digest: bytes, share: bytes) -> bool:
        """Say whether `share` is `voter`'s over `digest`."""


class BlsShareSigner:
    """A replica's share secret and its operator's key, held in memory."""

    def __init__(self, separator: bytes, share_secret: int, operator_secret: bytes) -> None:
        """`separator` is the EIP-712 domain separator of the Checkpoints contract."""
        assert 0 < share_secret < GROUP_ORDER
        self._separator = separator
        self._share_secret = share_secret
        self._operator_secret = operator_secret

    def sign(self, epoch: int, number: int, digest: bytes) -> tuple[bytes, bytes]:
        voted = vote_digest(self._separator, epoch, number, digest)
        return bls_sign(self._share_secret, digest), sign_recoverable(self._operator_secret, voted)


class BlsGroup:
    """The group key and every replica's share key and operator address, for one epoch."""

    def __init__(
        self,
        separator: bytes,
        group_key: bytes,
        share_keys: Sequence[bytes],
        operators: Sequence[bytes],
        quorum: int,
    ) -> None:
        """Errors: ValueError when the keys do not lie on one polynomial of degree quorum - 1.

        Shape: keys are compressed G2 (96 bytes), by replica index; operators 20 bytes.
        """
        if not 1 <= quorum <= len(share_keys) == len(operators):
            raise ValueError("one share key and one operator a replica, and at least a quorum")
        if not consistent(group_key, share_keys, quorum):
            raise ValueError("the share keys do not belong to the group key")
        self._separator = separator
        self._group_key = group_key
        self._share_keys = tuple(share_keys)
        self._operators = tuple(operators)

    def vouched(self, share: Share) -> bool:
        if share.voter >= len(self._operators):
            return False
        voted = vote_digest(self._separator, share.epoch, share.number, share.digest)
        signer = recover_address(voted, share.operator_signature)
        return signer is not None and signer == self._operators[share.voter]

    def combine(self, shares: Sequence[tuple[int, bytes]]) -> bytes | None:
        try:
            return bls_combine([(voter + 1, share) for voter, share in shares])
        except InvalidPoint:
            return None

    def verify(self, digest: bytes, signature: bytes) -> bool:
        return bls_verify(self._group_key, digest, signature)

    def verify_share(self, voter: int, digest: bytes, share: bytes) -> bool:
        return bls_verify(self._share_keys[voter], digest, share)


def consistent(group_key: bytes, share_keys: Sequence[bytes], quorum: int) -> bool:
    """Say whether the keys are the values of one polynomial of degree quorum - 1, at 0 and 1..n.

    Each further key must be what the first `quorum` ones interpolate to at its index.
    """
    try:
        group, keys = g2_point(group_key), [g2_point(key) for key in share_keys]
    except InvalidPoint:
        return False
    base = keys[:quorum]
    if _interpolate(base, 0) != group:
        return False
    return all(_interpolate(base, i + 1) == key for i, key in enumerate(keys) if i >= quorum)


def _interpolate(points: Sequence[G2Point], x: int) -> G2Point:
    """Return the value at `x` of the polynomial through (1, points[0]), (2, points[1]), ..."""
    indices = [i + 1 for i in range(len(points))]
    scalars = [Scalar(_lagrange(indices, i, x)) for i in indices]
    return G2Point.multiexp_unchecked(list(points), scalars)


def _lagrange(indices: Sequence[int], i: int, x: int) -> int:
    """Return the i-th Lagrange coefficient at `x`, modulo the group order."""
    numerator = denominator = 1
    for j in indices:
        if j != i:
            numerator = numerator * (x - j) % GROUP_ORDER
            denominator = denominator * (i - j) % GROUP_ORDER
    return numerator * pow(denominator, -1, GROUP_ORDER) % GROUP_ORDER
