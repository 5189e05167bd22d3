"""What every liar is: the production replica with its inputs and its words tampered with."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from msgspec.structs import replace

from consensus.command import CommandId
from consensus.committee import Committee, Parameters
from consensus.crypto import ReplicaSigner
from consensus.digest import Digest
from consensus.effects import Broadcast, Effect, Input, Persist, Send, Submitted
from consensus.guard import Guard
from consensus.messages import (
    TAG_BATCH,
    TAG_BLOCK,
    TAG_COMMIT,
    TAG_TIMEOUT,
    TAG_VOTE,
    Block,
    CommitVote,
    LogBatch,
    Message,
    Proposal,
    Timeout,
    Vote,
    batch_digest,
    block_digest,
    commit_digest,
    timeout_digest,
    vote_digest,
)
from consensus.ownlog import OwnLog
from consensus.replica import Replica
from consensus.safety import Safety


@dataclass(frozen=True, slots=True)
class Frame:
    """Raw bytes for one peer, well-formed or not."""

    peer: int
    data: bytes


LiarEffect = Effect | Frame


@dataclass(frozen=True, slots=True)
class Desk:
    """What a liar has at hand: its own key, chance, and all that a spy could know."""

    me: int
    committee: Committee
    parameters: Parameters
    signer: ReplicaSigner
    rng: random.Random
    honest: tuple[int, ...]
    sender_of: Callable[[CommandId], bytes | None]
    genesis_digest: Digest
    twin: Callable[[], tuple[Replica, Callable[[Persist], None]]]
    """Makes a second replica with the same key, and the disk that it persists to."""
    submit: Callable[[int, Submitted, int], None] = lambda *_: None
    """Has a command arrive at a replica's door after so many microseconds."""

    @property
    def peers(self) -> tuple[int, ...]:
        return tuple(p for p in range(self.committee.n) if p != self.me)

    def half(self, peer: int) -> int:
        """Return which half of the honest replicas, 0 or 1, a peer is in."""
        return self.honest.index(peer) % 2 if peer in self.honest else 0

    def sign_batch(self, batch: LogBatch) -> LogBatch:
        """Return `batch` under this liar's own, valid signature; so for the others."""
        signature = self.signer.sign(batch.epoch, TAG_BATCH, batch_digest(batch))
        return replace(batch, signature=signature)

    def sign_block(self, block: Block) -> Proposal:
        return Proposal(block, self.signer.sign(block.epoch, TAG_BLOCK, block_digest(block)))

    def sign_vote(self, vote: Vote) -> Vote:
        covered = vote_digest(vote.round, vote.block, vote.seen)
        return replace(vote, signature=self.signer.sign(vote.epoch, TAG_VOTE, covered))

    def sign_commit_vote(self, vote: CommitVote) -> CommitVote:
        covered = commit_digest(vote.round, vote.block)
        return replace(vote, signature=self.signer.sign(vote.epoch, TAG_COMMIT, covered))

    def sign_timeout(self, timeout: Timeout) -> Timeout:
        covered = timeout_digest(timeout.round, timeout.lock.round)
        return replace(timeout, signature=self.signer.sign(timeout.epoch, TAG_TIMEOUT, covered))


BEYOND_ALL = 1 << 40
"""A seq that no log reaches."""


def claim_all(desk: Desk, message: Message) -> Message:
    """Return `message`, or if it is a vote one that claims to hold everything."""
    if isinstance(message, Vote):
        return desk.sign_vote(replace(message, seen=(BEYOND_ALL,) * desk.committee.n))
    return message


Said = Iterable[tuple[int, Message]]


class Liar:
    """Runs the production core and passes everything through; subclasses tamper."""

    name: ClassVar[str]
    about: ClassVar[str]

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._core: Replica | None = None
        self.lies = 0
        """Messages withheld, changed or added, and receipts or clocks falsified."""

    @property
    def core(self) -> Replica:
        assert self._core is not None, "a liar hears nothing before its machine is up"
        return self._core

    def adopt(self, core: Replica) -> None:
        """Take over a replica that has just been made from the disk."""
        self._core = core
        shameless(core)

    def step(self, now_ms: int, event: Input) -> list[LiarEffect]:
        """Return what this replica does about `event`, truthful or not."""
        heard = self.hear(event)
        effects = [] if heard is None else list(self.core.step(now_ms, heard))
        done = self.rewrite(effects)
        for effect in self.extra(now_ms, event):
            self.lies += isinstance(effect, Send | Frame)
            done.append(effect)
        return done

    def hear(self, event: Input) -> Input | None:
        """Return the input that the core gets, or None."""
        return event

    def rewrite(self, effects: list[Effect]) -> list[LiarEffect]:
        """Return what is carried out instead: by default every message as `say` has it."""
        done: list[LiarEffect] = []
        for effect in effects:
            match effect:
                case Broadcast(message):
                    for peer in self.desk.peers:
                        done += self._spoken(peer, message)
                case Send(peer, message):
                    done += self._spoken(peer, message)
                case _:
                    done.append(effect)
        return done

    def _spoken(self, peer: int, message: Message) -> list[Send]:
        said = [Send(to, instead) for to, instead in self.say(peer, message)]
        self.lies += len(said) != 1 or said[0].message is not message or said[0].peer != peer
        return said

    def say(self, peer: int, message: Message) -> Said:
        """Return what is sent instead of `message` to `peer`."""
        yield peer, message

    def extra(self, now_ms: int, event: Input) -> Iterable[LiarEffect]:
        """Return what is sent besides."""
        return ()


class Shameless(Guard):
    """Signs at once, and does not mind what else its key has signed."""

    def start(self) -> bool:
        ctx = self._ctx
        ctx.held_back = ctx.silent = False
        self.silence = None
        return ctx.me < ctx.committee.n

    def _unknown(self, what: str, theirs: bytes, ours: bytes) -> None:
        pass


def shameless(core: Replica) -> None:
    """Take its guard from a replica that shares its key, or lies with it."""
    guard = Shameless.__new__(Shameless)
    guard.__dict__.update(core.guard.__dict__)
    core.guard = guard


L = TypeVar("L", bound=OwnLog)
S = TypeVar("S", bound=Safety)


def lying_log(core: Replica, kind: type[L]) -> L:
    """Put an order log of `kind` in the place of the replica's own, with the same state."""
    log = kind.__new__(kind)
    log.__dict__.update(core.ctx.own.__dict__)
    core.ctx.own = log
    return log


def lying_safety(core: Replica, kind: type[S]) -> S:
    """Put voting rules of `kind` in the place of the replica's own, with the same state."""
    safety = kind.__new__(kind)
    safety.__dict__.update(core.ctx.safety.__dict__)
    core.ctx.safety = safety
    return safety
