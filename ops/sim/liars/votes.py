"""Liars about what they know and when they say it: certificates, votes, their own past."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from msgspec.structs import replace

from consensus.effects import Effect, Input, Persist, SetTimer, Start, TimerFired
from consensus.messages import (
    Block,
    CommitVote,
    Message,
    Proposal,
    RoundInfo,
    RoundTC,
    Timeout,
    Vote,
)
from consensus.safety import genesis_qc
from ops.sim.liars.base import Desk, Liar, LiarEffect, Said
from ops.sim.liars.rounds import Staller

_TIMER = "liar"
FORGETS_MS = 700
"""An amnesiac loses its disk so often."""


class LateVoter(Staller):
    name = "late-votes"
    about = "votes, commit-votes and times out up to a round late"
    late: ClassVar[tuple[type[Message], ...]] = (Vote, CommitVote, Timeout)
    percent: ClassVar[tuple[int, int]] = (10, 120)


class Abstainer(Liar):
    name = "no-votes"
    about = "proposes and times out, and withholds its votes and commit votes"

    def say(self, peer: int, message: Message) -> Said:
        if not isinstance(message, Vote | CommitVote):
            yield peer, message


class Hider(Liar):
    """Its votes and proposals reach just enough others for a certificate that few know of."""

    name = "hide-qc"
    about = "lets a bare quorum certify, shows nobody the QC, and times out on the oldest one"

    def _is_close(self, peer: int) -> bool:
        honest = self.desk.honest
        return peer in honest and honest.index(peer) < self.desk.committee.quorum - 1

    def say(self, peer: int, message: Message) -> Said:
        match message:
            case Proposal() | Vote() | CommitVote() if not self._is_close(peer):
                return
            case RoundInfo() | RoundTC():
                return
            case Timeout():
                tc = self.core.ctx.safety.hi_tc
                if tc is not None and tc.round == message.round - 1:
                    oldest = genesis_qc(self.desk.genesis_digest)
                    message = self.desk.sign_timeout(replace(message, lock=oldest, tc=tc))
        yield peer, message


class Amnesiac(Liar):
    """Its replica starts again and again from an empty disk, and signs as if for the first time."""

    name = "amnesia"
    about = "loses its disk now and then, and signs again whatever it signed before"

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._persist: Callable[[Persist], None] | None = None

    def step(self, now_ms: int, event: Input) -> list[LiarEffect]:
        if event != TimerFired(_TIMER):
            return super().step(now_ms, event)
        self.lies += 1
        fresh, self._persist = self.desk.twin()
        self.adopt(fresh)
        return self.step(now_ms, Start())

    def rewrite(self, effects: list[Effect]) -> list[LiarEffect]:
        done: list[LiarEffect] = []
        for effect in super().rewrite(effects):
            if self._persist is not None and isinstance(effect, Persist):
                self._persist(effect)
            else:
                done.append(effect)
        return done

    def extra(self, now_ms: int, event: Input) -> Iterable[LiarEffect]:
        if isinstance(event, Start):
            yield SetTimer(_TIMER, now_ms + FORGETS_MS)


class _FalseLeader(Liar):
    """Has its proposals say something else, under its own signature."""

    def say(self, peer: int, message: Message) -> Said:
        if isinstance(message, Proposal):
            message = self.desk.sign_block(self.falsify(message.block))
        yield peer, message

    def falsify(self, block: Block) -> Block:
        """Return the block that is proposed instead."""
        raise NotImplementedError


class LeaverOut(_FalseLeader):
    name = "leave-out"
    about = "proposes blocks that take the logs of half of the others no further"

    def falsify(self, block: Block) -> Block:
        parent = self.core.ctx.tree.block(block.qc.block)
        if parent is None:
            return block
        heads = tuple(
            before if author != self.desk.me and self.desk.half(author) else head
            for author, (head, before) in enumerate(zip(block.heads, parent.heads, strict=True))
        )
        return replace(block, heads=heads)


class WrongState(_FalseLeader):
    name = "wrong-state"
    about = "names wrong state digests in its proposals"

    def falsify(self, block: Block) -> Block:
        wrong = bytes(b ^ 0xFF for b in block.executed_digest)
        return replace(block, executed_digest=wrong)


class StaleLeader(_FalseLeader):
    name = "stale"
    about = "proposes, answers and times out with certificates that are long superseded"

    def falsify(self, block: Block) -> Block:
        return replace(block, qc=self.core.ctx.tree.tip.qc)

    def say(self, peer: int, message: Message) -> Said:
        tip = self.core.ctx.tree.tip
        match message:
            case RoundInfo():
                yield peer, replace(message, lock=tip.qc, tc=None)
            case Timeout() if message.tc is not None and tip.qc.round < message.round:
                yield peer, self.desk.sign_timeout(replace(message, lock=tip.qc))
            case _:
                yield from super().say(peer, message)
