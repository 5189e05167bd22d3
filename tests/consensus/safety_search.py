"""Every state of a small network whose honest replicas are the production `Safety`.

Beside the formal model (tests/formal/voting.pml): the same adversary, but the code itself decides.
Each replica has a record in memory and one on disk. What it signs is on disk before it leaves;
certificates that it only takes in are written when they may be, so a crash at any point forgets
any run of those. What one replica does to one input is computed once by the production class and
remembered, and a state is a handful of numbers.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from time import process_time

from msgspec.structs import replace

from consensus.committee import faults, quorum
from consensus.digest import Digest
from consensus.messages import QC, TC, Block, SignedTimeout, block_digest
from consensus.safety import Safety, SafetyRecord, genesis_qc
from tests.consensus.safety_model import GENESIS, NoSigner, Rules

GENESIS_SLOT = -1
NO_TC = -2
FORK = "two committed blocks that are not on one chain"

Slots = tuple[tuple[int, int] | None, ...]
"""The block in each proposal slot: its parent's slot and that of its TC's QC; None: none yet."""


TCs = tuple[tuple[int, int], ...]
"""(round, highest QC round named) of every TC that can be formed."""
Offer = tuple[int, int]
"""An action's number, and the slots once an honest vote fills that of its block."""


@dataclass(frozen=True)
class Local:
    """One honest replica: what it knows, what its disk knows, what it has said."""

    memory: SafetyRecord
    disk: SafetyRecord
    votes: int = 0
    """Bit k: it voted for the block in slot k."""
    commits: int = 0
    timeouts: frozenset[tuple[int, int]] = frozenset()
    """(round, round of the QC that it named)."""


State = tuple[int, ...]
"""Numbers of what is in the slots and of each replica's state, the replicas in no order."""


def replace_local(local: Local, memory: SafetyRecord, disk: SafetyRecord) -> Local:
    return Local(memory, disk, local.votes, local.commits, local.timeouts)


@dataclass(frozen=True)
class Action:
    """What the adversary lets happen to one replica."""

    kind: str
    slot: int = GENESIS_SLOT
    """Of the block that is proposed, or that the QC or the TC's QC certifies."""
    parent: int = GENESIS_SLOT
    named: int = NO_TC
    block: Block | None = None
    qc: QC | None = None
    tc: TC | None = None

    def __str__(self) -> str:
        match self.kind:
            case "proposal":
                return f"gets the proposal in slot {self.slot}"
            case "qc":
                return f"gets the QC of slot {self.slot}"
            case "tc":
                assert self.tc is not None
                return f"gets a TC of round {self.tc.round} that names {self.tc.high_round}"
            case _:
                return self.kind


@dataclass
class Verdict:
    """What a search found; `steps` leads to the fork or the fault, when there is one."""

    states: int = 0
    transitions: int = 0
    replicas: int = 0
    calls: int = 0
    """How often the production class was asked: once for each replica's state and input."""
    whole: bool = False
    fault: str = ""
    cpu_s: float = 0.0
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = self.fault or ("holds" if self.whole else "cut")
        rate = self.states / self.cpu_s if self.cpu_s else 0.0
        return (
            f"{found}: {self.states} states, {self.transitions} transitions, {self.replicas} "
            f"states of a replica, {self.calls} calls, {self.cpu_s:.1f} s CPU, {rate:.0f} states/s"
        )


