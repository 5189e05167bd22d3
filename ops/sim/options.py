"""From the words of `fairlane sim` to plans, and back to a line that repeats one."""

from __future__ import annotations

import random
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from consensus.committee import Parameters
from ops.sim.liars import LIARS
from ops.sim.plan import (
    DIALS,
    SHORT_DIALS,
    BadPlan,
    Crash,
    Fault,
    MachineDials,
    NetworkDials,
    Partition,
    Plan,
    PowerLoss,
    Stall,
)
from ops.sim.planfile import FILE_BYTES_MAX, read_plan, write_plan
from ops.sim.scenarios import on_wan, shape

POWER_SPREAD_MS = 10
POWER_DOWN_MS = (100, 500)
CRASH_DOWN_MS = (30, 500)
CAMPAIGN_NODES = (4, 5, 7)
"""The sizes that a hunt or a campaign takes in turn, seed by seed."""
CAMPAIGN_SCENARIO = "mixed"
CAMPAIGN_MS = 3_000
CAMPAIGN_RATE = 25


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options of one run ask for, checked one by one but not yet together."""

    nodes: int | None = None
    seconds: float = 5.0
    scenario: str | None = None
    liars: tuple[tuple[int, str], ...] = ()
    network: NetworkDials = field(default_factory=NetworkDials)
    machines: MachineDials = field(default_factory=MachineDials)
    skew_ms: int = 0
    drift_ppm: int = 0
    crashes: tuple[Crash | int, ...] = ()
    stalls: tuple[Stall, ...] = ()
    power_losses_ms: tuple[int, ...] = ()
    partitions: tuple[Partition, ...] = ()
    rate: int = 40
    round_timer_ms: int | None = None
    real_keys: bool = False
    plan: Plan | None = None
    """A whole plan; then only the seed is taken from elsewhere."""

    def is_plain(self) -> bool:
        """Say whether nothing was asked for but how many seeds."""
        return replace(self, nodes=None) == Asked()


def parse_liar(text: str) -> tuple[int, str]:
    node, _, kind = text.partition(":")
    return int(node), LIARS[kind].name


def parse_delay(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    delays = int(low), int(high or low)
    if not 0 <= delays[0] <= delays[1]:
        raise ValueError(text)
    return delays


def parse_ms(seconds: str) -> int:
    value = round(float(seconds) * 1_000)
    if value < 0:
        raise ValueError(seconds)
    return value


def parse_crash(text: str) -> Crash | int:
    """Either `NODE:AT:DOWN` or a number of crashes at random times."""
    if ":" not in text:
        return int(text)
    node, at, down = text.split(":")
    return Crash(int(node), parse_ms(at), parse_ms(down))


def parse_stall(text: str) -> Stall:
    node, at, lasts = text.split(":")
    return Stall(int(node), parse_ms(at), parse_ms(lasts))


def parse_partition(text: str) -> Partition:
    """`FROM-UNTIL:0,1|2,3,4`; the groups become final once the number of nodes is known."""
    times, _, groups = text.partition(":")
    start, _, end = times.partition("-")
    group_of: dict[int, int] = {}
    for number, group in enumerate(groups.split("|")):
        for node in group.split(","):
            group_of[int(node)] = number
    members = tuple(group_of[node] for node in range(len(group_of)))
    return Partition(parse_ms(start), parse_ms(end), members)


def parse_plan(text: str) -> Plan:
    """A plan's JSON itself, or the name of a file that holds it. Errors: BadPlan."""
    if text.lstrip().startswith("{"):
        return read_plan(text)
    try:
        data = Path(text).read_bytes()[: FILE_BYTES_MAX + 1]
        return read_plan(data.decode())
    except (OSError, UnicodeDecodeError) as error:
        raise BadPlan(f"{text}: {error}") from None


