"""Named runs: what happens to the network, drawn from the seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType

import msgspec

from consensus.committee import faults
from ops.sim.liars import LIARS
from ops.sim.plan import (
    ClockStep,
    Crash,
    Fault,
    MachineDials,
    NetworkDials,
    Partition,
    Plan,
    PowerLoss,
    Stall,
)
from ops.sim.wan import WANS

CALM_MS = 2_500
LONG_DOWN_MS = 10_000
WILD = NetworkDials(loss=0.05, repeat=0.05, slow=0.05, storm=0.2)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One named kind of run; `shape` fills in what the seed decides."""

    about: str
    shape: Callable[[Plan, random.Random], Plan]


def _plain(plan: Plan, rng: random.Random) -> Plan:
    return plan


def _loss(plan: Plan, rng: random.Random) -> Plan:
    dials = replace(plan.network, loss=rng.choice((0.05, 0.15, 0.25)), repeat=0.02)
    return replace(plan, network=dials, calm_ms=CALM_MS)


def _storm(plan: Plan, rng: random.Random) -> Plan:
    dials = replace(plan.network, storm=0.35, slow=0.05, repeat=0.05)
    return replace(plan, network=dials, calm_ms=CALM_MS)


def _crashes(plan: Plan, rng: random.Random, spared: tuple[int, ...] = ()) -> tuple[Fault, ...]:
    """Return crashes one after the other, so close that two machines are sometimes down."""
    nodes = [i for i in range(plan.nodes) if i not in spared]
    crashes: list[Fault] = []
    at_ms = 200
    while at_ms < CALM_MS - 600:
        crashes.append(Crash(rng.choice(nodes), at_ms, rng.randint(30, 500)))
        at_ms += rng.randint(50, 400)
    return tuple(crashes)


def _crash(plan: Plan, rng: random.Random) -> Plan:
    return replace(plan, faults=_crashes(plan, rng), calm_ms=CALM_MS)


def _power(plan: Plan, rng: random.Random) -> Plan:
    times_ms = (400, 1_100, 1_700)
    losses = tuple(PowerLoss(t + rng.randint(0, 200), 10, 100, 500) for t in times_ms)
    return replace(plan, faults=losses, calm_ms=CALM_MS)


def _power_liar(plan: Plan, rng: random.Random) -> Plan:
    """The liar keeps its power, and what only it could serve stays unserved."""
    liar = rng.randrange(plan.nodes)
    times_ms = (400, 1_100, 1_700)
    losses = tuple(PowerLoss(t + rng.randint(0, 200), 10, 100, 500, (liar,)) for t in times_ms)
    kind = rng.choice(("withhold", "bodyless", "stuff", "ghost"))
    return replace(plan, faults=losses, liars={liar: kind}, calm_ms=CALM_MS)


def _partition(plan: Plan, rng: random.Random) -> Plan:
    cuts: list[Fault] = []
    at_ms = 300
    while at_ms < CALM_MS - 1_000:
        until_ms = at_ms + rng.randint(100, 900)
        groups = tuple(rng.randrange(2) for _ in range(plan.nodes))
        cuts.append(Partition(at_ms, until_ms, groups, rng.random() < 0.5))
        at_ms = until_ms + rng.randint(1, 300)
    return replace(plan, faults=tuple(cuts), calm_ms=CALM_MS)


def _isolated(plan: Plan, rng: random.Random) -> Plan:
    victim = rng.randrange(plan.nodes)
    groups = tuple(int(i == victim) for i in range(plan.nodes))
    cut = Partition(400, CALM_MS, groups, rng.random() < 0.5)
    return replace(plan, faults=(cut,), calm_ms=CALM_MS)


def _long_down(plan: Plan, rng: random.Random) -> Plan:
    """One machine is down for hundreds of blocks, and has to catch up with all of them."""
    down = Crash(rng.randrange(plan.nodes), 500, LONG_DOWN_MS)
    return replace(plan, faults=(down,), calm_ms=500 + LONG_DOWN_MS)


def _skew(plan: Plan, rng: random.Random) -> Plan:
    skews = [rng.randint(-450, 450) for _ in range(plan.nodes)]
    return replace(plan, skews_ms=tuple(skews))


def _skew_crash(plan: Plan, rng: random.Random) -> Plan:
    return _crash(_skew(plan, rng), rng)


def _liars(plan: Plan, rng: random.Random) -> Plan:
    """As many liars as can be borne, of random kinds, on a good network."""
    chosen = rng.sample(range(plan.nodes), faults(plan.nodes))
    kinds = sorted(LIARS)
    return replace(plan, liars={i: rng.choice(kinds) for i in chosen})


def _drift(plan: Plan, rng: random.Random) -> Plan:
    """Clocks run too fast or too slow, and some are set right in between."""
    drifts = tuple(rng.randint(-2_000, 2_000) for _ in range(plan.nodes))
    steps = tuple(
        ClockStep(rng.randrange(plan.nodes), rng.randint(100, CALM_MS - 200), rng.randint(-90, 90))
        for _ in range(3)
    )
    return replace(plan, drifts_ppm=drifts, faults=(*plan.faults, *steps), calm_ms=CALM_MS)


