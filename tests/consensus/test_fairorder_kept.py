"""What fair order keeps between blocks changes nothing: an order made anew each block agrees.

`fairorder_anew` compares all ids again in every block. Both must give the same batches and the
same state after every block of long streams, however often one of them is restored on the way.
`FAIRLANE_FAIRNESS_TRIALS=50000` asks for a long hunt. Every history is its seed's.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from consensus import pendingids
from consensus.codec import CodecError
from consensus.fairorder import PENDING_MAX, FairOrder
from consensus.pendingids import Entry, PendingIds
from consensus.precedence import Precedence
from tests.consensus import fairorder_anew as anew
from tests.consensus.fairness_oracle import LIES, SIZES, Trial, expiring, random_trial

TRIALS = int(os.environ.get("FAIRLANE_FAIRNESS_TRIALS", "1200"))
Blocks = list[tuple[int, list[list[bytes]]]]


@dataclass
class History:
    """A committee, its deadline, and the blocks that it commits."""

    n: int
    f: int
    gamma: tuple[int, int]
    deadline_ms: int
    blocks: Blocks

    def order(self, rule: type[FairOrder] = FairOrder) -> FairOrder:
        return rule(self.n, self.f, *self.gamma, deadline_ms=self.deadline_ms)

    def order_anew(self) -> anew.FairOrder:
        return anew.FairOrder(self.n, self.f, *self.gamma, deadline_ms=self.deadline_ms)


def of_trial(trial: Trial, deadline_ms: int) -> History:
    return History(trial.n, trial.f, trial.gamma, deadline_ms, trial.cuts)


def stream_logs(rng: random.Random, ids: Sequence[bytes], n: int, liars: int) -> list[list[bytes]]:
    """Return logs over a stream: jittered, or sent by clients into rolling cycles, with liars."""
    jitter = rng.choice((0.0, 1.0, 4.0, 12.0))
    cycle = rng.choice((0, 0, 1.4, 5.4))
    logs = []
    for replica in range(n):
        key = {
            id_: k + cycle * ((k + replica) % 3) + rng.uniform(0, jitter)
            for k, id_ in enumerate(ids)
        }
        logs.append(sorted(ids, key=key.__getitem__))
    for liar in rng.sample(range(n), liars):
        lie, honest = rng.choice(LIES), logs[liar]
        step = rng.choice((5, 20, len(ids)))
        runs = [honest[start : start + step] for start in range(0, len(honest), step)]
        logs[liar] = [id_ for run in runs for id_ in lie(rng, run, [run])]
    return logs


def stream(rng: random.Random, blocks: int = 60) -> History:
    """Return a long history: logs advance at their own pace, stall and catch up; ids expire."""
    n, f, gamma = rng.choice(SIZES)
    per_block = rng.choice((0.3, 2, 5))
    lives_ms = rng.choice(((200_000,), (200_000, 700, 2_500), (200_000, 300_000)))
    step_ms = rng.choice((50, 50, 400))
    ids = [
        expiring(b"%d" % k, 1_000 + int(k / per_block) * step_ms + rng.choice(lives_ms))
        for k in range(int(blocks * per_block))
    ]
    logs = stream_logs(rng, ids, n, f)
    pace = {i: rng.uniform(0.05, 0.3) for i in rng.sample(range(n), rng.randint(0, n))}
    heads, history = [0] * n, Blocks()
    for block in range(1, blocks + 6):
        suffixes = []
        for i, log in enumerate(logs):
            end = len(log) if block > blocks else int(per_block * block) + rng.randint(-2, 2)
            if block <= blocks and rng.random() > pace.get(i, 1.0):
                end = 0
            end = max(heads[i], min(end, len(log)))
            suffixes.append(log[heads[i] : end])
            heads[i] = end
        history.append((1_000 + block * step_ms, suffixes))
    return History(n, f, gamma, rng.choice((2_000, 300, 0)), history)


def histories(seed: int) -> Iterator[History]:
    """Yield a short history, and for every fifth seed a long one."""
    rng = random.Random(seed)
    yield of_trial(random_trial(rng, ids_max=20), rng.choice((2_000, 300, 0)))
    if seed % 5 == 0:
        yield stream(rng)


def differs(history: History, seed: int, rule: type[FairOrder] = FairOrder) -> bool:
    """Say whether anything visible differs between the order kept and the order made anew."""
    rng = random.Random(seed)
    kept, again = history.order(rule), history.order_anew()
    restored = rng.choice((0.0, 0.0, 0.2))
    for height, (time_ms, suffixes) in enumerate(history.blocks, 1):
        digest = b"%d" % height
        got = kept.commit(height, time_ms, digest, suffixes)
        expected = again.commit(height, time_ms, digest, suffixes)
        if [(b.number, b.ids, b.refused) for b in got] != [
            (b.number, b.ids, b.refused) for b in expected
        ]:
            return True
        if kept._state() != again._state() or kept.pending() != again.pending():
            return True
        if any(kept.missing_for(log) != again.missing_for(log) for log in range(history.n)):
            return True
        if rng.random() < restored:
            twin = history.order(rule)
            twin.restore(kept.export())
            kept = twin
    return kept.digest() != again.digest() or kept.export() != again.export()


@pytest.mark.parametrize("part", range(3))
def test_what_is_kept_changes_nothing(part: int) -> None:
    for seed in range(part, TRIALS, 3):
        for history in histories(seed):
            assert not differs(history, seed), seed


def test_these_histories_drop_bits_and_leave_ids_pending_while_they_do() -> None:
    """Else the comparison would say little about it."""
    dropped = 0
    for seed in range(0, 200, 5):
        _, history = histories(seed)
        order = history.order()
        for height, (time_ms, suffixes) in enumerate(history.blocks, 1):
            graph = order._pending.graph
            order.commit(height, time_ms, b"", suffixes)
            dropped += order._pending.graph is not graph and len(order) > 3
    assert dropped >= 10


class _StaleRows(Precedence):
    def _stands(self, id_: object, made: int) -> bool:
        return True


class StaleRows(PendingIds):
    """Compares an id again only when a log takes it."""

    def _forget_bits(self) -> None:
        super()._forget_bits()
        self.graph = _StaleRows(self._threshold, self._replicas)


class TiesByBit(PendingIds):
    """Lets the first to appear win a tie, not the first to reach T logs."""

    def compare(self, entering: Iterable[Entry]) -> None:
        super().compare(entering)
        for id_ in self.graph._known:
            id_.lower = (id_.bit - 1) & self.compared
            id_.row_turn = -1


class ForgetsTheOpenBatch(PendingIds):
    """Does not know after dropping bits which ids are the rest of a batch."""

    def renew(self) -> None:
        super().renew()
        self.opened = 0


class KeepsTheDead(PendingIds):
    """Goes on comparing with ids that are gone."""

    def remove(self, gone: Iterable[Entry]) -> None:
        compared = self.compared
        super().remove(gone)
        self.compared = compared


class DropsBitsInAnyOrder(PendingIds):
    """After dropping bits has the ids in another order than that of their appearance."""

    def compact(self) -> None:
        if len(self.graph) > 2 * len(self.by_id) + pendingids.DEAD_BITS_MIN:
            self.by_id = dict(sorted(self.by_id.items()))
        super().compact()


@pytest.mark.parametrize(
    "wrong", [StaleRows, TiesByBit, ForgetsTheOpenBatch, KeepsTheDead, DropsBitsInAnyOrder]
)
def test_the_comparison_catches_what_is_kept_wrongly(
    wrong: Callable[[int, int], PendingIds], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(FairOrder):
        def _new_pending(self) -> PendingIds:
            return wrong(self.threshold, self._n)

    monkeypatch.setattr(pendingids, "DEAD_BITS_MIN", 4)
    caught = (
        seed
        for seed in range(2_000)
        if any(differs(history, seed, Wrong) for history in histories(seed))
    )
    assert next(caught, None) is not None


def many(count: int, expires_ms: int = 200_000) -> list[bytes]:
    return [expiring(b"%06d" % k, expires_ms) for k in range(count)]


def test_an_id_that_appears_while_too_many_are_pending_is_refused_at_once() -> None:
    order = FairOrder(5, 1, pending_max=3)
    a, b, c, d, e = many(5)
    assert order.commit(1, 1_000, b"", [[a, b], [], [], [], []]) == []
    batches = order.commit(2, 1_050, b"", [[c, d], [d, a, e], [], [], []])
    assert [(x.ids, x.refused) for x in batches] == [((), (d, e))]
    assert order.pending() == [a, b, c]
    assert order.is_done(d)
    assert order.is_done(e)
    # What is pending goes on, makes room, and a refused id never comes again.
    batches = order.commit(3, 1_100, b"", [[], [b, c, d], [a, b, c, d, e], [a, b, c], []])
    assert [i for x in batches for i in x.ids] == [a, b, c]
    late = expiring(b"late", 200_000)
    assert [x.ids for x in order.commit(4, 1_150, b"", [[late, d]] * 5)] == [(late,)]


def test_refusing_keeps_state_and_numbers_through_a_restore() -> None:
    ids = many(40)
    order = FairOrder(5, 1, pending_max=10)
    order.commit(1, 1_000, b"", [ids, [], [], [], []])
    twin = FairOrder(5, 1, pending_max=10)
    twin.restore(order.export())
    for each in (order, twin):
        batches = each.commit(2, 1_050, b"", [[], ids, ids, ids, []])
        assert [i for x in batches for i in x.ids] == ids[:10]
    assert order.export() == twin.export()


def test_a_snapshot_with_too_many_pending_ids_is_refused() -> None:
    order = FairOrder(5, 1)
    order.commit(1, 1_000, b"", [many(11), [], [], [], []])
    with pytest.raises(CodecError):
        FairOrder(5, 1, pending_max=10).restore(order.export())


def test_no_liar_makes_more_than_the_bound_pending_however_far_its_ids_expire() -> None:
    """Worse than any log that can be committed: ids that nobody echoes and that never expire."""
    order = FairOrder(5, 1, pending_max=500)
    bits_max, emitted = 0, 0
    for height in range(1, 60):
        junk = [expiring(b"junk%d.%d" % (height, k), 1 << 60) for k in range(20)]
        honest = [expiring(b"good%d" % height, 200_000)]
        suffixes = [honest, honest, honest, honest, honest + junk]
        for batch in order.commit(height, height * 50, b"", suffixes):
            emitted += len(batch.ids)
        assert len(order) <= 500
        bits_max = max(bits_max, len(order._pending.graph))
    assert bits_max <= 2 * 500 + pendingids.DEAD_BITS_MIN + 21
    assert emitted >= 500 // 20, "nobody is refused before the bound is reached"


def test_the_bound_is_the_one_that_the_documentation_gives() -> None:
    assert PENDING_MAX == 16_384
