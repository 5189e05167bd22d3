"""`fairlane doctor`: can a node run here, and what to do if not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ops.doctor import Check, Status, examine

COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}


@click.command("doctor")
@click.option(
    "--home",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A node's home: its ports, key files and data directory are checked too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(home: Path | None, as_json: bool) -> None:
    """Check that this machine can run a node; exit 1 if it must not."""
    checks = examine(home)
    failed = any(check.status is Status.FAIL for check in checks)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "checks": [c.as_json() for c in checks]}))
    else:
        for check in checks:
            _show(check)
    sys.exit(1 if failed else 0)


def _show(check: Check) -> None:
    mark = click.style(f"{check.status:<5}", fg=COLOURS[check.status])
    click.echo(f"{mark} {check.name:<10} {check.detail}")
    if check.action:
        click.echo(f"{'':<17}-> {check.action}")
