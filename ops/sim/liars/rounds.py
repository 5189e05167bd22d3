"""Liars about rounds: proposals, votes, commit votes, timeouts and what their votes claim."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from msgspec.structs import replace

from consensus.batches import SealedBatch
from consensus.command import command_id, decode_command
from consensus.effects import (
    Broadcast,
    Effect,
    Input,
    Persist,
    Received,
    Send,
    SetTimer,
    TimerFired,
)
from consensus.inclusion import floor_heads
from consensus.logkeeper import TIMER as BATCH_TIMER
from consensus.messages import (
    QC,
    Batches,
    Block,
    Bodies,
    CommitVote,
    LogBatch,
    Message,
    Proposal,
    RoundTC,
    Timeout,
    Vote,
    block_digest,
)
from consensus.replica import Replica
from consensus.safety import Safety, extends, genesis_qc
from ops.sim.liars.base import Desk, Liar, LiarEffect, Said, claim_all, lying_safety, shameless

_TIMER = "liar"
_HELD_MAX = 256
_TWIN_PREFIX = "twin:"
_TWIN_MISSES = 0.3


class Mute(Liar):
    name = "mute"
    about = "does nothing at all"

    def step(self, now_ms: int, event: Input) -> list[LiarEffect]:
        self.lies += 1
        return []


class Silent(Liar):
    name = "silent"
    about = "logs and echoes, but never proposes, votes or times out"

    def say(self, peer: int, message: Message) -> Said:
        if not isinstance(message, Proposal | Vote | CommitVote | Timeout | RoundTC):
            yield peer, message


class NoLeader(Liar):
    name = "noleader"
    about = "never proposes when it is its turn"

    def say(self, peer: int, message: Message) -> Said:
        if not isinstance(message, Proposal):
            yield peer, message


class HighClaimer(Liar):
    name = "seen-high"
    about = "votes as if it held every log for ever, and serves nothing"

    def say(self, peer: int, message: Message) -> Said:
        if not isinstance(message, Batches | Bodies):
            yield peer, claim_all(self.desk, message)


class LowClaimer(Liar):
    name = "seen-low"
    about = "votes as if it held nothing beyond the block"

    def say(self, peer: int, message: Message) -> Said:
        if isinstance(message, Vote):
            block = self.core.ctx.tree.block(message.block)
            if block is not None:
                seen = tuple(head.seq for head in block.heads)
                message = self.desk.sign_vote(replace(message, seen=seen))
        yield peer, message


class TwoVoter(Liar):
    name = "two-votes"
    about = "votes for two blocks in every round, and commit-votes two"

    def say(self, peer: int, message: Message) -> Said:
        yield peer, message
        if self.desk.half(peer) and isinstance(message, Vote):
            yield peer, self.desk.sign_vote(replace(message, block=message.block[::-1]))
        if self.desk.half(peer) and isinstance(message, CommitVote):
            yield peer, self.desk.sign_commit_vote(replace(message, block=message.block[::-1]))


class _Reckless(Safety):
    """Forgets what it signed: votes again, and commit-votes what it timed out."""

    def may_vote(self, block: Block) -> bool:
        already = self.vote is not None and self.vote.block == block_digest(block)
        return extends(block.round, block.qc, block.tc) and not already

    def may_commit_vote(self, qc: QC) -> bool:
        return self.commit_vote is None or self.commit_vote.block != qc.block


class Turncoat(Liar):
    name = "turncoat"
    about = "votes and commit-votes against its own timeouts, and times out on the oldest QC"

    def adopt(self, core: Replica) -> None:
        super().adopt(core)
        lying_safety(core, _Reckless)

    def say(self, peer: int, message: Message) -> Said:
        if isinstance(message, Timeout):
            tc = self.core.ctx.safety.hi_tc
            if tc is not None and tc.round == message.round - 1:
                oldest = genesis_qc(self.desk.genesis_digest)
                message = self.desk.sign_timeout(replace(message, lock=oldest, tc=tc))
        yield peer, message


class Staller(Liar):
    name = "stall"
    about = "sends proposals and certificates only just before the others give up the round"
    late: ClassVar[tuple[type[Message], ...]] = (Proposal, RoundTC)
    percent: ClassVar[tuple[int, int]] = (60, 110)
    """Of the round's timer: by how much what is late is late."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._held: list[tuple[int, int, Message]] = []
        self._now_ms = 0

    def step(self, now_ms: int, event: Input) -> list[LiarEffect]:
        self._now_ms = now_ms
        return super().step(now_ms, event)

    def hear(self, event: Input) -> Input | None:
        return None if event == TimerFired(_TIMER) else event

    def say(self, peer: int, message: Message) -> Said:
        if not isinstance(message, self.late) or len(self._held) >= _HELD_MAX:
            yield peer, message
            return
        delay_ms = self.desk.parameters.round_timer_ms * self.desk.rng.randint(*self.percent) // 100
        self._held.append((self._now_ms + delay_ms, peer, message))

    def extra(self, now_ms: int, event: Input) -> Iterable[LiarEffect]:
        due = [each for each in self._held if each[0] <= now_ms]
        self._held = [each for each in self._held if each[0] > now_ms]
        yield from (Send(peer, message) for _, peer, message in due)
        if self._held:
            yield SetTimer(_TIMER, min(at_ms for at_ms, _, _ in self._held))


