"""`fairlane sim`: one simulated network, or many, under attack."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import click

from ops.sim.hunt import Hunt, search
from ops.sim.options import (
    Asked,
    build_plan,
    campaign_plan,
    parse_crash,
    parse_delay,
    parse_liar,
    parse_ms,
    parse_partition,
    parse_plan,
    parse_stall,
    plan_line,
    repeat_line,
)
from ops.sim.plan import DRIFT_PPM_MAX, BadPlan, MachineDials, NetworkDials, Plan
from ops.sim.report import Report, run
from ops.sim.scenarios import SCENARIOS
from ops.sim.show import Progress, show_hunt, show_list, show_report
from ops.sim.shrink import shrink
from ops.sim.wan import WANS

SEEDS_MAX = 1_000_000
BLOCKS_MIN = 30
"""A campaign's seed that commits fewer blocks shows too little."""


class _Spec(click.ParamType):  # type: ignore[type-arg]  # not generic in every click
    """An option value with a small grammar of its own, kept beside its text."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        try:
            return self._parse(str(value))
        except BadPlan as error:
            self.fail(str(error), param, ctx)
        except (ValueError, KeyError):
            self.fail(f"{value!r} is no {self.name}", param, ctx)


SHARE = click.FloatRange(0, 1)
MS = click.IntRange(0, 10_000)
_ARGS = "fairlane.sim.args"


class _Remembering(click.Command):
    """Keeps the words that it was called with, to say them again."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGS] = list(args)
        return super().parse_args(ctx, args)


# fmt: off
@click.command("sim", cls=_Remembering, short_help="Simulate a network under attack.")
@click.option("--nodes", type=click.IntRange(4, 31), help="How many replicas.  [default: 5]")
@click.option("--seed", type=int, help="Decides everything.  [default: 1]")
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=5.0, show_default=True,
              help="How long the attack lasts; a calm follows, to see the network recover.")
@click.option("--scenario", type=click.Choice(sorted(SCENARIOS)), help="A named run; see --list.")
@click.option("--byzantine", "liars", multiple=True, metavar="I:BEHAVIOUR",
              type=_Spec("I:BEHAVIOUR (see --list)", parse_liar),
              help="Node I lies so; repeat for more.")
@click.option("--loss", type=SHARE, default=0.0, help="Share of frames lost until the calm.")
@click.option("--repeat", type=SHARE, default=0.0, help="Share of frames that arrive twice.")
@click.option("--slow", type=SHARE, default=0.0, help="Share of frames up to 400 ms late.")
@click.option("--storm", type=SHARE, default=0.0, help="Share of links slow at any time.")
@click.option("--delay", type=_Spec("delay MIN-MAX", parse_delay), default="4-16",
              show_default=True, metavar="MIN-MAX", help="One-way delay in milliseconds.")
@click.option("--tail", is_flag=True, help="Delays have a long tail: lognormal, not uniform.")
@click.option("--wan", type=click.Choice(sorted(WANS)),
              help="Replicas stand far apart, as in --list; timers grow with the distance.")
@click.option("--skew", type=MS, default=0, metavar="MS", help="Clocks are off by up to so much.")
@click.option("--drift", type=click.IntRange(0, DRIFT_PPM_MAX), default=0, metavar="PPM",
              help="Clocks run fast or slow by up to so much.")
@click.option("--sync", "sync_ms", type=MS, default=0, metavar="MS",
              help="A disk's sync takes up to so long; inputs wait meanwhile.")
@click.option("--slow-sync", type=SHARE, default=0.0, help="Share of syncs that take up to 300 ms.")
@click.option("--inbox", type=click.IntRange(1, 1 << 20), default=4_096, show_default=True,
              metavar="FRAMES", help="Frames of one peer that wait for a busy machine.")
@click.option("--stall", "stalls", multiple=True, metavar="NODE:AT:FOR",
              type=_Spec("NODE:AT:FOR", parse_stall), help="NODE stands still at AT for seconds.")
@click.option("--crash", "crashes", multiple=True, metavar="K|NODE:AT:DOWN",
              type=_Spec("K or NODE:AT:DOWN", parse_crash),
              help="K crashes at random, or one of NODE at AT for DOWN seconds.")
@click.option("--power-loss", "power_losses", multiple=True, metavar="AT",
              type=_Spec("time in seconds", parse_ms),
              help="All nodes but liars die at AT seconds.")
@click.option("--partition", "partitions", multiple=True, metavar="FROM-UNTIL:0,1|2,3,4",
              type=_Spec("FROM-UNTIL:0,1|2,3,4", parse_partition))
@click.option("--rate", type=click.IntRange(0, 2_000), default=40, show_default=True,
              help="Commands per second.")
@click.option("--round-timer", type=click.IntRange(50, 60_000), metavar="MS",
              help="[default: 400, or 8 times the longest way of --wan]")
@click.option("--real-keys", is_flag=True, help="Sign with Ed25519 instead of hashing.")
@click.option("--plan", type=_Spec("plan", parse_plan), metavar="FILE|JSON",
              help="Run exactly this plan; only --seed is taken from elsewhere.")
@click.option("--seeds", type=click.IntRange(1, SEEDS_MAX), default=1, metavar="K",
              help="Run K seeds, from --seed on; stop at the first that fails.")
@click.option("--hunt", type=click.FloatRange(0.01, 10_000), metavar="MINUTES",
              help="Search new seeds for so long; without --seed from one that the clock gives.")
@click.option("--campaign", type=click.IntRange(1, SEEDS_MAX), metavar="SEEDS",
              help="Run so many seeds; each must hold and commit --blocks-min blocks.")
