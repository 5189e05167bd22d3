"""The traders' envelope: a payload that consensus never opens, its expiry, signer and signature."""

from __future__ import annotations

from typing import NewType

from msgspec import Struct

from consensus.codec import CodecError, Shape, encode
from consensus.digest import Digest, tagged

CommandId = NewType("CommandId", bytes)
"""40 bytes: `expires_ms` (8, big-endian) and the command's digest (32)."""

COMMAND_ID_BYTES = 40
COMMAND_BYTES_MAX = 8_192
EXPIRY_DOOR_MAX_MS = 120_000
"""The door refuses a command that expires further ahead than this."""
EXPIRY_ORDER_MAX_MS = 240_000
"""An emitted command that expires further ahead of block time than this is refused."""


class Command(Struct, frozen=True, array_like=True):
    """One trading command as its client signed it.

    `signer` is a 20-byte address: a session key's, or the wallet's own. The id covers all but
    the signature, since an ECDSA signature has a twin and would let one command happen twice.
    `signature` (65 bytes) covers `command_digest`, or for what a wallet signs the EIP-712 hash
    of the payload and the expiry; the edge checks it before the core sees the command.
    """

    expires_ms: int
    signer: bytes
    payload: bytes
    signature: bytes


def command_digest(network: bytes, expires_ms: int, signer: bytes, payload: bytes) -> Digest:
    """Return the 32 bytes that a session key signs, and that the id carries."""
    return tagged(b"fairlane/command", network + expires_ms.to_bytes(8, "big") + signer + payload)


def command_id(network: bytes, command: Command) -> CommandId:
    """Return the id of `command`; its signature plays no part."""
    digest = command_digest(network, command.expires_ms, command.signer, command.payload)
    return CommandId(command.expires_ms.to_bytes(8, "big") + digest)


def expires_ms(id_: CommandId) -> int:
    """Return when the command with this id expires, in milliseconds of block time."""
    return int.from_bytes(id_[:8], "big")


_COMMAND: Shape[Command] = Shape(Command)


def decode_command(body: bytes) -> Command:
    """Return the bounded command behind `body`. Errors: CodecError."""
    command = _COMMAND.decode(body, COMMAND_BYTES_MAX)
    if not 0 <= command.expires_ms < 1 << 63:
        raise CodecError("expires_ms out of range")
    if len(command.signer) != 20 or len(command.signature) != 65:
        raise CodecError("signer is 20 bytes, signature 65")
    return command


def encode_command(command: Command) -> bytes:
    """Return the body that travels and is stored."""
    return encode(command)
