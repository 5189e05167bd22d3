"""Weaker protocols: production classes with one rule taken out, for the simulator to catch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from types import MappingProxyType
from typing import Any

import pytest
from msgspec.structs import replace

from consensus.codec import decode, encode
from consensus.command import Command, CommandId, command_id, decode_command, expires_ms
from consensus.committee import Parameters, faults
from consensus.committer import Committer
from consensus.context import (
    KEY_OWN_HEAD,
    KEY_SAFETY,
    TABLE_BATCHES,
    TABLE_BLOCKS,
    TABLE_BODIES,
    TABLE_CHAIN,
    TABLE_LOG,
    Context,
    batch_key,
)
from consensus.digest import Digest
from consensus.fairorder import FairOrder, OrderedBatch
from consensus.idmemory import IdMemory
from consensus.logkeeper import LogKeeper
from consensus.messages import (
    QC,
    TC,
    Block,
    CommitVote,
    Head,
    LogBatch,
    Proposal,
    Timeout,
    Vote,
)
from consensus.precedence import Precedence, bits
from consensus.recovery import Opened, open_context
from consensus.rounds import Rounds
from consensus.safety import Safety, SafetyRecord, extends
from consensus.sequencer import OrderedBlock
from consensus.tally import VoteTally
from consensus.voting import Voting
from ops.sim.executor import HashChain
from ops.sim.twins import Scenario
from ops.sim.world import World


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


class LeavesLock(Safety):
    """A commit vote for a QC leaves the lock where it was."""

    def sign_commit_vote(self, qc: QC) -> CommitVote:
        lock = self.lock
        vote = super().sign_commit_vote(qc)
        self.lock = lock
        return vote


class ForgetsBlocks(Context):
    """Blocks reach the disk when they are committed, not before the vote."""

    def write(self, table: str, key: bytes, value: bytes | None) -> None:
        stash: dict[bytes, bytes] = self.__dict__.setdefault("stashed_blocks", {})
        if table == TABLE_BLOCKS and value is not None:
            stash[key] = value
            return
        if table == TABLE_CHAIN and value in stash:
            super().write(TABLE_BLOCKS, value, stash.pop(value))
        super().write(table, key, value)


class NoPromise(Context):
    """The voting state is written some time, and what it allows is sent before."""

    def promise(self) -> None:
        if self._writes and self._writes[-1].key != KEY_SAFETY:
            super().promise()


class LocalClocks(LogKeeper):
    """A batch is taken only while its commands live, by the own clock."""

    def on_batch(self, peer: int, batch: LogBatch, asked: bool, named: bool = False) -> bool:
        if any(expires_ms(CommandId(each)) <= self._ctx.now_ms for each in batch.entries):
            return False
        return super().on_batch(peer, batch, asked, named)


class LeadersOrder(FairOrder):
    """Each block's solid ids go in the order of one replica's log, each by itself."""

    def commit(
        self, height: int, time_ms: int, block_digest: bytes, suffixes: Sequence[Sequence[bytes]]
    ) -> list[OrderedBatch]:
        self._leader = height % len(suffixes)
        self._arrivals: list[dict[bytes, None]]
        if not hasattr(self, "_arrivals"):
            self._arrivals = [{} for _ in suffixes]
        for arrivals, ids in zip(self._arrivals, suffixes, strict=True):
            arrivals.update(dict.fromkeys(ids))
        return super().commit(height, time_ms, block_digest, suffixes)

    def _ready(self, graph: Precedence, solid: int) -> Iterator[int]:
        bit_of = {self._pending.entries[k].id: 1 << k for k in bits(solid)}
        return (bit_of[id_] for id_ in self._arrivals[self._leader] if id_ in bit_of)


def turned_around(world: World) -> str | None:
    """Say which pair of one batch went against the order in which all honest replicas had it."""
    places = [
        {id_: k for k, id_ in enumerate(world.audits.receipts.log(node))} for node in world.honest
    ]
    batches: dict[int, list[bytes]] = {}
    for number, id_ in world.chain.emission:
        batches.setdefault(number, []).append(id_)
    turned = compared = 0
    for ids in batches.values():
        for first, second in combinations(ids, 2):
            held = [(place.get(first), place.get(second)) for place in places]
            if all(a is not None and b is not None for a, b in held):
                agreed = {a < b for a, b in held if a is not None and b is not None}
                compared += len(agreed) == 1
                turned += agreed == {False}
    if not turned:
        return None
    return f"[turned] {turned} of {compared} pairs that all agree on, inside batches"


def _everywhere(patch: pytest.MonkeyPatch, name: str, old: object, new: object) -> None:
    """Replace a function in every module of ours that has imported it."""
    for module in list(sys.modules.values()):
        ours = getattr(module, "__name__", "").startswith(("consensus.", "ops.sim"))
        if ours and getattr(module, name, None) is old:
            patch.setattr(module, name, new)


class BareCertificates(BareTimeouts):
    """A TC opens the next round, and the QC that it carries is not taken in."""

    def take_tc(self, tc: TC) -> None:
        self.unread = (*self.unread, tc.high_qc)
        super().take_tc(tc)
        self.unread = ()


def weaken_tcs(patch: pytest.MonkeyPatch) -> None:
    """A TC ignores the highest QC: a block may stand on any, and nobody learns it from timeouts."""

    def extends_any(round_: int, qc: QC, tc: TC | None) -> bool:
        return qc.round == round_ - 1 or (tc is not None and tc.round == round_ - 1)

    _everywhere(patch, "extends", extends, extends_any)
    patch.setattr("consensus.replica.Rounds", BareCertificates)


def weaken_two_chain(patch: pytest.MonkeyPatch) -> None:
    """A certified child of any later round commits its parent."""

    def on_certified(self: Committer, qc: QC) -> None:
        tree = self._ctx.tree
        block = tree.block(qc.block)
        parent = tree.parent(block) if block is not None else None
        if block is not None:
            self._compare(block, qc)
        if block is not None and parent is not None and parent.height > 0:
            self._aim(parent, Digest(block.qc.block))

    patch.setattr(Committer, "on_certified", on_certified)


def weaken_inclusion(patch: pytest.MonkeyPatch) -> None:
    """A leader may name any heads from the parent's on."""
    patch.setattr("consensus.voting.heads_fault", lambda *_: None)


