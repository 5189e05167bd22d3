"""Deal a BLS group key in one hand: for the local devnet and tests only.

Whoever deals knows the group's secret and can sign any checkpoint alone. A real network makes
its key by distributed key generation, in which nobody ever holds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha512

from consensus.crypto import GROUP_ORDER, bls_public

DEALER_WARNING = (
    "WARNING: the settlement key of this network was dealt by ONE process, which could sign any\n"
    "checkpoint by itself. This is for a local devnet only. Never hold real value with it."
)
ENTROPY_BYTES_MIN = 32


@dataclass(frozen=True, slots=True)
class Dealing:
    """A dealt group key: replica i has `secrets[i]`, its share at index i + 1.

    Shape: keys are compressed G2 (96 bytes), secrets scalars in 1..order-1.
    """

    group_key: bytes
    share_keys: tuple[bytes, ...]
    secrets: tuple[int, ...]


def deal(entropy: bytes, n: int, quorum: int) -> Dealing:
    """Split a fresh group key among `n` replicas so that any `quorum` of them can sign.

    The result is a function of the arguments: the same `entropy` gives the same keys.
    """
    assert len(entropy) >= ENTROPY_BYTES_MIN
    assert 1 <= quorum <= n
    coefficients = [_scalar(entropy, n, quorum, i) for i in range(quorum)]
    secrets = tuple(_evaluate(coefficients, i + 1) for i in range(n))
    return Dealing(
        group_key=bls_public(coefficients[0]),
        share_keys=tuple(bls_public(secret) for secret in secrets),
        secrets=secrets,
    )


def _scalar(entropy: bytes, n: int, quorum: int, i: int) -> int:
    """Return the i-th coefficient: 512 bits reduced, so the bias is below 2**-256."""
    seed = b"fairlane/dealer" + bytes((n, quorum)) + i.to_bytes(2, "big") + entropy
    return int.from_bytes(sha512(seed).digest(), "big") % (GROUP_ORDER - 1) + 1


def _evaluate(coefficients: list[int], x: int) -> int:
    """Return the polynomial's value at `x` (Horner)."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % GROUP_ORDER
    assert value != 0
    return value
