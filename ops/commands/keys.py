"""`fairlane keys`: make a replica's keys, show their public half, change the passphrase."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import cast

import click

from ops.keys import (
    STRENGTHS,
    KeyFileError,
    Strength,
    generate_keys,
    read_keys,
    read_passphrase,
    read_public_keys,
    write_keys,
)

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_PASSPHRASE = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file of mode 0600 with the passphrase; else FAIRLANE_PASSPHRASE_FILE names it.",
)
_STRENGTH = click.option(
    "--strength",
    type=click.Choice(list(STRENGTHS)),
    default="sensitive",
    show_default=True,
    help="Cost of a guess: 64 MiB, 256 MiB or 1 GiB of argon2id, which each start takes too.",
)


@click.group("keys", short_help="Make and show a node's keys.")
def command() -> None:
    """Make and show a node's keys. Passphrases come from files, never from the command line."""


@command.command("new")
@_FILE
@_PASSPHRASE
@_STRENGTH
def new(file: Path, passphrase_file: Path | None, strength: str) -> None:
    """Draw a replica's keys and write them to FILE, encrypted.

    The share of the settlement key is not among them: the key ceremony adds it.
    """
    try:
        passphrase = read_passphrase(passphrase_file, os.environ)
        write_keys(file, generate_keys(), passphrase, cast(Strength, strength))
    except KeyFileError as error:
        raise click.ClickException(str(error)) from None
    _show(file, as_json=False)


@command.command("show")
@_FILE
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(file: Path, as_json: bool) -> None:
    """Show the public keys in FILE; no passphrase is needed."""
    _show(file, as_json)


@command.command("passwd")
@_FILE
@_PASSPHRASE
@click.option(
    "--new-passphrase-file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file of mode 0600 with the new passphrase.",
)
@_STRENGTH
def passwd(
    file: Path, passphrase_file: Path | None, new_passphrase_file: Path, strength: str
) -> None:
    """Encrypt FILE anew under another passphrase; the keys stay."""
    try:
        keys = read_keys(file, read_passphrase(passphrase_file, os.environ))
        fresh = read_passphrase(new_passphrase_file, {})
        write_keys(file, keys, fresh, cast(Strength, strength), replace=True)
    except KeyFileError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{file} is now under the new passphrase; delete copies under the old one")


def _show(file: Path, as_json: bool) -> None:
    from p2p.host import peer_id

    try:
        public = read_public_keys(file)
    except KeyFileError as error:
        raise click.ClickException(str(error)) from None
    shown = {
        "network_key": public.network.hex(),
        "peer_id": peer_id(public.network),
        "consensus_key": public.consensus.hex(),
        "share_key": None if public.share is None else public.share.hex(),
        "operator": "0x" + public.operator.hex(),
    }
    if as_json:
        click.echo(json.dumps(shown))
        return
    for name, value in shown.items():
        click.echo(f"{name:14} {value or 'none yet'}")
