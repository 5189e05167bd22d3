"""One Twins scenario on the production core: messages filtered by round, invariants checked.

Two nodes with one key are the Byzantine replica: each runs the unmodified core on a disk of its
own. Nothing is lost but by the scenario, so one queue in order of sending is the whole network.
"""

from __future__ import annotations

import heapq
import traceback
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from consensus.batches import SealedBatch
from consensus.codec import decode
from consensus.command import CommandId, command_id, decode_command, encode_command
from consensus.committee import Committee, Parameters
from consensus.context import TABLE_CHAIN, TABLE_EVIDENCE
from consensus.effects import (
    Blame,
    Broadcast,
    Effect,
    Halt,
    Input,
    Persist,
    Received,
    Send,
    SetTimer,
    Start,
    Submitted,
    TimerFired,
)
from consensus.evidence import Evidence
from consensus.logkeeper import TIMER as BATCH_TIMER
from consensus.messages import CommitVote, LogBatch, Message, Proposal, RoundTC, Timeout, Vote
from consensus.replica import Replica
from consensus.sequencer import OrderedBlock
from ops.sim.audit import CertificateAudit, Ledger
from ops.sim.executor import HashChain
from ops.sim.keys import hashed_keys, sign_command
from ops.sim.liars.base import shameless
from ops.sim.twins.scenario import Scenario, Setting

NETWORK = b"fairlane twins".ljust(32, b"\0")
EPOCH = 1
START_MS = 1_000_000
DELAY_MS = 10
STEPS_MAX = 200_000
"""A scenario that takes more steps than this multiplies its own messages."""
BATCH_AFTER_MS = DELAY_MS // 2
"""When in a round a batch is written: it arrives after the votes were sent."""
DIALS = Parameters(
    batch_interval_ms=1,
    idle_batch_ms=1,
    block_interval_ms=1,
    empty_block_ms=1,
    round_timer_ms=200,
    round_timer_max_ms=800,
)
"""A round of three delays, and a timer that outlasts it also for a leader that failed before."""
TAIL_ROUNDS_MAX = 12
"""Rounds after the named ones within which every honest node must commit a block of them, for
each key that is there twice so many more as it may spoil."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one scenario came to: broken invariants, and figures."""

    violations: tuple[str, ...]
    height: int
    round: int
    steps: int
    executed: int
    equivocations: int
    """Rounds in which honest nodes held two statements of one key against each other."""
    broken_twins: int
    """Byzantine nodes that fell over each other's words; no harm by itself."""

    @property
    def held(self) -> bool:
        return not self.violations


class ScheduledCommittee(Committee):
    """A committee in which some rounds have another leader than their turn."""

    def __init__(
        self, network: bytes, epoch: int, keys: tuple[bytes, ...], leaders: dict[int, int]
    ) -> None:
        super().__init__(network, epoch, keys)
        self._leaders = leaders

    def leader(self, round_: int) -> int:
        return self._leaders.get(round_, round_ % self.n)


