"""`fairlane keys` end to end: new, show, passwd, and what it says when it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ops.cli import cli
from ops.keys import KeyFileError, read_keys


def _secret(path: Path, text: str) -> Path:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def _keys(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["keys", *map(str, arguments)])


def test_keys_are_made_shown_and_moved_to_another_passphrase(tmp_path: Path) -> None:
    file, one = tmp_path / "keys.json", _secret(tmp_path / "one", "first")
    cheap = ("--strength", "interactive")
    made = _keys("new", file, "--passphrase-file", one, *cheap)
    assert made.exit_code == 0, made.output
    shown = json.loads(_keys("show", file, "--json").output)
    assert shown["network_key"] in made.output
    assert shown["peer_id"].startswith("12D3KooW")
    assert shown["share_key"] is None
    before = read_keys(file, b"first")
    other = _secret(tmp_path / "other", "second")
    moved = _keys("passwd", file, "--passphrase-file", one, "--new-passphrase-file", other, *cheap)
    assert moved.exit_code == 0, moved.output
    assert read_keys(file, b"second") == before
    with pytest.raises(KeyFileError, match="wrong passphrase"):
        read_keys(file, b"first")


def test_errors_are_one_line(tmp_path: Path) -> None:
    file, secret = tmp_path / "keys.json", _secret(tmp_path / "secret", "s")
    missing = CliRunner().invoke(
        cli, ["keys", "new", str(file)], env={"FAIRLANE_PASSPHRASE_FILE": ""}
    )
    assert (missing.exit_code, "no passphrase" in missing.output) == (1, True)
    assert (
        _keys("new", file, "--passphrase-file", secret, "--strength", "interactive").exit_code == 0
    )
    again = _keys("new", file, "--passphrase-file", secret, "--strength", "interactive")
    assert (again.exit_code, "move it away first" in again.output) == (1, True)
    nothing = _keys("show", tmp_path / "none")
    assert (nothing.exit_code, "No such file" in nothing.output) == (1, True)
    for result in (missing, again, nothing):
        assert "Traceback" not in result.output
        assert result.output.startswith("Error: ")