def build_plan(asked: Asked, seed: int) -> Plan:
    """Return the run of `seed` that is asked for. Errors: BadPlan."""
    if asked.plan is not None:
        return replace(asked.plan, seed=seed)
    rng = random.Random(f"options {seed}")
    nodes = asked.nodes or 5
    attack_ms = round(asked.seconds * 1_000)
    skew, drift = asked.skew_ms, asked.drift_ppm
    plan = Plan(
        nodes=nodes,
        seed=seed,
        duration_ms=attack_ms,
        parameters=_parameters(asked.round_timer_ms or DIALS.round_timer_ms),
        network=replace(asked.network, wan=""),
        machines=asked.machines,
        liars=dict(asked.liars),
        skews_ms=tuple(rng.randint(-skew, skew) for _ in range(nodes)) if skew else (),
        drifts_ppm=tuple(rng.randint(-drift, drift) for _ in range(nodes)) if drift else (),
        commands_per_s=asked.rate,
        real_keys=asked.real_keys,
    )
    if asked.network.wan:
        plan = _over(plan, asked.network.wan, asked.round_timer_ms)
    if asked.scenario is not None:
        return shape(asked.scenario, plan)
    faults = _faults(asked, plan, rng, attack_ms)
    disturbed = bool(faults) or plan.network.disturbs or plan.machines.slow_sync > 0
    return replace(plan, faults=faults, calm_ms=attack_ms if disturbed else 0).with_calm()


def campaign_plan(asked: Asked, seed: int) -> Plan:
    """Return the short run of `seed` in a hunt or campaign. Errors: BadPlan.

    Where nothing else is asked for: 4, 5 or 7 nodes by the seed, and the mixed scenario.
    """
    if not asked.is_plain():
        return build_plan(asked, seed)
    nodes = asked.nodes or CAMPAIGN_NODES[seed % len(CAMPAIGN_NODES)]
    plan = Plan(
        nodes=nodes,
        seed=seed,
        duration_ms=CAMPAIGN_MS,
        parameters=SHORT_DIALS,
        commands_per_s=CAMPAIGN_RATE,
    )
    return shape(CAMPAIGN_SCENARIO, plan)


def _over(plan: Plan, wan: str, round_timer_ms: int | None) -> Plan:
    """Return `plan` over a wide area; a round timer that was asked for stays."""
    over = on_wan(plan, wan)
    if round_timer_ms is None:
        return over
    return replace(over, parameters=plan.parameters)


def _parameters(round_timer_ms: int) -> Parameters:
    return msgspec.structs.replace(
        DIALS, round_timer_ms=round_timer_ms, round_timer_max_ms=5 * round_timer_ms
    )


def _faults(asked: Asked, plan: Plan, rng: random.Random, calm_ms: int) -> tuple[Fault, ...]:
    faults: list[Fault] = [*asked.partitions, *asked.stalls]
    honest = [i for i in range(plan.nodes) if i not in plan.liars]
    for crash in asked.crashes:
        if isinstance(crash, Crash):
            faults.append(crash)
            continue
        for _ in range(crash):
            down_ms = rng.randint(*CRASH_DOWN_MS)
            at_ms = rng.randint(0, max(0, calm_ms - down_ms))
            faults.append(Crash(rng.choice(honest), at_ms, down_ms))
    spared = tuple(plan.liars)
    for at_ms in asked.power_losses_ms:
        faults.append(PowerLoss(at_ms, POWER_SPREAD_MS, *POWER_DOWN_MS, spared))
    return tuple(faults)


_SEARCH = ("--hunt", "--campaign", "--jobs", "--blocks-min", "--shrink-seconds")
_WITH_VALUE = ("--seed", "--seeds", *_SEARCH)
_ALONE = ("--json", "--shrink", "--no-shrink")


def repeat_line(args: Sequence[str], seed: int) -> str:
    """Return the command line that repeats one seed of a run that was given `args`."""
    words = ["fairlane", "sim"]
    given = iter(args)
    for word in given:
        name, _, value = word.partition("=")
        if name in _WITH_VALUE:
            if not value:
                next(given, None)
        elif word not in _ALONE:
            words.append(word)
    return shlex.join([*words, "--seed", str(seed)])


def plan_line(plan: Plan) -> str:
    """Return the command line that runs exactly `plan`."""
    return shlex.join(["fairlane", "sim", "--plan", write_plan(plan)])
