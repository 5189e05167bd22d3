"""A simulated network whose committee changes while it trades: joins, leaves, crashes, replays.

Every node is a `Participant`: members vote, the others follow as observers. The contract's inbox
names the next committee; the executor is the hash chain with a registry in it.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from msgspec import Struct

from consensus.admission import Admission, OtherEpoch, Refused
from consensus.batches import INBOX_START_HASH, inbox_chain
from consensus.codec import decode, encode
from consensus.command import CommandId, command_id, encode_command
from consensus.committee import Committee, Parameters, faults
from consensus.context import Successor
from consensus.effects import (
    Broadcast,
    Connected,
    EpochBegan,
    Halt,
    Input,
    L1Observed,
    Persist,
    Received,
    Reply,
    Send,
    SetTimer,
    Start,
    Strayed,
    Submitted,
    TimerFired,
)
from consensus.epochs import Participant
from consensus.messages import Message
from consensus.sequencer import OrderedBlock
from matcher.chunks import ChunkTree
from ops.sim.audit.ledger import Ledger
from ops.sim.disk import SimDisk
from ops.sim.executor import HashChain, Tap
from ops.sim.host import WALL_START_MS
from ops.sim.keys import check_body, hashed_keys, sign_command
from ops.sim.loop import Loop, RunawayRun
from ops.sim.network import Network
from ops.sim.plan import DIALS, NetworkDials

NETWORK_ID = sha256(b"fairlane epochs").digest()
COMMANDS_US = 25_000
RESEND_US = 700_000
INBOX_LAG_US = 400_000
EXPIRY_MS = 100_000
CUT_EFFECTS_MAX = 12
REPLAYED_KEPT = 2_048
LINK_US = 8_000


@dataclass(frozen=True, slots=True)
class Change:
    """At `at_ms` the registry names these nodes, by their number, as the next committee."""

    at_ms: int
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """One run. Crashes are (node, at_ms, down_ms); `replay` is the share of frames that come
    again at any later time, from epochs that are over as well."""

    nodes: int
    seed: int
    first: tuple[int, ...]
    changes: tuple[Change, ...]
    duration_ms: int
    calm_ms: int
    crashes: tuple[tuple[int, int, int], ...] = ()
    network: NetworkDials = field(default_factory=NetworkDials)
    replay: float = 0.0
    parameters: Parameters = DIALS


class _Named(Struct, frozen=True, array_like=True, tag="named"):
    height: int
    keys: tuple[bytes, ...]
    later: tuple[tuple[bytes, ...], ...]


class Registry(HashChain):
    """The hash chain with a registry: an inbox message of keys names the next committee.

    One that comes while a change is under way waits for the epoch after.
    """

    def __init__(self, tap: Tap | None = None) -> None:
        super().__init__(tap)
        self._next: Successor | None = None
        self._later: tuple[tuple[bytes, ...], ...] = ()

    def execute(self, block: OrderedBlock, bodies: list[tuple[CommandId, bytes]]) -> None:
        super().execute(block, bodies)
        for message in block.inbox:
            if message.startswith(b"committee"):
                keys = decode(tuple[bytes, ...], message[len(b"committee") :])
                self._later += (keys,)
        if self._next is None and self._later:
            self._next = Successor(block.height, self._later[0])
            self._later = self._later[1:]

    def successor(self) -> Successor | None:
        return self._next

    def begin_epoch(self, n: int, f: int) -> None:
        self._next = None

    def trees(self) -> tuple[ChunkTree, ChunkTree]:
        total, cells = super().trees()
        known = self._next or Successor(0, ())
        total.set(1, encode(_Named(known.height, known.keys, self._later)))
        return total, cells

    def load(self, parts: Sequence[Sequence[bytes]]) -> None:
        total, cells = parts
        super().load((total[:1], cells))
        named = decode(_Named, total[1])
        self._next = Successor(named.height, named.keys) if named.keys else None
        self._later = named.later


class _Node:
    """One machine: its disk outlives it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.disk = SimDisk()
        self.core: Participant | None = None
        self.admission: Admission | None = None
        self.members: tuple[int, ...] = ()
        self.timers: dict[str, int] = {}
        self.life = 0
        self.effects_left: int | None = None


