"""A replica's secrets, on disk only encrypted: argon2id and NaCl's secretbox, mode 0600.

The public keys stand beside the box in clear, so that tools can read them without a passphrase;
opening the file checks that they belong to the secrets.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
import stat
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from coincurve import PrivateKey
from msgspec import Meta, Struct
from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id
from nacl.secret import SecretBox
from nacl.signing import SigningKey

from consensus.codec import CodecError, decode, encode
from consensus.crypto import GROUP_ORDER, Address, address_of, bls_public

PASSPHRASE_FILE_VARIABLE: Final = "FAIRLANE_PASSPHRASE_FILE"
KEY_FILE_BYTES_MAX: Final = 16_384
PASSPHRASE_BYTES_MAX: Final = 1_024
OPSLIMIT_MAX: Final = 16
MEMLIMIT_MAX: Final = 2 << 30

Strength = Literal["interactive", "moderate", "sensitive"]
STRENGTHS: Final[Mapping[str, tuple[int, int]]] = {
    "interactive": (argon2id.OPSLIMIT_INTERACTIVE, argon2id.MEMLIMIT_INTERACTIVE),
    "moderate": (argon2id.OPSLIMIT_MODERATE, argon2id.MEMLIMIT_MODERATE),
    "sensitive": (argon2id.OPSLIMIT_SENSITIVE, argon2id.MEMLIMIT_SENSITIVE),
}
"""Passes and bytes of argon2id: libsodium's 64 MiB, 256 MiB and 1 GiB."""