def weaken_quota(patch: pytest.MonkeyPatch) -> None:
    """A batch may introduce as many commands as it has entries."""
    patch.setattr(Parameters, "introduce_max", lambda self, n: self.entries_max)


def weaken_ids(patch: pytest.MonkeyPatch) -> None:
    """An id covers the signature too."""

    def over_all(network: bytes, command: Command) -> CommandId:
        digest = sha256(network + encode(command)).digest()
        return CommandId(command.expires_ms.to_bytes(8, "big") + digest)

    _everywhere(patch, "command_id", command_id, over_all)


def watch_contents(patch: pytest.MonkeyPatch) -> None:
    """Have the executor refuse a command whose content it has executed."""
    honest = HashChain.execute

    def execute(
        self: HashChain, block: OrderedBlock, bodies: list[tuple[CommandId, bytes]]
    ) -> None:
        known: dict[bytes, None] = self.__dict__.setdefault("contents", {})
        for _, body in bodies:
            content = replace(decode_command(body), signature=b"")
            assert encode(content) not in known, "a command happened twice"
            known[encode(content)] = None
        honest(self, block, bodies)

    patch.setattr(HashChain, "execute", execute)


def weaken_memory(patch: pytest.MonkeyPatch) -> None:
    """A restart begins without the ids that were emitted before."""

    def forgetful(*args: Any, **kwargs: Any) -> Opened:
        opened = open_context(*args, **kwargs)
        opened.ctx.sequencer.fair._done = IdMemory()
        return opened

    patch.setattr("consensus.replica.open_context", forgetful)


class VotesTwice(Safety):
    """Votes for every block that its certificates allow."""

    def may_vote(self, block: Block) -> bool:
        again = self.vote is not None and self.vote.block == block.digest
        return extends(block.round, block.qc, block.tc) and not again


