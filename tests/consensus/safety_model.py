"""An adversary against `Safety` alone: it delivers, forms certificates and proposes as it likes.

No logs, no network, no time: only the voting rules of the honest replicas, which are the
production class, and a scheduler that also plays f liars and every leader. A state is a few
immutable records, so that states can be compared, kept and gone on from.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from consensus.committee import faults, quorum
from consensus.crypto import Signature
from consensus.digest import Digest
from consensus.messages import QC, TC, Block, SignedTimeout, block_digest
from consensus.safety import Safety, SafetyRecord, genesis_qc

GENESIS = Digest(bytes(32))


class NoSigner:
    """Signs nothing: who said what is known here without it."""

    def sign(self, epoch: int, tag: bytes, digest: bytes) -> Signature:
        return Signature(b"")


@dataclass(frozen=True)
class Rules:
    """What a mutation may change outside `Safety`."""

    safety: type[Safety] = Safety
    quorum: int | None = None
    two_chain_gap: bool = False
    """Whether a certified child of any later round commits its parent."""
    forgets: bool = False
    """Whether a replica may come back with the last vote forgotten."""
    ignores_tc_qc: bool = False
    """Whether a block may stand on a TC although it names a higher QC."""
    persists: bool = True
    """Whether what a replica signed is on disk before it leaves."""
    forks_only: bool = False
    """Whether a search looks for forks alone, not for what comes before them."""


@dataclass(frozen=True)
class State:
    """Everything that was said, and what each honest replica remembers."""

    records: tuple[SafetyRecord, ...]
    blocks: tuple[Block, ...] = ()
    votes: frozenset[tuple[int, int]] = frozenset()
    """(replica, index of the block)."""
    commits: frozenset[tuple[int, Digest]] = frozenset()
    timeouts: frozenset[tuple[int, int, int]] = frozenset()
    """(replica, round, round of its lock)."""


Action = tuple[str, int, int, int]


class Model:
    """Which actions a state allows, and what follows from each."""

    def __init__(
        self, n: int, rounds_max: int, per_round_max: int = 2, rules: Rules | None = None
    ) -> None:
        self.rules = rules or Rules()
        self.n, self.f = n, faults(n)
        self.q = self.rules.quorum or quorum(n)
        self.honest = n - self.f
        self._rounds_max = rounds_max
        self._per_round_max = per_round_max
        self._digests: dict[Block, Digest] = {}

    def start(self) -> State:
        fresh = Safety.fresh(1, GENESIS)
        return State((fresh,) * self.honest)

    def digest(self, block: Block) -> Digest:
        if block not in self._digests:
            self._digests[block] = block_digest(block)
        return self._digests[block]

    def certified(self, state: State) -> list[int]:
        """Return the indices of blocks that have a QC, the liars' votes counted."""
        count = [0] * len(state.blocks)
        for _, index in state.votes:
            count[index] += 1
        return [k for k, votes in enumerate(count) if votes + self.f >= self.q]

    def qc(self, state: State, index: int) -> QC:
        """Return the certificate of a block, -1 the genesis'."""
        if index < 0:
            return genesis_qc(GENESIS)
        block = state.blocks[index]
        return QC(block.round, self.digest(block), ())

    def tcs(self, state: State) -> list[tuple[int, int]]:
        """Return (round, highest QC round named) of every TC that could be formed."""
        found: list[tuple[int, int]] = []
        for round_ in range(1, self._rounds_max + 1):
            locks = sorted(lock for _, r, lock in state.timeouts if r == round_)
            for k, high in enumerate(locks):
                last_of_its_kind = k + 1 == len(locks) or locks[k + 1] != high
                if last_of_its_kind and k + 1 + self.f >= self.q:
                    found.append((round_, high))
        return found

    def tc(self, state: State, round_: int, high: int) -> TC:
        of_round = [self.qc(state, -1), *(self.qc(state, k) for k in self.certified(state))]
        qc = next(qc for qc in of_round if qc.round == high)
        return TC(round_, (SignedTimeout(0, high, b""),), qc)

    def actions(self, state: State) -> Iterator[Action]:
        certified = self.certified(state)
        tcs = self.tcs(state)
        yield from self._proposals(state, certified, tcs)
        for i, record in enumerate(state.records):
            at = self._safety(record).round
            for k, block in enumerate(state.blocks):
                if (i, k) not in state.votes and block.round >= at:
                    yield "vote", i, k, 0
            for k in certified:
                if state.blocks[k].round >= record.lock.round:
                    yield "qc", i, k, 0
            for round_, high in tcs:
                if round_ >= at:
                    yield "tc", i, round_, high
            yield "timeout", i, 0, 0
            if self.rules.forgets and record.last_voted:
                yield "forget", i, 0, 0

    def _proposals(
        self, state: State, certified: list[int], tcs: list[tuple[int, int]]
    ) -> Iterator[Action]:
        """Any block that some TC or QC lets stand: what leaders would refrain from included."""
        per_round: dict[int, int] = {}
        for block in state.blocks:
            per_round[block.round] = per_round.get(block.round, 0) + 1
        for k in (-1, *certified):
            at = 0 if k < 0 else state.blocks[k].round
            if at < self._rounds_max and per_round.get(at + 1, 0) < self._per_round_max:
                yield "propose", k, at + 1, -1
            for round_, high in tcs:
                fits = high <= at or self.rules.ignores_tc_qc
                room = per_round.get(round_ + 1, 0) < self._per_round_max
                if at < round_ < self._rounds_max and fits and room:
                    yield "propose", k, round_ + 1, high

    def _safety(self, record: SafetyRecord) -> Safety:
        return self.rules.safety(NoSigner(), 0, record)

    def apply(self, state: State, action: Action) -> State:
        """Return the state after `action`, the same one if the replica refuses."""
        kind, a, b, c = action
        if kind == "propose":
            return self._propose(state, a, b, c)
        safety = self._safety(state.records[a])
        votes, commits, timeouts = state.votes, state.commits, state.timeouts
        match kind:
            case "vote":
                block = state.blocks[b]
                said = self._take_qc(safety, block.qc)
                if block.tc is not None:
                    safety.take_tc(block.tc)
                if said is not None:
                    commits |= {(a, said)}
                if safety.round == block.round and safety.may_vote(block):
                    safety.sign_vote(block, self.digest(block), ())
                    votes |= {(a, b)}
            case "qc":
                said = self._take_qc(safety, self.qc(state, b))
                if said is not None:
                    commits |= {(a, said)}
            case "tc":
                tc = self.tc(state, b, c)
                said = self._take_qc(safety, tc.high_qc)
                if said is not None:
                    commits |= {(a, said)}
                safety.take_tc(tc)
            case "timeout":
                round_ = safety.round
                if round_ <= self._rounds_max and safety.may_time_out(round_):
                    timeout = safety.sign_timeout(round_)
                    timeouts |= {(a, round_, timeout.lock.round)}
            case "forget":
                safety.last_voted = 0
                safety.vote = None
        records = (*state.records[:a], safety.record(), *state.records[a + 1 :])
        return State(records, state.blocks, votes, commits, timeouts)

    def _take_qc(self, safety: Safety, qc: QC) -> Digest | None:
        """Take a QC as `Rounds.take_qc` does; return the block of a commit vote, if one is due."""
        if qc.round == 0:
            return None
        if safety.may_commit_vote(qc):
            return Digest(safety.sign_commit_vote(qc).block)
        safety.take_qc(qc)
        return None

    def _propose(self, state: State, parent: int, round_: int, high: int) -> State:
        tc = self.tc(state, round_ - 1, high) if high >= 0 else None
        height = 1 if parent < 0 else state.blocks[parent].height + 1
        block = Block(
            epoch=1,
            round=round_,
            height=height,
            qc=self.qc(state, parent),
            tc=tc,
            heads=(),
            # Tells the two blocks of one round apart.
            executed_height=sum(b.round == round_ for b in state.blocks),
            executed_digest=b"",
        )
        return State(
            state.records, (*state.blocks, block), state.votes, state.commits, state.timeouts
        )

    def committed(self, state: State) -> list[int]:
        """Return the indices of blocks that some replica could hold for committed."""
        index = {self.digest(block): k for k, block in enumerate(state.blocks)}
        count: dict[Digest, int] = {}
        for _, digest in state.commits:
            count[digest] = count.get(digest, 0) + 1
        proven = [index[d] for d, votes in count.items() if votes + self.f >= self.q]
        for k in self.certified(state):
            child = state.blocks[k]
            parent = index.get(Digest(child.qc.block))
            if parent is not None:
                follows = state.blocks[parent].round + 1 == child.round
                if follows or self.rules.two_chain_gap:
                    proven.append(parent)
        return proven

    def forks(self, state: State) -> bool:
        """Say whether two committed blocks are not on one chain."""
        index = {self.digest(block): k for k, block in enumerate(state.blocks)}
        at_height: dict[int, int] = {}
        for k in self.committed(state):
            at: int | None = k
            while at is not None:
                block = state.blocks[at]
                if at_height.setdefault(block.height, at) != at:
                    return True
                at = index.get(Digest(block.qc.block))
        return False


def random_walk(model: Model, rng: random.Random, steps: int) -> bool:
    """Take random actions; say whether a fork came of it."""
    state = model.start()
    weights = {"propose": 6, "vote": 6, "qc": 2, "tc": 3, "timeout": 2, "forget": 1}
    for _ in range(steps):
        actions = list(model.actions(state))
        kinds = list(dict.fromkeys(action[0] for action in actions))
        kind = rng.choices(kinds, [weights[k] for k in kinds])[0]
        changed = model.apply(state, rng.choice([a for a in actions if a[0] == kind]))
        if changed is not state and model.forks(changed):
            return True
        state = changed
    return False
