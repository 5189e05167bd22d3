"""Liars about order logs: what they received, when, and to whom they show it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import ClassVar

from msgspec.structs import replace

from consensus.batches import INBOX_START_HASH, SealedBatch, inbox_chain
from consensus.command import CommandId, command_id, decode_command, encode_command
from consensus.effects import Connected, Input, L1Observed, PricesObserved, Send
from consensus.messages import (
    Batches,
    Bodies,
    LogBatch,
    Message,
    Observation,
    batch_digest,
)
from consensus.ownlog import OwnLog
from consensus.replica import Replica
from ops.sim.keys import sign_command
from ops.sim.liars.base import Desk, Liar, LiarEffect, Said, claim_all, lying_log

GHOST_EXPIRY_MS = 20_000
STUFFING_PER_BATCH = 60
OWN_PER_BATCH = 3
LIE_SPAN_MS = 150
"""A liar about order holds receipts back for so long: more of them can change places."""
FAR_MS = 600_000
HEADS = 12
"""Branches of a hydra: more than a replica keeps of one position."""

Receipts = list[tuple[CommandId, bool]]


class _ArrangedLog(OwnLog):
    """A log whose receipts the liar rearranges before each batch."""

    arrange: Callable[[Receipts, int], Receipts]
    clock: Callable[[int], int]
    span_ms: int
    eager: bool
    lied: Callable[[], None]

    def due_ms(self) -> int:
        if self.eager:
            return self.last_batch_ms + self._parameters.batch_interval_ms // 4
        return max(super().due_ms(), self.last_batch_ms + self.span_ms)

    def make_batch(self, now_ms: int, body_of: Callable[[CommandId], bytes]) -> SealedBatch:
        waiting = list(self._waiting)
        arranged = self.arrange(waiting, now_ms)
        if arranged != waiting or self.clock(now_ms) != now_ms:
            self.lied()
        real = dict(waiting)
        for id_, _ in arranged:
            if id_ not in real:
                self._logged[id_] = False
        self._waiting = deque(arranged)
        sealed = super().make_batch(self.clock(now_ms), body_of)
        self.last_batch_ms = now_ms
        return sealed


class _LogLiar(Liar):
    """Has a log that it arranges, under a clock of its own."""

    span_ms: ClassVar[int] = 0
    eager: ClassVar[bool] = False
    """Whether batches follow each other four times as fast as others make them."""

    def adopt(self, core: Replica) -> None:
        super().adopt(core)
        log = lying_log(core, _ArrangedLog)
        log.arrange, log.clock, log.span_ms = self.arrange, self.clock, self.span_ms
        log.eager, log.lied = self.eager, self._lied

    def _lied(self) -> None:
        self.lies += 1

    def arrange(self, waiting: Receipts, now_ms: int) -> Receipts:
        return waiting

    def clock(self, now_ms: int) -> int:
        return now_ms


class Reverser(_LogLiar):
    name = "reverse"
    about = "logs what it received in the opposite order"
    span_ms = LIE_SPAN_MS

    def arrange(self, waiting: Receipts, now_ms: int) -> Receipts:
        return waiting[::-1]


class Shuffler(_LogLiar):
    name = "shuffle"
    about = "logs what it received in a random order"
    span_ms = LIE_SPAN_MS

    def arrange(self, waiting: Receipts, now_ms: int) -> Receipts:
        return self.desk.rng.sample(waiting, len(waiting))


class Omitter(_LogLiar):
    name = "omit"
    about = "logs only half of what it received"

    def arrange(self, waiting: Receipts, now_ms: int) -> Receipts:
        # By the id's own bits, so that what is left out stays left out.
        return [(id_, introduces) for id_, introduces in waiting if id_[-1] & 1]


class Censor(_LogLiar):
    name = "censor"
    about = "never logs the commands of trader 0"
    victim: ClassVar[bytes] = (0).to_bytes(20, "big")

    def arrange(self, waiting: Receipts, now_ms: int) -> Receipts:
        return [each for each in waiting if self.desk.sender_of(each[0]) != self.victim]


class Stuffer(_LogLiar):
    name = "stuff"
    about = "stuffs its log with void ids, and with commands of its own before all others"

    def arrange(self, waiting: Receipts, now_ms: int) -> Receipts:
        desk, network = self.desk, self.desk.committee.network
        void = [CommandId(bytes(8) + desk.rng.randbytes(32)) for _ in range(STUFFING_PER_BATCH)]
        own: Receipts = []
        for _ in range(OWN_PER_BATCH):
            payload = b"stuffing" + desk.rng.randbytes(8)
            command = sign_command(network, now_ms + GHOST_EXPIRY_MS, b"\xee" * 20, payload)
            id_ = command_id(network, command)
            self.core.ctx.logs.add_body(id_, encode_command(command))
            own.append((id_, True))
        return [*own, *((id_, False) for id_ in void), *waiting]


class Future(_LogLiar):
    name = "future"
    about = "stamps its batches ten minutes ahead"

    def clock(self, now_ms: int) -> int:
        return now_ms + FAR_MS


class Backdater(_LogLiar):
    name = "backdate"
    about = "stamps all its batches with one early time"

    def clock(self, now_ms: int) -> int:
        return 1


class _Bodyless(_LogLiar):
    """Logs commands whose bodies it shows to `self.shown` only."""

    shown: tuple[int, ...] = ()

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._ghosts: dict[bytes, None] = {}

    def arrange(self, waiting: Receipts, now_ms: int) -> Receipts:
        network = self.desk.committee.network
        payload = b"ghost" + self.desk.rng.randbytes(8)
        command = sign_command(network, now_ms + GHOST_EXPIRY_MS, b"\xee" * 20, payload)
        id_, body = command_id(network, command), encode_command(command)
        self._ghosts[body] = None
        self.core.ctx.logs.add_body(id_, body)
        return [*waiting, (id_, False)]

    def say(self, peer: int, message: Message) -> Said:
        if isinstance(message, Bodies) and peer not in self.shown:
            message = Bodies(tuple(b for b in message.bodies if b not in self._ghosts))
        yield peer, message


class Bodyless(_Bodyless):
    name = "bodyless"
    about = "logs commands whose bodies only one honest replica can get from it"

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.shown = (desk.rng.choice(desk.honest),)


class Ghost(_Bodyless):
    name = "ghost"
    about = "logs commands whose bodies nobody ever gets"


class Swamper(_LogLiar):
    name = "swamp"
    about = "fills its log with ids of commands that do not exist, for others to ask for"

    def arrange(self, waiting: Receipts, now_ms: int) -> Receipts:
        expires_ms = (now_ms + GHOST_EXPIRY_MS).to_bytes(8, "big")
        room = self.desk.parameters.entries_max - len(waiting)
        ids = (CommandId(expires_ms + self.desk.rng.randbytes(32)) for _ in range(max(room, 0)))
        return [*waiting, *((id_, False) for id_ in ids)]


class Logless(Liar):
    name = "logless"
    about = "never shows its log, but takes part in everything else"

    def say(self, peer: int, message: Message) -> Said:
        if not isinstance(message, LogBatch | Batches):
            yield peer, message


class Withholder(Liar):
    name = "withhold"
    about = "shows its log to one honest replica, once, and claims to hold everything"

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._shown = desk.rng.choice(desk.honest)
        self._met = False
        self._shown_seq = 0

    def say(self, peer: int, message: Message) -> Said:
        match message:
            case LogBatch(seq=seq) if peer == self._shown and self._met and seq > self._shown_seq:
                self._shown_seq = seq
                yield peer, message
            case LogBatch() | Batches() | Bodies():
                pass
            case _:
                yield peer, claim_all(self.desk, message)

    def extra(self, now_ms: int, event: Input) -> Iterable[LiarEffect]:
        """Show what there is when they first meet; never again what the other may have lost."""
        if self._met or event != Connected(self._shown):
            return
        self._met = True
        ctx = self.core.ctx
        path = ctx.logs.path(ctx.me, ctx.logs.bases[ctx.me], ctx.own.head)
        for sealed in path if isinstance(path, list) else ():
            self._shown_seq = sealed.batch.seq
            yield Send(self._shown, sealed.batch)


class Forker(Liar):
    name = "fork"
    about = "signs two batches at every position of its log, one for each half"
    branches: ClassVar[int] = 2

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._made: dict[tuple[int, int], LogBatch] = {}
        self._tips: dict[int, LogBatch] = {}

    def branch_for(self, peer: int) -> int:
        """Return which branch a peer is shown; 0 is the core's own."""
        return self.desk.half(peer)

    def variant(self, batch: LogBatch, branch: int) -> LogBatch:
        """Return the batch at this position on a branch, made once."""
        if branch == 0:
            return batch
        made = self._made.get((branch, batch.seq))
        if made is None:
            tip = self._tips.get(branch)
            follows = tip is not None and tip.seq == batch.seq - 1
            made = self.desk.sign_batch(
                replace(
                    batch,
                    prev=batch_digest(tip) if tip is not None and follows else batch.prev,
                    time_ms=batch.time_ms + branch,
                    entries=batch.entries[::-1],
                )
            )
            self._made[branch, batch.seq] = self._tips[branch] = made
            ids = (command_id(self.desk.committee.network, decode_command(b)) for b in made.bodies)
            # Its own replica knows both branches, so it can follow whichever is committed.
            self.core.keeper.hold(SealedBatch(made, tuple(ids)))
        return made

    def say(self, peer: int, message: Message) -> Said:
        if isinstance(message, LogBatch):
            message = self.variant(message, self.branch_for(peer))
        yield peer, message


class Hydra(Forker):
    name = "hydra"
    about = "signs a dozen batches at every position, and floods everybody with all of them"

    def branch_for(self, peer: int) -> int:
        return peer % HEADS

    def say(self, peer: int, message: Message) -> Said:
        yield from super().say(peer, message)
        if isinstance(message, LogBatch):
            heads = [self.variant(message, branch) for branch in range(HEADS)]
            self.desk.rng.shuffle(heads)
            yield peer, Batches(tuple(heads))


class Inventor(Liar):
    name = "invent"
    about = "claims inbox messages that were never sent, and absurd prices"

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._invented: list[bytes] = []

    def hear(self, event: Input) -> Input | None:
        match event:
            case L1Observed():
                self.lies += 1
                since = len(self._invented)
                fresh = (b"invented %d" % since,)
                self._invented += fresh
                chained = inbox_chain(INBOX_START_HASH, tuple(self._invented))
                return L1Observed(since, fresh, chained)
            case PricesObserved(observations):
                return PricesObserved(
                    tuple(Observation(o.feed, 1, o.time_ms) for o in observations)
                )
            case _:
                return event