class NewestProposal(Voting):
    """Looks at each proposal of a round, not only at the first."""

    def on_proposal(self, peer: int, proposal: Proposal) -> None:
        first = self._proposals.get(proposal.block.round)
        if first is not None and first.block != proposal.block:
            del self._proposals[proposal.block.round]
        super().on_proposal(peer, proposal)


class EveryVote(VoteTally[Any]):
    """Counts every vote, not only a voter's first of a round."""

    def add(self, vote: Any) -> bool:
        named: dict[Any, Any] = self._votes.setdefault(vote.round, {})
        return named.setdefault((vote.voter, vote.block), vote) is vote


def weaken_last_voted(patch: pytest.MonkeyPatch) -> None:
    """Nothing keeps a replica to one vote a round, and nobody minds."""
    patch.setattr("consensus.recovery.Safety", VotesTwice)
    patch.setattr("consensus.replica.Voting", NewestProposal)
    patch.setattr("consensus.rounds.VoteTally", EveryVote)
    patch.setattr("consensus.guard.Guard._unknown", lambda *_: None)


@dataclass(frozen=True, slots=True)
class TwinsMutant:
    """A weakened rule, and the Twins scenarios among which a fork is found soon."""

    weaken: Callable[[pytest.MonkeyPatch], None]
    nodes: int = 4
    rounds: int = 5
    groups_max: int = 1
    cut_percent: int = 40
    seed: int = 1
    twins_lead: int = 0
    """So many times over, the choices in which the twins lead."""
    runs_max: int = 20_000


def weaken_quorum(patch: pytest.MonkeyPatch) -> None:
    """A quorum is 2f+1 of n."""
    patch.setattr("consensus.committee.quorum", quorum_2f1)


def weaken_timeouts(patch: pytest.MonkeyPatch) -> None:
    """A commit vote may follow the timeout of its round."""
    patch.setattr("consensus.recovery.Safety", NoTimeoutCheck)


TWINS = MappingProxyType(
    {
        "quorum of 2f+1 at n = 5": TwinsMutant(weaken_quorum, nodes=5, groups_max=2, cut_percent=0),
        "commit votes after timeouts": TwinsMutant(weaken_timeouts),
        "last voted round forgotten": TwinsMutant(
            weaken_last_voted, rounds=4, cut_percent=25, twins_lead=2
        ),
        "TC that ignores the highest QC": TwinsMutant(weaken_tcs, rounds=4, cut_percent=35, seed=4),
    }
)
"""What sampled scenarios must find, each without a client or a crash."""

DIRECTED = MappingProxyType(
    {
        "two-chain of rounds that do not follow": (
            weaken_two_chain,
            # 0 alone learns of B's QC in round 1, 4 alone of B' in round 2. 3 sees C on B in round
            # 3, and the others D on B' in round 4.
            Scenario(
                leaders={1: (0,), 2: (4,), 3: (0,), 4: (4,)},
                firewall={
                    1: {1: (2, 3, 4), 2: (1, 3, 4), 3: (1, 2, 4), 4: (1, 2, 3)},
                    2: {0: (1, 2, 3), 1: (0, 2, 3), 2: (0, 1, 3), 3: (0, 1, 2)},
                    3: {1: (2,), 2: (1,), 3: (1, 2, 4), 4: (1, 2, 3)},
                    4: {0: (1, 2, 3), 1: (0, 3), 2: (0, 3), 3: (0, 1, 2, 4), 4: (3,)},
                },
            ),
        ),
        "TC that ignores the highest QC": (
            weaken_tcs,
            # 1 alone commits in round 1, which 3 never hears of; it leads round 3 on a TC.
            Scenario(
                leaders={1: (0,), 2: (2,), 3: (3,)},
                firewall={
                    1: {1: (2, 3, 4), 2: (3, 4), 3: (0, 1, 4), 4: (1, 2, 3)},
                    2: {
                        0: (1, 2, 3),
                        1: (0, 2, 3),
                        2: (0, 1, 3, 4),
                        3: (0, 1, 2, 4),
                        4: (1, 2, 3),
                    },
                },
            ),
        ),
    }
)
"""Scenarios made for a rule: with it they hold, without it they fork."""
