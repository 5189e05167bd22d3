"""The edge check of commands: bytes in, a verified command or a refusal out, and no state.

The door asks `admit_command`, which knows the time. What comes in peers' batches goes through
`verify_body`, which must not: whether a body is valid is the same for everybody, always.
Recovering a signer takes some 45 us, most of it without the interpreter's lock: run more than a
few in a worker thread. Source: ARCHITECTURE.md, "Commands".
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

from consensus.codec import CodecError
from consensus.command import (
    COMMAND_BYTES_MAX,
    EXPIRY_DOOR_MAX_MS,
    Command,
    CommandId,
    command_digest,
    decode_command,
)
from consensus.crypto import recover_address
from matcher.actions import ANY_INSTRUMENT, Action, Batch, CancelAll, PlaceOrder, parse
from matcher.eip712 import wallet_action_hash


class SigningDomain(NamedTuple):
    """What every signature of a trader is bound to: our network, and the chain's vault.

    `network` is the 32-byte network id, `vault_separator` the EIP-712 domain separator.
    """

    network: bytes
    vault_separator: bytes


class AdmittedCommand(NamedTuple):
    """A command whose bounds, payload and signature have been checked."""

    id: CommandId
    body: bytes


class Refusal(NamedTuple):
    """Why a command cannot be taken: `reason` for machines, `message` for people.

    `reason` is "too_large", "malformed", "expired", "expires_too_late", "unknown_instrument",
    "bad_signature", or one of `matcher.actions.parse`.
    """

    reason: str
    message: str


def admit_command(
    body: bytes,
    now_ms: int,
    domain: SigningDomain,
    instruments: Container[int] | None = None,
) -> AdmittedCommand | Refusal:
    """Judge one command as the door does, the cheap checks first.

    `instruments` are those that the node lists now; None leaves that to the engine.
    """
    command = _decoded(body)
    if isinstance(command, Refusal):
        return command
    if command.expires_ms <= now_ms:
        late = now_ms - command.expires_ms
        return Refusal("expired", f"it expired {late} ms ago by this node's clock")
    if command.expires_ms > now_ms + EXPIRY_DOOR_MAX_MS:
        return Refusal("expires_too_late", f"at most {EXPIRY_DOOR_MAX_MS} ms ahead")
    action = parse(command.payload)
    if isinstance(action, str):
        return Refusal(action, "the payload is not an action within its bounds")
    if instruments is not None:
        for named in _instruments(action):
            if named not in instruments:
                return Refusal("unknown_instrument", f"no instrument {named}")
    id_ = _verified(command, action, domain)
    if id_ is None:
        return Refusal("bad_signature", "the signature is not by the signer over this command")
    return AdmittedCommand(id_, body)


def admit_commands(
    bodies: Sequence[bytes],
    now_ms: int,
    domain: SigningDomain,
    instruments: Container[int] | None = None,
) -> list[AdmittedCommand | Refusal]:
    """Judge many commands as the door does; made for a worker thread."""
    return [admit_command(body, now_ms, domain, instruments) for body in bodies]


def verify_body(body: bytes, domain: SigningDomain) -> CommandId | None:
    """Return the id of a valid command, or None; its expiry is not asked, and no clock is."""
    command = _decoded(body)
    if isinstance(command, Refusal):
        return None
    action = parse(command.payload)
    if isinstance(action, str):
        return None
    return _verified(command, action, domain)


def verify_bodies(bodies: Sequence[bytes], domain: SigningDomain) -> list[CommandId | None]:
    """Verify many bodies; made for a worker thread."""
    return [verify_body(body, domain) for body in bodies]


def _decoded(body: bytes) -> Command | Refusal:
    if len(body) > COMMAND_BYTES_MAX:
        return Refusal("too_large", f"{len(body)} bytes, at most {COMMAND_BYTES_MAX}")
    try:
        return decode_command(body)
    except CodecError as error:
        return Refusal("malformed", f"not a command: {error}")


def _instruments(action: Action) -> list[int]:
    match action:
        case PlaceOrder():
            return [action.instrument]
        case CancelAll() if action.instrument != ANY_INSTRUMENT:
            return [action.instrument]
        case Batch(actions):
            return [named for each in actions for named in _instruments(each)]
        case _:
            return []


def _verified(command: Command, action: Action, domain: SigningDomain) -> CommandId | None:
    """Return the command's id if its signer signed it, by session or by wallet rules."""
    expires = command.expires_ms
    digest = command_digest(domain.network, expires, command.signer, command.payload)
    hash_ = wallet_action_hash(domain.vault_separator, action, expires)
    if recover_address(digest if hash_ is None else hash_, command.signature) != command.signer:
        return None
    return CommandId(expires.to_bytes(8, "big") + digest)
