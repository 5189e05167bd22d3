"""Steps and effects: what the node's driver does, in virtual time, with every audit on the way.

Machines whose disks take no time carry a step's effects out at once. Others work in turns as
`ops/driver.py` does: all waiting inputs go through the core, their records are written, one sync
covers them, and only then anything leaves; meanwhile inputs wait, and a full inbox drops frames.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Sequence
from hashlib import sha256

from consensus.admission import Refused
from consensus.codec import decode, encode
from consensus.command import CommandId
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
    EpochBegan,
    Halt,
    Input,
    Installed,
    Persist,
    Received,
    Reply,
    Send,
    SetTimer,
    TimerFired,
    Write,
)
from consensus.evidence import Evidence
from consensus.messages import CommitProof, Message
from ops.sim.audit import Audits
from ops.sim.edge import Edge
from ops.sim.host import Host, LiarEffect
from ops.sim.liars import Frame
from ops.sim.loop import Loop
from ops.sim.network import Network
from ops.sim.plan import Plan

TURN_INPUTS_MAX = 256
TRACEBACK_LINES = -3

Handler = Callable[[Host, object], None]


class Carrier:
    """Puts inputs through machines and carries out their effects."""

    def __init__(
        self,
        plan: Plan,
        loop: Loop,
        network: Network,
        edge: Edge,
        audits: Audits,
        rng: random.Random,
        honest: tuple[int, ...],
        on_receipt: Callable[[CommandId], None],
    ) -> None:
        self._plan = plan
        self._loop = loop
        self._network = network
        self._edge = edge
        self._audits = audits
        self._rng = rng
        self._honest = honest
        self._on_receipt = on_receipt
        self._peers = [tuple(p for p in range(plan.nodes) if p != i) for i in range(plan.nodes)]
        self._calm = not plan.machines.slow_sync
        self.takes_time = plan.machines.takes_time
        self.trace = sha256()
        self.steps = 0
        self.overflowed = 0
        """Frames that found a full inbox."""
        self.replies: dict[str, int] = {}
        self.refused: dict[tuple[int, str], int] = {}
        self.blamed: dict[tuple[int, str], int] = {}
        self.evidence: dict[tuple[str, int], int] = {}
        self.broken_liars: dict[int, str] = {}
        """Liars that fell over their own lies, and stay down; how, by node."""
        self._handlers: dict[type, Handler] = {
            Persist: self._on_persist,
            Send: self._on_send,
            Broadcast: self._on_broadcast,
            Frame: self._on_frame,
            SetTimer: self._on_set_timer,
            Reply: self._on_reply,
            Blame: self._on_blame,
            Halt: self._on_halt,
            Installed: self._on_installed,
            EpochBegan: self._on_epoch,
        }

    def _on_installed(self, host: Host, _: object) -> None:
        if host.is_honest:
            self._audits.words.installed(host)

    def calm(self) -> None:
        """Let every disk be as quick as it can be."""
        self._calm = True

    def note(self, what: bytes, *numbers: int) -> None:
        """Take an event into the trace's digest."""
        self.trace.update(b"%b %d %b\n" % (what, self._loop.now_us, repr(numbers).encode()))

    # -- inputs

    def arrive(self, host: Host, sender: int, frame: bytes) -> None:
        """A frame reached a machine: check it at the edge, then step, or keep it while busy."""
        if host.core is None:
            return
        try:
            message = self._edge.admit(sender, frame)
        except Refused as refused:
            self._on_refused(host, sender, str(refused))
            return
        if host.busy:
            waiting = host.waiting_from.get(sender, 0)
            if waiting >= self._plan.machines.inbox_frames_max:
                self.overflowed += 1
                return
            host.waiting_from[sender] = waiting + 1
        self.step(host, Received(sender, message))

    def _on_refused(self, host: Host, sender: int, why: str) -> None:
        self.refused[sender, why] = self.refused.get((sender, why), 0) + 1
        if host.is_honest and sender in self._honest:
            self._audits.ledger.found("refused", host.me, f"a frame of honest node {sender}: {why}")

    def step(self, host: Host, event: Input) -> None:
        """Put one input through a machine and carry out its effects, or die among them."""
        if host.busy:
            host.inbox.append(event)
        elif self.takes_time:
            self._turn(host, [event])
        else:
            life = host.incarnation
            effects = self._stepped(host, event)
            if effects and not self._carry_out(host, effects):
                return
            if host.incarnation == life and host.is_honest:
                self._audits.after_step(host)

    def _stepped(self, host: Host, event: Input) -> list[LiarEffect]:
        """Return the effects of one step; what it raises is a violation, or a liar's end."""
        self.steps += 1
        try:
            return host.step(self._loop.now_us, event)
        except Exception:  # noqa: BLE001  No input may raise; a liar that breaks is merely dead.
            text = traceback.format_exc(limit=TRACEBACK_LINES)
            if host.is_honest:
                self._audits.ledger.found("raised", host.me, text)
            else:
                self.broken_liars[host.me] = text
                self.crash(host)
            return []

    def _carry_out(self, host: Host, effects: Sequence[LiarEffect]) -> bool:
        """Carry effects out in order; say whether the machine has survived all of them."""
        life, handlers = host.incarnation, self._handlers
        for effect in effects:
            if host.effects_left is not None:
                if host.effects_left <= 0:
                    self._die_at(host, effect)
                    return False
                host.effects_left -= 1
            handlers[type(effect)](host, effect)
            if host.incarnation != life:
                return False
        return True

    # -- turns of machines whose disks take time

    def _turn(self, host: Host, events: list[Input]) -> None:
        """Step all that waits, write, and let the rest out when the disk is done."""
        life = host.incarnation
        out: list[LiarEffect] = []
        sync = False
        for event in events:
            effects = self._stepped(host, event)
            if host.incarnation != life:
                return
            for effect in effects:
                if isinstance(effect, Persist):
                    if self._is_cut(host, effect):
                        return
                    host.disk.write(effect.writes)
                    self._note_writes(host, effect.writes)
                    sync = sync or effect.sync
                else:
                    out.append(effect)
        if not sync:
            self._let_out(host, life, out, synced=False)
            return
        host.busy = True
        self._loop.after(self._sync_us(), self._let_out, host, life, out, True)

    def _is_cut(self, host: Host, effect: LiarEffect) -> bool:
        if host.effects_left is None:
            return False
        if host.effects_left <= 0:
            self._die_at(host, effect)
            return True
        host.effects_left -= 1
        return False

    def _sync_us(self) -> int:
        dials, rng = self._plan.machines, self._rng
        most_ms = dials.sync_max_ms
        if not self._calm and rng.random() < dials.slow_sync:
            most_ms = max(most_ms, dials.slow_sync_max_ms)
        return int(rng.random() * most_ms * 1_000)

    def _let_out(self, host: Host, life: int, out: list[LiarEffect], synced: bool) -> None:
        """The disk is done: what waited for it leaves, and the next turn begins."""
        if host.incarnation != life:
            return
        if synced:
            host.disk.sync()
        if not self._carry_out(host, out):
            return
        if host.is_honest:
            self._audits.after_step(host)
        host.busy = False
        self.resume(host)

    def stall(self, host: Host, for_us: int) -> None:
        """Let a machine stand still for a while, unless it waits for its disk already."""
        if host.is_up and not host.busy:
            host.busy = True
            self._loop.after(for_us, self._wake, host, host.incarnation)

    def _wake(self, host: Host, life: int) -> None:
        if host.incarnation == life:
            host.busy = False
            self.resume(host)

    def resume(self, host: Host) -> None:
        """Begin the next turn with what waits, if anything does."""
        waiting = host.inbox
        if not waiting:
            return
        events = [waiting.popleft() for _ in range(min(len(waiting), TURN_INPUTS_MAX))]
        for event in events:
            if isinstance(event, Received):
                host.waiting_from[event.peer] -= 1
        self._turn(host, events)

    # -- crashes

    def crash(self, host: Host) -> None:
        """Cut a machine's power."""
        self.note(b"crash", host.me)
        self._network.unlink(host.me)
        host.crash(self._rng)

    def _die_at(self, host: Host, effect: object) -> None:
        """Die before `effect`, or with some copies of a broadcast already gone."""
        if isinstance(effect, Broadcast) and self._rng.random() < 0.5:
            peers = self._peers[host.me]
            some = tuple(self._rng.sample(peers, self._rng.randrange(len(peers))))
            self._speak(host, some, effect.message)
        self.crash(host)

    # -- effects

    def _on_send(self, host: Host, effect: object) -> None:
        assert isinstance(effect, Send)
        self._speak(host, (effect.peer,), effect.message)

    def _on_broadcast(self, host: Host, effect: object) -> None:
        assert isinstance(effect, Broadcast)
        self._speak(host, self._peers[host.me], effect.message)

    def _on_frame(self, host: Host, effect: object) -> None:
        assert isinstance(effect, Frame)
        self._network.send(host.me, effect.peer, effect.data)

    def _speak(self, host: Host, peers: tuple[int, ...], message: Message) -> None:
        if host.is_honest:
            self._audits.words.spoken(host, message)
        frame = encode(message)
        me, send = host.me, self._network.send
        self.trace.update(b"say %d %d %b" % (self._loop.now_us, me, bytes(peers)))
        self.trace.update(frame)
        for peer in peers:
            send(me, peer, frame)

    def _on_set_timer(self, host: Host, effect: object) -> None:
        assert isinstance(effect, SetTimer)
        host.timers[effect.name] = effect.at_ms
        due_us = host.clock.due_us(effect.at_ms)
        self._loop.at(due_us, self._fire, host, host.incarnation, effect.name, effect.at_ms)

    def _fire(self, host: Host, life: int, name: str, at_ms: int) -> None:
        if host.incarnation != life or host.timers.get(name) != at_ms:
            return
        if host.now_ms(self._loop.now_us) < at_ms:  # The clock slowed down meanwhile.
            due_us = max(host.clock.due_us(at_ms), self._loop.now_us + 1)
            self._loop.at(due_us, self._fire, host, life, name, at_ms)
            return
        del host.timers[name]
        self.step(host, TimerFired(name))

    def _on_reply(self, host: Host, effect: object) -> None:
        assert isinstance(effect, Reply)
        self.replies[effect.status] = self.replies.get(effect.status, 0) + 1
        if effect.status == "seen" and host.is_honest:
            self._on_receipt(effect.id)

    def _on_blame(self, host: Host, effect: object) -> None:
        assert isinstance(effect, Blame)
        peer, why = effect.peer, effect.why
        self.blamed[peer, why] = self.blamed.get((peer, why), 0) + 1
        if host.is_honest and peer in self._honest:
            self._audits.ledger.found("blame", host.me, f"honest node {peer}: {why}")

    def _on_halt(self, host: Host, effect: object) -> None:
        assert isinstance(effect, Halt)
        self.note(b"halt", host.me)
        if host.is_honest:
            self._audits.ledger.found("halt", host.me, effect.why)

    def _on_epoch(self, host: Host, effect: object) -> None:
        self.note(b"epoch", host.me)

    def _on_persist(self, host: Host, effect: object) -> None:
        assert isinstance(effect, Persist)
        host.disk.persist(effect)
        self._note_writes(host, effect.writes)

    def _note_writes(self, host: Host, writes: tuple[Write, ...]) -> None:
        self.trace.update(b"keep %d %d %d" % (self._loop.now_us, host.me, len(writes)))
        for write in writes:
            self.trace.update(write.key)
        if not host.is_honest:
            return
        audits = self._audits
        for write in writes:
            table, value = write.table, write.value
            if value is None:
                continue
            if table == TABLE_BATCHES:
                audits.receipts.kept(host.me, write.key, value)
            elif table == TABLE_CHAIN:
                height = int.from_bytes(write.key, "big")
                raw = host.disk.get(TABLE_BLOCKS, value)
                audits.chain.committed(host.me, height, value, raw)
            elif table == TABLE_PROOFS:
                audits.certificates.held(host.me, decode(CommitProof, value))
            elif table == TABLE_EVIDENCE:
                self._on_evidence(host, decode(Evidence, value))

    def _on_evidence(self, host: Host, evidence: Evidence) -> None:
        name = (evidence.kind, evidence.offender)
        self.evidence[name] = self.evidence.get(name, 0) + 1
        if evidence.offender in self._honest:
            text = f"{evidence.kind} against honest node {evidence.offender}"
            self._audits.ledger.found("blame", host.me, text)
