"""One simulated network: its machines, what happens to them, and what is held against them."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable
from hashlib import sha256

from consensus.admission import Admission, Refused
from consensus.batches import INBOX_START_HASH, inbox_chain, log_start
from consensus.blocktree import genesis_block
from consensus.codec import decode, encode
from consensus.command import CommandId
from consensus.committee import Committee
from consensus.context import (
    TABLE_BATCHES,
    TABLE_BLOCKS,
    TABLE_CHAIN,
    TABLE_EVIDENCE,
    TABLE_PROOFS,
)
from consensus.effects import (
    Blame,
    Broadcast,
    Connected,
    Halt,
    Input,
    L1Observed,
    Persist,
    PricesObserved,
    Received,
    Reply,
    Send,
    SetTimer,
    Start,
    Submitted,
    TimerFired,
)
from consensus.evidence import Evidence
from consensus.messages import CommitProof, LogBatch, Message, Observation
from consensus.replica import Replica
from ops.sim.audit import CertificateAudit, ChainAudit, Ledger, WordsAudit
from ops.sim.audit.memory import oversized
from ops.sim.clients import Clients
from ops.sim.disk import SimDisk
from ops.sim.executor import HashChain
from ops.sim.host import WALL_START_MS, Host
from ops.sim.keys import check_body, hashed_keys, real_keys
from ops.sim.liars import LIARS, Desk, Frame
from ops.sim.loop import Loop, RunawayRun
from ops.sim.network import Network
from ops.sim.plan import Crash, Fault, Partition, Plan, PowerLoss

NETWORK_ID = sha256(b"fairlane simulator").digest()
EPOCH = 1
MEMORY_CHECK_STEPS = 256
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
        self.ledger = Ledger(lambda: self.loop.now_us, ignored)
        self.trace = sha256()
        self.steps = 0
        self.timeouts = 0
        self.replies: dict[str, int] = {}
        self.refused: dict[tuple[int, str], int] = {}
        self.blamed: dict[tuple[int, str], int] = {}
        self.evidence: dict[tuple[str, int], int] = {}
        self.broken_liars: dict[int, str] = {}
        """Liars that fell over their own lies, and stay down; how, by node."""
        self.receipts: list[list[bytes]] = [[] for _ in range(plan.nodes)]
        rng = random.Random(f"fairlane {plan.nodes} {plan.seed}")
        self._rng = rng
        n = plan.nodes
        make_keys = real_keys if plan.real_keys else hashed_keys
        self._keys = make_keys(NETWORK_ID, n)
        self.committee = Committee(NETWORK_ID, EPOCH, self._keys.publics)
        starts = tuple(log_start(NETWORK_ID, EPOCH, i) for i in range(n))
        genesis, self._genesis_digest = genesis_block(NETWORK_ID, EPOCH, starts)
        self.chain = ChainAudit(self.ledger, self.committee, plan.parameters, genesis)
        self.words = WordsAudit(self.ledger, self.committee, self.chain)
        self.certificates = CertificateAudit(self.ledger, self.committee, self._keys.verify)
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
        skews = plan.skews_ms or (0,) * n
        self.honest = tuple(i for i in range(n) if i not in plan.liars)
        self.hosts = [self._host(i, skews[i]) for i in range(n)]

    def _host(self, me: int, skew_ms: int) -> Host:
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
        )
        return Host(
            me=me,
            skew_ms=skew_ms,
            admission=self._admission,
            make_core=lambda disk, executor: self._core(me, disk, executor),
            make_executor=lambda: self._executor(me),
            liar=LIARS[kind](desk) if kind is not None else None,
        )

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
            loop.at(self._rng.randrange(20_000), lambda h=host: self.boot(h))  # type: ignore[misc]
        for fault in plan.faults:
            self._schedule(fault)
        if plan.network.storm:
            for at_ms in range(0, plan.calm_ms, plan.network.storm_ms):
                loop.at(at_ms * 1_000, self.network.stir)
        loop.at(plan.calm_ms * 1_000, self.network.calm)
        self.clients.start(plan.commands_per_s, 100, plan.last_submission_ms)
        loop.at(PRICES_US, self._feed_prices)
        loop.at(INBOX_US, self._grow_inbox)

    def run(self) -> None:
        """Run to the end of the plan, or to the first violation."""
        self.start()
        try:
            self.loop.run_until(self.plan.duration_ms * 1_000, lambda: self.ledger.is_clean)
        except RunawayRun as error:
            self.ledger.found("runaway", None, str(error))

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
                at(at_ms * 1_000, lambda: self._part(groups, reconnects))
                at(until_ms * 1_000, lambda: self._part(whole, reconnects))

    def _schedule_crash(self, node: int, at_us: int, down_us: int) -> None:
        host = self.hosts[node]
        cut = self._rng.randint(0, CUT_EFFECTS_MAX)

        def arm() -> None:
            if host.is_up:
                host.effects_left = cut
                self.loop.after(min(CUT_PATIENCE_US, down_us // 2), lambda: fall(host.incarnation))

        def fall(incarnation: int) -> None:
            if host.is_up and host.incarnation == incarnation and host.effects_left is not None:
                self.crash(host)

        self.loop.at(at_us, arm)
        self.loop.at(at_us + down_us, lambda: None if host.is_up else self.boot(host))

    def boot(self, host: Host) -> None:
        """Start a machine; its links come up a moment later."""
        self._note(b"boot", host.me)
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

    def crash(self, host: Host) -> None:
        """Cut a machine's power."""
        self._note(b"crash", host.me)
        self.network.unlink(host.me)
        host.crash(self._rng)

    def _part(self, groups: tuple[int, ...], reconnects: bool) -> None:
        self._note(b"part", *groups)
        for a, b in self.network.part(groups, breaks=reconnects):
            if self.hosts[a].is_up and self.hosts[b].is_up:
                self._link_up(self.hosts[a], self.hosts[b])

    # -- inputs

    def _offer(self, node: int, event: Submitted) -> None:
        if self.hosts[node].is_up:
            self.step(self.hosts[node], event)

    def _arrive(self, sender: int, receiver: int, frame: bytes) -> None:
        host = self.hosts[receiver]
        if not host.is_up:
            return
        try:
            message = host.admission.admit(sender, frame)
        except Refused as refused:
            self._on_refused(host, sender, str(refused))
            return
        self.step(host, Received(sender, message))

    def _on_refused(self, host: Host, sender: int, why: str) -> None:
        self.refused[sender, why] = self.refused.get((sender, why), 0) + 1
        if host.is_honest and sender in self.honest:
            self.ledger.found("refused", host.me, f"a frame of honest node {sender}: {why}")

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
            self.loop.after(self._rng.randrange(INBOX_LAG_US), lambda h=host: self._watch(h))  # type: ignore[misc]
        self.loop.after(INBOX_US, self._grow_inbox)

    def _watch(self, host: Host) -> None:
        if host.core is None:
            return
        since = host.core.keeper.next_inbox()
        fresh = tuple(self.chain.inbox[since:])
        if fresh:
            chained = inbox_chain(INBOX_START_HASH, tuple(self.chain.inbox))
            self.step(host, L1Observed(since, fresh, chained))

    # -- steps and effects

    def step(self, host: Host, event: Input) -> None:
        """Put one input through a machine and carry out its effects, or die among them."""
        assert host.core is not None
        core, life = host.core, host.incarnation
        self.steps += 1
        height = core.height
        try:
            effects = host.step(self.loop.now_us, event)
        except Exception:  # noqa: BLE001  No input may raise; a liar that breaks is merely dead.
            if host.is_honest:
                self.ledger.found("raised", host.me, traceback.format_exc(limit=-3))
            else:
                self.broken_liars[host.me] = traceback.format_exc(limit=-3)
                self.crash(host)
            return
        for effect in effects:
            if host.effects_left is not None:
                if host.effects_left <= 0:
                    self._die_at(host, effect)
                    return
                host.effects_left -= 1
            self._perform(host, effect)
            if host.incarnation != life:
                return
        if host.is_honest:
            self._audit(host, core, height)

    def _die_at(self, host: Host, effect: object) -> None:
        """Die before `effect`, or with some copies of a broadcast already gone."""
        if isinstance(effect, Broadcast) and self._rng.random() < 0.5:
            peers = [p for p in range(self.plan.nodes) if p != host.me]
            for peer in self._rng.sample(peers, self._rng.randrange(len(peers))):
                self._speak(host, (peer,), effect.message)
        self.crash(host)

    def _audit(self, host: Host, core: Replica, height: int) -> None:
        safety = core.ctx.safety
        self.certificates.held(host.me, safety.lock)
        if safety.hi_tc is not None:
            self.certificates.held(host.me, safety.hi_tc)
        if core.height != height:
            self.chain.stepped(host.me, core)
        if self.steps % MEMORY_CHECK_STEPS == 0:
            for what in oversized(core):
                self.ledger.found("memory", host.me, what)

    def _perform(self, host: Host, effect: object) -> None:
        match effect:
            case Persist():
                self._persist(host, effect)
            case Send(peer, message):
                self._speak(host, (peer,), message)
            case Broadcast(message):
                peers = tuple(p for p in range(self.plan.nodes) if p != host.me)
                self._speak(host, peers, message)
            case Frame(peer, data):
                self.network.send(host.me, peer, data)
            case SetTimer(name, at_ms):
                self._set_timer(host, name, at_ms)
            case Reply(id_, status):
                self.replies[status] = self.replies.get(status, 0) + 1
                if status == "seen" and host.is_honest:
                    self.clients.on_receipt(id_)
            case Blame(peer, why):
                self._on_blame(host, peer, why)
            case Halt(why):
                self._note(b"halt", host.me)
                if host.is_honest:
                    self.ledger.found("halt", host.me, why)
            case _:
                raise AssertionError(f"an effect that no driver knows: {effect}")

    def _speak(self, host: Host, peers: tuple[int, ...], message: Message) -> None:
        if host.is_honest:
            self.words.spoken(host, message)
        frame = encode(message)
        self._note(b"send", host.me, *peers)
        self.trace.update(frame)
        for peer in peers:
            self.network.send(host.me, peer, frame)

    def _on_blame(self, host: Host, peer: int, why: str) -> None:
        self.blamed[peer, why] = self.blamed.get((peer, why), 0) + 1
        if host.is_honest and peer in self.honest:
            self.ledger.found("blame", host.me, f"honest node {peer}: {why}")

    def _set_timer(self, host: Host, name: str, at_ms: int) -> None:
        host.timers[name] = at_ms
        life = host.incarnation

        def fire() -> None:
            if host.incarnation == life and host.timers.get(name) == at_ms:
                del host.timers[name]
                self.step(host, TimerFired(name))

        self.loop.at(host.due_us(at_ms), fire)

    def _persist(self, host: Host, effect: Persist) -> None:
        host.disk.persist(effect)
        self._note(b"persist", host.me, len(effect.writes), effect.sync)
        for write in effect.writes:
            self.trace.update(write.key)
        if not host.is_honest:
            return
        for write in effect.writes:
            if write.value is None:
                continue
            if write.table == TABLE_CHAIN:
                height = int.from_bytes(write.key, "big")
                raw = host.disk.get(TABLE_BLOCKS, write.value)
                self.chain.committed(host.me, height, write.value, raw)
            elif write.table == TABLE_PROOFS:
                self.certificates.held(host.me, decode(CommitProof, write.value))
            elif write.table == TABLE_EVIDENCE:
                self._on_evidence(host, decode(Evidence, write.value))
            elif write.table == TABLE_BATCHES and write.key[:2] == host.me.to_bytes(2, "big"):
                self.receipts[host.me] += decode(LogBatch, write.value).entries

    def _on_evidence(self, host: Host, evidence: Evidence) -> None:
        name = (evidence.kind, evidence.offender)
        self.evidence[name] = self.evidence.get(name, 0) + 1
        if evidence.offender in self.honest:
            text = f"{evidence.kind} against honest node {evidence.offender}"
            self.ledger.found("blame", host.me, text)

    def _note(self, what: bytes, *numbers: int) -> None:
        """Take an event into the trace's digest."""
        self.trace.update(b"%s %d %s\n" % (what, self.loop.now_us, repr(numbers).encode()))

    def is_executed_everywhere(self, id_: CommandId) -> bool:
        """Say whether every honest machine that runs has executed a command."""
        place = self.chain.place.get(id_)
        if place is None:
            return False
        return all(
            self.hosts[i].executor.executed > place for i in self.honest if self.hosts[i].is_up
        )
