"""Secrets on disk: encrypted, private, whole, and clear about what is wrong with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.crypto import GROUP_ORDER
from ops import keys as keys_module
from ops.keys import (
    PASSPHRASE_FILE_VARIABLE,
    KeyFileError,
    KeyLock,
    NodeKeys,
    generate_keys,
    read_keys,
    read_passphrase,
    read_public_keys,
    write_keys,
)

PASSPHRASE = b"correct horse"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """argon2id at its least; what the strengths stand for is a test of its own."""
    monkeypatch.setattr(keys_module, "STRENGTHS", {"interactive": (1, 8192)})


@pytest.fixture(name="written")
def _written(tmp_path: Path) -> tuple[Path, NodeKeys]:
    path = tmp_path / "home" / "keys.json"
    keys = generate_keys(share_secret=12345)
    write_keys(path, keys, PASSPHRASE, "interactive")
    return path, keys


def test_what_was_written_is_read(written: tuple[Path, NodeKeys]) -> None:
    path, keys = written
    assert read_keys(path, PASSPHRASE) == keys
    assert read_public_keys(path) == keys.public()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["keys.json"]


def test_a_replica_before_its_dkg_has_no_share(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = generate_keys()
    assert write_keys(path, keys, PASSPHRASE, "interactive").share is None
    assert read_keys(path, PASSPHRASE) == keys
    shared = NodeKeys(keys.network_seed, keys.consensus_seed, 7, keys.operator_secret)
    write_keys(path, shared, PASSPHRASE, "interactive", replace=True)
    assert read_keys(path, PASSPHRASE).share_secret == 7


def test_no_secret_shows(written: tuple[Path, NodeKeys]) -> None:
    path, keys = written
    shown = path.read_text() + repr(keys) + str(keys)
    for secret in (keys.network_seed, keys.consensus_seed, keys.operator_secret):
        assert secret.hex() not in shown
        assert repr(secret) not in shown
    assert "12345" not in repr(keys)


def test_the_wrong_passphrase_is_told(written: tuple[Path, NodeKeys]) -> None:
    with pytest.raises(KeyFileError, match="wrong passphrase"):
        read_keys(written[0], b"wrong horse")
    with pytest.raises(KeyFileError, match="empty"):
        read_keys(written[0], b"")


def test_a_key_is_not_overwritten_by_accident(written: tuple[Path, NodeKeys]) -> None:
    path, keys = written
    with pytest.raises(KeyFileError, match="move it away first"):
        write_keys(path, generate_keys(), PASSPHRASE, "interactive")
    assert read_keys(path, PASSPHRASE) == keys
    assert os.listdir(path.parent) == ["keys.json"]


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o666])
def test_a_file_that_others_can_read_is_refused(
    written: tuple[Path, NodeKeys], tmp_path: Path, mode: int
) -> None:
    written[0].chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_keys(written[0], PASSPHRASE)
    secret = tmp_path / "passphrase"
    secret.write_bytes(PASSPHRASE)
    secret.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_passphrase(secret, {})


def test_public_keys_of_another_node_are_noticed(written: tuple[Path, NodeKeys]) -> None:
    path, _ = written
    container = json.loads(path.read_text())
    container["public"]["operator"] = "0x" + "11" * 20
    path.write_text(json.dumps(container))
    assert read_public_keys(path).operator == b"\x11" * 20
    with pytest.raises(KeyFileError, match="not those of the secrets"):
        read_keys(path, PASSPHRASE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("cipher", "none"),
        ("box", "zz"),
        ("box", ""),
        ("box", "00" * 10),
        ("extra", 1),
        ("kdf", {"name": "argon2id", "salt": "00" * 16, "opslimit": 1, "memlimit": 1 << 40}),
        ("kdf", {"name": "argon2id", "salt": "00" * 16, "opslimit": 1 << 31, "memlimit": 8192}),
        ("kdf", {"name": "argon2id", "salt": "00", "opslimit": 1, "memlimit": 8192}),
    ],
)
def test_a_hostile_file_is_an_error_and_costs_nothing(
    written: tuple[Path, NodeKeys], field: str, value: object
) -> None:
    path, _ = written
    container = json.loads(path.read_text())
    container[field] = value
    path.write_text(json.dumps(container))
    with pytest.raises(KeyFileError, match=r"keys\.json"):
        read_keys(path, PASSPHRASE)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_error_of_ours(data: bytes) -> None:
    path = Path(f"/tmp/fairlane-test-keys-{os.getpid()}")
    path.write_bytes(data)
    path.chmod(0o600)
    try:
        with pytest.raises(KeyFileError):
            read_keys(path, PASSPHRASE)
        with pytest.raises(KeyFileError):
            read_public_keys(path)
    finally:
        path.unlink()


@given(st.data())
def test_any_flipped_bit_is_noticed(data: st.DataObject) -> None:
    path = Path(f"/tmp/fairlane-test-flip-{os.getpid()}")
    path.unlink(missing_ok=True)
    keys = NodeKeys(bytes(32), b"\1" * 32, 5, b"\2" * 32)
    write_keys(path, keys, PASSPHRASE, "interactive")
    try:
        container = json.loads(path.read_text())
        box = bytearray.fromhex(container["box"])
        box[data.draw(st.integers(0, len(box) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        container["box"] = box.hex()
        path.write_text(json.dumps(container))
        with pytest.raises(KeyFileError, match="damaged"):
            read_keys(path, PASSPHRASE)
    finally:
        path.unlink()


def test_missing_and_odd_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        read_keys(tmp_path / "none", PASSPHRASE)
    with pytest.raises(KeyFileError):
        read_keys(tmp_path, PASSPHRASE)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyFileError, match="not a regular file"):
        read_keys(tmp_path / "pipe", PASSPHRASE)
    long = tmp_path / "long"
    long.write_bytes(bytes(100_000))
    long.chmod(0o600)
    with pytest.raises(KeyFileError, match="longer than"):
        read_keys(long, PASSPHRASE)
    with pytest.raises(KeyFileError, match="longer than"):
        read_passphrase(long, {})


def test_the_passphrase_comes_from_a_file_only(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for path, text in ((one, b"first\n"), (other, b"second")):
        path.write_bytes(text)
        path.chmod(0o600)
    named = {PASSPHRASE_FILE_VARIABLE: str(other)}
    assert read_passphrase(one, named) == b"first"
    assert read_passphrase(None, named) == b"second"
    with pytest.raises(KeyFileError, match=PASSPHRASE_FILE_VARIABLE):
        read_passphrase(None, {})
    other.write_bytes(b"\n")
    with pytest.raises(KeyFileError, match="empty"):
        read_passphrase(None, named)


def test_keys_out_of_range_are_refused() -> None:
    for share in (0, GROUP_ORDER, -1):
        with pytest.raises(ValueError, match="share secret"):
            NodeKeys(bytes(32), b"\1" * 32, share, b"\2" * 32)
    with pytest.raises(ValueError, match="must differ"):
        NodeKeys(bytes(32), bytes(32), 1, b"\2" * 32)


def test_one_key_has_one_node_on_a_machine() -> None:
    public = os.urandom(32)
    lock = KeyLock(public)
    script = (
        "import sys; from ops.keys import KeyLock; KeyLock(bytes.fromhex(sys.argv[1])); print(1)"
    )
    command = [sys.executable, "-c", script, public.hex()]
    other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "another node on this machine" in other.stderr
    lock.release()
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1\n"


def test_the_key_file_is_locked_too_whatever_name_the_key_has(tmp_path: Path) -> None:
    """Containers with networks of their own do not see each other's names."""
    file = tmp_path / "keys.json"
    file.write_text("{}")
    lock = KeyLock(os.urandom(32), file)
    with pytest.raises(KeyFileError, match="another node on this machine"):
        KeyLock(os.urandom(32), file)
    lock.release()
    KeyLock(os.urandom(32), file).release()


def test_where_there_is_no_abstract_socket_a_file_is_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    public = os.urandom(32)
    lock = KeyLock(public)
    with pytest.raises(KeyFileError, match="another node on this machine"):
        KeyLock(public)
    KeyLock(os.urandom(32)).release()
    lock.release()
    KeyLock(public).release()


def test_the_strengths_are_libsodiums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert keys_module.STRENGTHS == {
        "interactive": (2, 64 << 20),
        "moderate": (3, 256 << 20),
        "sensitive": (4, 1 << 30),
    }
