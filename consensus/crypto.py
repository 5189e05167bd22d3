"""Signatures: Ed25519 for replicas, secp256k1 for traders, BLS12-381 for settlement shares.

Nothing here draws randomness: keys come in as bytes, and every scheme signs deterministically
(RFC 8032, RFC 6979, BLS). A replica's signature covers network id, epoch and a tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NewType, Protocol

from coincurve import PrivateKey, PublicKey
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey
from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

from consensus.digest import Digest, keccak, tagged

Signature = NewType("Signature", bytes)
"""64 bytes of Ed25519."""
Address = NewType("Address", bytes)
"""20 bytes: the low end of Keccak-256 of a secp256k1 public key, as Ethereum's."""

BLS_DST = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_"
GROUP_ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
"""Order of the BLS12-381 groups (draft-irtf-cfrg-pairing-friendly-curves)."""


class InvalidPoint(ValueError):
    """The bytes are no point of the group, or the identity, which we never accept."""


def signable(network: bytes, epoch: int, tag: bytes, digest: bytes) -> Digest:
    """Return the 32 bytes that a replica signs for `digest` in this network, epoch and domain."""
    return tagged(tag, network + epoch.to_bytes(8, "big") + digest)


class ReplicaSigner(Protocol):
    """Signs for one replica; a remote signer can stand behind it."""

    def sign(self, epoch: int, tag: bytes, digest: bytes) -> Signature: ...


class Ed25519Signer:
    """A replica's consensus key, held in memory."""

    def __init__(self, network: bytes, seed: bytes) -> None:
        self._network = network
        self._key = SigningKey(seed)
        self.public = bytes(self._key.verify_key)

    def sign(self, epoch: int, tag: bytes, digest: bytes) -> Signature:
        return Signature(self._key.sign(signable(self._network, epoch, tag, digest)).signature)


def verify_ed25519(public: bytes, message: bytes, signature: bytes) -> bool:
    """Say whether `signature` over `message` is by `public`."""
    if len(signature) != 64 or len(public) != 32:
        return False
    try:
        VerifyKey(public).verify(message, signature)
    except BadSignatureError:
        return False
    return True


def address_of(public: PublicKey) -> Address:
    """Return the Ethereum address of a secp256k1 public key."""
    return Address(keccak(public.format(compressed=False)[1:])[12:])


def sign_recoverable(secret: bytes, digest: bytes) -> bytes:
    """Sign 32 bytes with a wallet's or a session's key.

    Shape: 65 bytes, r | s | v with v in {0, 1}; s is low (EIP-2).
    """
    return PrivateKey(secret).sign_recoverable(digest, hasher=None)


def recover_address(digest: bytes, signature: bytes) -> Address | None:
    """Return the address whose key signed these 32 bytes, or None when the signature is none.

    Both v in {0, 1} and Ethereum's {27, 28} are taken.
    """
    if len(signature) != 65 or len(digest) != 32:
        return None
    if signature[64] >= 27:
        signature = signature[:64] + bytes((signature[64] - 27,))
    if signature[64] > 1:
        return None
    try:
        return address_of(PublicKey.from_signature_and_message(signature, digest, hasher=None))
    except Exception:  # noqa: BLE001  coincurve raises bare Exception and ValueError alike
        return None


def bls_hash(message: bytes) -> G1Point:
    """Return the point of G1 that a share over `message` multiplies. Source: RFC 9380."""
    return G1Point.hash_to_curve(message, BLS_DST)


def bls_public(secret: int) -> bytes:
    """Return the compressed public key (96 bytes, G2) of a scalar in 1..order-1."""
    assert 0 < secret < GROUP_ORDER
    return bytes((G2Point() * Scalar(secret)).to_compressed_bytes())


def bls_sign(secret: int, message: bytes) -> bytes:
    """Return the compressed signature (48 bytes, G1) of `message`."""
    return bytes((bls_hash(message) * Scalar(secret)).to_compressed_bytes())


def g1_point(data: bytes) -> G1Point:
    """Return the checked, non-identity point of G1 behind 48 bytes. Errors: InvalidPoint."""
    try:
        point = G1Point.from_compressed_bytes(data)
    except ValueError as error:
        raise InvalidPoint(str(error)) from None
    if point == G1Point.identity():
        raise InvalidPoint("identity")
    return point


def g2_point(data: bytes) -> G2Point:
    """Return the checked, non-identity point of G2 behind 96 bytes. Errors: InvalidPoint."""
    try:
        point = G2Point.from_compressed_bytes(data)
    except ValueError as error:
        raise InvalidPoint(str(error)) from None
    if point == G2Point.identity():
        raise InvalidPoint("identity")
    return point


def bls_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Say whether `signature` (48 bytes) over `message` is by `public` (96 bytes)."""
    try:
        key, point = g2_point(public), g1_point(signature)
    except InvalidPoint:
        return False
    return bool(GT.pairing_check([point, bls_hash(message)], [-G2Point(), key]))


def lagrange_at_zero(indices: Sequence[int]) -> list[int]:
    """Return the coefficients that interpolate a polynomial's value at 0 from `indices`.

    Shape: distinct indices >= 1; one scalar modulo the group order for each.
    """
    assert len(set(indices)) == len(indices)
    assert all(i >= 1 for i in indices)
    coefficients = []
    for i in indices:
        numerator = denominator = 1
        for j in indices:
            if j != i:
                numerator = numerator * j % GROUP_ORDER
                denominator = denominator * (j - i) % GROUP_ORDER
        coefficients.append(numerator * pow(denominator, -1, GROUP_ORDER) % GROUP_ORDER)
    return coefficients


def bls_combine(shares: Sequence[tuple[int, bytes]]) -> bytes:
    """Interpolate (index, 48-byte share) pairs into the group's signature, unchecked.

    Verify the result once; look at single shares only when that fails. Errors: InvalidPoint.
    """
    points = [g1_point(share) for _, share in shares]
    scalars = [Scalar(c) for c in lagrange_at_zero([index for index, _ in shares])]
    return bytes(G1Point.multiexp_unchecked(points, scalars).to_compressed_bytes())
