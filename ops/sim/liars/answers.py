"""Liars in what they send besides: forged certificates, foreign epochs, floods and slow answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from msgspec.structs import replace

from consensus.crypto import Signature
from consensus.effects import Input, Received, Send, SetTimer, TimerFired
from consensus.messages import (
    QC,
    TC,
    Batches,
    Blocks,
    Bodies,
    Chain,
    CommitVote,
    GetBatches,
    GetBodies,
    GetChain,
    LogBatch,
    Message,
    Proposal,
    RoundInfo,
    RoundTC,
    StateObjects,
    Timeout,
    Vote,
)
from ops.sim.liars.base import Desk, Liar, LiarEffect, Said

_TIMER = "liar"
_KEPT_MAX = 200
FLOOD = 12
FLOOD_MS = 10
"""A flooder sends so many frames so often."""
DRIP_MS = 90


class Counterfeiter(Liar):
    """A certificate of too few, of one voter twice, or with a signature that is none."""

    name = "forge-qc"
    about = "sends QCs and TCs of too few or repeated voters, or with false signatures"

    def say(self, peer: int, message: Message) -> Said:
        match message:
            case RoundInfo():
                message = replace(message, lock=self._qc(message.lock))
            case RoundTC():
                message = replace(message, tc=self._tc(message.tc))
            case Timeout():
                message = replace(message, lock=self._qc(message.lock))
            case Proposal(block=block):
                message = self.desk.sign_block(replace(block, qc=self._qc(block.qc)))
        yield peer, message

    def _qc(self, qc: QC) -> QC:
        if not qc.votes:
            return replace(qc, round=self.desk.rng.randint(1, 1_000))
        match self.desk.rng.randrange(3):
            case 0:
                return replace(qc, votes=qc.votes[:-1])
            case 1:
                return replace(qc, votes=(*qc.votes[:-1], qc.votes[0]))
            case _:
                forged = replace(qc.votes[-1], signature=Signature(self.desk.rng.randbytes(64)))
                return replace(qc, votes=(*qc.votes[:-1], forged))

    def _tc(self, tc: TC) -> TC:
        if self.desk.rng.random() < 0.5:
            return replace(tc, timeouts=tc.timeouts[:-1])
        return replace(tc, round=tc.round + 1)


class Foreigner(Liar):
    name = "epoch"
    about = "signs its statements for the epochs before and after this one"

    def say(self, peer: int, message: Message) -> Said:
        desk, other = self.desk, self.desk.committee.epoch + self.desk.rng.choice((-1, 1))
        yield peer, message
        match message:
            case Vote():
                yield peer, desk.sign_vote(replace(message, epoch=other))
            case CommitVote():
                yield peer, desk.sign_commit_vote(replace(message, epoch=other))
            case Timeout():
                yield peer, desk.sign_timeout(replace(message, epoch=other))
            case Proposal(block=block):
                yield peer, desk.sign_block(replace(block, epoch=other))
            case LogBatch():
                yield peer, desk.sign_batch(replace(message, epoch=other))


class Mirror(Liar):
    """What a replica hears of its own key must neither move nor stop it, unless it is new."""

    name = "mirror"
    about = "gives everybody back what they signed themselves, true and slightly changed"

    def extra(self, now_ms: int, event: Input) -> Iterable[LiarEffect]:
        if not isinstance(event, Received) or self.desk.rng.random() < 0.7:
            return
        peer, said = event.peer, event.message
        if isinstance(said, LogBatch):
            yield Send(peer, Batches((said,)))
            yield Send(peer, Batches((replace(said, time_ms=said.time_ms + 1),)))
        elif isinstance(said, Vote | CommitVote | Timeout | Proposal):
            yield Send(peer, said)
            if isinstance(said, Vote):
                yield Send(peer, replace(said, block=said.block[::-1]))


class Dripper(Liar):
    name = "drip"
    about = "answers questions one item at a time, and late"

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._waiting: deque[tuple[int, Message]] = deque(maxlen=_KEPT_MAX)

    def hear(self, event: Input) -> Input | None:
        return None if event == TimerFired(_TIMER) else event

    def say(self, peer: int, message: Message) -> Said:
        pieces: list[Message]
        match message:
            case Batches(batches):
                pieces = [Batches((each,)) for each in batches]
            case Bodies(bodies):
                pieces = [Bodies((each,)) for each in bodies]
            case Blocks(blocks):
                pieces = [Blocks((each,)) for each in blocks]
            case Chain() | StateObjects():
                pieces = [message]
            case _:
                yield peer, message
                return
        self._waiting.extend((peer, piece) for piece in pieces)

    def extra(self, now_ms: int, event: Input) -> Iterable[LiarEffect]:
        if event == TimerFired(_TIMER) and self._waiting:
            yield Send(*self._waiting.popleft())
        if self._waiting:
            yield SetTimer(_TIMER, now_ms + DRIP_MS)


class Flooder(Liar):
    """Asks for what takes most work to answer, and says again what takes most to check."""

    name = "flood"
    about = "drowns everybody in questions and in its own old messages"

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._said: deque[Message] = deque(maxlen=_KEPT_MAX)
        self._flooded_ms = 0

    def say(self, peer: int, message: Message) -> Said:
        self._said.append(message)
        yield peer, message

    def extra(self, now_ms: int, event: Input) -> Iterable[LiarEffect]:
        rng, peers = self.desk.rng, self.desk.peers
        if now_ms < self._flooded_ms + FLOOD_MS:
            return
        self._flooded_ms = now_ms
        ctx, epoch = self.core.ctx, self.desk.committee.epoch
        for _ in range(FLOOD):
            author = rng.randrange(self.desk.committee.n)
            question: Message = GetBatches(epoch, author, ctx.tree.tip.heads[author], None)
            match rng.randrange(4):
                case 0:
                    question = GetChain(rng.randrange(ctx.tree.tip.height + 2))
                case 1:
                    question = GetBodies((bytes(8) + rng.randbytes(32),))
                case 2 if self._said:
                    question = rng.choice(self._said)
            yield Send(rng.choice(peers), question)


class BadState(Liar):
    name = "bad-state"
    about = "serves objects of state that are not what was asked for"

    def say(self, peer: int, message: Message) -> Said:
        if isinstance(message, StateObjects):
            rng = self.desk.rng
            objects = [each and rng.randbytes(len(each)) for each in message.objects]
            message = replace(message, objects=tuple(objects))
        yield peer, message
