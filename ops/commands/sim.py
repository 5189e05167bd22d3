"""`fairlane sim`: one simulated network, or many, under attack."""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace

import click
import msgspec

from consensus.committee import Parameters
from ops.sim.liars import LIARS
from ops.sim.plan import DIALS, BadPlan, Crash, Fault, NetworkDials, Partition, Plan, PowerLoss
from ops.sim.report import Report, run
from ops.sim.scenarios import SCENARIOS, shape

SEEDS_MAX = 1_000_000
POWER_SPREAD_MS = 10
POWER_DOWN_MS = (100, 500)
CRASH_GAP_MS = (50, 400)
CRASH_DOWN_MS = (30, 500)


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
        except (ValueError, KeyError):
            self.fail(f"{value!r} is no {self.name}", param, ctx)


def _liar(text: str) -> tuple[int, str]:
    node, _, kind = text.partition(":")
    return int(node), LIARS[kind].name


def _delay(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    delays = int(low), int(high or low)
    if not 0 <= delays[0] <= delays[1]:
        raise ValueError(text)
    return delays


def _ms(seconds: str) -> int:
    value = round(float(seconds) * 1_000)
    if value < 0:
        raise ValueError(seconds)
    return value


def _crash(text: str) -> Crash | int:
    """Either `NODE:AT:DOWN` or a number of crashes at random times."""
    if ":" not in text:
        return int(text)
    node, at, down = text.split(":")
    return Crash(int(node), _ms(at), _ms(down))


def _partition(text: str) -> Partition:
    """`FROM-UNTIL:0,1|2,3,4`; the groups become final once the number of nodes is known."""
    times, _, groups = text.partition(":")
    start, _, end = times.partition("-")
    group_of: dict[int, int] = {}
    for number, group in enumerate(groups.split("|")):
        for node in group.split(","):
            group_of[int(node)] = number
    return Partition(_ms(start), _ms(end), tuple(group_of[node] for node in range(len(group_of))))


SHARE = click.FloatRange(0, 1)
_ARGS = "fairlane.sim.args"


class _Remembering(click.Command):
    """Keeps the words that it was called with, to say them again."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGS] = list(args)
        return super().parse_args(ctx, args)


@click.command("sim", cls=_Remembering, short_help="Simulate a network under attack.")
@click.option("--nodes", type=click.IntRange(4, 31), default=5, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Decides everything.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 60),
    default=5.0,
    show_default=True,
    help="How long the attack lasts; a calm follows, to see the network recover.",
)
@click.option("--seeds", type=click.IntRange(1, SEEDS_MAX), default=1, metavar="K",
              help="Run K seeds, from --seed on; stop at the first that fails.")  # fmt: skip
@click.option("--scenario", type=click.Choice(sorted(SCENARIOS)), help="A named run; see --list.")
@click.option("--byzantine", "liars", multiple=True, metavar="I:BEHAVIOUR",
              type=_Spec("I:BEHAVIOUR (see --list)", _liar),
              help="Node I lies so; repeat for more.")  # fmt: skip
@click.option("--loss", type=SHARE, default=0.0, help="Share of frames lost until the calm.")
@click.option("--repeat", type=SHARE, default=0.0, help="Share of frames that arrive twice.")
@click.option("--slow", type=SHARE, default=0.0, help="Share of frames up to 400 ms late.")
@click.option("--storm", type=SHARE, default=0.0, help="Share of links slow at any time.")
@click.option("--delay", type=_Spec("delay MIN-MAX", _delay), default="4-16", show_default=True,
              metavar="MIN-MAX", help="One-way delay in milliseconds.")  # fmt: skip
@click.option("--skew", type=click.IntRange(0, 10_000), default=0, metavar="MS",
              help="Clocks are off by up to so much.")  # fmt: skip
@click.option("--crash", "crashes", multiple=True, metavar="K|NODE:AT:DOWN",
              type=_Spec("K or NODE:AT:DOWN", _crash),
              help="K crashes at random, or one of NODE at AT for DOWN seconds.")  # fmt: skip
@click.option("--power-loss", "power_losses", multiple=True, metavar="AT",
              type=_Spec("time in seconds", _ms),
              help="All nodes but liars die at AT seconds.")  # fmt: skip
@click.option("--partition", "partitions", multiple=True, metavar="FROM-UNTIL:0,1|2,3,4",
              type=_Spec("FROM-UNTIL:0,1|2,3,4", _partition))  # fmt: skip
@click.option("--rate", type=click.IntRange(0, 2_000), default=40, show_default=True,
              help="Commands per second.")  # fmt: skip
@click.option("--round-timer", type=click.IntRange(50, 60_000), default=DIALS.round_timer_ms,
              show_default=True, metavar="MS")  # fmt: skip
@click.option("--real-keys", is_flag=True, help="Sign with Ed25519 instead of hashing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a run.")
@click.option("--list", "show_list", is_flag=True, help="List behaviours and scenarios, and exit.")
@click.pass_context
def command(ctx: click.Context, /, **options: object) -> None:
    """Run one simulated network of the production core and check every invariant at every step.

    Exits with 0 only if all invariants held; a run that fails prints the command line that
    repeats it. The same seed gives the same run to the byte: `trace` is its digest.
    """
    if options["show_list"]:
        _show_list()
        return
    seed, seeds = _int(options["seed"]), _int(options["seeds"])
    for each in range(seed, seed + seeds):
        try:
            report = run(build_plan(options, each))
        except BadPlan as error:
            raise click.UsageError(str(error)) from None
        _show(report, as_json=bool(options["as_json"]), brief=seeds > 1)
        if not report.held:
            click.echo(f"repeat with: {repeat_line(ctx.meta[_ARGS], each)}", err=True)
            ctx.exit(1)


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def build_plan(options: dict[str, object], seed: int) -> Plan:
    """Return the run that the options ask for. Errors: BadPlan."""
    delay = options["delay"]
    assert isinstance(delay, tuple)
    dials = NetworkDials(
        delay_min_ms=delay[0],
        delay_max_ms=delay[1],
        loss=_float(options["loss"]),
        repeat=_float(options["repeat"]),
        slow=_float(options["slow"]),
        storm=_float(options["storm"]),
    )
    rng = random.Random(f"options {seed}")
    nodes, skew = _int(options["nodes"]), _int(options["skew"])
    liars: tuple[tuple[int, str], ...] = options["liars"]  # type: ignore[assignment]
    attack_ms = round(_float(options["seconds"]) * 1_000)
    plan = Plan(
        nodes=nodes,
        seed=seed,
        duration_ms=attack_ms,
        parameters=_parameters(_int(options["round_timer"])),
        network=dials,
        liars=dict(liars),
        skews_ms=tuple(rng.randint(-skew, skew) for _ in range(nodes)) if skew else (),
        commands_per_s=_int(options["rate"]),
        real_keys=bool(options["real_keys"]),
    )
    if options["scenario"] is not None:
        return shape(str(options["scenario"]), plan)
    faults = _faults(options, plan, rng, attack_ms)
    disturbed = bool(faults) or dials.disturbs
    return replace(plan, faults=faults, calm_ms=attack_ms if disturbed else 0).with_calm()


def _float(value: object) -> float:
    assert isinstance(value, float)
    return value


def _parameters(round_timer_ms: int) -> Parameters:
    return msgspec.structs.replace(
        DIALS, round_timer_ms=round_timer_ms, round_timer_max_ms=5 * round_timer_ms
    )


def _faults(
    options: dict[str, object], plan: Plan, rng: random.Random, calm_ms: int
) -> tuple[Fault, ...]:
    crashes: tuple[Crash | int, ...] = options["crashes"]  # type: ignore[assignment]
    power_losses: tuple[int, ...] = options["power_losses"]  # type: ignore[assignment]
    partitions: tuple[Partition, ...] = options["partitions"]  # type: ignore[assignment]
    faults: list[Fault] = [*partitions]
    honest = [i for i in range(plan.nodes) if i not in plan.liars]
    for crash in crashes:
        if isinstance(crash, Crash):
            faults.append(crash)
            continue
        for _ in range(crash):
            down_ms = rng.randint(*CRASH_DOWN_MS)
            at_ms = rng.randint(0, max(0, calm_ms - down_ms))
            faults.append(Crash(rng.choice(honest), at_ms, down_ms))
    spared = tuple(plan.liars)
    faults += [PowerLoss(at, POWER_SPREAD_MS, *POWER_DOWN_MS, spared) for at in power_losses]
    return tuple(faults)


def repeat_line(args: Sequence[str], seed: int) -> str:
    """Return the command line that repeats one seed of a run that was given `args`."""
    words = ["fairlane", "sim"]
    given = iter(args)
    for word in given:
        name, _, value = word.partition("=")
        if name in ("--seed", "--seeds"):
            if not value:
                next(given, None)
        elif word != "--json":
            words.append(word)
    return shlex.join([*words, "--seed", str(seed)])


def _show_list() -> None:
    click.echo("behaviours (--byzantine I:NAME)")
    for name, kind in LIARS.items():
        click.echo(f"  {name:12} {kind.about}")
    click.echo("\nscenarios (--scenario NAME)")
    for name, scenario in SCENARIOS.items():
        click.echo(f"  {name:12} {scenario.about}")


def _show(report: Report, as_json: bool, brief: bool) -> None:
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
