"""Liars who trade: what a replica's operator can do through the doors of the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import msgspec
from msgspec.structs import asdict

from consensus.command import CommandId, command_id, decode_command, encode_command
from consensus.committee import Parameters
from consensus.effects import Input, SetTimer, Start, Submitted, TimerFired
from consensus.messages import Bodies, Message
from consensus.replica import Replica
from ops.sim.keys import other_signature, sign_command
from ops.sim.liars.base import Desk, LiarEffect, Said
from ops.sim.liars.logs import Receipts, _LogLiar

TIMER = "trade"
LIFE_MS = 30_000
FAR_MS = 500_000
"""Further ahead than the order takes a command."""


class _Trader(_LogLiar):
    """Sends commands of its own to the others' doors, at times of its choosing."""

    every_ms: ClassVar[int] = 30

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._made = 0

    def hear(self, event: Input) -> Input | None:
        return None if event == TimerFired(TIMER) else event

    def extra(self, now_ms: int, event: Input) -> Iterable[LiarEffect]:
        if event == TimerFired(TIMER):
            self.trade(now_ms)
        if isinstance(event, Start) or event == TimerFired(TIMER):
            yield SetTimer(TIMER, now_ms + self.every_ms)

    def trade(self, now_ms: int) -> None:
        """Send what there is to send now."""
        raise NotImplementedError

    def send(self, replica: int, event: Submitted, after_ms: int) -> None:
        """Have a command arrive at a replica's door."""
        self.lies += 1
        self.desk.submit(replica, event, after_ms * 1_000)

    def command(self, expires_ms: int) -> Submitted:
        """Return a new command of this trader."""
        self._made += 1
        network = self.desk.committee.network
        payload = b"scheme %d %d" % (self.desk.me, self._made)
        command = sign_command(network, expires_ms, b"\xdd" * 20, payload)
        return Submitted(command_id(network, command), encode_command(command))


class Cycler(_Trader):
    """Three commands go out in each of their three rotations, to a third of the replicas each; the
    last three still arrive when the next begin, so that one circle leads into another."""

    name = "cycle"
    about = "is a client whose commands reach the replicas in rolling Condorcet cycles"
    every_ms = 24
    step_ms: ClassVar[int] = 9

    def trade(self, now_ms: int) -> None:
        for place in range(3):
            event = self.command(now_ms + LIFE_MS)
            for group, replica in enumerate(self.desk.honest):
                turn = (place - group) % 3
                self.send(replica, event, turn * self.step_ms)


class Planter(_Trader):
    """A third command comes first here and last there; the liar's log closes the circle."""

    name = "plant"
    about = "is a client who plants commands that turn those of trader 0 behind later ones"
    every_ms = 50
    span_ms = 60
    victim: ClassVar[bytes] = (0).to_bytes(20, "big")

    def trade(self, now_ms: int) -> None:
        event = self.command(now_ms + LIFE_MS)
        for place, replica in enumerate(self.desk.honest):
            self.send(replica, event, 0 if place % 2 else 70)

    def arrange(self, waiting: Receipts, now_ms: int) -> Receipts:
        """Have the others' commands first, then what was planted, then the victim's."""

        def place(receipt: tuple[CommandId, bool]) -> int:
            sender = self.desk.sender_of(receipt[0])
            return 2 if sender == self.victim else 1 if sender is None else 0

        return sorted(waiting, key=place)


class Expirer(_Trader):
    """Some replicas receive a command alive and others when it is over, or none can take it."""

    name = "expire"
    about = "is a client whose commands expire on their way, or only in a far future"
    every_ms = 20

    def trade(self, now_ms: int) -> None:
        rng = self.desk.rng
        life_ms = rng.choice((1, 15, 40, 80, 150, FAR_MS))
        event = self.command(now_ms + life_ms)
        for replica in self.desk.honest:
            self.send(replica, event, rng.randrange(100))


class _NoQuota(Parameters, frozen=True):
    """Lets a batch introduce whatever it has room for."""

    def introduce_max(self, n: int) -> int:
        return self.entries_max


class Introducer(_Trader):
    """Commands enough to fill every log, so that no other's find room in them."""

    name = "introduce"
    about = "introduces as many commands in a batch as it has room for, far over its quota"
    eager = True

    def adopt(self, core: Replica) -> None:
        super().adopt(core)
        core.ctx.own._parameters = _NoQuota(**asdict(core.ctx.own._parameters))

    def trade(self, now_ms: int) -> None:
        pass

    def arrange(self, waiting: Receipts, now_ms: int) -> Receipts:
        own: Receipts = []
        for _ in range(self.desk.parameters.entries_max - len(waiting)):
            event = self.command(now_ms + LIFE_MS)
            self.core.ctx.logs.add_body(event.id, event.body)
            own.append((event.id, True))
        return [*own, *waiting]


class Resigner(_LogLiar):
    """An ECDSA signature (r, s) has a twin (r, -s): the same command under other bytes."""

    name = "resign"
    about = "introduces the commands of others again, under their signatures' twins"

    def arrange(self, waiting: Receipts, now_ms: int) -> Receipts:
        logs, network = self.core.ctx.logs, self.desk.committee.network
        again: Receipts = []
        for id_, _ in waiting:
            body = logs.body(id_)
            if body is None:
                continue
            command = decode_command(body)
            twin = msgspec.structs.replace(command, signature=other_signature(command.signature))
            twin_id = command_id(network, twin)
            if twin_id != id_ and logs.body(twin_id) is None:
                logs.add_body(twin_id, encode_command(twin))
                again.append((twin_id, True))
        return [*waiting, *again]

    def say(self, peer: int, message: Message) -> Said:
        """Show the twin also where the id, which does not cover it, is the same."""
        if isinstance(message, Bodies):
            twins = []
            for body in message.bodies:
                command = decode_command(body)
                signature = other_signature(command.signature)
                twins.append(encode_command(msgspec.structs.replace(command, signature=signature)))
            message = Bodies(tuple(twins))
        yield peer, message
