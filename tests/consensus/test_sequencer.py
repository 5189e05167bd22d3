"""Blocks to order: time, prices, the inbox, and a state that can be put down and taken up."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from consensus.batches import INBOX_START_HASH, NO_CLAIM, SealedBatch, inbox_chain
from consensus.codec import CodecError
from consensus.command import EXPIRY_ORDER_MAX_MS
from consensus.messages import Block, Head, InboxClaim, Observation, block_digest
from consensus.sequencer import OrderedBlock, Sequencer, block_time_ms
from tests.consensus.samples import Sample, seal

N = 4
SAMPLE = Sample(N)
START_MS = 100_000


def fresh() -> Sequencer:
    return Sequencer(SAMPLE.committee, SAMPLE.parameters, SAMPLE.starts, START_MS)


def commit(sequencer: Sequencer, runs: list[list[SealedBatch]]) -> OrderedBlock:
    """Commit a block that takes these new batches of each log."""
    heads: list[Head] = [
        run[-1].head if run else head for run, head in zip(runs, sequencer.heads, strict=True)
    ]
    block: Block = replace(
        SAMPLE.genesis, height=sequencer.height + 1, round=sequencer.height + 1, heads=tuple(heads)
    )
    return sequencer.commit(block, block_digest(block), runs)


class Authors:
    """All logs, growing at random, honestly but each with its own clock and pace."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.tips: list[SealedBatch | None] = [None] * N
        self.pending: list[list[tuple[bytes, bytes]]] = [[] for _ in range(N)]
        self.count = 0

    def submit(self, now_ms: int) -> None:
        self.count += 1
        far = EXPIRY_ORDER_MAX_MS + 60_000
        life_ms = self.rng.choice((30, 300, 3_000, 60_000, far))
        each = SAMPLE.command(b"%d" % self.count, now_ms + life_ms)
        for waiting in self.pending:
            waiting.insert(self.rng.randint(max(0, len(waiting) - 3), len(waiting)), each)

    def grow(self, author: int, now_ms: int) -> SealedBatch:
        rng, tip = self.rng, self.tips[author]
        claim = tip.batch.inbox if tip else NO_CLAIM
        fresh = tuple(b"%d" % (claim.count + k) for k in range(rng.randint(0, 2)))
        claim = InboxClaim(claim.count + len(fresh), inbox_chain(claim.hash, fresh), fresh)
        taken = self.pending[author][: rng.randint(0, 4)]
        del self.pending[author][: len(taken)]
        time_ms = max(tip.batch.time_ms if tip else 0, now_ms + rng.randint(-80, 80))
        prices = tuple(
            Observation(k, rng.randint(1, 99), time_ms) for k in range(rng.randint(0, 2))
        )
        sealed = seal(
            SAMPLE.batch(
                author,
                tip.head if tip else None,
                tuple(id_ for id_, _ in taken),
                (),
                time_ms,
                prices,
                claim,
            )
        )
        self.tips[author] = sealed
        return sealed

    def block(self, now_ms: int) -> list[list[SealedBatch]]:
        rng = self.rng
        for _ in range(rng.randint(0, 3)):
            self.submit(now_ms)
        return [[self.grow(a, now_ms) for _ in range(rng.randint(0, 2))] for a in range(N)]


@given(st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_a_restored_sequencer_goes_on_exactly_as_the_one_that_was_exported(
    rng: random.Random,
) -> None:
    authors, first = Authors(rng), fresh()
    second = fresh()
    now_ms, done, times = START_MS, dict[bytes, None](), [START_MS]
    for _ in range(rng.randint(5, 40)):
        now_ms += rng.choice((10, 50, 400, 3_000))
        runs = authors.block(now_ms)
        ordered, again = commit(first, runs), commit(second, runs)
        assert ordered == again
        assert first.digest() == second.digest()
        for id_ in (*ordered.ids, *ordered.refused):
            assert id_ not in done, "each command at most once"
            done[id_] = None
        horizon = ordered.time_ms + EXPIRY_ORDER_MAX_MS
        assert all(ordered.time_ms < int.from_bytes(i[:8], "big") <= horizon for i in ordered.ids)
        assert all(int.from_bytes(i[:8], "big") > horizon for i in ordered.refused)
        times.append(ordered.time_ms)
        if rng.random() < 0.4:
            exported = second.export()
            second = fresh()
            second.restore(exported)
            assert second.export() == exported
    assert times == sorted(times), "block time never goes back"


def test_the_digest_covers_every_part() -> None:
    """Two sequencers that differ in one thing only have different digests."""
    base = SAMPLE.batch(0, None, (SAMPLE.command(b"a", 900_000)[0],), (), 120_000)
    variants = {
        "entries": replace(base, entries=()),
        "time": replace(base, time_ms=120_001),
        "price": replace(base, oracle=(Observation(0, 1, 1),)),
        "inbox": replace(
            base, inbox=InboxClaim(1, inbox_chain(INBOX_START_HASH, (b"m",)), (b"m",))
        ),
    }
    digests = {}
    for name, batch in {"base": base, **variants}.items():
        sequencer = fresh()
        commit(sequencer, [[seal(batch)], [], [], []])
        digests[name] = sequencer.digest()
    assert len(dict.fromkeys(digests.values())) == len(digests)


@given(st.lists(st.integers(0, 1_000), min_size=1, max_size=31), st.integers(0, 1_000))
def test_block_time_is_bounded_by_honest_clocks(times: list[int], parent_ms: int) -> None:
    """The lower median: whatever f of n logs say, some honest log says at least as much."""
    time_ms = block_time_ms(parent_ms, times)
    assert time_ms >= parent_ms
    f = (len(times) - 1) // 3
    if time_ms > parent_ms:
        assert sum(t >= time_ms for t in times) > f
        assert sum(t <= time_ms for t in times) > f


def test_an_old_observation_replaces_no_newer_one() -> None:
    sequencer = fresh()
    first = seal(SAMPLE.batch(0, None, oracle=(Observation(3, 10, 500),)))
    older = seal(SAMPLE.batch(0, first.head, oracle=(Observation(3, 11, 499),)))
    newer = seal(SAMPLE.batch(0, older.head, oracle=(Observation(3, 12, 500),)))
    assert commit(sequencer, [[first], [], [], []]).observations[0] == (Observation(3, 10, 500),)
    assert commit(sequencer, [[older], [], [], []]).observations[0] == (Observation(3, 10, 500),)
    assert commit(sequencer, [[newer], [], [], []]).observations[0] == (Observation(3, 12, 500),)


def test_garbage_is_no_snapshot() -> None:
    good = fresh().export()
    for bad in (b"", good[:-1], good + b"\0", b"\x93" + good[1:]):
        with pytest.raises(CodecError):
            fresh().restore(bad)
