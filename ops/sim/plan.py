"""What one simulated run is: size, seed, dials, liars and faults, all fixed before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from consensus.committee import Parameters
from ops.sim.wan import WANS

NODES_MIN = 4
NODES_MAX = 31
SECONDS_MAX = 90
"""A command lives 120 s at most, and none that a patient trader sent may expire in a run."""
DRIFT_PPM_MAX = 10_000
"""A hundred times what a bad crystal does."""
CLOCK_STEP_MAX_MS = 1_000
TRADING_MS = 500
"""Commands that are sent so long after recovery show how long one takes."""


class BadPlan(ValueError):
    """The run that was asked for makes no sense; the text says why."""


@dataclass(frozen=True, slots=True)
class NetworkDials:
    """How the network behaves. Delays are one-way; the shares are probabilities per frame.

    `slow` frames take up to `slow_max_ms`. In a storm (`storm` > 0) that share of the directed
    links is slower by up to `storm_max_ms`, drawn anew every `storm_ms`.
    """

    delay_min_ms: int = 4
    delay_max_ms: int = 16
    loss: float = 0.0
    repeat: float = 0.0
    slow: float = 0.0
    slow_max_ms: int = 400
    storm: float = 0.0
    storm_ms: int = 150
    storm_max_ms: int = 400
    wan: str = ""
    """A name of `wan.WANS`: half its round-trip times are the least delays, and come on top."""
    tail: bool = False
    """Whether the varying part of the delay has a long tail instead of being uniform."""

    @property
    def disturbs(self) -> bool:
        """Whether anything but the ordinary delay happens."""
        return any((self.loss, self.repeat, self.slow, self.storm))


@dataclass(frozen=True, slots=True)
class MachineDials:
    """How quick the machines are. Until the calm, `slow_sync` of the syncs take up to
    `slow_sync_max_ms`; all others up to `sync_max_ms`. A machine that waits for its disk takes no
    input, as the node's driver does: frames wait, of each peer `inbox_frames_max`, and further
    ones are dropped.
    """

    sync_max_ms: int = 0
    slow_sync: float = 0.0
    slow_sync_max_ms: int = 300
    inbox_frames_max: int = 4_096

    @property
    def takes_time(self) -> bool:
        """Whether a sync takes any time."""
        return bool(self.sync_max_ms or self.slow_sync)


@dataclass(frozen=True, slots=True)
class Crash:
    """`node` dies within some effects after `at_ms`, between any two of them, and is back later."""

    node: int
    at_ms: int
    down_ms: int


@dataclass(frozen=True, slots=True)
class PowerLoss:
    """All nodes but `spared` die within `spread_ms`; each is back after its own time."""

    at_ms: int
    spread_ms: int
    down_min_ms: int
    down_max_ms: int
    spared: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Partition:
    """Only nodes of the same group hear each other from `at_ms` on, until `until_ms`.

    With `reconnects` both ends learn when a link works again; without, frames just pass again.
    """

    at_ms: int
    until_ms: int
    groups: tuple[int, ...]
    reconnects: bool = True


@dataclass(frozen=True, slots=True)
class Stall:
    """`node` stands still for a while: it takes no input, and loses what its inbox cannot hold."""

    node: int
    at_ms: int
    for_ms: int


@dataclass(frozen=True, slots=True)
class ClockStep:
    """The wall clock of `node` jumps by `by_ms`; its clock follows at 2 % of the time passing."""

    node: int
    at_ms: int
    by_ms: int


Fault = Crash | PowerLoss | Partition | Stall | ClockStep

DIALS = Parameters(
    batch_interval_ms=20,
    block_interval_ms=30,
    empty_block_ms=150,
    round_timer_ms=400,
    round_timer_max_ms=2_000,
)
"""Quicker than a real network's defaults, so that a short run holds many rounds and timeouts."""
SHORT_DIALS = Parameters(
    batch_interval_ms=40,
    block_interval_ms=45,
    empty_block_ms=80,
    round_timer_ms=200,
    round_timer_max_ms=800,
    order_deadline_ms=500,
)
"""Shorter timers still, so that a seed of a campaign costs a fraction of a second."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. `calm_ms` is when the last disturbance ends; from then on liveness is owed."""

    nodes: int
    seed: int
    duration_ms: int
    parameters: Parameters = DIALS
    network: NetworkDials = field(default_factory=NetworkDials)
    liars: Mapping[int, str] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    skews_ms: tuple[int, ...] = ()
    drifts_ppm: tuple[int, ...] = ()
    machines: MachineDials = field(default_factory=MachineDials)
    calm_ms: int = 0
    commands_per_s: int = 40
    real_keys: bool = False
    retain_blocks: int = 0
    """Blocks that machines keep on disk; 0: all."""

    @property
    def recovery_ms(self) -> int:
        """How long after `calm_ms` the network may take to order commands again.

        A round that began just before may have the longest timer, and its leader and the next
        ones may be liars, each of whom costs a round.
        """
        p = self.parameters
        liars = len(self.liars)
        return p.round_timer_max_ms * 3 // 2 + (4 + 2 * liars) * p.round_timer_ms

    @property
    def latency_ms(self) -> int:
        """How long a command may take from its client to its order, once recovered."""
        p = self.parameters
        return p.order_deadline_ms + (4 + 2 * len(self.liars)) * p.round_timer_ms

    @property
    def alarm_ms(self) -> int:
        """How long a command in f+1 honest logs may wait for its order, once recovered.

        Never longer than the protocol's own alarm; less when the timers are short.
        """
        return min(self.parameters.censorship_alarm_ms, self.latency_ms)

    @property
    def last_submission_ms(self) -> int:
        """When clients stop, so that what they sent can still be ordered."""
        return self.duration_ms - self.latency_ms

    def with_calm(self) -> Plan:
        """Return this run, if need be longer: the calm after all faults must show recovery."""
        needed_ms = self.calm_ms + self.recovery_ms + self.latency_ms + TRADING_MS
        return replace(self, duration_ms=max(self.duration_ms, needed_ms))

    def check(self) -> None:
        """Errors: BadPlan."""
        if not NODES_MIN <= self.nodes <= NODES_MAX:
            raise BadPlan(f"{self.nodes} nodes; {NODES_MIN} to {NODES_MAX} can be simulated")
        if any(not 0 <= node < self.nodes for node in self.liars):
            raise BadPlan(f"liars {sorted(self.liars)} are not all among {self.nodes} nodes")
        if len(self.liars) > (self.nodes - 1) // 3:
            raise BadPlan(f"{len(self.liars)} liars among {self.nodes} nodes; f is the most")
        if self.skews_ms and len(self.skews_ms) != self.nodes:
            raise BadPlan("a clock skew for each node, or none")
        if self.drifts_ppm and len(self.drifts_ppm) != self.nodes:
            raise BadPlan("a clock drift for each node, or none")
        if any(abs(ppm) > DRIFT_PPM_MAX for ppm in self.drifts_ppm):
            raise BadPlan(f"a clock drifts by {DRIFT_PPM_MAX} ppm at most")
        if self.network.wan and self.network.wan not in WANS:
            raise BadPlan(f"no network is named {self.network.wan}; there are {', '.join(WANS)}")
        if self.retain_blocks < 0:
            raise BadPlan("a machine keeps no fewer than 0 blocks")
        if self.machines.inbox_frames_max < 1:
            raise BadPlan("an inbox holds a frame at least")
        if self.duration_ms > SECONDS_MAX * 1_000:
            raise BadPlan(f"{self.duration_ms / 1000:g} s, at most {SECONDS_MAX}")
        shortest = self.calm_ms + self.recovery_ms + self.latency_ms
        if self.duration_ms < shortest:
            raise BadPlan(
                f"{self.duration_ms / 1000:g} s leave no time to see it recover after "
                f"{self.calm_ms / 1000:g} s; at least {shortest / 1000:g} s"
            )
        for fault in self.faults:
            self._check_fault(fault)

    def _check_fault(self, fault: Fault) -> None:
        match fault:
            case Crash(node, at_ms, down_ms):
                end_ms = at_ms + down_ms
                if not 0 <= node < self.nodes:
                    raise BadPlan(f"node {node} cannot crash: there are {self.nodes}")
            case PowerLoss():
                end_ms = fault.at_ms + fault.spread_ms + fault.down_max_ms
            case Partition(_, end_ms, groups):
                if len(groups) != self.nodes:
                    raise BadPlan("a partition names each node once")
            case Stall(node, at_ms, for_ms):
                end_ms = at_ms + for_ms
                if not 0 <= node < self.nodes:
                    raise BadPlan(f"node {node} cannot stall: there are {self.nodes}")
            case ClockStep(node, at_ms, by_ms):
                end_ms = at_ms + 1
                if not 0 <= node < self.nodes:
                    raise BadPlan(f"node {node} has no clock: there are {self.nodes}")
                if abs(by_ms) > CLOCK_STEP_MAX_MS:
                    raise BadPlan(f"a clock steps by {CLOCK_STEP_MAX_MS} ms at most")
        if not 0 <= fault.at_ms < end_ms <= self.calm_ms:
            raise BadPlan(f"a fault from {fault.at_ms} to {end_ms} ms ends after the calm begins")