class EpochWorld:
    """Runs a plan and holds its invariants against it."""

    def __init__(self, plan: EpochPlan) -> None:
        self.plan = plan
        self.loop = Loop()
        self.ledger = Ledger(lambda: self.loop.now_us)
        self.trace = sha256()
        self.steps = 0
        self._rng = random.Random(f"epochs {plan.nodes} {plan.seed}")
        self._keys = hashed_keys(NETWORK_ID, plan.nodes)
        self._number = {key: i for i, key in enumerate(self._keys.publics)}
        self.nodes = [_Node(i) for i in range(plan.nodes)]
        self.network = Network(
            self.loop,
            random.Random(self._rng.getrandbits(64)),
            plan.nodes,
            plan.network,
            self._arrive,
        )
        self.inbox: list[bytes] = []
        self.orders: dict[CommandId, tuple[bytes, int]] = {}
        self.owed: dict[CommandId, None] = {}
        """Commands whose clients do not give up, or have an honest receipt."""
        self.emitted: dict[CommandId, int] = {}
        self.blocks: dict[int, bytes] = {}
        self.states: dict[int, bytes] = {}
        self.epochs: dict[int, bytes] = {}
        self._heard: list[tuple[int, int, bytes]] = []

    # -- machines

    def run(self) -> None:
        """Run to the end of the plan, then check what only the end can show."""
        plan, at = self.plan, self.loop.at
        for node in self.nodes:
            at(self._rng.randrange(20_000), self._boot, node)
        for change in plan.changes:
            at(change.at_ms * 1_000, self._announce, change.members)
        for number, at_ms, down_ms in plan.crashes:
            at(at_ms * 1_000, self._doom, self.nodes[number], down_ms * 1_000)
        at(plan.calm_ms * 1_000, self.network.calm)
        at(100_000, self._trade)
        try:
            self.loop.run_until(plan.duration_ms * 1_000, lambda: self.ledger.is_clean)
        except RunawayRun as error:
            self.ledger.found("runaway", None, str(error))
        if self.ledger.is_clean:
            self._check_end()

    def _boot(self, node: _Node) -> None:
        node.life += 1
        node.effects_left = None
        node.timers.clear()
        number = node.number
        tap: Tap = lambda before, block, ids: self._executed(number, block, ids)  # noqa: E731
        first = tuple(self._keys.publics[i] for i in self.plan.first)
        try:
            node.core = Participant(
                NETWORK_ID,
                self.plan.parameters,
                self._keys.publics[number],
                self._keys.signers[number],
                node.disk,
                Registry(tap),
                first,
                WALL_START_MS,
            )
        except Exception:  # noqa: BLE001  Whatever it is, a node must start from its own disk.
            self.ledger.found("recovery", number, traceback.format_exc(limit=-4))
            return
        self._step(node, Start())
        for other in self.nodes:
            if other is not node and other.core is not None:
                self.loop.after(
                    self._rng.randint(1_000, LINK_US),
                    self._link,
                    node,
                    node.life,
                    other,
                    other.life,
                )

    def _link(self, a: _Node, a_life: int, b: _Node, b_life: int) -> None:
        if (a.life, b.life) != (a_life, b_life) or a.core is None or b.core is None:
            return
        self.network.link(a.number, b.number)
        for one, other in ((a, b), (b, a)):
            place = self._place(one, other.number)
            if place is not None and one.core is not None:
                self._step(one, Connected(place))

    def _doom(self, node: _Node, down_us: int) -> None:
        if node.core is None:
            return
        node.effects_left = self._rng.randint(0, CUT_EFFECTS_MAX)
        life = node.life

        def fall() -> None:
            if node.core is not None and node.life == life:
                self._crash(node)

        self.loop.after(down_us // 2, fall)
        self.loop.after(down_us, lambda: self._boot(node) if node.core is None else None)

    def _crash(self, node: _Node) -> None:
        node.core = None
        node.life += 1
        self.network.unlink(node.number)
        node.disk.crash(self._rng)

    def _place(self, node: _Node, number: int) -> int | None:
        """Return what `node` calls machine `number`: its place in the roster, once known."""
        assert node.core is not None
        key = self._keys.publics[number]
        return node.core.roster.index(key) if key in node.core.roster else None

    # -- inputs

    def _announce(self, members: Sequence[int]) -> None:
        keys = tuple(self._keys.publics[i] for i in members)
        self.inbox.append(b"committee" + encode(keys))
        for node in self.nodes:
            self.loop.after(self._rng.randrange(INBOX_LAG_US), self._watch, node)

    def _watch(self, node: _Node) -> None:
        core = node.core
        if core is not None:
            since = core.replica.keeper.next_inbox()
            fresh = tuple(self.inbox[since:])
            if fresh:
                chained = inbox_chain(INBOX_START_HASH, tuple(self.inbox))
                self._step(node, L1Observed(since, fresh, chained))
        self.loop.after(INBOX_LAG_US, self._watch, node)

    def _trade(self) -> None:
        now_ms = WALL_START_MS + self.loop.now_us // 1_000
        name = b"order %d" % len(self.orders)
        command = sign_command(NETWORK_ID, now_ms + EXPIRY_MS, bytes(20), name)
        id_ = command_id(NETWORK_ID, command)
        self.orders[id_] = (encode_command(command), self.loop.now_us)
        if self._rng.random() < 0.8:
            self.owed[id_] = None
            self._submit(id_, patient=True)
        else:
            self._submit(id_, patient=False)
        if self.loop.now_us < (self.plan.duration_ms - 4_000) * 1_000:
            self.loop.after(COMMANDS_US, self._trade)

    def _submit(self, id_: CommandId, patient: bool) -> None:
        """Send to f+1 members of the newest committee, or once to one; the patient look again."""
        if id_ in self.emitted:
            return
        up = [n for n in self.nodes if n.core is not None]
        if up:
            newest = max(up, key=lambda n: n.core.epoch if n.core else 0)
            assert newest.core is not None
            keys = newest.core.replica.ctx.committee.keys
            members = [self.nodes[self._number[key]] for key in keys]
            count = faults(len(members)) + 1 if patient else 1
            for node in self._rng.sample(members, count):
                if node.core is not None:
                    self._step(node, Submitted(id_, self.orders[id_][0]))
        if patient:
            self.loop.after(RESEND_US, self._submit, id_, True)

    def _arrive(self, sender: int, receiver: int, frame: bytes) -> None:
        node = self.nodes[receiver]
        if node.core is None or node.admission is None:
            return
        if len(self._heard) < REPLAYED_KEPT:
            self._heard.append((sender, receiver, frame))
        elif self._rng.random() < 0.05:
            self._heard[self._rng.randrange(REPLAYED_KEPT)] = (sender, receiver, frame)
        if self._rng.random() < self.plan.replay:
            old = self._rng.choice(self._heard)
            self.loop.after(self._rng.randrange(50_000), self._deliver, *old)
        self._deliver(sender, receiver, frame)

    def _deliver(self, sender: int, receiver: int, frame: bytes) -> None:
        node = self.nodes[receiver]
        if node.core is None or node.admission is None:
            return
        place = self._place(node, sender)
        if place is None:
            return
        epoch = node.core.epoch
        keys = node.core.replica.ctx.committee.keys
        key = self._keys.publics[sender]
        index = keys.index(key) if key in keys else len(keys)
        try:
            message: Message = node.admission.admit(index, frame)
        except OtherEpoch as other:
            self._step(node, Strayed(place, other.epoch))
            return
        except Refused as refused:
            self.ledger.found("refused", receiver, f"a frame of node {sender}: {refused}")
            return
        self._step(node, Received(place, message, epoch))

    # -- steps and effects

    def _step(self, node: _Node, event: Input | Strayed) -> None:
        assert node.core is not None
        self.steps += 1
        life = node.life
        now_ms = WALL_START_MS + self.loop.now_us // 1_000
        try:
            effects = node.core.step(now_ms, event)
        except Exception:  # noqa: BLE001  No input may raise.
            self.ledger.found("raised", node.number, traceback.format_exc(limit=-4))
            return
        for effect in effects:
            if node.effects_left is not None:
                if node.effects_left <= 0:
                    self._crash(node)
                    return
                node.effects_left -= 1
            self._perform(node, effect)
            if node.life != life:
                return

    def _perform(self, node: _Node, effect: object) -> None:
        match effect:
            case Persist():
                node.disk.persist(effect)
            case Send(place, message):
                self._send(node, place, encode(message))
            case Broadcast(message):
                frame = encode(message)
                for place in node.members:
                    self._send(node, place, frame)
            case SetTimer(name, at_ms):
                node.timers[name] = at_ms
                self.loop.at(
                    (at_ms - WALL_START_MS) * 1_000, self._fire, node, node.life, name, at_ms
                )
            case Reply(id_, status):
                if status == "seen" and id_ in self.orders:
                    self.owed[id_] = None
            case EpochBegan():
                self._began(node, effect)
            case Halt(why):
                self.ledger.found("halt", node.number, why)

    def _send(self, node: _Node, place: int, frame: bytes) -> None:
        assert node.core is not None
        receiver = self._number[node.core.roster[place]]
        self.trace.update(bytes((node.number, receiver)) + sha256(frame).digest()[:8])
        self.network.send(node.number, receiver, frame)

    def _fire(self, node: _Node, life: int, name: str, at_ms: int) -> None:
        if node.life == life and node.core is not None and node.timers.get(name) == at_ms:
            del node.timers[name]
            self._step(node, TimerFired(name))

    def _began(self, node: _Node, began: EpochBegan) -> None:
        """Verify against the new keys; every node must see the same beginning."""
        committee = Committee(NETWORK_ID, began.epoch, began.keys)
        known = self.epochs.setdefault(began.epoch, began.genesis)
        if known != began.genesis:
            self.ledger.found("epochs", node.number, f"epoch {began.epoch} begins differently")
        node.members = began.members
        node.admission = Admission(
            committee,
            self.plan.parameters,
            began.genesis,  # type: ignore[arg-type]
            lambda body: check_body(NETWORK_ID, body),
            self._keys.verify,
        )

    # -- what must hold

    def _executed(self, number: int, block: OrderedBlock, ids: list[CommandId]) -> None:
        known = self.blocks.setdefault(block.height, block.digest)
        if known != block.digest:
            self.ledger.found("agreement", number, f"another block at height {block.height}")
        for id_ in ids:
            height = self.emitted.setdefault(id_, block.height)
            if height != block.height:
                text = f"{id_.hex()[:16]} executed at {height} and {block.height}"
                self.ledger.found("twice", number, text)

    def _check_end(self) -> None:
        last = len(self.plan.changes) + 1
        cores = [node.core for node in self.nodes]
        for node in self.nodes:
            if node.core is None:
                self.ledger.found("down", node.number, "not back at the end")
            elif node.core.epoch != last:
                text = f"in epoch {node.core.epoch} of {last}, height {node.core.replica.height}"
                self.ledger.found("epochs", node.number, text)
        for core in cores:
            for height, digest in core.replica.ctx.executed_digests.items() if core else ():
                if self.states.setdefault(height, digest) != digest:
                    self.ledger.found("state", None, f"state differs at height {height}")
        heights = [core.replica.height for core in cores if core is not None]
        if heights and max(heights) - min(heights) > 100:
            self.ledger.found("behind", None, f"heights {heights}")
        late = [id_ for id_ in self.owed if id_ not in self.emitted]
        old_us = (self.plan.duration_ms - 3_500) * 1_000
        late = [id_ for id_ in late if self.orders[id_][1] < old_us]
        if late:
            sent = [self.orders[id_][1] // 1_000 for id_ in late]
            self.ledger.found("liveness", None, f"{len(late)} never ordered, sent at {sent[:5]} ms")


def growing(seed: int) -> EpochPlan:
    """From four members to five, seven, and back to five, on a good network."""
    changes = (
        Change(500, (0, 1, 2, 3, 4)),
        Change(4_000, (6, 0, 2, 1, 3, 5, 4)),
        Change(8_000, (2, 3, 4, 5, 6)),
    )
    return EpochPlan(7, seed, (0, 1, 2, 3), changes, 15_000, 0)


def turbulent(seed: int) -> EpochPlan:
    """The same among loss, replays of old frames, and crashes at any effect."""
    rng = random.Random(f"turbulent {seed}")
    crashes = []
    at_ms = 300
    while at_ms < 10_000:
        down_ms = rng.randint(60, 900)
        crashes.append((rng.randrange(7), at_ms, down_ms))
        at_ms += rng.randint(200, 1_200)
    dials = NetworkDials(loss=rng.choice((0.0, 0.05)), repeat=0.05, slow=0.03)
    plan = growing(seed)
    return EpochPlan(
        plan.nodes,
        seed,
        plan.first,
        plan.changes,
        24_000,
        11_000,
        tuple(crashes),
        dials,
        0.05,
    )
