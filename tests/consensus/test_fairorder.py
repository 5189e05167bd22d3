"""Claims about the rule of fair order: it is what its text says, and keeps its books right."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.codec import CodecError
from consensus.digest import chunk_name
from consensus.fairorder import FairOrder, OrderedBatch, UnfairCommittee, thresholds
from consensus.idmemory import IdMemory, chunks_root
from consensus.pendingids import Entry, PendingIds
from tests.consensus.fairness_oracle import SIZES, SlowOrder, expiring, random_trial

FAR_MS = 200_000
Block = tuple[int, list[list[bytes]]]
History = tuple[tuple[int, int, tuple[int, int]], list[Block]]


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Any committed logs at all: repeats, omissions, expiries, idle blocks, late cuts."""
    size = draw(st.sampled_from(SIZES[:5]))
    expiries = draw(
        st.lists(
            st.sampled_from((FAR_MS, 1 << 40, 100_000, 100_050, 2_000, 5_400, 241_100, 300_000)),
            min_size=1,
            max_size=6,
        )
    )
    ids = [expiring(b"%d" % k, when) for k, when in enumerate(expiries)]
    suffix = st.lists(st.sampled_from(ids), max_size=5)
    block = st.tuples(
        st.sampled_from((0, 50, 700, 2_001, 5_000, 100_000)),
        st.lists(suffix, min_size=size[0], max_size=size[0]),
    )
    blocks: list[Block] = []
    time_ms = 1_000
    for later_ms, suffixes in draw(st.lists(block, max_size=6)):
        time_ms += later_ms
        blocks.append((time_ms, suffixes))
    return size, blocks


def plain(
    batches: Sequence[OrderedBatch],
) -> list[tuple[int, tuple[bytes, ...], tuple[bytes, ...]]]:
    return [(batch.number, batch.ids, batch.refused) for batch in batches]


def orders(size: tuple[int, int, tuple[int, int]]) -> tuple[FairOrder, SlowOrder]:
    n, f, gamma = size
    return FairOrder(n, f, *gamma), SlowOrder(n, f, *gamma)


def assert_books(order: FairOrder, slow: SlowOrder) -> None:
    """What `order` says about its state is what a recount of the logs gives."""
    assert set(order.pending()) == slow.pending()
    assert len(order) == len(slow.pending())
    for log, held in enumerate(slow.logs):
        assert set(order.missing_for(log)) == slow.pending() - set(held)
    for id_ in order.pending():
        assert order.is_pending(id_) and not order.is_done(id_)
        assert order.support(id_) == slow.support(id_)
        assert order.open_number(id_) == slow.open.get(id_, 0)


@settings(max_examples=300, deadline=None)
@given(histories())
def test_any_history_gives_the_order_that_the_text_says(history: History) -> None:
    size, blocks = history
    order, slow = orders(size)
    for height, (time_ms, suffixes) in enumerate(blocks, 1):
        got = order.commit(height, time_ms, b"%d" % height, suffixes)
        assert plain(got) == slow.commit(height, time_ms, b"%d" % height, suffixes)
        assert_books(order, slow)
        assert all(order.is_done(id_) for id_ in slow.kept_until)


class Forgetful(FairOrder):
    """Remembers nothing that was emitted."""

    def _batch(self, number: int, line: Sequence[Entry]) -> OrderedBatch:
        batch = super()._batch(number, line)
        self._done = IdMemory()
        return batch


class Lenient(FairOrder):
    """Keeps what has expired."""

    def _drop_expired(self) -> None:
        pass


class Sleepy(FairOrder):
    """Skips blocks without new entries, though a deadline may be due in them."""

    def _emit_what_is_ready(self, block_digest: bytes) -> list[OrderedBatch]:
        batches = super()._emit_what_is_ready(block_digest)
        self._due_ms = 1 << 64
        return batches


class Hasty(FairOrder):
    """Does not look again after the deadline broke a cycle."""

    def _emit_what_is_ready(self, block_digest: bytes) -> list[OrderedBatch]:
        batches = super()._emit_what_is_ready(block_digest)
        self._changed = False
        return batches


class ById(FairOrder):
    """Decides ties by id alone, whatever the height of entering."""

    class _Pending(PendingIds):
        def compare(self, entering: Iterable[Entry]) -> None:
            super().compare(entering)
            compared = [entry for entry in self.by_id.values() if entry.height]
            self._forget_bits()
            for entry in self.by_id.values():
                self._give_bit(entry)
            for i, log in enumerate(self.logs):
                self.graph.extend(i, [entry.bit for entry in log.values()])
            for entry in sorted(compared, key=lambda entry: entry.id):
                self.graph.enter(entry.bit)
                self.compared |= 1 << entry.bit
            self.make_solid(entry for entry in compared if entry.solid_ms is not None)

    def _new_pending(self) -> PendingIds:
        return self._Pending(self.threshold, self._n)


