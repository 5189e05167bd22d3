"""Claims about the promise of fair order, each with a simpler rule that breaks it.

`FAIRLANE_FAIRNESS_TRIALS=50000` asks for a long hunt. Every trial is its seed's.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from hashlib import sha256

import pytest

from consensus.fairorder import FairOrder
from consensus.pendingids import PendingIds
from consensus.precedence import Precedence, bits
from tests.consensus.fairness_oracle import (
    Emission,
    Trial,
    expiring,
    inversions,
    random_trial,
    run_trial,
    still_open,
)

TRIALS = int(os.environ.get("FAIRLANE_FAIRNESS_TRIALS", "3000"))
FAR_MS = 200_000


class ShadedBeforeTheLastSolid(FairOrder):
    """Emits all components up to the last with a solid id, whatever else is in them."""

    def _ready(self, graph: Precedence, solid: int) -> Iterator[int]:
        components = list(graph.chain(self._pending.compared))
        while components and not components[-1] & solid:
            components.pop()
        yield from components


class DeadlineWithAllAncestors(FairOrder):
    """Emits an overdue id with every id that comes before it."""

    def _overdue(
        self, graph: Precedence, solid: int, late: int, rest: int
    ) -> Iterator[tuple[int, int]]:
        components = list(graph.chain(rest))
        while components and not components[-1] & late:
            components.pop()
        yield from ((component, component) for component in components)


class DeadlineAlone(FairOrder):
    """Emits overdue ids without asking what may come before them."""

    def _overdue(
        self, graph: Precedence, solid: int, late: int, rest: int
    ) -> Iterator[tuple[int, int]]:
        for component in graph.chain(rest & solid):
            if component & late:
                yield component & late, component
            if component & ~late:
                return


class CutBatchesCountApart(FairOrder):
    """Numbers the rest of a batch that the deadline cut as a batch of its own."""

    def _number(self, component: int, left: int, rest: int) -> int:
        self._next_number += 1
        return self._next_number


class WeakThreshold(FairOrder):
    """Takes T = f: a liar alone turns a pair around."""

    def _new_pending(self) -> PendingIds:
        return PendingIds(self.threshold - 1, self._n)


class CopelandAlone(FairOrder):
    """Orders a batch by Copeland score and hash, without the forced edges."""

    def _line(self, graph: Precedence, members: int, block_digest: bytes) -> list[int]:
        def rank(k: int) -> tuple[int, bytes]:
            id_ = self._pending.entries[k].id
            return -(graph.beaten(k) & members).bit_count(), sha256(block_digest + id_).digest()

        return sorted(bits(members), key=rank)


def trial_of(seed: int) -> tuple[Trial, int]:
    rng = random.Random(seed)
    return random_trial(rng, ids_max=12), rng.choice((2_000, 2_000, 300, 0))


def violated(rule: type[FairOrder], seed: int) -> list[tuple[bytes, bytes]]:
    trial, deadline_ms = trial_of(seed)
    order = rule(trial.n, trial.f, *trial.gamma, deadline_ms=deadline_ms)
    emission = run_trial(trial, order)
    return inversions(
        trial.honest, trial.f, trial.received_min, emission, still_open=still_open(order)
    )


def test_what_gamma_n_replicas_received_first_is_never_emitted_later() -> None:
    for seed in range(TRIALS):
        assert violated(FairOrder, seed) == [], seed


def test_refusing_what_is_too_much_breaks_no_promise_to_what_is_executed() -> None:
    """What is refused counts as emitted then; nothing that is executed overtakes anything."""
    refusals = 0
    for seed in range(TRIALS // 2):
        trial, deadline_ms = trial_of(seed)
        pending_max = random.Random(seed).randint(1, 6)
        order = FairOrder(
            trial.n, trial.f, *trial.gamma, deadline_ms=deadline_ms, pending_max=pending_max
        )
        emission: Emission = []
        refused: dict[bytes, None] = {}
        for height, (time_ms, suffixes) in enumerate(trial.cuts, 1):
            for batch in order.commit(height, time_ms, b"", suffixes):
                emission += [(batch.number, id_) for id_ in batch.ids + batch.refused]
                refused |= dict.fromkeys(batch.refused)
        found = inversions(
            trial.honest, trial.f, trial.received_min, emission, still_open=still_open(order)
        )
        assert [(a, b) for a, b in found if b not in refused] == [], seed
        refusals += len(refused)
    assert refusals > TRIALS


@pytest.mark.parametrize(
    "rule",
    [
        ShadedBeforeTheLastSolid,
        DeadlineWithAllAncestors,
        DeadlineAlone,
        CutBatchesCountApart,
        WeakThreshold,
    ],
)
def test_a_simpler_rule_is_caught(rule: type[FairOrder]) -> None:
    assert any(violated(rule, seed) for seed in range(3_000))


def commit_one(rule: type[FairOrder], n: int, f: int, logs: list[list[bytes]]) -> Emission:
    """Commit `logs` in one block, then two idle ones a deadline apart."""
    order = rule(n, f)
    emission: Emission = []
    idle: list[list[bytes]] = [[] for _ in logs]
    blocks = [(1_000, logs), (4_000, idle), (7_000, idle)]
    for height, (time_ms, suffixes) in enumerate(blocks, 1):
        for batch in order.commit(height, time_ms, b"", suffixes):
            emission += [(batch.number, id_) for id_ in batch.ids]
    return emission


def test_emitting_shaded_ids_before_the_last_solid_one_breaks_the_promise_at_n_9() -> None:
    """a reached every honest replica before s; two logs show s alone, so far, and b is solid.

    s has T logs and must come before b. The rule that emits it then overtakes a, which is
    first at all seven honest replicas, but not yet in the committed part of T logs.
    """
    a, s, b = (expiring(name, FAR_MS) for name in (b"a", b"s", b"b"))
    receipts = [[a, s, b]] * 2 + [[b, a, s]] * 5
    committed = [[a, s, b], [], [b], [b], [], [], [], [s, b], [s, b]]
    assert all(log == receipts[i][: len(log)] for i, log in enumerate(committed[:7]))
    broken = commit_one(ShadedBeforeTheLastSolid, 9, 2, committed)
    assert inversions(receipts, 2, 9, broken) == [(a, s)]
    assert inversions(receipts, 2, 9, commit_one(FairOrder, 9, 2, committed)) == []


def test_a_deadline_with_all_ancestors_breaks_the_promise_at_n_5() -> None:
    """x reached every honest replica before s; a liar shows s first, and b is solid."""
    x, s, b = (expiring(name, FAR_MS) for name in (b"x", b"s", b"b"))
    receipts = [[x, s, b], [b, x, s], [x, s, b], [x, s, b]]
    committed = [[x, s, b], [b], [], [], [s, b]]
    broken = commit_one(DeadlineWithAllAncestors, 5, 1, committed)
    assert inversions(receipts, 1, 5, broken) == [(x, s)]
    assert commit_one(FairOrder, 5, 1, committed) == []


def planted(rule: type[FairOrder], seed: int) -> bool:
    """Say whether a planted c turned the pair around that all honest replicas agree on.

    c comes first at two honest replicas and last at the others, and the liar closes the cycle
    a -> b -> c -> a: one batch, in which all three have the same Copeland score.
    """
    rng = random.Random(seed)
    a, b, c = (expiring(rng.randbytes(8), FAR_MS) for _ in range(3))
    logs = [[c, a, b], [c, a, b], [a, b, c], [a, b, c], [b, c, a]]
    emission = commit_one(rule, 5, 1, logs)
    assert len({number for number, _ in emission}) == 1 and len(emission) == 3
    return (a, b) in inversions(logs[:4], 1, 5, emission, within_batches=True)


def test_copeland_alone_lets_a_planted_third_id_turn_pairs_around() -> None:
    inverted = sum(planted(CopelandAlone, seed) for seed in range(400))
    assert 160 <= inverted <= 240
    assert not any(planted(FairOrder, seed) for seed in range(400))


def test_the_same_cuts_give_the_same_order_at_every_replica() -> None:
    for seed in range(200):
        trial, deadline_ms = trial_of(seed)
        runs = [
            run_trial(trial, FairOrder(trial.n, trial.f, *trial.gamma, deadline_ms))
            for _ in range(2)
        ]
        assert runs[0] == runs[1], seed


def test_other_cuts_through_the_same_logs_may_give_another_order() -> None:
    """A leader chooses cuts: that decides between ids that the replicas themselves dispute."""
    a, b = expiring(b"a", FAR_MS), expiring(b"b", FAR_MS)
    logs = [[a, b], [a, b], [a, b], [b, a], [b, a]]
    at_once, b_early = FairOrder(5, 1), FairOrder(5, 1)
    assert [batch.ids for batch in at_once.commit(1, 1_000, b"", logs)] == [(a,), (b,)]
    first = b_early.commit(1, 1_000, b"", [[a, b], [], [], [b, a], [b, a]])
    assert [batch.ids for batch in first] == [(b,), (a,)]


def rolling_cycles(
    seed: int, n: int, deadline_ms: int, stream_ms: int = 6_000
) -> tuple[int, dict[int, int]]:
    """Stream ids that clients send so that each closes a cycle with the ones before it.

    Return how many were sent, and the wait of each emitted id in milliseconds.
    """
    rng = random.Random(seed)
    gap_ms, count = 20, stream_ms // 20
    order = FairOrder(n, (n - 1) // 3, deadline_ms=deadline_ms)
    arrivals = [
        sorted(
            (k * gap_ms + 5.4 * gap_ms * ((k + replica) % 3) + rng.uniform(0, 3), k)
            for k in range(count)
        )
        for replica in range(n)
    ]
    heads, waits = [0] * n, dict[int, int]()
    for height in range(1, (stream_ms + 5_000) // 50):
        suffixes = []
        for replica, arrived in enumerate(arrivals):
            seen_ms = height * 50 - rng.uniform(0, 60)
            end = heads[replica]
            while end < count and arrived[end][0] <= seen_ms:
                end += 1
            run = arrived[heads[replica] : end]
            suffixes.append([expiring(b"%d" % k, FAR_MS) for _, k in run])
            heads[replica] = end
        for batch in order.commit(height, height * 50, b"%d" % height, suffixes):
            for id_ in batch.ids:
                waits[int(id_[8:])] = height * 50 - int(id_[8:]) * gap_ms
    return count, waits


@pytest.mark.parametrize("n", [5, 7])
def test_rolling_cycles_halt_nobody_because_of_the_deadline(n: int) -> None:
    for seed in range(3):
        count, waits = rolling_cycles(seed, n, deadline_ms=2_000)
        assert len(waits) == count, seed
        assert max(waits.values()) <= 2_000 + 1_000, seed
    count, waits = rolling_cycles(0, n, deadline_ms=1 << 40)
    assert max(waits.values()) > 4_000, "without a deadline the attack must work"


def test_every_id_that_the_honest_logs_hold_is_emitted_despite_liars() -> None:
    for seed in range(600):
        trial, deadline_ms = trial_of(seed)
        order = FairOrder(trial.n, trial.f, *trial.gamma, deadline_ms)
        emission = run_trial(trial, order)
        ends = [sum(len(suffixes[i]) for _, suffixes in trial.cuts) for i in range(trial.n)]
        remaining = [log[end:] for log, end in zip(trial.logs, ends, strict=True)]
        height, time_ms = len(trial.cuts), trial.cuts[-1][0]
        # The rest of the logs, then idle blocks, as a leader proposes them.
        for step in range(40):
            suffixes = remaining if step == 0 else [[] for _ in range(trial.n)]
            for batch in order.commit(height + 1 + step, time_ms + 400 * step, b"", suffixes):
                emission += [(batch.number, id_) for id_ in batch.ids]
        received = {id_ for receipt in trial.honest for id_ in receipt}
        assert {id_ for _, id_ in emission} == received, seed
        assert len(emission) == len(received), seed
        assert not inversions(trial.honest, trial.f, trial.received_min, emission), seed


def test_while_one_batch_is_open_what_the_deadline_cuts_next_joins_it() -> None:
    """Two open batches could later meet in one component, and one number had to give way.

    First y1 -> y2 -> r is cut, r being not overdue; then z1 -> z2 -> z3, in front of r by a
    majority, z2 being not overdue. x stays in two logs and keeps the chain's start waiting.
    """
    x, y1, y2, r = (expiring(name, FAR_MS) for name in (b"a", b"y1", b"y2", b"r"))
    z1, z2, z3 = (expiring(name, FAR_MS) for name in (b"z1", b"z2", b"z0"))
    order = FairOrder(5, 1)
    blocks: list[tuple[int, list[list[bytes]]]] = [
        (1_000, [[y1, y2, x, z1, z2, z3], [y2, r, y1], [r, y1, y2], [x], []]),
        (3_001, [[r], [], [], [], []]),
        (3_100, [[], [], [], [z2, z3, z1], [z3, z1]]),
        (4_500, [[], [z1, z2, z3], [], [], [z2]]),
        (5_101, [[], [], [], [], []]),
    ]
    out = [
        [
            (batch.number, sorted(batch.ids))
            for batch in order.commit(height, time_ms, b"", suffixes)
        ]
        for height, (time_ms, suffixes) in enumerate(blocks, 1)
    ]
    assert out == [[], [(1, [y1, y2])], [], [], [(1, sorted([z1, z3]))]]
    assert {id_: order.open_number(id_) for id_ in order.pending()} == {x: 0, r: 1, z2: 1}