class Search:
    """The states that n = 4 (or 5) replicas with one liar can reach in some rounds.

    Giving up the last round is left out: it only takes commit votes away, as no round follows.
    """

    def __init__(
        self,
        rounds: int,
        slots: int,
        rules: Rules | None = None,
        crashes: bool = False,
        n: int = 4,
        reduced: bool = False,
    ) -> None:
        """`reduced` takes records for one that differ in what no rule reads: see `_normal`."""
        self.rules = rules or Rules()
        self._reduced = reduced
        self._rounds, self._per_round, self._crashes = rounds, slots, crashes
        self._honest = n - faults(n)
        self._needed = (self.rules.quorum or quorum(n)) - faults(n)
        """Honest statements that make a certificate with the liars'."""
        fresh = Safety.fresh(1, GENESIS)
        self._locals: list[Local] = []
        self._ids: dict[Local, int] = {}
        self._slots: list[Slots] = []
        self._slot_ids: dict[Slots, int] = {}
        self._after: list[dict[int, int]] = []
        """By replica's state and action: the state after it."""
        self._blocks: dict[tuple[Slots, int], tuple[Block, Digest]] = {}
        self._action_ids: dict[Action, int] = {}
        self._actions: list[Action] = []
        self._menus: dict[tuple[int, int, TCs], list[Offer]] = {}
        self._tcs: dict[tuple[frozenset[tuple[int, int]], ...], TCs] = {}
        self._claims: dict[tuple[int, ...], str] = {}
        self._fault = ""
        self._calls = 0
        empty: Slots = (None,) * (rounds * slots)
        self._start = (self._slots_id(empty), *[self._id(Local(fresh, fresh))] * self._honest)

    def _normal(self, record: SafetyRecord) -> SafetyRecord:
        """Drop from a record what no rule reads: a TC below the lock, what a TC names, what the
        last messages carry. The exact searches show that nothing depends on it."""
        tc = record.hi_tc
        if tc is not None and tc.round <= record.lock.round:
            tc = None
        if tc is not None:
            tc = TC(tc.round, (SignedTimeout(0, 0, b""),), genesis_qc(GENESIS))
        return replace(record, hi_tc=tc, timeout=None, vote=None)

    def _id(self, local: Local) -> int:
        if self._reduced:
            memory, disk = self._normal(local.memory), self._normal(local.disk)
            local = replace_local(local, memory, disk)
        found = self._ids.get(local)
        if found is None:
            found = self._ids[local] = len(self._locals)
            self._locals.append(local)
            self._after.append({})
            self._fault = self._fault or self._blame(local)
        return found

    def _slots_id(self, slots: Slots) -> int:
        found = self._slot_ids.setdefault(slots, len(self._slots))
        if found == len(self._slots):
            self._slots.append(slots)
        return found

    def round_of(self, slot: int) -> int:
        return slot // self._per_round + 1 if slot >= 0 else 0

    def _bits(self, mask: int) -> list[int]:
        return [k for k in range(self._rounds * self._per_round) if mask >> k & 1]

    def _blame(self, local: Local) -> str:
        """Say which claim about one honest replica is broken, or nothing."""
        rounds = [self.round_of(k) for k in self._bits(local.votes)]
        if len(dict.fromkeys(rounds)) != len(rounds):
            return "two votes of one round"
        for k in self._bits(local.commits):
            at = self.round_of(k)
            if any(r >= at and named < at for r, named in local.timeouts):
                return "a timeout that hides a QC which was commit-voted"
            if local.disk.lock.round < at:
                return "a commit vote above the lock on disk"
        for record in (local.memory, local.disk):
            safety = Safety(NoSigner(), 0, record)
            if not safety.may_time_out(safety.round):
                return "a round that may not be given up"
        return ""

    def block(self, slots: Slots, slot: int) -> tuple[Block, Digest]:
        """Return the block in `slot` and its digest."""
        key = (slots[: slot + 1], slot)
        if key not in self._blocks:
            content = slots[slot]
            assert content is not None
            parent, named = content
            round_ = self.round_of(slot)
            tc = None if named == NO_TC else self._tc(slots, round_ - 1, named)
            block = Block(
                epoch=1,
                round=round_,
                height=1 if parent < 0 else self.block(slots, parent)[0].height + 1,
                qc=self._qc(slots, parent),
                tc=tc,
                heads=(),
                executed_height=slot % self._per_round,  # tells the blocks of one round apart
                executed_digest=b"",
            )
            self._blocks[key] = block, block_digest(block)
        return self._blocks[key]

    def _qc(self, slots: Slots, slot: int) -> QC:
        if slot < 0:
            return genesis_qc(GENESIS)
        return QC(self.round_of(slot), self.block(slots, slot)[1], ())

    def _tc(self, slots: Slots, round_: int, named: int) -> TC:
        part = SignedTimeout(0, self.round_of(named), b"")
        return TC(round_, (part,), self._qc(slots, named))

    def _formable(self, timeouts: tuple[frozenset[tuple[int, int]], ...]) -> TCs:
        found = self._tcs.get(timeouts)
        if found is None:
            pairs: list[tuple[int, int]] = []
            for round_ in range(1, self._rounds):
                of = [[named for r, named in each if r == round_] for each in timeouts]
                for high in range(round_):
                    named = any(high in each for each in of)
                    enough = sum(any(x <= high for x in each) for each in of) >= self._needed
                    if named and enough:
                        pairs.append((round_, high))
            found = self._tcs[timeouts] = tuple(pairs)
        return found

    def _menu(self, slots_id: int, locals_: list[Local]) -> list[Offer]:
        """Return what may be delivered to any replica: it does not depend on whom."""
        size = self._rounds * self._per_round
        certified = 0
        for k in range(size):
            if sum(each.votes >> k & 1 for each in locals_) >= self._needed:
                certified |= 1 << k
        tcs = self._formable(tuple([each.timeouts for each in locals_]))
        key = (slots_id, certified, tcs)
        menu = self._menus.get(key)
        if menu is None:
            menu = self._menus[key] = list(self._offers(slots_id, self._bits(certified), tcs))
        return menu

    def _offers(self, slots_id: int, certified: list[int], tcs: TCs) -> Iterator[Offer]:
        slots = self._slots[slots_id]
        kinds = ["gives up its round"]
        if self._crashes or self.rules.forgets:
            kinds.append("crashes and comes back")
        if self._crashes:
            kinds.append("has all of it on disk")
        actions = [Action(kind) for kind in kinds]
        actions += [Action("qc", k, qc=self._qc(slots, k)) for k in certified]
        for round_, high in tcs:
            for k in (GENESIS_SLOT, *certified):
                if self.round_of(k) == high:
                    actions.append(Action("tc", k, tc=self._tc(slots, round_, k)))
        for action in actions:
            yield self._action_id(action), slots_id
        for slot, filled in self._proposals(slots, certified, tcs):
            content = filled[slot]
            assert content is not None
            action = Action("proposal", slot, *content, self.block(filled, slot)[0])
            yield self._action_id(action), self._slots_id(filled)

    def _action_id(self, action: Action) -> int:
        found = self._action_ids.setdefault(action, len(self._actions))
        if found == len(self._actions):
            self._actions.append(action)
        return found

    def _proposals(
        self, slots: Slots, certified: list[int], tcs: TCs
    ) -> Iterator[tuple[int, Slots]]:
        """Every block that is there, and in the first free slot of a round every one that could
        be: on any certificate, with the TC that names least. What is unsafe the code must refuse.
        """
        for slot, content in enumerate(slots):
            if content is not None:
                yield slot, slots
                continue
            if slot % self._per_round and slots[slot - 1] is None:
                continue
            before = self.round_of(slot) - 1
            least = min((high for r, high in tcs if r == before), default=None)
            for parent in (GENESIS_SLOT, *certified):
                at = self.round_of(parent)
                if at > before or (at < before and least is None):
                    continue
                named = NO_TC
                if at < before:
                    every = (GENESIS_SLOT, *certified)
                    named = next(k for k in every if self.round_of(k) == least)
                yield slot, (*slots[:slot], (parent, named), *slots[slot + 1 :])

    def _take_qc(self, safety: Safety, qc: QC) -> bool:
        """Take a QC as `Rounds.take_qc` does; say whether a commit vote went out."""
        if qc.round == 0:
            return False
        if safety.may_commit_vote(qc):
            safety.sign_commit_vote(qc)
            said = True
        else:
            safety.take_qc(qc)
            said = False
        if safety.round <= qc.round:
            self._fault = self._fault or "a QC that does not open the next round"
        return said

    def _step(self, local: Local, action: Action) -> Local:
        """Let the production class take one input."""
        self._calls += 1
        safety = self.rules.safety(NoSigner(), 0, local.memory)
        votes, commits, timeouts = local.votes, local.commits, local.timeouts
        match action.kind:
            case "qc":
                assert action.qc is not None
                if self._take_qc(safety, action.qc):
                    commits |= 1 << action.slot
            case "tc":
                assert action.tc is not None
                if self._take_qc(safety, action.tc.high_qc):
                    commits |= 1 << action.slot
                safety.take_tc(action.tc)
            case "proposal":
                block = action.block
                assert block is not None
                if self._take_qc(safety, block.qc):
                    commits |= 1 << action.parent
                if block.tc is not None:
                    if self._take_qc(safety, block.tc.high_qc):
                        commits |= 1 << action.named
                    safety.take_tc(block.tc)
                if safety.round == block.round and safety.may_vote(block):
                    safety.sign_vote(block, block_digest(block), ())
                    votes |= 1 << action.slot
            case "gives up its round":
                if safety.round < self._rounds and safety.may_time_out(safety.round):
                    timeout = safety.sign_timeout(safety.round)
                    timeouts |= {(timeout.round, timeout.lock.round)}
            case "crashes and comes back":
                record = local.disk
                if self.rules.forgets:
                    record = replace(record, last_voted=0, vote=None)
                return Local(record, record, votes, commits, timeouts)
            case _:
                return Local(local.memory, local.memory, votes, commits, timeouts)
        memory = safety.record()
        said = (votes, commits, timeouts) != (local.votes, local.commits, local.timeouts)
        disk = memory if self.rules.persists and (said or not self._crashes) else local.disk
        return Local(memory, disk, votes, commits, timeouts)

    def broken(self, slots: Slots, said: list[tuple[int, int]]) -> str:
        """Say which claim about all replicas together is broken, or nothing.

        `said` has the honest replicas' votes and commit votes.
        """
        done = certified = 0
        chain = [0] * len(slots)
        for k, content in enumerate(slots):
            if content is None:
                continue
            parent = content[0]
            chain[k] = 1 << k | (chain[parent] if parent >= 0 else 0)
            if sum(commits >> k & 1 for _, commits in said) >= self._needed:
                done |= 1 << k
            if sum(votes >> k & 1 for votes, _ in said) >= self._needed:
                certified |= 1 << k
                follows = self.round_of(parent) + 1 == self.round_of(k)
                if parent >= 0 and (follows or self.rules.two_chain_gap):
                    done |= 1 << parent
        top = done.bit_length() - 1
        if top >= 0 and done & ~chain[top]:
            return FORK
        if self.rules.forks_only:
            return ""
        for k in self._bits(certified):
            before = (1 << (self.round_of(k) - 1) * self._per_round) - 1
            if certified >> k + 1 & (1 << self._per_round - 1 - k % self._per_round) - 1:
                return "two certificates of one round"
            if done & before & ~chain[k]:
                return "a certificate that leaves a committed block"
        return ""

    def _claim(self, state: State) -> str:
        said = [(self._locals[i].votes, self._locals[i].commits) for i in state[1:]]
        key = (state[0], *[votes << 16 | commits for votes, commits in said])
        found = self._claims.get(key)
        if found is None:
            found = self._claims[key] = self.broken(self._slots[state[0]], said)
        return found or ("" if self.rules.forks_only else self._fault)

    def _successors(self, state: State) -> Iterator[tuple[State, int, int]]:
        slots_id, *ids = state
        for action, filled in self._menu(slots_id, [self._locals[i] for i in ids]):
            for at, who in enumerate(ids):
                if at and who == ids[at - 1]:
                    continue  # one just like it was tried
                after = self._after[who].get(action)
                if after is None:
                    did = self._step(self._locals[who], self._actions[action])
                    after = self._after[who][action] = self._id(did)
                if after == who:
                    continue
                # A block is in the state from its first honest vote on: before, it is nothing.
                voted = filled != slots_id and (
                    self._locals[after].votes != self._locals[who].votes
                )
                others = ids.copy()
                others[at] = after
                others.sort()
                yield (filled if voted else slots_id, *others), at, action

    def run(self, states_max: int, trail: bool = False) -> Verdict:
        """Visit states breadth first until there is none left, one is bad, or `states_max`."""
        began = process_time()
        verdict = Verdict()
        seen: set[State] = {self._start}
        came: dict[State, tuple[State, str]] = {}
        waiting: deque[State] = deque([self._start])
        while waiting and len(seen) < states_max and not verdict.fault:
            state = waiting.popleft()
            for after, who, action in self._successors(state):
                verdict.transitions += 1
                if after in seen:
                    continue
                seen.add(after)
                waiting.append(after)
                if trail:
                    came[after] = (
                        state,
                        f"replica {who} of {len(state) - 1} {self._actions[action]}",
                    )
                verdict.fault = self._claim(after)
                if verdict.fault:
                    verdict.steps = self._trail(came, after)
                    break
        verdict.states, verdict.replicas, verdict.calls = len(seen), len(self._locals), self._calls
        verdict.whole = not waiting
        verdict.cpu_s = process_time() - began
        return verdict

    def _trail(self, came: dict[State, tuple[State, str]], at: State) -> tuple[str, ...]:
        steps: list[str] = []
        while at in came:
            at, step = came[at]
            steps.append(step)
        return tuple(reversed(steps))


LONG = {
    "three rounds": Search(3, 1),
    "three rounds, crashes": Search(3, 1, crashes=True, reduced=True),
    "three rounds, two proposals each": Search(3, 2, reduced=True),
    "five replicas, three rounds": Search(3, 1, n=5, reduced=True),
}


def main() -> None:
    """Search until all states were seen or there are `--states`; print a line for each search."""
    parser = argparse.ArgumentParser(description="all states of the production voting rules")
    parser.add_argument("--states", type=int, default=5_000_000, help="the most that one visits")
    parser.add_argument("--only", default="", help="searches whose name contains this")
    options = parser.parse_args()
    for name, search in LONG.items():
        if options.only in name:
            print(f"safety: {name}: {search.run(options.states)}", flush=True)


if __name__ == "__main__":
    main()
