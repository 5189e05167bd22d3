"""Weaker protocols: production classes with one rule taken out, for the simulator to catch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import MappingProxyType

import pytest
from msgspec.structs import replace

from consensus.codec import decode
from consensus.command import CommandId
from consensus.committee import faults
from consensus.context import (
    KEY_OWN_HEAD,
    TABLE_BATCHES,
    TABLE_BODIES,
    TABLE_LOG,
    Context,
    batch_key,
)
from consensus.digest import Digest
from consensus.logkeeper import LogKeeper
from consensus.messages import QC, TC, Block, Head, LogBatch, Timeout, Vote
from consensus.rounds import Rounds
from consensus.safety import Safety, SafetyRecord


def quorum_2f1(n: int) -> int:
    """2f+1: two quorums of 3 among 5 share one replica, who may be the liar."""
    return 2 * faults(n) + 1


class LockOnlyWithCommitVote(Safety):
    """A QC of a round that was timed out leaves the lock where it is."""

    def take_qc(self, qc: QC) -> bool:
        return qc.round > self.hi_timeout and super().take_qc(qc)

    def sign_vote(self, block: Block, digest: Digest, seen: tuple[int, ...]) -> Vote:
        vote = super().sign_vote(block, digest, seen)
        super().take_qc(block.qc)
        return vote


class NoTimeoutCheck(Safety):
    """A commit vote may follow the timeout of its round."""

    def may_commit_vote(self, qc: QC) -> bool:
        return qc.round > (self.commit_vote.round if self.commit_vote else 0)


class ForgetsVotes(Safety):
    """The durable record does not know in which round the last vote was."""

    def record(self) -> SafetyRecord:
        return replace(super().record(), last_voted=0, vote=None)


class ForgetsData(Context):
    """Peers' batches and bodies reach the disk with the commit, not before the vote."""

    def write(self, table: str, key: bytes, value: bytes | None) -> None:
        stash: dict[tuple[str, bytes], bytes] = self.__dict__.setdefault("stash", {})
        if table == TABLE_BODIES or (table == TABLE_BATCHES and not self._is_mine(key)):
            assert value is not None
            stash[table, key] = value
            return
        super().write(table, key, value)
        if key == KEY_OWN_HEAD or (table == TABLE_LOG and value is not None):
            author = self.me if key == KEY_OWN_HEAD else int.from_bytes(key[4:6], "big")
            head = self.own.head if key == KEY_OWN_HEAD else Head(_seq(key), value or b"")
            self._unstash(stash, batch_key(self.committee.epoch, author, head), author)

    def _is_mine(self, key: bytes) -> bool:
        return int.from_bytes(key[4:6], "big") == self.me

    def _unstash(self, stash: dict[tuple[str, bytes], bytes], key: bytes, author: int) -> None:
        raw = stash.pop((TABLE_BATCHES, key), None)
        sealed = self.logs.batch(author, key[14:])
        if raw is not None:
            super().write(TABLE_BATCHES, key, raw)
        batch = decode(LogBatch, raw) if raw is not None else sealed.batch if sealed else None
        for entry in batch.entries if batch is not None else ():
            body = stash.pop((TABLE_BODIES, entry), None)
            if body is not None:
                super().write(TABLE_BODIES, entry, body)


def _seq(key: bytes) -> int:
    return int.from_bytes(key[6:14], "big")


class NoRelog(LogKeeper):
    """What a crash took from the queue of echoes is never appended again."""

    def relog(self) -> None:
        pass

    def after_commit(self, emitted: Iterable[CommandId], void: Iterable[CommandId]) -> None:
        for id_ in (*emitted, *void):
            self._unanswered.pop(id_, None)


class BareTimeouts(Rounds):
    """A timeout says its round and nothing else: its certificates are not taken in."""

    unread: tuple[QC | TC | None, ...] = ()

    def on_timeout(self, peer: int, timeout: Timeout) -> None:
        self.unread = (timeout.lock, timeout.tc)
        super().on_timeout(peer, timeout)
        self.unread = ()

    def take_qc(self, qc: QC) -> None:
        if not any(qc is each for each in self.unread):
            super().take_qc(qc)

    def take_tc(self, tc: TC) -> None:
        if not any(tc is each for each in self.unread):
            super().take_tc(tc)


class NoAnswers(BareTimeouts):
    """Nobody tells a replica that its round is over, by an answer or by a timeout."""

    def answer_laggard(self, peer: int, round_: int) -> None:
        pass

    def greet(self, peer: int) -> None:
        pass


@dataclass(frozen=True, slots=True)
class TwinsMutant:
    """A weakened rule, and the Twins scenarios among which a fork is found soon."""

    weaken: Callable[[pytest.MonkeyPatch], None]
    nodes: int = 4
    rounds: int = 5
    groups_max: int = 1
    cut_percent: int = 40
    seed: int = 1
    runs_max: int = 20_000


def _weaken_quorum(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("consensus.committee.quorum", quorum_2f1)


def _weaken_timeouts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("consensus.recovery.Safety", NoTimeoutCheck)


TWINS = MappingProxyType(
    {
        "quorum of 2f+1 at n = 5": TwinsMutant(
            _weaken_quorum, nodes=5, groups_max=2, cut_percent=0
        ),
        "commit votes after timeouts": TwinsMutant(_weaken_timeouts),
    }
)
"""What Twins must find, each without a client or a crash."""