class KeyFileError(Exception):
    """The key file or the passphrase cannot be used; the text says what to do."""


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """What others may know: Ed25519 twice, BLS in G2 (None before a DKG), and an address."""

    network: bytes
    consensus: bytes
    share: bytes | None
    operator: Address


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """A replica's secrets; they never show in a `repr`.

    Shape: two Ed25519 seeds of 32 bytes, the BLS share (1..order-1, or None before a DKG), a
    secp256k1 secret of 32 bytes.
    """

    network_seed: bytes = field(repr=False)
    consensus_seed: bytes = field(repr=False)
    share_secret: int | None = field(repr=False)
    operator_secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what no generator makes."""
        seeds = (self.network_seed, self.consensus_seed, self.operator_secret)
        if any(len(seed) != 32 for seed in seeds):
            raise ValueError("seeds and the operator's secret are 32 bytes")
        if self.share_secret is not None and not 0 < self.share_secret < GROUP_ORDER:
            raise ValueError("the share secret is not in 1..order-1")
        if self.network_seed == self.consensus_seed:
            raise ValueError("network and consensus keys must differ")

    def public(self) -> PublicKeys:
        """Return the public half."""
        return PublicKeys(
            network=bytes(SigningKey(self.network_seed).verify_key),
            consensus=bytes(SigningKey(self.consensus_seed).verify_key),
            share=None if self.share_secret is None else bls_public(self.share_secret),
            operator=address_of(PrivateKey(self.operator_secret).public_key),
        )


def generate_keys(share_secret: int | None = None) -> NodeKeys:
    """Draw a replica's keys from the system's randomness; the share comes from a DKG or dealer."""
    return NodeKeys(
        network_seed=secrets.token_bytes(32),
        consensus_seed=secrets.token_bytes(32),
        share_secret=share_secret,
        operator_secret=PrivateKey().secret,
    )


class _Secrets(Struct, frozen=True, array_like=True):
    network_seed: bytes
    consensus_seed: bytes
    share_secret: bytes
    operator_secret: bytes


class _Kdf(Struct, frozen=True, forbid_unknown_fields=True):
    name: Literal["argon2id"]
    salt: str
    opslimit: Annotated[int, Meta(ge=argon2id.OPSLIMIT_MIN, le=OPSLIMIT_MAX)]
    memlimit: Annotated[int, Meta(ge=argon2id.MEMLIMIT_MIN, le=MEMLIMIT_MAX)]


class _Public(Struct, frozen=True, forbid_unknown_fields=True):
    network: str
    consensus: str
    share: str | None
    operator: str


class _KeyFile(Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    public: _Public
    kdf: _Kdf
    cipher: Literal["xsalsa20-poly1305"]
    box: str


def write_keys(
    path: Path,
    keys: NodeKeys,
    passphrase: bytes,
    strength: Strength = "sensitive",
    replace: bool = False,
) -> PublicKeys:
    """Encrypt `keys` into `path`, readable by its owner alone, and return the public half.

    An existing file is kept unless `replace`; it is never half written. Errors: KeyFileError.
    """
    _check_passphrase(passphrase)
    opslimit, memlimit = STRENGTHS[strength]
    salt = secrets.token_bytes(argon2id.SALTBYTES)
    key = argon2id.kdf(SecretBox.KEY_SIZE, passphrase, salt, opslimit, memlimit)
    share = b"" if keys.share_secret is None else keys.share_secret.to_bytes(32, "big")
    inner = _Secrets(keys.network_seed, keys.consensus_seed, share, keys.operator_secret)
    public = keys.public()
    container = _KeyFile(
        version=1,
        public=_shown(public),
        kdf=_Kdf("argon2id", salt.hex(), opslimit, memlimit),
        cipher="xsalsa20-poly1305",
        box=bytes(SecretBox(key).encrypt(encode(inner))).hex(),
    )
    text = json.dumps(msgspec.to_builtins(container), indent=2) + "\n"
    try:
        _write_private(path, text.encode(), replace)
    except FileExistsError:
        raise KeyFileError(
            f"{path} exists, and a key that is overwritten is gone: move it away first"
        ) from None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot write the key file: {error.strerror}") from None
    return public


def read_keys(path: Path, passphrase: bytes) -> NodeKeys:
    """Return the secrets in `path`. Errors: KeyFileError."""
    _check_passphrase(passphrase)
    container = _container(path)
    try:
        salt, box = bytes.fromhex(container.kdf.salt), bytes.fromhex(container.box)
    except ValueError:
        raise KeyFileError(f"{path}: salt or box is not hexadecimal") from None
    if len(salt) != argon2id.SALTBYTES:
        raise KeyFileError(f"{path}: the salt is not {argon2id.SALTBYTES} bytes")
    opslimit, memlimit = container.kdf.opslimit, container.kdf.memlimit
    try:
        key = argon2id.kdf(SecretBox.KEY_SIZE, passphrase, salt, opslimit, memlimit)
        plain = SecretBox(key).decrypt(box)
    except CryptoError as error:
        if "memory" in str(error).lower():
            raise KeyFileError(f"{path}: not enough memory for {memlimit >> 20} MiB") from None
        raise KeyFileError(f"{path}: wrong passphrase, or the file is damaged") from None
    except ValueError:
        raise KeyFileError(f"{path}: the box is damaged") from None
    try:
        inner = decode(_Secrets, plain)
        share = int.from_bytes(inner.share_secret, "big") if inner.share_secret else None
        keys = NodeKeys(inner.network_seed, inner.consensus_seed, share, inner.operator_secret)
        public = keys.public()
    except (CodecError, ValueError):
        raise KeyFileError(f"{path}: the box does not hold a replica's keys") from None
    if _shown(public) != container.public:
        raise KeyFileError(f"{path}: the public keys shown are not those of the secrets")
    return keys


def read_public_keys(path: Path) -> PublicKeys:
    """Return the public keys shown in `path`, which only `read_keys` proves.

    Errors: KeyFileError.
    """
    shown = _container(path).public
    try:
        public = PublicKeys(
            network=bytes.fromhex(shown.network),
            consensus=bytes.fromhex(shown.consensus),
            share=None if shown.share is None else bytes.fromhex(shown.share),
            operator=Address(bytes.fromhex(shown.operator.removeprefix("0x"))),
        )
    except ValueError:
        raise KeyFileError(f"{path}: a public key is not hexadecimal") from None
    lengths = (len(public.network), len(public.consensus), len(public.operator))
    if lengths != (32, 32, 20) or len(public.share or bytes(96)) != 96:
        raise KeyFileError(f"{path}: a public key has the wrong length")
    return public


def read_passphrase(configured: Path | None, environment: Mapping[str, str]) -> bytes:
    """Return the passphrase in the configured file, else in the one that the environment names.

    It never comes as an argument or a variable's value: other users' `ps` shows those. One
    newline at the end is not part of it. Errors: KeyFileError.
    """
    named = environment.get(PASSPHRASE_FILE_VARIABLE)
    path = configured or (Path(named) if named else None)
    if path is None:
        raise KeyFileError(
            "no passphrase: set passphrase_file in node.toml, or name a file in "
            f"{PASSPHRASE_FILE_VARIABLE}"
        )
    passphrase = _read_private(path, PASSPHRASE_BYTES_MAX + 2, "passphrase file")
    passphrase = passphrase.removesuffix(b"\n").removesuffix(b"\r")
    try:
        _check_passphrase(passphrase)
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error}") from None
    return passphrase


class KeyLock:
    """Holds a key on this machine for as long as the process lives, or until `release`.

    Two nodes with one consensus key would sign two blocks for one round. On Linux the lock is a
    name in the abstract socket space: it needs no file, sees every user, and dies with its
    holder; elsewhere it is a locked file. The key file itself is locked too, since containers
    may share that and no network.
    """

    def __init__(self, public: bytes, keys_file: Path | None = None) -> None:
        """Take the lock named by a public key, and that of its file. Errors: KeyFileError."""
        self._socket: socket.socket | None = None
        self._files: list[int] = []
        try:
            if sys.platform == "linux":
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.bind(f"\0fairlane-key-{public.hex()}")
            else:
                place = Path(tempfile.gettempdir()) / f"fairlane-key-{public.hex()}"
                self._lock_file(place, os.O_RDWR | os.O_CREAT)
            if keys_file is not None:
                self._lock_file(keys_file, os.O_RDONLY)
        except OSError:
            self.release()
            raise KeyFileError(
                f"another node on this machine runs with the key {public.hex()}: "
                "two nodes with one key get their operator slashed"
            ) from None

    def _lock_file(self, path: Path, flags: int) -> None:
        self._files.append(os.open(path, flags | os.O_CLOEXEC, 0o600))
        try:
            fcntl.flock(self._files[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # Some network file systems.
                raise

    def release(self) -> None:
        """Let another process take the key."""
        if self._socket is not None:
            self._socket.close()
        while self._files:
            os.close(self._files.pop())


def _check_passphrase(passphrase: bytes) -> None:
    if not passphrase:
        raise KeyFileError("the passphrase is empty")
    if len(passphrase) > PASSPHRASE_BYTES_MAX:
        raise KeyFileError(f"the passphrase is longer than {PASSPHRASE_BYTES_MAX} bytes")


def _shown(public: PublicKeys) -> _Public:
    return _Public(
        network=public.network.hex(),
        consensus=public.consensus.hex(),
        share=None if public.share is None else public.share.hex(),
        operator="0x" + public.operator.hex(),
    )


def _container(path: Path) -> _KeyFile:
    data = _read_private(path, KEY_FILE_BYTES_MAX, "key file")
    try:
        return msgspec.json.decode(data, type=_KeyFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise KeyFileError(f"{path} is not a key file of ours: {error}") from None


def _read_private(path: Path, bytes_max: int, what: str) -> bytes:
    """Return the file's bytes if it is its owner's alone, which must be us or root."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot read the {what}: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{path}: the {what} is not a regular file")
        if status.st_mode & 0o077:
            raise KeyFileError(
                f"{path}: others may access the {what} (mode {status.st_mode & 0o777:04o}): "
                f"chmod 600 {path}"
            )
        if status.st_uid not in (os.geteuid(), 0):
            raise KeyFileError(f"{path}: the {what} belongs to another user: chown it")
        data = os.read(descriptor, bytes_max + 1)
    finally:
        os.close(descriptor)
    if len(data) > bytes_max:
        raise KeyFileError(f"{path}: the {what} is longer than {bytes_max} bytes")
    return data


def _write_private(path: Path, data: bytes, replace: bool) -> None:
    """Write `data` whole or not at all, mode 0600 from the first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        if replace:
            draft.replace(path)
        else:
            os.link(draft, path)  # Unlike a rename, this fails where a file already is.
    finally:
        draft.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
