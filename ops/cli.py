"""The `fairlane` command: a table of commands, each imported only when it is called."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Final, NoReturn

import click

from ops.recursion import cap_recursion

OPTIMISED: Final = (
    "fairlane: assertions are part of the protocol's safety and `python -O` removes them.\n"
    "Run without -O and with PYTHONOPTIMIZE unset."
)
EXIT_USAGE: Final = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives (`module:attribute`) and its one line of help."""

    target: str
    help: str


COMMANDS: Final[Mapping[str, Entry]] = MappingProxyType(
    {
        "book": Entry("ops.commands.book:command", "Run order flow from a file through one book."),
        "chain": Entry("ops.commands.chain:command", "Serve a local Ethereum chain for tests."),
        "devnet": Entry("ops.commands.devnet:command", "Run a whole network on this machine."),
        "doctor": Entry("ops.commands.doctor:command", "Check that this machine can run a node."),
        "epochs": Entry("ops.commands.epochs:command", "Simulate changes of the committee."),
        "evidence": Entry(
            "ops.commands.evidence:command", "List and verify proofs that a replica lied."
        ),
        "keys": Entry("ops.commands.keys:command", "Make, show and re-encrypt a node's keys."),
        "margin": Entry(
            "ops.commands.margin:command", "Compute portfolios' margin, scenario by scenario."
        ),
        "node": Entry("ops.commands.node:command", "Run one node of a network."),
        "order": Entry("ops.commands.order:command", "Compute the fair order of given logs."),
        "replay-bundle": Entry(
            "ops.commands.replay_bundle:command", "Execute again what a diverged node left."
        ),
        "sim": Entry("ops.commands.sim:command", "Simulate a network under attack."),
        "twins": Entry(
            "ops.commands.twins:command", "Run Twins scenarios: two nodes with one key."
        ),
    }
)


class LazyGroup(click.Group):
    """A group that knows its commands' names and help from a table, and imports one on use.

    Errors: click.ClickException if a command's module or a library it needs cannot be imported.
    """

    def __init__(self, entries: Mapping[str, Entry], **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]
        self._entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        module_name, _, attribute = entry.target.partition(":")
        try:
            command = getattr(import_module(module_name), attribute)
        except ImportError as error:
            raise click.ClickException(
                f"cannot load `{cmd_name}`: {error}. Run `fairlane doctor`."
            ) from error
        assert isinstance(command, click.Command), entry.target
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._entries[name].help) for name in sorted(self._entries)])


def installed_version() -> str:
    """Return the version of the installed distribution, or say that there is none."""
    try:
        return version("fairlane")
    except PackageNotFoundError:
        return "not installed"


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"fairlane {installed_version()}")
        ctx.exit()


cli = LazyGroup(
    COMMANDS,
    name="fairlane",
    help="A decentralized sequencer network for a derivatives exchange.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        )
    ],
)


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    if not __debug__:
        print(OPTIMISED, file=sys.stderr)
        sys.exit(EXIT_USAGE)
    cap_recursion()
    sys.exit(cli.main(prog_name="fairlane", standalone_mode=True))
