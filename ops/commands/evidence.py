"""`fairlane evidence`: list, export and verify proofs that a replica signed two things."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import click

from ops.config import ConfigError, load_config, load_genesis
from ops.evidencefile import (
    FILE_BYTES_MAX,
    EvidenceFile,
    EvidenceFileError,
    genesis_fault,
    load_evidence,
    read_evidence,
    stored_evidence,
)
from ops.store import Store, StoreError

URL_TIMEOUT_S = 10.0
MEANINGS = {
    "proposal": "two proposals for one round",
    "vote": "two votes in one round",
    "commit_vote": "two commit votes in one round",
    "commit_vote_after_timeout": "a commit vote, and a timeout that denies it",
    "log_fork": "two batches at one place of its log",
}


class _ListByDefault(click.Group):
    """A group whose subcommand `list` may be left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = (*self.commands, "-h", "--help")
        return super().parse_args(ctx, args if args and args[0] in names else ["list", *args])


@click.group("evidence", cls=_ListByDefault, short_help="Proofs that a replica signed two things.")
def command() -> None:
    """List evidence (`fairlane evidence [FILE | --home DIR | --url URL]`), or verify a file.

    Evidence is a pair of signed statements that no honest replica makes. It needs no node and no
    trust in who found it, only the committee's keys.
    """


@command.command("list")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Read the store of the node whose folder this is; it may be running.",
)
@click.option("--url", help="Ask the gateway of a running node, as http://127.0.0.1:7701.")
@click.option(
    "--export",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a file that stands alone, for `fairlane evidence verify`.",
)
def list_(file: Path | None, home: Path | None, url: str | None, export: Path | None) -> None:
    """List the evidence in FILE, in a node's home, or that a running node shows."""
    if sum(source is not None for source in (file, home, url)) != 1:
        raise click.UsageError("give one of FILE, --home and --url")
    try:
        if file is not None:
            found = load_evidence(file)
        elif home is not None:
            found = _of_home(home)
        else:
            assert url is not None
            found = _of_url(url)
        if export is not None:
            export.write_bytes(found.to_json())
    except (EvidenceFileError, ConfigError, StoreError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"network {found.network}: {len(found.records)} records")
    for record in found.records:
        what = MEANINGS.get(record.kind, record.kind)
        place = "seq" if record.kind == "log_fork" else "round"
        click.echo(
            f"replica {record.offender}  epoch {record.epoch}  {place} {record.position}  {what}"
        )
    if found.left_out:
        click.echo(f"{found.left_out} more did not fit: read them with --home")
    if export is not None:
        click.echo(f"written to {export}")


def _of_home(home: Path) -> EvidenceFile:
    config = load_config(home)
    genesis = load_genesis(Path(config.genesis_file))
    store = Store.open_to_read(Path(config.data_dir))
    try:
        return stored_evidence(store, genesis.network_id(), genesis.committee().keys)
    finally:
        store.close()


def _of_url(url: str) -> EvidenceFile:
    if not url.startswith(("http://", "https://")):
        raise EvidenceFileError(f"{url} is no http URL")
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/v1/evidence", timeout=URL_TIMEOUT_S) as got:
            return read_evidence(got.read(FILE_BYTES_MAX + 1))
    except urllib.error.URLError as error:
        raise EvidenceFileError(f"{url}: {error.reason}") from None
    except EvidenceFileError as error:
        raise EvidenceFileError(f"{url} does not show evidence: {error}") from None


@command.command("verify")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--genesis",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A genesis that you trust: the file's network and keys must be its own.",
)
def verify(file: Path, genesis: Path | None) -> None:
    """Verify every record of FILE, without a node: exit 1 if one proves nothing.

    The keys stand in the file. Whether they are the network's you know from --genesis, or by
    comparing what is printed.
    """
    try:
        found = load_evidence(file)
        fault = genesis_fault(found, load_genesis(genesis)) if genesis is not None else None
    except (EvidenceFileError, ConfigError, OSError) as error:
        raise click.ClickException(str(error)) from None
    if fault is not None:
        raise click.ClickException(fault)
    bad = 0
    for record in found.records:
        fault = found.fault(record)
        place = "seq" if record.kind == "log_fork" else "round"
        told = f"replica {record.offender}  {record.kind}  epoch {record.epoch}"
        bad += fault is not None
        click.echo(f"{'proved' if fault is None else 'BAD'}  {told}  {place} {record.position}")
        if fault is not None:
            click.echo(f"     {fault}")
    click.echo(f"network {found.network}")
    for epoch in sorted({record.epoch for record in found.records}):
        for index, key in enumerate(found.keys_of(epoch)):
            if any((r.epoch, r.offender) == (epoch, index) for r in found.records):
                click.echo(f"key of replica {index} in epoch {epoch}: {key.hex()}")
    if genesis is None:
        click.echo("the keys are the file's own: compare them with the genesis, or give --genesis")
    click.echo(f"{len(found.records) - bad} of {len(found.records)} records proved")
    if bad:
        raise SystemExit(1)
