"""Liars at the edge: boasts, echoes of others' words, forged fields and plain garbage."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from msgspec.structs import replace

from consensus.codec import encode
from consensus.effects import Input, Received, Send
from consensus.messages import (
    Block,
    Blocks,
    Chain,
    Head,
    Message,
    Proposal,
    RoundInfo,
    Timeout,
    Vote,
)
from ops.sim.liars.base import Desk, Frame, Liar, LiarEffect, Said

_BOAST_HEIGHT = 1 << 40
_REMEMBERED_MAX = 200


class Boaster(Liar):
    name = "boast"
    about = "says that it is far ahead, and never shows a block, its own but once"

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._shown: dict[int, int] = {}

    def say(self, peer: int, message: Message) -> Said:
        if isinstance(message, Proposal):
            if message.block.round <= self._shown.get(peer, 0):
                return
            self._shown[peer] = message.block.round
        if isinstance(message, RoundInfo):
            message = replace(message, committed_height=_BOAST_HEIGHT)
        if not isinstance(message, Blocks | Chain):
            yield peer, message

    def extra(self, now_ms: int, event: Input) -> Iterable[LiarEffect]:
        if isinstance(event, Received) and self.desk.rng.random() < 0.02:
            s = self.core.ctx.safety
            yield Send(event.peer, RoundInfo(s.epoch, s.lock, s.hi_tc, _BOAST_HEIGHT))


class Echoer(Liar):
    name = "echo"
    about = "sends everybody what others said, long ago and just now"

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._heard: deque[Message] = deque(maxlen=_REMEMBERED_MAX)

    def extra(self, now_ms: int, event: Input) -> Iterable[LiarEffect]:
        if not isinstance(event, Received):
            return
        self._heard.append(event.message)
        if self.desk.rng.random() < 0.2:
            yield Send(self.desk.rng.choice(self.desk.peers), self.desk.rng.choice(self._heard))


class Forger(Liar):
    name = "forge"
    about = "puts wrong values into its proposals, votes and timeouts, and signs them"

    def say(self, peer: int, message: Message) -> Said:
        desk, rng = self.desk, self.desk.rng
        if rng.random() < 0.5:
            yield peer, message
            return
        match message:
            case Proposal(block):
                yield peer, desk.sign_block(self._forged(block))
            case Vote() if rng.random() < 0.5:
                yield (
                    peer,
                    desk.sign_vote(replace(message, round=message.round + rng.randint(1, 9))),
                )
            case Vote():
                yield peer, desk.sign_vote(replace(message, block=rng.randbytes(32)))
            case Timeout():
                later = replace(message, round=message.round + rng.randint(1, 40))
                yield peer, desk.sign_timeout(later)
            case _:
                yield peer, message

    def _forged(self, block: Block) -> Block:
        rng = self.desk.rng
        heads = list(block.heads)
        victim = rng.randrange(len(heads))
        match rng.randrange(8):
            case 0:
                return replace(block, height=block.height + rng.choice((-1, 1, 7)))
            case 1:
                return replace(block, executed_digest=rng.randbytes(32))
            case 2:
                return replace(block, executed_height=max(0, block.height - 1))
            case 3:
                heads[victim] = Head(heads[victim].seq, rng.randbytes(32))
            case 4:
                heads[victim] = Head(heads[victim].seq + 1, heads[victim].digest)
            case 5:
                heads[victim] = Head(max(0, heads[victim].seq - 1), heads[victim].digest)
            case 6:
                return replace(block, round=block.round + self.desk.committee.n)
            case _:
                return replace(block, qc=self.core.ctx.tree.tip.qc)
        return replace(block, heads=tuple(heads))


class Babbler(Liar):
    name = "babble"
    about = "sends random bytes and frames with flipped bits"

    def extra(self, now_ms: int, event: Input) -> Iterable[LiarEffect]:
        rng = self.desk.rng
        if not isinstance(event, Received) or rng.random() > 0.1:
            return
        data = bytearray(encode(event.message) if rng.random() < 0.8 else rng.randbytes(200))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield Frame(rng.choice(self.desk.peers), bytes(data))
