"""`fairlane replay-bundle`: execute again what a diverged node left, and say who was wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

EXIT_OF = {"agrees with the quorum": 0}
EXIT_DIVERGED = 3
EXIT_BROKEN = 2
HEAD = 16
"""Hex digits of a digest in the table."""


@click.command("replay-bundle")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def command(file: Path, as_json: bool) -> None:
    """Execute again, offline, what a node executed before its state differed from a quorum's.

    FILE is the bundle that the node left in its home. Exits 0 if the replay agrees with the
    quorum's digest or the others' checkpoint, so the node's memory, disk or version was at fault;
    3 if it does not, so this program computes something else than the others did; 2 if the file
    is broken.
    """
    from ops.bundle.file import BundleError, load_bundle
    from ops.bundle.replay import Replay

    try:
        report = Replay(load_bundle(file)).run()
    except (BundleError, OSError) as error:
        click.echo(f"fairlane replay-bundle: {file}: {error}", err=True)
        sys.exit(EXIT_BROKEN)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
    else:
        _show(report)
    sys.exit(EXIT_OF.get(report.verdict, EXIT_DIVERGED))


def _show(report: object) -> None:
    from ops.bundle.replay import Report

    assert isinstance(report, Report)
    voters = ", ".join(map(str, report.certified_by))
    click.echo(f"replica {report.replica} of network {report.network[:HEAD]}, {report.program}")
    click.echo(f"height {report.height}  own {report.own[:HEAD]}", nl=report.quorum is None)
    if report.quorum is not None:
        certificate = f"certified by replicas {voters}" if voters else "without a certificate"
        click.echo(f"  quorum {report.quorum[:HEAD]}, {certificate}")
    if report.others_checkpoint is not None:
        formed = report.replays_checkpoint or ""
        click.echo(f"checkpoint {formed[:HEAD]}, others have {report.others_checkpoint[:HEAD]}")
    click.echo(f"from height {report.start_height} to {report.tip}; digests of the replay:")
    for each in report.heights:
        marks = [
            "" if each.quorum is None else "= quorum" if each.quorum == each.digest else "≠ QUORUM",
            "" if each.own is None else "= own" if each.own == each.digest else "≠ OWN",
        ]
        parts = " ".join(f"{name} {value[:8]}" for name, value in each.parts.items())
        line = f"  {each.height:>8}  {each.digest[:HEAD]}  {marks[0]:8}  {marks[1]:5}  {parts}"
        if each.own_parts_differ:
            line += f"  (own {' and '.join(each.own_parts_differ)} differs)"
        click.echo(line.rstrip())
    if report.starts_wrong:
        click.echo("the snapshot that this node started from is already not the quorum's")
    for name, at in (
        ("the quorum", report.differs_from_quorum_at),
        ("the node's own digests", report.differs_from_own_at),
    ):
        if at is not None:
            click.echo(f"the replay first differs from {name} at height {at}")
    if report.live_parts_differ:
        more = report.live_parts_differ_count - len(report.live_parts_differ)
        click.echo(f"in the node's memory at height {report.tip} these parts differed:")
        for name in report.live_parts_differ:
            click.echo(f"  {name}")
        if more:
            click.echo(f"  and {more} more")
    click.echo(f"verdict: the replay {report.verdict}")
