"""A trader's keys and signed commands, and the journal of those not yet confirmed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from coincurve import PrivateKey

from consensus.codec import CodecError
from consensus.command import (
    COMMAND_BYTES_MAX,
    COMMAND_ID_BYTES,
    Command,
    CommandId,
    command_digest,
    decode_command,
    encode_command,
)
from consensus.crypto import Address, address_of, sign_recoverable
from matcher.actions import Action, bounds, encode_action
from matcher.eip712 import wallet_action_hash
from ops.admission import SigningDomain


class InvalidAction(ValueError):
    """The action is outside its bounds; no gateway would take it."""


class JournalFull(Exception):
    """Too many commands are unconfirmed: wait for outcomes before sending more."""


class SignedCommand(NamedTuple):
    """The bytes to send and the id that their outcome will carry.

    Sending the same bytes again, to any gateway, is harmless: the id is the same.
    """

    id: CommandId
    body: bytes

    @property
    def expires_ms(self) -> int:
        """After this block time the command can no longer be ordered."""
        return int.from_bytes(self.id[:8], "big")


class TraderKey:
    """A secp256k1 key: a wallet's own, or a session key that a wallet has authorised."""

    def __init__(self, secret: bytes) -> None:
        """`secret` is 32 bytes. Errors: ValueError when it is no key."""
        self._secret = secret
        self.address: Address = address_of(PrivateKey(secret).public_key)

    def sign(self, domain: SigningDomain, action: Action, expires_ms: int) -> SignedCommand:
        """Return `action` as a command signed by this key.

        What only a wallet may do (authorise, revoke, withdraw) is signed as EIP-712 typed data,
        everything else by the command's digest. Two equal actions with one expiry are one
        command: give them different client ids. Errors: InvalidAction.
        """
        reason = bounds(action)
        if reason is not None:
            raise InvalidAction(reason)
        if not 0 <= expires_ms < 1 << 63:
            raise InvalidAction("expires_ms")
        payload = encode_action(action)
        digest = command_digest(domain.network, expires_ms, self.address, payload)
        hash_ = wallet_action_hash(domain.vault_separator, action, expires_ms)
        signature = sign_recoverable(self._secret, digest if hash_ is None else hash_)
        body = encode_command(Command(expires_ms, self.address, payload, signature))
        if len(body) > COMMAND_BYTES_MAX:
            raise InvalidAction("too_large")
        return SignedCommand(CommandId(expires_ms.to_bytes(8, "big") + digest), body)


class Journal:
    """The signed commands whose outcome is not known yet, in a file if there is a path.

    A line is `+ id body` or `- id`, in hex. A line is with the operating system before the
    command is sent, so a killed program finds its commands again; a power cut may lose the last.
    """

    def __init__(self, path: Path | None = None, entries_max: int = 10_000) -> None:
        """Read the file back if it exists. Errors: OSError."""
        self._path = path
        self._entries_max = entries_max
        self._entries: dict[CommandId, SignedCommand] = {}
        self._lines = 0
        self._file = -1
        if path is not None:
            if path.exists():
                self._read(path.read_text("ascii", errors="replace").splitlines())
            self._rewrite(path)

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> list[SignedCommand]:
        """Return what is unconfirmed, oldest first."""
        return list(self._entries.values())

    def add(self, commands: Iterable[SignedCommand]) -> None:
        """Take note of commands that are about to be sent, all or none.

        Errors: JournalFull; OSError when the file cannot be written.
        """
        new = {command.id: command for command in commands if command.id not in self._entries}
        if len(self._entries) + len(new) > self._entries_max:
            raise JournalFull(f"{len(self._entries)} commands are unconfirmed")
        self._entries.update(new)
        try:
            self._append([f"+ {c.id.hex()} {c.body.hex()}\n" for c in new.values()])
        except OSError:
            for id_ in new:
                del self._entries[id_]
            raise

    def remove(self, id_: CommandId) -> None:
        """Forget a command whose outcome is known."""
        if self._entries.pop(id_, None) is not None:
            self._append([f"- {id_.hex()}\n"])

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read(self, lines: list[str]) -> None:
        for line in lines:
            match line.split(" "):
                case ["+", id_, body]:
                    command = _parsed(id_, body)
                    if command is not None:
                        self._entries[command.id] = command
                case ["-", id_]:
                    self._entries.pop(CommandId(_unhexed(id_)), None)
                case _:
                    continue  # The line that a kill cut short.

    def _append(self, lines: list[str]) -> None:
        if self._file < 0 or not lines:
            return
        _write(self._file, lines)
        self._lines += len(lines)
        if self._lines > 4 * self._entries_max:
            assert self._path is not None
            self._rewrite(self._path)

    def _rewrite(self, path: Path) -> None:
        """Replace the file by one without the confirmed commands."""
        self.close()
        draft = path.with_name(path.name + ".new")
        self._file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        lines = [f"+ {c.id.hex()} {c.body.hex()}\n" for c in self._entries.values()]
        _write(self._file, lines)
        os.replace(draft, path)
        self._lines = len(lines)


def _write(file: int, lines: list[str]) -> None:
    data = memoryview("".join(lines).encode())
    while data:
        data = data[os.write(file, data) :]


def _unhexed(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _parsed(id_: str, body: str) -> SignedCommand | None:
    command = SignedCommand(CommandId(_unhexed(id_)), _unhexed(body))
    try:
        decode_command(command.body)
    except CodecError:
        return None
    return command if len(command.id) == COMMAND_ID_BYTES else None