def _disk(plan: Plan, rng: random.Random) -> Plan:
    """A sync takes up to 6 ms, and one in ten up to 300."""
    dials = MachineDials(sync_max_ms=6, slow_sync=0.1)
    return replace(plan, machines=dials, calm_ms=CALM_MS)


def _disk_crash(plan: Plan, rng: random.Random) -> Plan:
    return _crash(_disk(plan, rng), rng)


def _stall(plan: Plan, rng: random.Random) -> Plan:
    """Machines stand still, and their inboxes, of 16 frames a peer, overflow."""
    stalls = []
    at_ms = 200
    while at_ms < CALM_MS - 900:
        stalls.append(Stall(rng.randrange(plan.nodes), at_ms, rng.randint(50, 800)))
        at_ms += rng.randint(100, 500)
    return replace(
        plan,
        faults=(*plan.faults, *stalls),
        machines=replace(plan.machines, inbox_frames_max=16),
        calm_ms=CALM_MS,
    )


def on_wan(plan: Plan, name: str) -> Plan:
    """Return `plan` over a wide-area network, with timers of 8 times its longest way at least."""
    timer_ms = max(plan.parameters.round_timer_ms, round(8 * WANS[name].one_way_max_ms))
    parameters = msgspec.structs.replace(
        plan.parameters,
        round_timer_ms=timer_ms,
        round_timer_max_ms=max(plan.parameters.round_timer_max_ms, 3 * timer_ms),
    )
    return replace(plan, parameters=parameters, network=replace(plan.network, wan=name))


def _wan(plan: Plan, rng: random.Random) -> Plan:
    name = plan.network.wan or rng.choice(sorted(WANS))
    crash = Crash(rng.randrange(plan.nodes), 800, 700)
    plan = replace(on_wan(plan, name), faults=(crash,), calm_ms=CALM_MS)
    return replace(plan, network=replace(plan.network, tail=True, loss=0.02))


def _mixed(plan: Plan, rng: random.Random) -> Plan:
    """Everything at once: liars, loss, slow links and disks, crashes, partitions, odd clocks."""
    plan = _liars(_skew(plan, rng), rng)
    for kind in (_drift, _disk, _stall):
        if rng.random() < 0.3:
            plan = kind(plan, rng)
    honest = tuple(i for i in range(plan.nodes) if i not in plan.liars)
    spared = tuple(plan.liars)
    cut = _partition(plan, rng).faults if rng.random() < 0.5 else ()
    crashes = tuple(
        f for f in _crashes(plan, rng, spared) if isinstance(f, Crash) and f.node in honest
    )
    dials = replace(WILD, loss=rng.choice((0.0, 0.05, 0.15)), tail=rng.random() < 0.5)
    together = (*plan.faults, *crashes, *cut)
    return replace(plan, faults=together, network=dials, calm_ms=CALM_MS)


SCENARIOS = MappingProxyType(
    {
        "plain": Scenario("nothing happens", _plain),
        "loss": Scenario("5, 15 or 25 % of all frames are lost", _loss),
        "storm": Scenario("a third of the links is slow at any time", _storm),
        "crash": Scenario("machines crash and restart, sometimes two at once", _crash),
        "power": Scenario("all machines lose power, three times", _power),
        "power-liar": Scenario(
            "all honest machines lose power, a withholder does not", _power_liar
        ),
        "partition": Scenario("the network falls apart again and again, and heals", _partition),
        "isolated": Scenario("one replica is cut off, and comes back", _isolated),
        "long-down": Scenario("one machine is down for hundreds of blocks", _long_down),
        "skew": Scenario("clocks are up to 450 ms off", _skew),
        "skew-crash": Scenario("clocks are off, and machines crash", _skew_crash),
        "drift": Scenario("clocks run up to 0.2 % fast or slow, and are set right", _drift),
        "disk": Scenario("a sync takes milliseconds, sometimes hundreds", _disk),
        "disk-crash": Scenario(
            "slow disks, and machines crash, also before a sync ends", _disk_crash
        ),
        "stall": Scenario("machines stand still, and their inboxes overflow", _stall),
        "wan": Scenario("replicas stand on several continents, and one crashes", _wan),
        "liars": Scenario("f liars of random kinds", _liars),
        "mixed": Scenario("f liars, and everything above at once but the continents", _mixed),
    }
)


def shape(name: str, plan: Plan) -> Plan:
    """Return the run of scenario `name` that the seed of `plan` decides.

    Liars, dials and a duration that `plan` already has stay where the scenario has none of its
    own. The duration grows to what is needed to see the network recover.
    """
    rng = random.Random(f"{name} {plan.nodes} {plan.seed}")
    return SCENARIOS[name].shape(plan, rng).with_calm()
