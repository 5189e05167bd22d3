"""What a run came to: figures, and whether every invariant held to the end."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from msgspec import Struct
from msgspec.structs import asdict

from ops.sim.audit import unfair_pairs
from ops.sim.clients import PATIENT_EXPIRY_MS, Order
from ops.sim.plan import Plan
from ops.sim.world import World


class Report(Struct, frozen=True, kw_only=True):
    """Figures of one run. Times are virtual; `recovered_ms` counts from the calm's beginning."""

    nodes: int
    seed: int
    seconds: float
    held: bool
    violations: tuple[str, ...]
    height: int
    round: int
    submitted: int
    executed: int
    resent: int
    latency_ms: Mapping[str, int]
    recovered_ms: int | None
    recovered_timers: float | None
    steps: int
    frames: int
    lost: int
    blames: int
    evidence: Mapping[str, int]
    broken_liars: Mapping[int, str]
    counters: Mapping[str, int]
    trace: str

    def as_json(self) -> dict[str, object]:
        """Return the report as plain JSON values."""
        return asdict(self)


def run(plan: Plan, ignored: frozenset[str] = frozenset()) -> Report:
    """Run `plan` and hold everything against it. Errors: BadPlan."""
    report = finish(World(plan, ignored))
    if gc.isenabled():
        gc.collect()  # A world refers to itself, and the next run would begin with it in memory.
    return report


def finish(world: World) -> Report:
    """Run a world that was built but not started, then check what only the end can show."""
    with _collector_resting():
        world.run()
    if world.ledger.is_clean:
        _check_tap(world)
        _check_fairness(world)
        _check_liveness(world)
    return _report(world)


@contextmanager
def _collector_resting() -> Iterator[None]:
    """Keep Python's cycle collector from running: a run's own cycles end with the run."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _check_tap(world: World) -> None:
    """The checks that rest on receipts see those of every honest replica."""
    if world.chain.order and world.plan.commands_per_s:
        for node in world.audits.receipts.blind():
            world.ledger.found("tap", node, "commands were executed, but none seen to arrive here")


def _check_fairness(world: World) -> None:
    """No command went before another that enough replicas had received first."""
    plan = world.plan
    p = plan.parameters
    received_min = -(-p.gamma_numerator * plan.nodes // p.gamma_denominator)
    still_open: dict[bytes, int] = {}
    cores = [host.core for host in world.hosts if host.is_honest and host.core is not None]
    if cores:
        fair = max(cores, key=lambda core: core.height).ctx.sequencer.fair
        still_open = {id_: n for id_ in fair.pending() if (n := fair.open_number(id_))}
    pairs = unfair_pairs(
        [world.audits.receipts.log(i) for i in world.honest],
        len(plan.liars),
        received_min,
        world.chain.emission,
        still_open,
        world.chain.is_void_for,
    )
    for a, b in pairs[:3]:
        world.ledger.found("fairness", None, f"{b.hex()[:24]} went before {a.hex()[:24]}")


def _check_liveness(world: World) -> None:
    """Every command that is owed is executed everywhere, in time once the calm is there."""
    plan = world.plan
    for order in world.clients.orders.values():
        if order.is_owed and not world.is_executed_everywhere(order.id):
            where = world.chain.place.get(order.id)
            kind = "patient" if order.patient else "receipted"
            text = f"{kind} command of {order.sent_us // 1000} ms, place {where}, never ordered"
            world.ledger.found("liveness", None, text)
            return
    late = recovered_ms(world)
    if plan.commands_per_s and late is None:
        world.ledger.found("liveness", None, "no command was sent and ordered after the calm")
    elif late is not None and late > plan.recovery_ms:
        text = f"recovered after {late} ms, at most {plan.recovery_ms} are allowed"
        world.ledger.found("liveness", None, text)
    slowest = max((latency for _, latency in _latencies(world)), default=0)
    if slowest > plan.latency_ms:
        text = f"a command took {slowest} ms, at most {plan.latency_ms} are allowed"
        world.ledger.found("liveness", None, text)


def recovered_ms(world: World) -> int | None:
    """Return when, after the calm began, the first command sent since then was ordered."""
    calm_us = world.plan.calm_ms * 1_000
    since = [
        world.chain.emitted_us[order.id]
        for order in world.clients.orders.values()
        if order.sent_us >= calm_us and order.id in world.chain.emitted_us
    ]
    return (min(since) - calm_us) // 1_000 if since else None


def _latencies(world: World) -> list[tuple[Order, int]]:
    """Return how long each command sent after recovery took, in milliseconds."""
    from_us = (world.plan.calm_ms + world.plan.recovery_ms) * 1_000
    return [
        (order, (world.chain.emitted_us[order.id] - order.sent_us) // 1_000)
        for order in world.clients.orders.values()
        if order.is_owed and order.sent_us >= from_us and order.id in world.chain.emitted_us
    ]


def _percentile(values: list[int], percent: int) -> int:
    return values[min(len(values) - 1, len(values) * percent // 100)] if values else 0


def _report(world: World) -> Report:
    plan, chain = world.plan, world.chain
    assert plan.duration_ms < PATIENT_EXPIRY_MS or not plan.commands_per_s
    cores = [host.core for host in world.hosts if host.is_honest and host.core is not None]
    all_ms = sorted(
        (chain.emitted_us[o.id] - o.sent_us) // 1_000
        for o in world.clients.orders.values()
        if o.id in chain.emitted_us
    )
    recovered = recovered_ms(world)
    counters: dict[str, int] = {}
    for core in cores:
        for name, count in core.ctx.counters.items():
            counters[name] = counters.get(name, 0) + count
    return Report(
        nodes=plan.nodes,
        seed=plan.seed,
        seconds=plan.duration_ms / 1_000,
        held=world.ledger.is_clean,
        violations=tuple(map(str, world.ledger.violations)),
        height=chain.height,
        round=max((core.rounds.round for core in cores), default=0),
        submitted=len(world.clients.orders),
        executed=len(chain.order),
        resent=world.clients.resent,
        latency_ms={f"p{p}": _percentile(all_ms, p) for p in (50, 90, 99)}
        | {"max": all_ms[-1] if all_ms else 0},
        recovered_ms=recovered,
        recovered_timers=(
            None if recovered is None else round(recovered / plan.parameters.round_timer_ms, 2)
        ),
        steps=world.steps,
        frames=world.network.frames,
        lost=world.network.lost + world.network.cut_off,
        blames=sum(world.carrier.blamed.values()) + sum(world.carrier.refused.values()),
        evidence={f"{k}:{i}": c for (k, i), c in sorted(world.evidence.items())},
        broken_liars=world.carrier.broken_liars,
        counters=dict(sorted(counters.items())),
        trace=world.carrier.trace.hexdigest(),
    )
