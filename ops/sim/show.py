"""What `fairlane sim` prints."""

from __future__ import annotations

import json
import sys

import click

from ops.sim.hunt import Hunt, kinds
from ops.sim.liars import LIARS
from ops.sim.report import Report
from ops.sim.scenarios import SCENARIOS
from ops.sim.wan import WANS

PROGRESS_S = 1.0
PROGRESS_PIPED_S = 30.0
"""Progress goes to a terminal every second, and to a file or a pipe seldom."""


def show_list() -> None:
    """Print every behaviour, scenario and network with a line each."""
    click.echo("behaviours (--byzantine I:NAME)")
    for name, kind in LIARS.items():
        click.echo(f"  {name:12} {kind.about}")
    click.echo("\nscenarios (--scenario NAME)")
    for name, scenario in SCENARIOS.items():
        click.echo(f"  {name:12} {scenario.about}")
    click.echo("\nnetworks (--wan NAME)")
    for name, wan in WANS.items():
        click.echo(f"  {name:12} {wan.about}")


def show_report(report: Report, as_json: bool, brief: bool) -> None:
    """Print what one run came to."""
    if as_json:
        click.echo(json.dumps(report.as_json()))
        return
    verdict = "held" if report.held else "BROKEN"
    if brief and report.held:
        click.echo(
            f"seed {report.seed}: {verdict}, height {report.height}, {report.executed} executed, "
            f"trace {report.trace[:16]}"
        )
        return
    click.echo(f"invariants   {verdict}")
    for violation in report.violations:
        click.echo(f"  {violation}")
    latency = report.latency_ms
    recovered = "-" if report.recovered_ms is None else f"{report.recovered_ms} ms"
    click.echo(f"network      {report.nodes} nodes, seed {report.seed}, {report.seconds:g} s")
    click.echo(f"chain        height {report.height}, round {report.round}")
    click.echo(f"commands     {report.submitted} submitted, {report.executed} executed")
    click.echo(
        f"latency      p50 {latency['p50']} ms, p90 {latency['p90']} ms, p99 {latency['p99']} ms, "
        f"max {latency['max']} ms"
    )
    click.echo(f"recovered    {recovered} after the calm began")
    click.echo(f"work         {report.steps} steps, {report.frames} frames, {report.lost} lost")
    if report.blames or report.evidence:
        found = ", ".join(f"{name} {count}" for name, count in report.evidence.items())
        click.echo(f"blames       {report.blames}; evidence: {found or 'none'}")
    click.echo(f"trace        {report.trace}")


class Progress:
    """Prints a hunt's progress line to standard error, not too often."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._next_s = 0.0 if self._live else PROGRESS_PIPED_S

    def __call__(self, hunt: Hunt) -> None:
        if hunt.seconds >= self._next_s:
            self._next_s = hunt.seconds + (PROGRESS_S if self._live else PROGRESS_PIPED_S)
            end = "\r" if self._live else "\n"
            click.echo(hunt.line() + end, err=True, nl=False)

    def end(self) -> None:
        """Leave the line."""
        if self._live:
            click.echo(err=True)


def show_hunt(hunt: Hunt, as_json: bool, more: dict[str, object]) -> None:
    """Print what a hunt came to; `more` joins the JSON object."""
    if as_json:
        click.echo(json.dumps(hunt.as_json() | more))
        return
    sizes = ", ".join(f"n={n}: {count}" for n, count in sorted(hunt.by_nodes.items()))
    click.echo(f"invariants   {'held' if hunt.held else 'BROKEN'}")
    for failed in hunt.failures:
        click.echo(f"  seed {failed.seed}, {failed.nodes} nodes: {kinds(failed)}")
        for violation in failed.violations[:3]:
            click.echo(f"    {violation}")
    click.echo(f"seeds        {hunt.seeds} ({sizes}), {hunt.liars} liars in them")
    least = hunt.blocks_least or 0
    click.echo(f"blocks       {hunt.blocks}, at least {least} in each")
    click.echo(f"commands     {hunt.executed} executed")
    speed = f"{hunt.steps_per_cpu_s} a second"
    click.echo(f"work         {hunt.steps} steps in {hunt.cpu_s:.0f} CPU-s: {speed}")
    rate = hunt.seeds / hunt.seconds if hunt.seconds else 0.0
    ended = " (interrupted)" if hunt.interrupted else ""
    click.echo(f"time         {hunt.seconds:.0f} s, {rate:.1f} seeds/s{ended}")