class Equivocator(Liar):
    name = "equivocate"
    about = "proposes two blocks, one to each half, and votes and commit-votes for both"

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._other: dict[bytes, Proposal] = {}

    def other(self, proposal: Proposal) -> Proposal:
        """Return a second valid proposal for the round, made once."""
        digest = block_digest(proposal.block)
        if digest not in self._other:
            if len(self._other) > _HELD_MAX:
                self._other.clear()
            self._other[digest] = self.desk.sign_block(self._variant(proposal.block))
        return self._other[digest]

    def _variant(self, block: Block) -> Block:
        parent = self.core.ctx.tree.block(block.qc.block)
        committee = self.desk.committee
        if parent is not None:
            cap = self.desk.parameters.head_cap
            floors = floor_heads(parent, block.qc, committee.f, cap)
            heads = tuple(
                before if before.seq == floor else head
                for head, before, floor in zip(block.heads, parent.heads, floors, strict=True)
            )
            if heads != block.heads:
                return replace(block, heads=heads)
        # A certificate that the block does not need makes another block, no less valid.
        tc = self.core.ctx.safety.hi_tc if block.tc is None else None
        return replace(block, tc=tc) if block.qc.round == block.round - 1 else block

    def say(self, peer: int, message: Message) -> Said:
        if self.desk.half(peer):
            match message:
                case Proposal():
                    message = self.other(message)
                case Vote() if message.block in self._other:
                    other = block_digest(self._other[message.block].block)
                    message = self.desk.sign_vote(replace(message, block=other))
                case CommitVote() if message.block in self._other:
                    other = block_digest(self._other[message.block].block)
                    message = self.desk.sign_commit_vote(replace(message, block=other))
                case _:
                    pass
        yield peer, message


class Twin(Liar):
    """Both hold one log, or neither could follow what is committed of it; the second misses some
    of the others' batches, so that the blocks of the two differ."""

    name = "twin"
    about = "is two replicas with one key and one log, one for each half of the others"

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._second: Replica | None = None
        self._persist: Callable[[Persist], None] = lambda _: None

    def adopt(self, core: Replica) -> None:
        super().adopt(core)
        self._second, self._persist = self.desk.twin()
        shameless(self._second)

    def step(self, now_ms: int, event: Input) -> list[LiarEffect]:
        second = self._second
        assert second is not None
        if isinstance(event, TimerFired) and event.name.startswith(_TWIN_PREFIX):
            name = event.name.removeprefix(_TWIN_PREFIX)
            # Only the first makes batches.
            effects = [] if name == BATCH_TIMER else second.step(now_ms, TimerFired(name))
            return self._of_second(effects)
        done: list[LiarEffect] = []
        for effect in self.core.step(now_ms, event):
            if isinstance(effect, Broadcast) and isinstance(effect.message, LogBatch):
                self._share(second, effect.message)
                done.append(effect)
            else:
                done += self._to_half(effect, 0)
        if not isinstance(event, TimerFired) and not self._misses(event):
            done += self._of_second(second.step(now_ms, event))
        return done

    def _misses(self, event: Input) -> bool:
        batch = isinstance(event, Received) and isinstance(event.message, LogBatch)
        return batch and self.desk.rng.random() < _TWIN_MISSES

    def _share(self, second: Replica, batch: LogBatch) -> None:
        network = self.desk.committee.network
        ids = (command_id(network, decode_command(body)) for body in batch.bodies)
        sealed = SealedBatch(batch, tuple(ids))
        if second.ctx.logs.batch(batch.author, sealed.digest) is None:
            second.keeper.hold(sealed)

    def _of_second(self, effects: list[Effect]) -> list[LiarEffect]:
        done: list[LiarEffect] = []
        for effect in effects:
            match effect:
                case Persist():
                    self._persist(effect)
                case SetTimer():
                    done.append(replace(effect, name=_TWIN_PREFIX + effect.name))
                case _:
                    self.lies += 1
                    done += self._to_half(effect, 1)
        return done

    def _to_half(self, effect: Effect, half: int) -> list[LiarEffect]:
        match effect:
            case Broadcast(message):
                peers = [p for p in self.desk.peers if self.desk.half(p) == half]
                return [Send(peer, message) for peer in peers]
            case Send(peer, _) if self.desk.half(peer) != half:
                return []
            case _:
                return [effect]
