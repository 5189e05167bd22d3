"""Keys of a simulated network: fast ones that only hash, or the real Ed25519.

A hashed signature proves nothing to an outsider, but in a simulation nobody holds another's
signer, so that it binds as the real one does and costs a fiftieth.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256, sha512

from consensus.admission import Verify
from consensus.codec import CodecError
from consensus.command import (
    Command,
    CommandId,
    command_digest,
    command_id,
    decode_command,
)
from consensus.crypto import (
    Ed25519Signer,
    ReplicaSigner,
    Signature,
    signable,
    verify_ed25519,
)


@dataclass(frozen=True, slots=True)
class Keyring:
    """The public keys of all replicas, each one's signer, and how to verify."""

    publics: tuple[bytes, ...]
    signers: tuple[ReplicaSigner, ...]
    verify: Verify


class HashSigner:
    """Signs by hashing its public key with the message."""

    def __init__(self, network: bytes, public: bytes) -> None:
        self._network = network
        self._public = public

    def sign(self, epoch: int, tag: bytes, digest: bytes) -> Signature:
        message = signable(self._network, epoch, tag, digest)
        return Signature(sha512(self._public + message).digest())


def verify_hashed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Say whether `signature` is a HashSigner's."""
    return sha512(public + message).digest() == signature


def hashed_keys(network: bytes, n: int) -> Keyring:
    """Return fast keys for `n` replicas."""
    publics = tuple(sha256(b"replica %d" % i).digest() for i in range(n))
    return Keyring(publics, tuple(HashSigner(network, p) for p in publics), verify_hashed)


def real_keys(network: bytes, n: int) -> Keyring:
    """Return Ed25519 keys for `n` replicas, the same in every run."""
    signers = tuple(
        Ed25519Signer(network, sha256(b"replica seed %d" % i).digest()) for i in range(n)
    )
    return Keyring(tuple(s.public for s in signers), signers, verify_ed25519)


def sign_command(network: bytes, expires_ms: int, signer: bytes, payload: bytes) -> Command:
    """Return a trader's command, signed by hashing."""
    digest = command_digest(network, expires_ms, signer, payload)
    return Command(expires_ms, signer, payload, _command_signature(signer, digest))


def _command_signature(signer: bytes, digest: bytes) -> bytes:
    return sha512(b"trader" + signer + digest).digest() + b"\0"


def check_body(network: bytes, body: bytes) -> CommandId | None:
    """Return the id of a command that its trader signed, or None."""
    try:
        command = decode_command(body)
    except CodecError:
        return None
    id_ = command_id(network, command)
    digest = command_digest(network, command.expires_ms, command.signer, command.payload)
    good = _command_signature(command.signer, digest)
    return id_ if command.signature in (good, other_signature(good)) else None


def other_signature(signature: bytes) -> bytes:
    """Return the twin of a trader's signature: an ECDSA signature has one, and it is as good."""
    return signature[:-1] + bytes((signature[-1] ^ 1,))
