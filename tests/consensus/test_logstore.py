"""The store of batches against a naive model that knows all branches, and its bounds."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.batches import SealedBatch
from consensus.command import CommandId
from consensus.digest import Digest
from consensus.logstore import (
    BRANCHES_PER_PEER_MAX,
    LOG_BYTES_MAX,
    BrokenPath,
    LogStore,
    MissingBatch,
)
from consensus.messages import Head
from tests.consensus.samples import FAR_MS, Sample, seal

SAMPLE = Sample()
AUTHOR = 1
START = SAMPLE.starts[AUTHOR]
WINDOW = SAMPLE.parameters.log_window


def store() -> LogStore:
    return LogStore(SAMPLE.committee, SAMPLE.parameters, SAMPLE.starts)


class Naive:
    """All batches in a list; every answer by looking at all of them."""

    def __init__(self) -> None:
        self.base = START
        self.held: list[SealedBatch] = []
        self.bodies: set[CommandId] = set()

    def by_digest(self, digest: bytes) -> SealedBatch | None:
        return next((s for s in self.held if s.digest == digest), None)

    def is_ready(self, sealed: SealedBatch) -> bool:
        return all(entry in self.bodies for entry in sealed.batch.entries)

    def runs(self, digest: bytes, ready: bool) -> list[list[SealedBatch]]:
        """Return every run of (ready) batches after the batch with this digest."""
        found: list[list[SealedBatch]] = [[]]
        for sealed in self.held:
            if sealed.batch.prev == digest and (self.is_ready(sealed) or not ready):
                found += [[sealed, *rest] for rest in self.runs(sealed.digest, ready)]
        return found

    def path(self, start: Head, end: Head) -> list[SealedBatch] | None:
        run: list[SealedBatch] = []
        digest = end.digest
        while digest != start.digest:
            sealed = self.by_digest(digest)
            if sealed is None:
                return None
            run.insert(0, sealed)
            digest = Digest(sealed.batch.prev)
        return run


def random_tree(rng: random.Random, size: int) -> list[SealedBatch]:
    """Return the batches of a log that forks at random, each with one command."""
    tree: list[SealedBatch] = []
    for k in range(size):
        parent = rng.choice([None, *tree]) if rng.random() < 0.4 else (tree[-1] if tree else None)
        id_, body = SAMPLE.command(b"%d %d" % (k, rng.getrandbits(30)))
        introduced = (body,) if rng.random() < 0.6 else ()
        time_ms = (parent.batch.time_ms if parent else 1_000) + rng.randint(0, 5)
        head = parent.head if parent else None
        tree.append(seal(SAMPLE.batch(AUTHOR, head, (id_,), introduced, time_ms)))
    return tree


@given(st.randoms(use_true_random=False), st.integers(1, 14))
@settings(max_examples=80, deadline=None)
def test_paths_and_depths_are_those_of_a_naive_store(rng: random.Random, size: int) -> None:
    logs, naive = store(), Naive()
    tree = random_tree(rng, size)
    for sealed in rng.sample(tree, rng.randint(0, size)):
        logs.add(sealed, ())
        naive.held.append(sealed)
        naive.bodies |= set(sealed.body_ids)
    for sealed in tree:
        for entry in sealed.batch.entries:
            if rng.random() < 0.3:
                logs.add_body(CommandId(entry), b"body")
                naive.bodies.add(CommandId(entry))
    for start in [START, *(s.head for s in naive.held)]:
        longest = max(map(len, naive.runs(start.digest, ready=True)))
        run = logs.deepest(AUTHOR, start, 100)
        assert len(run) == longest
        assert run in naive.runs(start.digest, ready=True)
        assert len(logs.deepest(AUTHOR, start, 2)) == min(2, longest)
        for end in [s.head for s in tree if s.batch.seq > start.seq]:
            whole = naive.path(start, end)
            path = logs.path(AUTHOR, start, end)
            if isinstance(path, list):
                assert path == whole
            elif isinstance(path, MissingBatch):
                assert naive.by_digest(path.head.digest) is None
            else:
                assert whole is None or whole[0].batch.prev != start.digest
    furthest = max(map(len, naive.runs(START.digest, ready=False)))
    assert logs.furthest(AUTHOR).seq == furthest


def test_a_path_through_an_invalid_link_is_broken_and_no_depth_leads_over_it() -> None:
    logs = store()
    first = seal(SAMPLE.batch(AUTHOR, None, time_ms=5_000))
    earlier = seal(SAMPLE.batch(AUTHOR, first.head, time_ms=4_999))
    logs.add(first, ())
    logs.add(earlier, ())
    assert isinstance(logs.path(AUTHOR, START, earlier.head), BrokenPath)
    assert logs.deepest(AUTHOR, START, 10) == [first]


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_head_that_names_another_seq_is_broken(shift: int) -> None:
    logs = store()
    run = SAMPLE.log(AUTHOR, 4)
    for sealed in run:
        logs.add(sealed, ())
    wrong = Head(3 + shift, run[2].digest)
    assert isinstance(logs.path(AUTHOR, START, wrong), BrokenPath | MissingBatch)
    assert isinstance(logs.path(AUTHOR, run[3].head, run[1].head), BrokenPath)


def test_commitment_forgets_every_branch_up_to_the_head() -> None:
    logs = store()
    run, fork = SAMPLE.log(AUTHOR, 5), SAMPLE.log(AUTHOR, 5, b"fork")
    for sealed in (*run, *fork):
        logs.add(sealed, ())
    assert logs.branched[AUTHOR][0].batch.seq == 1
    logs.commit(AUTHOR, run[:3])
    assert logs.bases[AUTHOR] == run[2].head
    assert logs.batches_held() == 4, "two branches of two batches each"
    assert logs.deepest(AUTHOR, run[2].head, 10) == run[3:]
    assert logs.deepest(AUTHOR, fork[2].head, 10) == []
    assert isinstance(logs.path(AUTHOR, run[2].head, fork[4].head), BrokenPath | MissingBatch)
    logs.commit(AUTHOR, run[3:])
    assert logs.batches_held() == 0


def test_a_batch_is_ready_when_its_last_body_comes_or_is_void() -> None:
    logs = store()
    (a, body), (b, _) = SAMPLE.command(b"a"), SAMPLE.command(b"b", expires_ms=50)
    sealed = seal(SAMPLE.batch(AUTHOR, None, (a, b)))
    logs.add(sealed, ())
    assert logs.is_waited_for(a) and logs.is_waited_for(b)
    missing = logs.bodies_missing([sealed])
    assert missing is not None and set(missing.ids) == {a, b}
    logs.add_body(a, body)
    assert logs.deepest(AUTHOR, START, 10) == []
    assert logs.expire(49) == []
    assert logs.expire(50) == [b]
    assert logs.deepest(AUTHOR, START, 10) == [sealed]
    assert logs.bodies_missing([sealed]) is None
    assert set(logs.expire(FAR_MS)) == {a}
    assert logs.bodies_held() == 0


def room(logs: LogStore, sealed: SealedBatch, giver: int | None = None) -> bool:
    return logs.has_room(sealed.batch, sealed.digest, giver)


def test_unasked_only_the_first_batch_of_a_position_within_the_window_is_kept() -> None:
    logs = store()
    first, rival = SAMPLE.log(AUTHOR, 1)[0], SAMPLE.log(AUTHOR, 1, b"rival")[0]
    assert room(logs, first)
    logs.add(first, ())
    assert not room(logs, rival)
    assert logs.rival(rival.batch, rival.digest) is first
    far = seal(SAMPLE.batch(AUTHOR, Head(2 * WINDOW, bytes(32))))
    assert not room(logs, far)
    assert room(logs, seal(SAMPLE.batch(AUTHOR, Head(2 * WINDOW - 1, bytes(32)))))


def test_each_peer_has_places_of_its_own_for_branches() -> None:
    """A liar's many branches take its own places, and never those of an honest answer."""
    logs = store()
    forks = [SAMPLE.log(AUTHOR, 1, b"%d" % k)[0] for k in range(3 * BRANCHES_PER_PEER_MAX)]
    logs.add(forks[0], ())
    taken = 0
    for fork in forks[1:-1]:
        if room(logs, fork, giver=2):
            logs.add(fork, ())
            taken += 1
    assert taken == BRANCHES_PER_PEER_MAX
    assert room(logs, forks[-1], giver=3)


def test_what_a_path_names_and_what_a_held_batch_stands_on_is_always_kept() -> None:
    logs = store()
    run, fork = SAMPLE.log(AUTHOR, 2), SAMPLE.log(AUTHOR, 2, b"fork")
    logs.add(run[0], ())
    logs.add(fork[1], ())
    assert room(logs, fork[0]), "a batch that is held stands on it"
    other = SAMPLE.log(AUTHOR, 1, b"other")[0]
    assert not room(logs, other)
    assert logs.has_room(other.batch, other.digest, None, named=True)


def test_a_log_beyond_its_bytes_is_kept_only_when_asked_for() -> None:
    logs = store()
    logs._sizes[AUTHOR] = LOG_BYTES_MAX + 1
    sealed = SAMPLE.log(AUTHOR, 1)[0]
    assert not room(logs, sealed)
    assert room(logs, sealed, giver=2)