class MemoryDisk:
    """A disk that never fails."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, bytes], bytes] = {}

    def persist(self, effect: Persist) -> None:
        records = self._records
        for write in effect.writes:
            if write.value is None:
                records.pop((write.table, write.key), None)
            else:
                records[write.table, write.key] = write.value

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._records.get((table, key))

    def scan(self, table: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        keys = sorted(k for t, k in self._records if t == table and start <= k < end)
        return ((key, self._records[table, key]) for key in keys)


class _Node:
    """One running replica."""

    __slots__ = ("core", "disk", "has_twin", "index", "is_up", "lock", "round", "tc", "timers")

    def __init__(self, index: int, core: Replica, disk: MemoryDisk, has_twin: bool) -> None:
        self.index = index
        self.core = core
        self.disk = disk
        self.has_twin = has_twin
        self.is_up = True
        self.timers: dict[str, int] = {}
        self.round = 0
        self.lock: object = None
        self.tc: object = None


class Arena:
    """The nodes of one scenario, their messages and timers, and what is held against them."""

    def __init__(
        self, setting: Setting, scenario: Scenario, ignored: frozenset[str] = frozenset()
    ) -> None:
        self.setting = setting
        self.ledger = Ledger(lambda: self._now_ms * 1_000, ignored)
        self._now_ms = START_MS
        self._last_round = scenario.last_round
        self._queue: deque[tuple[int, int, int, Message]] = deque()
        self._alarms: list[tuple[int, int, int, str]] = []
        self._alarms_set = 0
        self._timed_out: set[tuple[int, int]] = set()
        self._hears = _hearing(setting, scenario)
        self._may_propose = {r: frozenset(nodes) for r, nodes in scenario.leaders.items()}
        self._digests: dict[int, bytes] = {}
        self._order: list[CommandId] = []
        self._evidence: dict[tuple[str, int, int], None] = {}
        self._committed_more = False
        self.steps = 0
        self.broken_twins = 0
        n = setting.nodes
        keys = hashed_keys(NETWORK, n)
        leaders = {r: setting.replica(nodes[0]) for r, nodes in scenario.leaders.items()}
        self._committee = ScheduledCommittee(NETWORK, EPOCH, keys.publics, leaders)
        self._certificates = CertificateAudit(self.ledger, self._committee, keys.verify)
        byzantine = frozenset(setting.byzantine)
        self.nodes: list[_Node] = []
        for i in range(setting.size):
            disk, me = MemoryDisk(), setting.replica(i)
            executor = HashChain() if i in byzantine else HashChain(self._executed)
            core = Replica(self._committee, DIALS, me, keys.signers[me], disk, executor, START_MS)
            if i in byzantine:
                shameless(core)
            else:
                core.guard.trust()
            self.nodes.append(_Node(i, core, disk, i in byzantine))
        self._honest = [self.nodes[i] for i in setting.honest]
        self._nodes_of = [
            tuple(i for i in range(setting.size) if setting.replica(i) == r) for r in range(n)
        ]
        self._others = [
            tuple(j for j in range(setting.size) if setting.replica(j) != setting.replica(i))
            for i in range(setting.size)
        ]

    # -- the run

    def run(self) -> Outcome:
        """Play the scenario until all honest nodes have committed beyond its last round."""
        self._submit_one_command()
        for node in self.nodes:
            self._step(node, Start())
        queue, alarms = self._queue, self._alarms
        rounds_max = self._last_round + TAIL_ROUNDS_MAX + 2 * self.setting.twins
        until_ms = START_MS + 2 * DIALS.round_timer_max_ms * rounds_max
        while self.ledger.is_clean:
            if self._committed_more:
                self._committed_more = False
                if self._is_through():
                    break
            if self.steps > STEPS_MAX:
                self.ledger.found("runaway", None, f"{self.steps} steps")
                break
            if queue and (not alarms or queue[0][0] <= alarms[0][0]):
                self._now_ms, sender, receiver, message = queue.popleft()
                node = self.nodes[receiver]
                if node.is_up:
                    self._step(node, Received(self.setting.replica(sender), message))
            elif alarms and alarms[0][0] <= until_ms:
                at_ms, _, index, name = heapq.heappop(alarms)
                node = self.nodes[index]
                if node.is_up and node.timers.get(name) == at_ms:
                    self._now_ms = max(self._now_ms, at_ms)
                    del node.timers[name]
                    self._step(node, TimerFired(name))
            else:
                self._report_standstill()
                break
        return self._outcome()

    def _is_through(self) -> bool:
        last = self._last_round
        return all(node.core.ctx.tree.tip.round > last for node in self._honest)

    def _report_standstill(self) -> None:
        where = ", ".join(
            f"node {node.index} in round {node.core.rounds.round}, committed round "
            f"{node.core.tip[0].round}"
            for node in self._honest
        )
        text = f"no commit after round {self._last_round} at all honest nodes: {where}"
        self.ledger.found("liveness", None, text)

    def _submit_one_command(self) -> None:
        """Give it to all but one honest node and to second twins, whose logs so fork at once."""
        command = sign_command(NETWORK, START_MS + 100_000, b"\1" * 20, b"the command")
        event = Submitted(command_id(NETWORK, command), encode_command(command))
        for node in (*self._honest[1:], *self.nodes[self.setting.nodes :]):
            self._step(node, event)

    # -- steps and effects

    def _step(self, node: _Node, event: Input) -> None:
        self.steps += 1
        core = node.core
        try:
            effects = core.step(self._now_ms, event)
        except Exception:  # noqa: BLE001  No input may raise; a twin that breaks is merely dead.
            if node.has_twin:
                node.is_up = False
                self.broken_twins += 1
            else:
                self.ledger.found("raised", node.index, traceback.format_exc(limit=-3))
            return
        for effect in effects:
            self._perform(node, effect)
        round_ = core.rounds.round
        if round_ != node.round:
            self._enter(node, round_)
        if not node.has_twin:
            safety = core.ctx.safety
            if safety.lock is not node.lock:
                node.lock = safety.lock
                self._certificates.held(node.index, safety.lock)
            if safety.hi_tc is not None and safety.hi_tc is not node.tc:
                node.tc = safety.hi_tc
                self._certificates.held(node.index, safety.hi_tc)

    def _enter(self, node: _Node, round_: int) -> None:
        """Let a log grow in each round: by what no vote names yet, so that a leader may add it.

        Second twins miss it, or two who lead would propose the same block.
        """
        scribe = self._honest[round_ % len(self._honest)]
        if node is scribe or not node.round or node.core.ctx.own.waiting:
            self._set_alarm(node, BATCH_TIMER, self._now_ms + BATCH_AFTER_MS)
        node.round = round_

    def _perform(self, node: _Node, effect: Effect) -> None:
        match effect:
            case Broadcast(message):
                self._send(node, self._others[node.index], message)
            case Send(peer, message):
                self._send(node, self._nodes_of[peer], message)
            case Persist():
                node.disk.persist(effect)
                if not node.has_twin:
                    self._look_at(node, effect)
            case SetTimer(name, at_ms):
                if name != BATCH_TIMER:
                    self._set_alarm(node, name, at_ms)
            case Blame(peer, why):
                if not node.has_twin and peer >= self.setting.twins:
                    self.ledger.found("blame", node.index, f"honest node {peer}: {why}")
            case Halt(why):
                if not node.has_twin:
                    self.ledger.found("halt", node.index, why)
            case _:
                pass

    def _set_alarm(self, node: _Node, name: str, at_ms: int) -> None:
        if node.timers.get(name) != at_ms:
            node.timers[name] = at_ms
            self._alarms_set += 1
            heapq.heappush(self._alarms, (at_ms, self._alarms_set, node.index, name))

    def _share(self, node: _Node, batch: LogBatch) -> None:
        """Let twins hold each other's batches: else neither could vote for what the other led.

        A core takes no batch of its own log from outside.
        """
        ids = (command_id(NETWORK, decode_command(body)) for body in batch.bodies)
        sealed = SealedBatch(batch, tuple(ids))
        for i in self._nodes_of[batch.author]:
            core = self.nodes[i].core
            if i != node.index and core.ctx.logs.batch(batch.author, sealed.digest) is None:
                core.keeper.hold(sealed)

    def _send(self, node: _Node, receivers: tuple[int, ...], message: Message) -> None:
        if node.has_twin and isinstance(message, LogBatch):
            self._share(node, message)
        match message:
            case Vote(round=round_) | CommitVote(round=round_):
                hears = self._hears.get(round_)
            case Proposal(block=block):
                allowed = self._may_propose.get(block.round)
                if allowed is not None and node.index not in allowed:
                    return
                hears = self._hears.get(block.round)
            case Timeout(round=round_):
                # What is said again is heard: a partition ends when its round has run out.
                again = (node.index, round_) in self._timed_out
                self._timed_out.add((node.index, round_))
                hears = None if again else self._hears.get(round_)
            case RoundTC(tc=tc):
                hears = self._hears.get(tc.round)
            case LogBatch(seq=seq) if seq > 1:
                receivers = tuple(r for r in receivers if r < self.setting.nodes)
                hears = self._hears.get(node.core.rounds.round)
            case _:
                hears = self._hears.get(node.core.rounds.round)
        at_ms, sender = self._now_ms + DELAY_MS, node.index
        if hears is None:
            self._queue.extend((at_ms, sender, receiver, message) for receiver in receivers)
        else:
            reached = hears[sender]
            for receiver in receivers:
                if receiver in reached:
                    self._queue.append((at_ms, sender, receiver, message))

    # -- what is held against honest nodes

    def _look_at(self, node: _Node, effect: Persist) -> None:
        for write in effect.writes:
            if write.table == TABLE_CHAIN and write.value is not None:
                self._committed_more = True
                height = int.from_bytes(write.key, "big")
                known = self._digests.setdefault(height, write.value)
                if known != write.value:
                    text = (
                        f"height {height}: {write.value.hex()[:12]}, elsewhere {known.hex()[:12]}"
                    )
                    self.ledger.found("agreement", node.index, text)
            elif write.table == TABLE_EVIDENCE and write.value is not None:
                evidence = decode(Evidence, write.value)
                self._evidence[evidence.kind, evidence.offender, evidence.position] = None
                if evidence.offender >= self.setting.twins:
                    text = f"{evidence.kind} against honest node {evidence.offender}"
                    self.ledger.found("blame", node.index, text)

    def _executed(self, before: int, block: OrderedBlock, ids: list[CommandId]) -> None:
        order = self._order
        for place, id_ in enumerate(ids, before):
            if place < len(order):
                if order[place] != id_:
                    self.ledger.found("order", None, f"command {place} at height {block.height}")
            elif id_ in order:
                self.ledger.found("twice", None, f"a command again at height {block.height}")
            else:
                order.append(id_)

    def _outcome(self) -> Outcome:
        return Outcome(
            violations=tuple(map(str, self.ledger.violations)),
            height=max(self._digests, default=0),
            round=max(node.core.rounds.round for node in self.nodes),
            steps=self.steps,
            executed=len(self._order),
            equivocations=len(self._evidence),
            broken_twins=self.broken_twins,
        )


def _hearing(setting: Setting, scenario: Scenario) -> dict[int, list[frozenset[int]]]:
    """Return for each named round and sender the nodes that hear it."""
    hears: dict[int, list[frozenset[int]]] = {}
    everybody = frozenset(range(setting.size))
    for r in {*scenario.partitions, *scenario.firewall}:
        row = [everybody] * setting.size
        if r in scenario.partitions:
            group_of = {node: frozenset(g) for g in scenario.partitions[r] for node in g}
            row = [group_of.get(node, frozenset()) for node in range(setting.size)]
        for sender, cut in scenario.firewall.get(r, {}).items():
            row[sender] -= frozenset(cut)
        hears[r] = row
    return hears


def play(setting: Setting, scenario: Scenario, ignored: frozenset[str] = frozenset()) -> Outcome:
    """Run one scenario from its start to its end."""
    return Arena(setting, scenario, ignored).run()
