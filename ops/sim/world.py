"""One simulated network: its machines, what happens to them, and what is held against them."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable
from hashlib import sha256

from consensus.admission import Admission
from consensus.batches import INBOX_START_HASH, inbox_chain, log_start
from consensus.blocktree import genesis_block
from consensus.command import CommandId
from consensus.committee import Committee
from consensus.effects import (
    Connected,
    Input,
    L1Observed,
    Persist,
    PricesObserved,
    Start,
    Submitted,
)
from consensus.messages import Observation
from consensus.replica import Replica
from ops.clock import SLEW_PPM
from ops.sim.audit import Audits, Ledger
from ops.sim.carrier import Carrier
from ops.sim.clients import Clients
from ops.sim.disk import SimDisk
from ops.sim.edge import Edge
from ops.sim.executor import HashChain
from ops.sim.host import PPM, WALL_START_MS, Host, HostClock
from ops.sim.keys import check_body, hashed_keys, real_keys
from ops.sim.liars import LIARS, Desk
from ops.sim.loop import Loop, RunawayRun
from ops.sim.network import Network
from ops.sim.plan import ClockStep, Crash, Fault, Partition, Plan, PowerLoss, Stall

NETWORK_ID = sha256(b"fairlane simulator").digest()
EPOCH = 1
CUT_EFFECTS_MAX = 12
"""A machine that is to die does so within so many effects, wherever in a step that is."""
CUT_PATIENCE_US = 40_000
LINK_UP_US = (2_000, 12_000)
PRICES_US = 200_000
INBOX_US = 400_000
INBOX_LAG_US = 500_000


class World:
    """Builds the machines of a plan and lets their effects take place."""

    def __init__(self, plan: Plan, ignored: frozenset[str] = frozenset()) -> None:
        plan.check()
        self.plan = plan
        self.loop = Loop()
        self.ledger = Ledger(lambda: self.loop.now_us, ignored, self._stop)
        rng = random.Random(f"fairlane {plan.nodes} {plan.seed}")
        self._rng = rng
        n = plan.nodes
        make_keys = real_keys if plan.real_keys else hashed_keys
        self._keys = make_keys(NETWORK_ID, n)
        self.committee = Committee(NETWORK_ID, EPOCH, self._keys.publics)
        starts = tuple(log_start(NETWORK_ID, EPOCH, i) for i in range(n))
        genesis, self._genesis_digest = genesis_block(NETWORK_ID, EPOCH, starts)
        self.honest = tuple(i for i in range(n) if i not in plan.liars)
        self.audits = Audits(
            self.ledger,
            self.committee,
            plan.parameters,
            genesis,
            self._keys.verify,
            self.honest,
            lambda: self.loop.now_us,
            plan.retain_blocks,
        )
        self.chain = self.audits.chain
        self.audits.receipts.on_held = self._on_held
        self.clients = Clients(
            self.loop,
            random.Random(rng.getrandbits(64)),
            NETWORK_ID,
            n,
            self.committee.f,
            self._offer,
            lambda id_: id_ in self.chain.place,
        )
        self.network = Network(
            self.loop, random.Random(rng.getrandbits(64)), n, plan.network, self._arrive
        )
        self.carrier = Carrier(
            plan,
            self.loop,
            self.network,
            Edge(self._admission),
            self.audits,
            random.Random(rng.getrandbits(64)),
            self.honest,
            self.clients.on_receipt,
        )
        self.hosts = [self._host(i) for i in range(n)]

    def _host(self, me: int) -> Host:
        """Return the machine of replica `me`, still without power."""
        plan = self.plan
        kind = plan.liars.get(me)
        desk = Desk(
            me=me,
            committee=self.committee,
            parameters=plan.parameters,
            signer=self._keys.signers[me],
            rng=random.Random(self._rng.getrandbits(64)),
            honest=self.honest,
            sender_of=self.clients.sender_of,
            genesis_digest=self._genesis_digest,
            twin=lambda: self._twin(me),
            submit=lambda to, event, after_us: self.loop.after(after_us, self._offer, to, event),
        )
        skew_ms = plan.skews_ms[me] if plan.skews_ms else 0
        return Host(
            me=me,
            clock=HostClock(skew_ms, self._drift_ppm(me)),
            make_core=lambda disk, executor: self._core(me, disk, executor),
            make_executor=lambda: self._executor(me),
            liar=LIARS[kind](desk) if kind is not None else None,
        )

    def _drift_ppm(self, node: int) -> int:
        return self.plan.drifts_ppm[node] if self.plan.drifts_ppm else 0

    def _stop(self) -> None:
        """A violation ends the run: what follows it says little."""
        self.loop.stopped = True

    def _admission(self) -> Admission:
        return Admission(
            self.committee,
            self.plan.parameters,
            self._genesis_digest,
            lambda body: check_body(NETWORK_ID, body),
            self._keys.verify,
        )

    def _core(self, me: int, disk: SimDisk, executor: HashChain) -> Replica:
        return Replica(
            self.committee,
            self.plan.parameters,
            me,
            self._keys.signers[me],
            disk,
            executor,
            WALL_START_MS,
            self.plan.retain_blocks or None,
        )

    def _executor(self, me: int) -> HashChain:
        if me in self.plan.liars:
            return HashChain()
        return HashChain(
            lambda before, block, ids: self.chain.executed(me, before, block, ids, self.loop.now_us)
        )

    def _twin(self, me: int) -> tuple[Replica, Callable[[Persist], None]]:
        disk = SimDisk()
        return self._core(me, disk, HashChain()), disk.persist

    # -- what happens to machines

    def start(self) -> None:
        """Power everything up and schedule all that the plan holds."""
        plan, loop = self.plan, self.loop
        for host in self.hosts:
            loop.at(self._rng.randrange(20_000), self.boot, host)
        for fault in plan.faults:
            self._schedule(fault)
        if plan.network.storm:
            for at_ms in range(0, plan.calm_ms, plan.network.storm_ms):
                loop.at(at_ms * 1_000, self.network.stir)
        loop.at(plan.calm_ms * 1_000, self.network.calm)
        loop.at(plan.calm_ms * 1_000, self.carrier.calm)
        self.clients.start(plan.commands_per_s, 100, plan.last_submission_ms)
        loop.at(PRICES_US, self._feed_prices)
        loop.at(INBOX_US, self._grow_inbox)

    def run(self) -> None:
        """Run to the end of the plan, or to the first violation."""
        self.start()
        try:
            self.loop.run_until(self.plan.duration_ms * 1_000)
        except RunawayRun as error:
            self.ledger.found("runaway", None, str(error))
        if self.ledger.is_clean:
            for host in self.hosts:
                if host.is_honest:
                    self.audits.measure(host)

    def _schedule(self, fault: Fault) -> None:
        at = self.loop.at
        match fault:
            case Crash(node, at_ms, down_ms):
                self._schedule_crash(node, at_ms * 1_000, down_ms * 1_000)
            case PowerLoss():
                for node in range(self.plan.nodes):
                    if node not in fault.spared:
                        at_us = fault.at_ms * 1_000 + self._rng.randint(0, fault.spread_ms * 1_000)
                        down_ms = self._rng.randint(fault.down_min_ms, fault.down_max_ms)
                        self._schedule_crash(node, at_us, down_ms * 1_000)
            case Partition(at_ms, until_ms, groups, reconnects):
                whole = (0,) * self.plan.nodes
                at(at_ms * 1_000, self._part, groups, reconnects)
                at(until_ms * 1_000, self._part, whole, reconnects)
            case Stall(node, at_ms, for_ms):
                at(at_ms * 1_000, self.carrier.stall, self.hosts[node], for_ms * 1_000)
            case ClockStep(node, at_ms, by_ms):
                gain = SLEW_PPM if by_ms > 0 else -SLEW_PPM
                lasts_us = abs(by_ms) * 1_000 * PPM // SLEW_PPM
                drift = self._drift_ppm(node)
                at(at_ms * 1_000, self._clock_rate, node, drift + gain)
                at(at_ms * 1_000 + lasts_us, self._clock_rate, node, drift)

    def _clock_rate(self, node: int, rate_ppm: int) -> None:
        self.hosts[node].clock.run_at(self.loop.now_us, rate_ppm)

    def _schedule_crash(self, node: int, at_us: int, down_us: int) -> None:
        host = self.hosts[node]
        cut = self._rng.randint(0, CUT_EFFECTS_MAX)

        def arm() -> None:
            if host.is_up:
                host.effects_left = cut
                self.loop.after(min(CUT_PATIENCE_US, down_us // 2), fall, host.incarnation)

        def fall(incarnation: int) -> None:
            if host.is_up and host.incarnation == incarnation and host.effects_left is not None:
                self.carrier.crash(host)

        self.loop.at(at_us, arm)
        self.loop.at(at_us + down_us, lambda: None if host.is_up else self.boot(host))

    def boot(self, host: Host) -> None:
        """Start a machine; its links come up a moment later."""
        self.carrier.note(b"boot", host.me)
        try:
            host.boot()
        except Exception:  # noqa: BLE001  Whatever it is, a replica must start from its own disk.
            self.ledger.found("recovery", host.me, traceback.format_exc(limit=-3))
            return
        self.step(host, Start())
        for other in self.hosts:
            if other is not host and other.is_up:
                self._link_up(host, other)

    def _link_up(self, a: Host, b: Host) -> None:
        """Connect two machines in a moment, unless one has died or is cut off by then."""
        lives = (a.incarnation, b.incarnation)

        def up() -> None:
            if (a.incarnation, b.incarnation) == lives and not self.network.is_cut(a.me, b.me):
                self.network.link(a.me, b.me)
                self.step(a, Connected(b.me))
                if (a.incarnation, b.incarnation) == lives:
                    self.step(b, Connected(a.me))

        self.loop.after(self._rng.randint(*LINK_UP_US), up)

    def _part(self, groups: tuple[int, ...], reconnects: bool) -> None:
        self.carrier.note(b"part", *groups)
        for a, b in self.network.part(groups, breaks=reconnects):
            if self.hosts[a].is_up and self.hosts[b].is_up:
                self._link_up(self.hosts[a], self.hosts[b])

    # -- inputs

    def step(self, host: Host, event: Input) -> None:
        """Put one input through a machine and carry out its effects, or die among them."""
        self.carrier.step(host, event)

    def _offer(self, node: int, event: Submitted) -> None:
        if self.hosts[node].is_up:
            self.step(self.hosts[node], event)

    def _arrive(self, sender: int, receiver: int, frame: bytes) -> None:
        self.carrier.arrive(self.hosts[receiver], sender, frame)

    def _feed_prices(self) -> None:
        for host in self.hosts:
            if host.is_up:
                value = 1_000_000 + self._rng.randrange(1_000)
                observation = Observation(0, value, host.now_ms(self.loop.now_us))
                self.step(host, PricesObserved((observation,)))
        self.loop.after(PRICES_US, self._feed_prices)

    def _grow_inbox(self) -> None:
        """Add a message to the contract's inbox; each machine sees it when its endpoint does."""
        self.chain.inbox.append(b"message %d" % len(self.chain.inbox))
        for host in self.hosts:
            self.loop.after(self._rng.randrange(INBOX_LAG_US), self._watch, host)
        self.loop.after(INBOX_US, self._grow_inbox)

    def _watch(self, host: Host) -> None:
        if host.core is None:
            return
        since = host.core.keeper.next_inbox()
        fresh = tuple(self.chain.inbox[since:])
        if fresh:
            chained = inbox_chain(INBOX_START_HASH, tuple(self.chain.inbox))
            self.step(host, L1Observed(since, fresh, chained))

    # -- what the run must show

    def _on_held(self, id_: CommandId) -> None:
        """f+1 honest logs hold a command: it must be ordered within the alarm's time.

        The time counts from when the network has recovered, if that is later.
        """
        plan = self.plan
        from_us = max(self.loop.now_us, (plan.calm_ms + plan.recovery_ms) * 1_000)
        due_us = from_us + plan.alarm_ms * 1_000
        if due_us < plan.duration_ms * 1_000:
            self.loop.at(due_us, self._check_included, id_, from_us)

    def _check_included(self, id_: CommandId, from_us: int) -> None:
        """Nothing at all ordered meanwhile is a network that stopped: `liveness` says that."""
        if not self.chain.is_over(id_) and self.chain.newest_us > from_us:
            text = f"{id_.hex()[:24]} in f+1 honest logs, not ordered in {self.plan.alarm_ms} ms"
            self.ledger.found("inclusion", None, text)

    def is_executed_everywhere(self, id_: CommandId) -> bool:
        """Say whether every honest machine that runs has executed a command."""
        place = self.chain.place.get(id_)
        if place is None:
            return False
        return all(
            self.hosts[i].executor.executed > place for i in self.honest if self.hosts[i].is_up
        )

    # -- what was counted

    @property
    def steps(self) -> int:
        """Inputs that went through a replica's core."""
        return self.carrier.steps

    @property
    def evidence(self) -> dict[tuple[str, int], int]:
        """Evidence that honest replicas stored, by kind and offender."""
        return self.carrier.evidence
