"""Threshold shares made of hashes, for simulators: fast, with the same interface, no security.

It keeps what a simulator must be able to break: a share is bound to its voter and digest, fewer
than q shares combine to nothing that verifies, and one false share spoils the combination.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise

from settlement.shares import OPERATOR_SIGNATURE_BYTES, SHARE_BYTES, Share


def _hash(size: int, *parts: bytes) -> bytes:
    seed = sha256(b"fairlane/insecure" + b"|".join(parts)).digest()
    return (seed * (size // len(seed) + 1))[:size]


def _share(network: bytes, voter: int, digest: bytes) -> bytes:
    return _hash(SHARE_BYTES, b"share", network, bytes((voter,)), digest)


def _vote(network: bytes, voter: int, epoch: int, number: int, digest: bytes) -> bytes:
    facts = epoch.to_bytes(8, "big") + number.to_bytes(8, "big") + digest
    return _hash(OPERATOR_SIGNATURE_BYTES, b"vote", network, bytes((voter,)), facts)


class InsecureSigner:
    """Signs for `voter` with hashes."""

    def __init__(self, network: bytes, voter: int) -> None:
        self._network = network
        self._voter = voter

    def sign(self, epoch: int, number: int, digest: bytes) -> tuple[bytes, bytes]:
        share = _share(self._network, self._voter, digest)
        return share, _vote(self._network, self._voter, epoch, number, digest)


class InsecureGroup:
    """Checks and combines hash shares of a committee with quorum `quorum`."""

    def __init__(self, network: bytes, quorum: int) -> None:
        self._network = network
        self._quorum = quorum

    def vouched(self, share: Share) -> bool:
        facts = (share.voter, share.epoch, share.number, share.digest)
        return share.operator_signature == _vote(self._network, *facts)

    def combine(self, shares: Sequence[tuple[int, bytes]]) -> bytes | None:
        return b"".join(bytes((voter,)) + share for voter, share in sorted(shares))

    def verify(self, digest: bytes, signature: bytes) -> bool:
        size = 1 + SHARE_BYTES
        parts = [signature[i : i + size] for i in range(0, len(signature), size)]
        voters = [part[0] for part in parts]
        distinct = all(a < b for a, b in pairwise(voters))
        if len(parts) < self._quorum or not distinct:
            return False
        return all(part[1:] == _share(self._network, part[0], digest) for part in parts)

    def verify_share(self, voter: int, digest: bytes, share: bytes) -> bool:
        return share == _share(self._network, voter, digest)
