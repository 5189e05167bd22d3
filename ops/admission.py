"""The edge check of commands: bytes in, a verified command or a refusal out, and no state.

The door asks `admit_command`, which knows the time. What comes in peers' batches goes through
`verify_body`, which must not: whether a body is valid is the same for everybody, always.
Recovering a signer takes some 45 us, most of it without the interpreter's lock: run more than a
few in a worker thread. Source: ARCHITECTURE.md, "Commands".
"""

from __future__ import annotations

from collections.abc import Sequence
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
from consensus.digest import domain_separator
from matcher.actions import Action, parse
from matcher.admission import check_action
from matcher.eip712 import wallet_action_hash
from matcher.genesis import MarketGenesis
from matcher.reasons import REASONS


class SigningDomain(NamedTuple):
    """What every signature of a trader is bound to: our network, and the chain's vault.

    `network` is the 32-byte network id, `vault_separator` the EIP-712 domain separator.
    """

    network: bytes
    vault_separator: bytes


def signing_domain(network: bytes, chain_id: int, vault: bytes) -> SigningDomain:
    """Return the domain of a network (32 bytes) whose vault has the address `vault`."""
    return SigningDomain(network, domain_separator("Fairlane", "1", chain_id, vault))


class AdmittedCommand(NamedTuple):
    """A command whose bounds, payload and signature have been checked."""

    id: CommandId
    body: bytes


class Refusal(NamedTuple):
    """Why a command cannot be taken: `reason` for machines, `message` for people.

    `reason` is "too_large", "malformed", "expired", "expires_too_late", "bad_signature", or what
    the engine would say of the payload in any state (`matcher.admission.check_payload`).
    """

    reason: str
    message: str


def admit_command(
    body: bytes,
    now_ms: int,
    domain: SigningDomain,
    market: MarketGenesis | None = None,
) -> AdmittedCommand | Refusal:
    """Judge one command as the door does, the cheap checks first.

    `market` lets the door refuse what names no instrument of it, or is too large for it.
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
        return Refusal(action, REASONS[action])
    hopeless = None if market is None else check_action(action, market)
    if hopeless is not None:
        return Refusal(hopeless, REASONS[hopeless])
    id_ = _verified(command, action, domain)
    if id_ is None:
        return Refusal("bad_signature", "the signature is not by the signer over this command")
    return AdmittedCommand(id_, body)


def admit_commands(
    bodies: Sequence[bytes],
    now_ms: int,
    domain: SigningDomain,
    market: MarketGenesis | None = None,
) -> list[AdmittedCommand | Refusal]:
    """Judge many commands as the door does; made for a worker thread."""
    return [admit_command(body, now_ms, domain, market) for body in bodies]


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


def _verified(command: Command, action: Action, domain: SigningDomain) -> CommandId | None:
    """Return the command's id if its signer signed it, by session or by wallet rules."""
    expires = command.expires_ms
    digest = command_digest(domain.network, expires, command.signer, command.payload)
    hash_ = wallet_action_hash(domain.vault_separator, action, expires)
    if recover_address(digest if hash_ is None else hash_, command.signature) != command.signer:
        return None
    return CommandId(expires.to_bytes(8, "big") + digest)
