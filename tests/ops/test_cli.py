"""The command line: a complete table, quick help, and no run without assertions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ops import cli

ROOT = Path(__file__).resolve().parents[2]
COMMAND_FILES = sorted(
    path.stem.replace("_", "-")
    for path in (ROOT / "ops" / "commands").glob("*.py")
    if path.stem != "__init__"
)


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_table_names_every_command_and_no_other() -> None:
    assert sorted(cli.COMMANDS) == COMMAND_FILES


@pytest.mark.parametrize("name", COMMAND_FILES)
def test_each_command_loads_and_explains_itself(name: str) -> None:
    result = CliRunner().invoke(cli.cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"fairlane {name}" in result.output or name in result.output


def test_help_imports_no_command_and_no_heavy_library() -> None:
    program = (
        "import sys; from ops.cli import cli; cli.main(['--help'], standalone_mode=False); "
        "print(sorted(m.partition('.')[0] for m in sys.modules) + sorted(sys.modules))"
    )
    done = run("-c", program)
    assert done.returncode == 0, done.stderr
    for name, entry in cli.COMMANDS.items():
        assert f"  {name}" in done.stdout
        assert entry.help in done.stdout
    heavy = ("trio", "web3", "libp2p", "msgspec", "rocksdict", "starlette", "ops.commands")
    assert [name for name in heavy if f"'{name}'" in done.stdout] == []


@pytest.mark.parametrize("arguments", [["-O", "-m", "ops", "--help"], ["-OO", "-m", "ops"]])
def test_an_optimised_run_is_refused(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == cli.EXIT_USAGE
    assert "assertions are part of the protocol's safety" in done.stderr
    assert done.stdout == ""


def test_an_optimised_run_by_environment_is_refused() -> None:
    assert run("-m", "ops", "--version", PYTHONOPTIMIZE="1").returncode == cli.EXIT_USAGE
    assert run("-m", "ops", "--version").returncode == 0


def test_a_command_whose_library_is_missing_says_so() -> None:
    group = cli.LazyGroup({"gone": cli.Entry("ops.no_such_module:command", "Never.")}, name="x")
    result = CliRunner().invoke(group, ["gone"])
    assert result.exit_code == 1
    assert "cannot load `gone`" in result.output
    assert "fairlane doctor" in result.output


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(cli.cli, ["nope"])
    assert result.exit_code == cli.EXIT_USAGE
    assert isinstance(cli.cli, click.Group)
