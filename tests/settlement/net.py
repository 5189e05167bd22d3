"""Replicas' checkpoint machines on a lossy network, with crashes between effects and one liar.

Everything is virtual time and one seed. The harness is the oracle: it keeps what ever left each
replica, and what was on its disk at that moment.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from consensus.codec import decode
from consensus.committee import faults, quorum
from consensus.digest import domain_separator
from consensus.effects import Blame, Halt, Persist, SetTimer, TimerFired
from settlement import checkpoint as cp
from settlement.insecure import InsecureGroup, InsecureSigner
from settlement.shares import Share

NETWORK = b"test network"
SEPARATOR = domain_separator("Fairlane", "1", 1, b"\x11" * 20)
INTERVAL_MS = 2_000
LIMIT_MS = 3_000_000

CoreFactory = Callable[[cp.CheckpointConfig, InsecureSigner, InsecureGroup], cp.CheckpointCore]


def make_checkpoint(number: int, state: bytes = b"") -> cp.Checkpoint:
    """Return the committed checkpoint of `number`; `state` makes another one of the number."""
    root = (b"state%d" % number + state).ljust(32, b".")[:32]
    return cp.Checkpoint(
        epoch=1,
        number=number,
        height=number * 40,
        block_time_ms=number * INTERVAL_MS + 7,
        state_root=root,
        snapshot_root=root,
        withdrawals_root=root,
        withdrawn_total=number,
        inbox_count=number,
        inbox_hash=root,
        net_total=-number,
        positive_total=number,
        data_since=0,
        data_hash=cp.EMPTY_DATA_HASH,
        next_epoch_hash=bytes(32),
    )


def digest_of(checkpoint: cp.Checkpoint) -> bytes:
    return cp.checkpoint_digest(SEPARATOR, checkpoint)


def config_of(me: int, n: int) -> cp.CheckpointConfig:
    return cp.CheckpointConfig(
        me=me, n=n, quorum=quorum(n), faults=faults(n), epoch=1, separator=SEPARATOR
    )


class Broken(AssertionError):
    """A promise of the machine was broken."""


@dataclass
class Replica:
    """One node: its disk outlives its machine."""

    core: cp.CheckpointCore | None
    disk: dict[bytes, bytes] = field(default_factory=dict)
    timers: dict[str, int] = field(default_factory=dict)
    formed_up_to: int = 0
    sent: dict[int, bytes] = field(default_factory=dict)
    halted: str = ""


class Net:
    """n replicas, replica 0 possibly a liar, and the contract as they see it."""

    def __init__(
        self,
        seed: int,
        n: int = 5,
        liar: bool = False,
        loss: float = 0.0,
        make: CoreFactory = cp.CheckpointCore,
    ) -> None:
        self.random = random.Random(seed)
        self.n = n
        self.liar = 0 if liar else None
        self.loss = loss
        self.make = make
        self.now_ms = 1_000
        self.group = InsecureGroup(NETWORK, quorum(n))
        self.wires: list[tuple[int, int, int, Share]] = []
        self.blames: list[tuple[int, Blame]] = []
        self.accepted: dict[int, bytes] = {}
        self.submitted: list[tuple[int, int]] = []
        self.chain_up = True
        self.kill_rate = 0.0
        self.kills = 0
        self.number = 0
        self.replicas = [Replica(None) for _ in range(n)]
        for i in range(n):
            self.boot(i)

    def core(self, i: int) -> cp.CheckpointCore:
        core = self.replicas[i].core
        assert core is not None
        return core

    def boot(self, i: int) -> None:
        """Start replica i from its disk; it executes again from some earlier number on."""
        replica = self.replicas[i]
        replica.core = self.make(config_of(i, self.n), InsecureSigner(NETWORK, i), self.group)
        replica.timers.clear()
        stored = replica.disk.get(cp.KEY_SHARE)
        record = decode(cp.ShareRecord, stored) if stored is not None else None
        self.feed(i, cp.Start(record))
        again = max(0, replica.formed_up_to - self.random.randrange(4))
        for number in range(again + 1, self.number + 1):
            self.form_at(i, number)
        if self.accepted:
            newest = max(self.accepted)
            self.feed(i, cp.Accepted(newest, self.accepted[newest]))

    def crash(self, i: int) -> None:
        self.replicas[i].core = None
        self.kills += 1

    def feed(self, i: int, event: cp.Input) -> None:
        """Give one input; carry its effects out in order, unless the power goes in between."""
        replica = self.replicas[i]
        if replica.core is None or replica.halted or i == self.liar:
            return
        for effect in replica.core.step(self.now_ms, event):
            if self.random.random() < self.kill_rate:
                self.crash(i)
                return
            self.perform(i, replica, effect)

    def perform(self, i: int, replica: Replica, effect: cp.Effect) -> None:
        match effect:
            case Persist(writes):
                for write in writes:
                    assert write.table == cp.TABLE and write.value is not None
                    replica.disk[write.key] = write.value
            case cp.BroadcastShare(share):
                self.check_broadcast(i, replica, share)
                for j in range(self.n):
                    if j != i:
                        self.send(i, j, share)
            case SetTimer(name, at_ms):
                if at_ms <= self.now_ms:
                    raise Broken(f"timer {name} is not ahead of now")
                replica.timers[name] = at_ms
            case cp.SubmitCheckpoint(checkpoint, signature):
                self.submit(i, checkpoint, signature)
            case Blame():
                self.blames.append((i, effect))
            case Halt(why):
                replica.halted = why

    def check_broadcast(self, i: int, replica: Replica, share: Share) -> None:
        """The two promises: one digest a number for ever, and on disk before it leaves."""
        if replica.sent.setdefault(share.number, share.digest) != share.digest:
            raise Broken(f"replica {i} signed two digests for {share.number}")
        stored = replica.disk.get(cp.KEY_SHARE)
        if stored is None or decode(cp.ShareRecord, stored).share != share:
            raise Broken(f"replica {i} sent a share that is not on its disk")

    def submit(self, i: int, checkpoint: cp.Checkpoint, signature: bytes) -> None:
        digest = digest_of(checkpoint)
        if not self.group.verify(digest, signature):
            raise Broken(f"replica {i} submitted a signature that does not verify")
        self.submitted.append((i, checkpoint.number))
        if self.chain_up and checkpoint.number > max(self.accepted, default=-1):
            self.accepted[checkpoint.number] = digest

    def send(self, sender: int, to: int, share: Share) -> None:
        if self.random.random() >= self.loss:
            at_ms = self.now_ms + self.random.randrange(1, 300)
            self.wires.append((at_ms, sender, to, share))

    def lie(self, number: int) -> None:
        """The liar sends each peer something else for `number`, some of it plausible."""
        assert self.liar is not None
        true = digest_of(make_checkpoint(number))
        signer = InsecureSigner(NETWORK, self.liar)
        for to in [*range(1, self.n), *range(1, self.n, 2)]:
            digest = self.random.choice((true, true, true, b"\xee" * 32, bytes([to]) * 32))
            share, vouch = signer.sign(1, number, digest)
            if self.random.random() < 0.6:
                share = bytes(48)
            if self.random.random() < 0.2:
                vouch = bytes(65)
            far = number + self.random.choice((0, 0, 0, 0, 0, 7, 1_000_000))
            voter = self.random.choice((self.liar, self.liar, self.liar, self.liar, to))
            self.send(self.liar, to, Share(1, far, digest, voter, share, vouch))

    def run(self, numbers: int, settle_ms: int = 60_000) -> None:
        """Form `numbers` checkpoints at their interval, then let things settle."""
        last = self.number + numbers
        next_form_ms = self.now_ms
        end_ms = self.now_ms + numbers * INTERVAL_MS + settle_ms
        while self.now_ms < end_ms:
            if self.now_ms >= next_form_ms and self.number < last:
                next_form_ms += INTERVAL_MS
                self.form(self.number + 1)
            self.tick()
            self.now_ms += 100

    def form(self, number: int) -> None:
        if self.liar is not None:
            self.lie(number)
        self.number = number
        for i in range(self.n):
            self.form_at(i, number)

    def form_at(self, i: int, number: int) -> None:
        """Execute up to `number` at one replica; a crash on the way leaves it to be done again."""
        self.feed(i, cp.Formed(make_checkpoint(number)))
        replica = self.replicas[i]
        if replica.core is not None:
            replica.formed_up_to = max(number, replica.formed_up_to)

    def tick(self) -> None:
        due = [wire for wire in self.wires if wire[0] <= self.now_ms]
        self.wires = [wire for wire in self.wires if wire[0] > self.now_ms]
        self.random.shuffle(due)
        for _, sender, to, share in due:
            self.feed(to, cp.ShareReceived(sender, share))
        for i, replica in enumerate(self.replicas):
            if replica.core is None and self.random.random() < 0.05:
                self.boot(i)
            for name, at_ms in sorted(replica.timers.items()):
                if at_ms <= self.now_ms and replica.core is not None:
                    del replica.timers[name]
                    self.feed(i, TimerFired(name))
        if self.now_ms % 1_000 == 0 and self.accepted:
            newest = max(self.accepted)
            for i in range(self.n):
                self.feed(i, cp.Accepted(newest, self.accepted[newest]))
