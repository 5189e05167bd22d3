"""`fairlane twins`: Twins scenarios from a file, or all of a size."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import click

from ops.sim.twins import (
    BadScenario,
    Failure,
    Scenario,
    Setting,
    Space,
    Tally,
    read_file,
    run_all,
    write_file,
)
from ops.sim.twins.scenario import FILE_BYTES_MAX, SCENARIOS_MAX

PROGRESS_S = 10.0


@dataclass(frozen=True, slots=True)
class _Task:
    """What is to be run, and what it was chosen from."""

    setting: Setting
    scenarios: Iterator[Scenario]
    counts: dict[str, int]


@click.command("twins", short_help="Run Twins scenarios: two nodes with one key.")
@click.argument("file", type=click.File("rb"), required=False)
@click.option("--generate", is_flag=True, help="All scenarios of a size instead of a file's.")
@click.option("--nodes", type=int, default=4, show_default=True, help="With --generate.")
@click.option("--twins", "twins_", type=int, default=1, show_default=True, help="With --generate.")
@click.option("--rounds", type=int, default=3, show_default=True,
              help="With --generate: rounds whose leaders and partitions vary.")  # fmt: skip
@click.option("--partitions", type=click.IntRange(1, 4), default=2, show_default=True,
              help="With --generate: groups that a round may fall into, at most.")  # fmt: skip
@click.option("--sample", type=click.IntRange(1, SCENARIOS_MAX), metavar="K",
              help="Only K of them, drawn by --seed.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--cuts", type=click.IntRange(0, 100), default=0, metavar="PERCENT",
              help="With --sample: so many pairs do not hear each other besides.")  # fmt: skip
@click.option("--everything", is_flag=True,
              help="Also those alike up to the names of honest nodes.")  # fmt: skip
@click.option("--out", type=click.File("wb"), help="Write the scenarios to a file.")
@click.option("--run", "run_them", is_flag=True, help="Run what was generated.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    file: BinaryIO | None,
    generate: bool,
    nodes: int,
    twins_: int,
    rounds: int,
    partitions: int,
    sample: int | None,
    seed: int,
    cuts: int,
    everything: bool,
    out: BinaryIO | None,
    run_them: bool,
    jobs: int,
    as_json: bool,
) -> None:
    """Run the Twins scenarios of FILE (`-`: standard input) on the production core.

    Node n+i has the key of node i and a disk of its own. Checked are agreement, certificates, that
    nothing is executed twice, that no honest node raises, halts or is blamed, and that commits go
    on after the named rounds. Exits with 0 only if all held in every scenario.
    """
    if generate == (file is not None):
        raise click.UsageError("give either a FILE or --generate")
    try:
        if file is not None:
            setting, given = read_file(file.read(FILE_BYTES_MAX + 1))
            task = _Task(setting, iter(given), {"scenarios": len(given)})
        else:
            space = Space(Setting(nodes, twins_), rounds, partitions)
            task = _generated(space, sample, seed, cuts, everything)
    except BadScenario as error:
        raise click.UsageError(str(error)) from None
    if generate and not as_json:
        for name, count in task.counts.items():
            click.echo(f"{name.replace('_', ' '):16} {count}")
    if out is not None:
        chosen = list(task.scenarios)
        out.write(write_file(task.setting, chosen))
        task = _Task(task.setting, iter(chosen), task.counts)
    if generate and not run_them:
        if as_json:
            click.echo(json.dumps(task.counts))
        return
    tally = run_all(task.setting, task.scenarios, jobs, _Progress())
    _show(task, tally, as_json)
    ctx.exit(0 if tally.failed == 0 else 1)


def _generated(space: Space, sample: int | None, seed: int, cuts: int, everything: bool) -> _Task:
    """Return which scenarios to run. Errors: BadScenario."""
    counts = {"total": space.total, "up_to_names": space.classes}
    if sample is not None:
        counts["chosen"] = sample
        return _Task(space.setting, space.sample(sample, seed, cuts), counts)
    if cuts:
        raise BadScenario("--cuts are drawn: only with --sample")
    counts["chosen"] = space.total if everything else space.classes
    courses = space.everything() if everything else space.representatives(seed)
    return _Task(space.setting, map(space.scenario, courses), counts)


class _Progress:
    """Says now and then how far a long campaign is."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, tally: Tally) -> None:
        if time.monotonic() - self._said >= PROGRESS_S:
            self._said = time.monotonic()
            print(f"{tally.run} run, {tally.failed} failed", file=sys.stderr, flush=True)


def repeat_line(setting: Setting, failure: Failure) -> str:
    """Return the shell line that runs one failed scenario alone."""
    text = write_file(setting, [failure.scenario]).decode()
    return f"printf %s {shlex.quote(text)} | fairlane twins -"


def _show(task: _Task, tally: Tally, as_json: bool) -> None:
    setting = task.setting
    ms_each = round(1_000 * tally.cpu_s / max(tally.run, 1), 2)
    if as_json:
        failures = [
            {
                "number": failure.number,
                "violations": failure.violations,
                "repeat": repeat_line(setting, failure),
            }
            for failure in tally.failures
        ]
        figures = {
            "held": tally.failed == 0,
            "nodes": setting.nodes,
            "twins": setting.twins,
            **task.counts,
            "run": tally.run,
            "failed": tally.failed,
            "failures": failures,
            "steps": tally.steps,
            "blocks": tally.blocks,
            "executed": tally.executed,
            "equivocations": tally.equivocations,
            "broken_twins": tally.broken_twins,
            "cpu_s": round(tally.cpu_s, 2),
            "cpu_ms_each": ms_each,
        }
        click.echo(json.dumps(figures))
        return
    click.echo(f"invariants       {'held' if tally.failed == 0 else 'BROKEN'}")
    click.echo(f"network          {setting.nodes} nodes, {setting.twins} of them twice")
    click.echo(f"scenarios        {tally.run} run, {tally.failed} failed")
    click.echo(f"work             {tally.steps} steps, {tally.blocks} blocks, "
               f"{tally.executed} commands executed")  # fmt: skip
    click.echo(f"caught lying     {tally.equivocations} times; "
               f"{tally.broken_twins} twins broke down")  # fmt: skip
    click.echo(f"cpu              {tally.cpu_s:.1f} s, {ms_each} ms a scenario")
    for failure in tally.failures:
        click.echo(f"\nscenario {failure.number}:")
        for violation in failure.violations:
            click.echo(f"  {violation}")
        click.echo(f"repeat with: {repeat_line(setting, failure)}")
    if setting.twins > (setting.nodes - 1) // 3 and tally.failed:
        click.echo("\nMore replicas lie here than any protocol can bear.")