def random_history(rng: random.Random) -> History:
    """As `histories`, with many lagging logs and near expiries."""
    size = rng.choice(SIZES[:5])
    ids = [
        expiring(b"%d" % rng.randrange(1_000), rng.choice((FAR_MS, FAR_MS, 4_000, 9_000, 20_000)))
        for _ in range(rng.randint(2, 8))
    ]
    logs = [rng.sample(ids, rng.randint(len(ids) // 2, len(ids))) for _ in range(size[0])]
    blocks: list[Block] = []
    time_ms = 1_000
    while any(logs) or len(blocks) < 5:
        time_ms += rng.choice((0, 50, 1_500, 3_000))
        suffixes = []
        for log in logs:
            count = rng.choice((0, 0, 1, 2, 4)) if len(blocks) % 3 < 2 else 0
            suffixes.append(log[:count])
            del log[:count]
        blocks.append((time_ms, suffixes))
    return size, blocks


@pytest.mark.parametrize("wrong", [None, Forgetful, Lenient, Sleepy, Hasty, ById])
def test_the_comparison_tells_a_wrong_order_from_a_right_one(wrong: type[FairOrder] | None) -> None:
    def differs(seed: int) -> bool:
        (n, f, gamma), blocks = random_history(random.Random(seed))
        order, slow = (wrong or FairOrder)(n, f, *gamma), SlowOrder(n, f, *gamma)
        return any(
            plain(order.commit(height, time_ms, b"", suffixes))
            != slow.commit(height, time_ms, b"", suffixes)
            or set(order.pending()) != slow.pending()
            for height, (time_ms, suffixes) in enumerate(blocks, 1)
        )

    assert any(differs(seed) for seed in range(400)) == (wrong is not None)


@pytest.mark.parametrize("seed", range(8))
def test_jittered_arrivals_with_liars_give_the_order_that_the_text_says(seed: int) -> None:
    rng = random.Random(seed)
    several = 0
    for _ in range(60):
        trial = random_trial(rng, ids_max=14)
        order, slow = orders((trial.n, trial.f, trial.gamma))
        for height, (time_ms, suffixes) in enumerate(trial.cuts, 1):
            got = plain(order.commit(height, time_ms, b"%d" % height, suffixes))
            assert got == slow.commit(height, time_ms, b"%d" % height, suffixes), seed
            several += any(len(ids) > 2 for _, ids, _ in got)
        assert_books(order, slow)
    assert several >= 4, "the histories must reach the order inside a batch"


@pytest.mark.parametrize(
    ("n", "f", "gamma", "expected"),
    [
        (4, 1, (1, 1), (2, 3)),
        (5, 1, (1, 1), (2, 3)),
        (7, 2, (1, 1), (3, 5)),
        (9, 2, (1, 1), (3, 5)),
        (7, 1, (6, 7), (3, 5)),
        (9, 2, (8, 9), (4, 7)),
        (9, 2, (17, 18), (3, 5)),  # gamma n = 8.5 rounds up to 9
        (1, 0, (1, 1), (1, 1)),
    ],
)
def test_thresholds(n: int, f: int, gamma: tuple[int, int], expected: tuple[int, int]) -> None:
    assert thresholds(n, f, *gamma) == expected


@pytest.mark.parametrize(
    ("n", "f", "gamma"), [(3, 1, (1, 1)), (4, 1, (3, 4)), (5, 1, (4, 5)), (7, 2, (6, 7))]
)
def test_a_committee_that_faulty_replicas_could_stop_is_refused(
    n: int, f: int, gamma: tuple[int, int]
) -> None:
    with pytest.raises(UnfairCommittee, match=f"n-f={n - f}"):
        FairOrder(n, f, *gamma)


@pytest.mark.parametrize("bad", [(5, 5, 1, 1), (5, -1, 1, 1), (5, 1, 0, 1), (5, 1, 2, 1)])
def test_parameters_out_of_range_are_refused(bad: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        thresholds(*bad)


def everywhere(*ids: bytes) -> list[list[bytes]]:
    return [list(ids) for _ in range(5)]


def test_an_emitted_id_stays_away_until_it_expires_and_is_void_from_then_on() -> None:
    order = FairOrder(5, 1)
    a = expiring(b"a", 10_000)
    assert [b.ids for b in order.commit(1, 9_000, b"", everywhere(a))] == [(a,)]
    assert order.is_done(a)
    assert order.commit(2, 9_999, b"", everywhere(a, a)) == []
    assert order.commit(3, 10_000, b"", everywhere(a)) == []
    assert not order.is_done(a)
    assert not order.is_pending(a)
    assert order.commit(4, 10_001, b"", everywhere(a)) == []


def test_a_pending_id_leaves_when_block_time_reaches_its_expiry() -> None:
    order = FairOrder(5, 1)
    a = expiring(b"a", 10_000)
    order.commit(1, 9_000, b"", [[a], [a], [], [], []])
    order.commit(2, 9_999, b"", [[]] * 5)
    assert order.is_pending(a)
    assert order.commit(3, 10_000, b"", [[], [], [a], [a], [a]]) == []
    assert not order.is_pending(a)
    assert order.missing_for(4) == []


def test_an_id_that_expires_too_far_ahead_is_refused_and_kept_240_s() -> None:
    order = FairOrder(5, 1)
    near, far = expiring(b"n", 1_000 + 240_000), expiring(b"f", 1_001 + 240_000)
    batches = order.commit(1, 1_000, b"", everywhere(near, far))
    assert [(b.ids, b.refused) for b in batches] == [((near,), ()), ((), (far,))]
    assert order.is_done(far)
    assert order.commit(2, 240_999, b"", everywhere(far)) == []
    # After that it may come again, now near enough to be executed for the first time.
    assert [b.ids for b in order.commit(3, 241_000, b"", everywhere(far))] == [(far,)]


def test_the_deadline_is_due_without_any_new_entry() -> None:
    """A tie puts a, which too few logs hold, before b; after 2 s of block time b goes alone."""
    a, b = expiring(b"a", FAR_MS), expiring(b"b", FAR_MS)
    order = FairOrder(5, 1, deadline_ms=2_000)
    assert order.commit(1, 1_000, b"", [[a, b], [a, b], [b], [b], []]) == []
    assert order.commit(2, 3_000, b"", [[]] * 5) == []
    assert plain(order.commit(3, 3_001, b"", [[]] * 5)) == [(1, (b,), ())]
    assert order.pending() == [a]


def test_an_alarm_is_raised_by_ids_that_f_plus_1_logs_have_held_too_long() -> None:
    order = FairOrder(5, 1)
    a, b, c = (expiring(name, FAR_MS) for name in (b"a", b"b", b"c"))
    order.commit(1, 1_000, b"", [[a], [], [], [], [b]])
    order.commit(2, 2_000, b"", [[b], [a], [], [], []])
    order.commit(3, 3_000, b"", [[c], [c], [], [], []])
    assert order.alarmed(7_000, 5_000) == []
    assert order.alarmed(7_001, 5_000) == [a, b]
    assert order.alarmed(8_001, 5_000) == [a, b, c]
    order.commit(4, 8_001, b"", [[], [], [a], [], []])
    assert order.is_done(a)
    assert order.alarmed(8_001, 5_000) == [b, c]


def advance(order: FairOrder, blocks: Sequence[Block], start: int) -> list[object]:
    """Commit `blocks` at heights after `start`; return all that is visible of each step."""
    seen: list[object] = []
    for height, (time_ms, suffixes) in enumerate(blocks, start + 1):
        batches = order.commit(height, time_ms, b"%d" % height, suffixes)
        seen.append((plain(batches), order.digest(), order.pending(), order.alarmed(time_ms, 50)))
        seen.append([order.missing_for(log) for log in range(len(suffixes))])
    return seen


@settings(max_examples=150, deadline=None)
@given(histories(), st.integers(0, 6))
def test_a_restored_order_is_equal_and_goes_on_alike(history: History, cut: int) -> None:
    (n, f, gamma), blocks = history
    cut = min(cut, len(blocks))
    order = FairOrder(n, f, *gamma)
    advance(order, blocks[:cut], 0)
    snapshot = order.export()
    twin = FairOrder(n, f, *gamma)
    twin.restore(snapshot)
    assert twin.export() == snapshot
    assert twin.digest() == order.digest()
    assert twin.digest() == chunks_root([chunk_name(chunk) for chunk in order.chunks()])
    assert advance(twin, blocks[cut:], cut) == advance(order, blocks[cut:], cut)


def test_a_restored_order_goes_on_alike_in_the_middle_of_a_cut_batch() -> None:
    compared = 0
    for seed in range(400):
        trial = random_trial(random.Random(seed), ids_max=12)
        order = FairOrder(trial.n, trial.f, *trial.gamma)
        for height, (time_ms, suffixes) in enumerate(trial.cuts, 1):
            order.commit(height, time_ms, b"%d" % height, suffixes)
            if any(order.open_number(id_) for id_ in order.pending()):
                twin = FairOrder(trial.n, trial.f, *trial.gamma)
                twin.restore(order.export())
                end_ms = trial.cuts[-1][0] + 10_000
                rest: list[Block] = [*trial.cuts[height:], (end_ms, [[] for _ in range(trial.n)])]
                assert advance(twin, rest, height) == advance(order, rest, height), seed
                compared += 1
                break
    assert compared > 3, "the histories must reach a batch that the deadline cut"


def sample_order() -> FairOrder:
    order = FairOrder(5, 1)
    ids = [expiring(b"%d" % k, 30_000 + k) for k in range(6)]
    order.commit(1, 1_000, b"", [ids[:4], ids[:3], ids[1:5], [], ids[::-1]])
    return order


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_snapshot_is_refused_and_never_raises_otherwise(data: st.DataObject) -> None:
    snapshot = bytearray(sample_order().export())
    for _ in range(data.draw(st.integers(1, 3))):
        snapshot[data.draw(st.integers(0, len(snapshot) - 1))] = data.draw(st.integers(0, 255))
    fresh = FairOrder(5, 1)
    try:
        fresh.restore(bytes(snapshot))
    except CodecError:
        return
    assert fresh.export() == bytes(snapshot)


def test_a_snapshot_of_another_committee_is_refused() -> None:
    for other in (FairOrder(4, 1), FairOrder(5, 1, deadline_ms=1), FairOrder(5, 0)):
        with pytest.raises(CodecError):
            other.restore(sample_order().export())


def test_every_part_of_the_state_is_in_the_digest() -> None:
    """Two histories that differ in one thing only never share a digest."""
    a, b, c = (expiring(name, FAR_MS) for name in (b"a", b"b", b"c"))
    soon = expiring(b"s", 200_000)
    histories_: list[list[Block]] = [
        [(1_000, [[a, b], [], [], [], []])],
        [(1_000, [[b, a], [], [], [], []])],
        [(1_000, [[], [a, b], [], [], []])],
        [(1_000, [[a, b], [a], [], [], []])],
        [(1_000, [[a], [], [], [], []])],
        [(1_001, [[a, b], [], [], [], []])],
        [(1_000, [[a, b], [], [], [], []]), (1_000, [[]] * 5)],
        [(1_000, [[a], [a], [], [], []]), (2_000, [[b], [b], [], [], []])],
        [(1_000, [[a], [a], [], [], []]), (2_000, [[b], [b], [], [], []]), (2_000, [[]] * 5)],
        [(1_000, [[b], [b], [], [], []]), (2_000, [[a], [a], [], [], []])],
        [(1_000, everywhere(a))],
        [(1_000, everywhere(b))],
        [(1_000, everywhere(soon))],
        [(1_000, everywhere(a)), (2_000, everywhere(b))],
        [(1_000, everywhere(b)), (2_000, everywhere(a))],
        [(1_000, [[a, b, c], [b, c, a], [c, a, b], [], []])],
        [(1_000, [[a, b, c], [b, c, a], [], [], []]), (1_000, [[], [], [c, a, b], [], []])],
    ]
    digests = []
    for blocks in histories_:
        order = FairOrder(5, 1)
        advance(order, blocks, 0)
        digests.append(order.digest())
    assert len(set(digests)) == len(digests)


def test_the_digest_does_not_depend_on_how_often_it_was_asked_for() -> None:
    rng = random.Random(5)
    asked, silent = FairOrder(5, 1), FairOrder(5, 1)
    for height in range(1, 200):
        ids = [expiring(b"%d" % rng.randrange(1 << 40), height * 50 + 3_000) for _ in range(9)]
        suffixes = [rng.sample(ids, len(ids)) for _ in range(5)]
        asked.commit(height, height * 50, b"", suffixes)
        silent.commit(height, height * 50, b"", suffixes)
        asked.digest()
    assert asked.digest() == silent.digest()


def test_what_is_kept_does_not_grow_with_the_chain() -> None:
    order = FairOrder(5, 1)
    sizes = []
    for height in range(1, 2_000):
        time_ms = height * 50
        ids = [expiring(b"%06d" % (3 * height + k), time_ms + 10_000) for k in range(3)]
        order.commit(height, time_ms, b"", [ids if log else ids[:2] for log in range(5)])
        sizes.append(len(order.export()))
    assert max(sizes[1_000:]) <= max(sizes[:1_000]) * 1.02
