"""The voting rules alone: small committees exhaustively, larger adventures at random, mutations.

The adversary of `safety_model` proposes, delivers and forms certificates as it likes; what may
not happen is two committed blocks that are not on one chain. `-s` prints what was explored.
"""

from __future__ import annotations

import os
import random
from collections import deque
from itertools import count

import pytest

from consensus.messages import QC, Block, CommitVote
from consensus.safety import Safety, SafetyViolation, extends, genesis_qc
from tests.consensus.safety_model import GENESIS, Model, NoSigner, Rules, State, random_walk

STATES_MAX = 8_000
WALKS = 250


class NoTimeoutCheck(Safety):
    """Commit-votes in rounds that it has given up."""

    def may_commit_vote(self, qc: QC) -> bool:
        return qc.round > (self.commit_vote.round if self.commit_vote else 0)


class LeavesLock(Safety):
    """Commit-votes without raising the lock to what it commits."""

    def sign_commit_vote(self, qc: QC) -> CommitVote:
        lock = self.lock
        vote = super().sign_commit_vote(qc)
        self.lock = lock
        return vote


class IgnoresHighestQC(Safety):
    """Votes on a TC whatever QC it names."""

    def may_vote(self, block: Block) -> bool:
        by_tc = block.tc is not None and block.tc.round == block.round - 1
        return block.round > self.last_voted and (block.qc.round == block.round - 1 or by_tc)


def explore(model: Model, states_max: int) -> tuple[int, bool, bool]:
    """Visit states breadth first; return how many, whether that is all, and whether one forked."""
    start = model.start()
    seen = {model.key(start)}
    waiting: deque[State] = deque([start])
    while waiting and len(seen) < states_max:
        state = waiting.popleft()
        for action in model.actions(state):
            after = model.apply(state, action)
            key = model.key(after)
            if key not in seen:
                seen.add(key)
                waiting.append(after)
                if model.forks(after):
                    return len(seen), False, True
    return len(seen), not waiting, False


def test_no_state_of_a_round_with_two_proposals_forks() -> None:
    """Every state of four replicas: nothing is left to chance."""
    states, whole, forked = explore(Model(4, rounds_max=1, per_round_max=2), STATES_MAX)
    print(f"{states} states")
    assert whole and states > 1_000
    assert not forked


def test_no_state_of_two_rounds_forks() -> None:
    """The first thousands of a quarter million; FAIRLANE_SIM_SEEDS explores all of them."""
    long_form = "FAIRLANE_SIM_SEEDS" in os.environ
    most = 1_000_000 if long_form else STATES_MAX
    states, whole, forked = explore(Model(4, rounds_max=2, per_round_max=1), most)
    print(f"{states} states")
    assert whole or not long_form
    assert not forked


@pytest.mark.parametrize("n", [4, 5, 7])
def test_no_random_adventure_forks(n: int) -> None:
    for seed in range(WALKS // n):
        for rounds, per_round in ((6, 1), (8, 2)):
            model = Model(n, rounds, per_round)
            assert not random_walk(model, random.Random(seed), 120), f"seed {seed}, n={n}"


FORKS = {
    "q = 2f+1 at n = 5": (5, 8, 2, 150, Rules(quorum=3)),
    "no hi_timeout check": (4, 8, 2, 150, Rules(safety=NoTimeoutCheck)),
    "a commit vote that leaves the lock": (4, 8, 2, 150, Rules(safety=LeavesLock)),
    "a forgotten last_voted": (4, 8, 2, 150, Rules(forgets=True)),
    "a TC that ignores the highest QC": (
        4, 8, 2, 150, Rules(safety=IgnoresHighestQC, ignores_tc_qc=True),
    ),
    "a two-chain whose rounds do not follow": (4, 6, 1, 60, Rules(two_chain_gap=True)),
}  # fmt: skip


@pytest.mark.parametrize("mutation", FORKS)
def test_each_mutated_rule_forks(mutation: str) -> None:
    """The same adversary breaks every weaker rule, so that it is no weak adversary."""
    n, rounds, per_round, steps, rules = FORKS[mutation]
    model = Model(n, rounds, per_round, rules)
    for seed in count():
        assert seed < 4_000, f"{mutation}: no fork in {seed} walks"
        if random_walk(model, random.Random(seed), steps):
            print(f"{mutation}: forks in walk {seed}")
            return


def block_at(round_: int, qc: QC) -> Block:
    return Block(1, round_, 1, qc, None, (), 0, b"")


def test_it_signs_nothing_against_its_record() -> None:
    safety = Safety(NoSigner(), 0, Safety.fresh(1, GENESIS))
    block = block_at(1, genesis_qc(GENESIS))
    safety.sign_vote(block, GENESIS, ())
    with pytest.raises(SafetyViolation):
        safety.sign_vote(block, GENESIS, ())
    safety.sign_proposal(block)
    with pytest.raises(SafetyViolation):
        safety.sign_proposal(block_at(1, QC(0, GENESIS, ())))
    safety.sign_timeout(1)
    with pytest.raises(SafetyViolation):
        safety.sign_commit_vote(QC(1, GENESIS, ()))
    with pytest.raises(SafetyViolation):
        safety.sign_timeout(3)


def test_a_timed_out_round_still_raises_the_lock() -> None:
    """Only a commit vote is refused: leaving the lock behind as well stops networks."""
    safety = Safety(NoSigner(), 0, Safety.fresh(1, GENESIS))
    safety.sign_timeout(1)
    assert not safety.may_commit_vote(QC(1, GENESIS, ()))
    assert safety.take_qc(QC(1, GENESIS, ()))
    assert safety.lock.round == 1


def test_a_restart_from_the_record_changes_no_answer() -> None:
    """Random statements; a second `Safety` over the record allows what the first allows."""
    rng = random.Random(7)
    safety = Safety(NoSigner(), 0, Safety.fresh(1, GENESIS))
    for _ in range(300):
        twin = Safety(NoSigner(), 0, safety.record())
        qc = QC(rng.randint(0, safety.round + 1), GENESIS, ())
        block = block_at(rng.randint(1, safety.round + 2), qc)
        assert twin.may_vote(block) == safety.may_vote(block)
        assert twin.may_commit_vote(qc) == safety.may_commit_vote(qc)
        assert twin.may_time_out(block.round) == safety.may_time_out(block.round)
        assert twin.round == safety.round
        if safety.may_vote(block) and extends(block.round, block.qc, None):
            safety.sign_vote(block, GENESIS, ())
        elif safety.may_commit_vote(qc):
            safety.sign_commit_vote(qc)
        elif safety.may_time_out(safety.round):
            safety.sign_timeout(safety.round)