@click.option("--blocks-min", type=click.IntRange(0, 10_000), default=BLOCKS_MIN,
              show_default=True, help="Of each seed of a campaign.")
@click.option("--jobs", type=click.IntRange(1, 256), help="Processes.  [default: one a processor]")
@click.option("--shrink/--no-shrink", "shrinks", default=True, show_default=True,
              help="Look for a shorter run that breaks the same.")
@click.option("--shrink-seconds", type=click.FloatRange(0.1, 86_400), default=60.0,
              show_default=True, help="How long to look.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a run or hunt.")
@click.option("--list", "lists", is_flag=True, help="List behaviours, scenarios and networks.")
@click.pass_context
def command(ctx: click.Context, /, **options: object) -> None:
    """Run one simulated network of the production core and check every invariant at every step.

    Exits with 0 only if all invariants held; a run that fails prints the command line that
    repeats it, and one for a shorter run that fails the same way. The same seed gives the same run
    to the byte: `trace` is its digest. --hunt and --campaign run many short seeds on all
    processors: of 4, 5 and 7 nodes in the mixed scenario, if nothing else is asked for.
    """
    if options["lists"]:
        show_list()
        return
    asked = _asked(options)
    try:
        if options["hunt"] is not None or options["campaign"] is not None:
            _search(ctx, asked, options)
        else:
            _run_seeds(ctx, asked, options)
    except BadPlan as error:
        raise click.UsageError(str(error)) from None
# fmt: on


def _asked(options: dict[str, object]) -> Asked:
    def of(name: str) -> Any:
        return options[name]

    delay_min_ms, delay_max_ms = of("delay")
    network = NetworkDials(
        delay_min_ms=delay_min_ms,
        delay_max_ms=delay_max_ms,
        loss=of("loss"),
        repeat=of("repeat"),
        slow=of("slow"),
        storm=of("storm"),
        wan=of("wan") or "",
        tail=bool(of("tail")),
    )
    machines = MachineDials(
        sync_max_ms=of("sync_ms"),
        slow_sync=of("slow_sync"),
        inbox_frames_max=of("inbox"),
    )
    return Asked(
        nodes=of("nodes"),
        seconds=of("seconds"),
        scenario=of("scenario"),
        liars=of("liars"),
        network=network,
        machines=machines,
        skew_ms=of("skew"),
        drift_ppm=of("drift"),
        crashes=of("crashes"),
        stalls=of("stalls"),
        power_losses_ms=of("power_losses"),
        partitions=of("partitions"),
        rate=of("rate"),
        round_timer_ms=of("round_timer"),
        real_keys=bool(of("real_keys")),
        plan=of("plan"),
    )


def _run_seeds(ctx: click.Context, asked: Asked, options: dict[str, object]) -> None:
    given, seeds = options["seed"], options["seeds"]
    assert isinstance(seeds, int)
    first = given if isinstance(given, int) else asked.plan.seed if asked.plan else 1
    as_json = bool(options["as_json"])
    for seed in range(first, first + seeds):
        plan = build_plan(asked, seed)
        report = run(plan)
        show_report(report, as_json=as_json, brief=seeds > 1)
        if not report.held:
            click.echo(f"repeat with: {repeat_line(ctx.meta[_ARGS], seed)}", err=True)
            _shrink(plan, report, options)
            ctx.exit(1)


def _search(ctx: click.Context, asked: Asked, options: dict[str, object]) -> None:
    """Run many seeds, then show what they came to and the way to each that failed."""
    minutes, campaign, given = options["hunt"], options["campaign"], options["seed"]
    first = given if isinstance(given, int) else 1 if campaign else time.time_ns() // 1_000_000
    seeds = range(first, first + campaign) if isinstance(campaign, int) else count(first)
    make_plan = partial(campaign_plan, asked)
    make_plan(first).check()
    as_json, blocks_min, jobs = bool(options["as_json"]), options["blocks_min"], options["jobs"]
    assert isinstance(blocks_min, int)
    progress = Progress()
    if not as_json:
        click.echo(f"first seed   {first}")
    found: Hunt = search(
        make_plan,
        seeds,
        jobs if isinstance(jobs, int) else len(os.sched_getaffinity(0)),
        seconds=60 * minutes if isinstance(minutes, float) else None,
        blocks_min=blocks_min if campaign else 0,
        on_progress=progress,
    )
    progress.end()
    lines = [plan_line(make_plan(failed.seed)) for failed in found.failures]
    show_hunt(found, as_json, {"first_seed": first, "repeat_with": lines})
    for line in lines:
        click.echo(f"repeat with: {line}", err=True)
    broken = [failed for failed in found.failures if failed.violations]
    if broken:
        plan = make_plan(broken[0].seed)
        _shrink(plan, run(plan), options)
    unfinished = found.interrupted and isinstance(campaign, int) and found.seeds < campaign
    if not found.held or unfinished:
        ctx.exit(1)


def _shrink(plan: Plan, report: Report, options: dict[str, object]) -> None:
    """Look for a shorter run that breaks the same, and print the line that runs it."""
    seconds = options["shrink_seconds"]
    assert isinstance(seconds, float)
    if not options["shrinks"] or report.held:
        return
    shrunk = shrink(plan, report, seconds)
    if shrunk.plan == plan:
        click.echo(f"no shorter run in {shrunk.runs} tries", err=True)
        return
    click.echo(f"shortened in {shrunk.runs} tries: {shrunk.report.violations[0]}", err=True)
    click.echo(f"shorter: {plan_line(shrunk.plan)}", err=True)
