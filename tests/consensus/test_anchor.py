"""The anchored inbox against a model that keeps every claimed chain whole."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.anchor import UNANCHORED_MAX, AnchorState, InboxAnchor
from consensus.batches import INBOX_START_HASH, inbox_chain
from consensus.codec import decode, encode
from consensus.messages import InboxClaim, LogBatch
from tests.consensus.samples import Sample

N, F = 4, 1
SAMPLE = Sample(N)


def claim(author: int, before: list[bytes], fresh: tuple[bytes, ...]) -> LogBatch:
    chain = (*before, *fresh)
    hash_ = inbox_chain(INBOX_START_HASH, chain)
    return SAMPLE.batch(author, inbox=InboxClaim(len(chain), hash_, fresh))


class Naive:
    """Every log's whole chain; the anchor is the longest prefix that 2f+1 of them share."""

    def __init__(self) -> None:
        self.chains: list[list[bytes]] = [[] for _ in range(N)]
        self.anchored: list[bytes] = []

    def advance(self) -> tuple[bytes, ...]:
        before = len(self.anchored)
        while True:
            k = len(self.anchored) + 1
            prefixes = [tuple(chain[:k]) for chain in self.chains if len(chain) >= k]
            agreed = [p for p in prefixes if prefixes.count(p) >= 2 * F + 1]
            if not agreed or list(agreed[0][:-1]) != self.anchored:
                return tuple(self.anchored[before:])
            self.anchored.append(agreed[0][-1])


@given(st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_it_anchors_what_2f1_whole_chains_share(rng: random.Random) -> None:
    """One log may invent messages; the others claim the true ones at their own pace."""
    true = [b"%d" % k for k in range(12)]
    anchor, naive = InboxAnchor(N, F), Naive()
    liar = rng.randrange(N)
    for _ in range(rng.randint(1, 40)):
        author = rng.randrange(N)
        chain = naive.chains[author]
        count = rng.randint(0, 3)
        fresh = tuple(true[len(chain) : len(chain) + count])
        if author == liar and rng.random() < 0.5:
            fresh = tuple(b"lie %d" % rng.randrange(3) for _ in range(count))
        anchor.observe(claim(author, chain, fresh))
        chain += fresh
        if rng.random() < 0.5:
            assert anchor.advance() == naive.advance()
            if rng.random() < 0.3:
                anchor = InboxAnchor(N, F, decode(AnchorState, encode(anchor.state)))
    assert anchor.advance() == naive.advance()
    assert anchor.state.count == len(naive.anchored)
    assert anchor.state.hash == inbox_chain(INBOX_START_HASH, tuple(naive.anchored))
    assert naive.anchored == true[: len(naive.anchored)], "a liar anchors nothing"


def test_f_liars_anchor_nothing_and_2f1_honest_need_no_liar() -> None:
    anchor = InboxAnchor(N, F)
    anchor.observe(claim(0, [], (b"lie",)))
    for author in (1, 2):
        anchor.observe(claim(author, [], (b"a",)))
    assert anchor.advance() == ()
    anchor.observe(claim(3, [], (b"a", b"b")))
    assert anchor.advance() == (b"a",)


def test_an_invented_chain_does_not_grow_without_limit() -> None:
    anchor = InboxAnchor(N, F)
    lie: list[bytes] = []
    batch = tuple(b"%d" % k for k in range(64))
    while len(lie) < UNANCHORED_MAX + 640:
        chained = InboxClaim(len(lie) + 64, bytes(32), batch)
        anchor.observe(SAMPLE.batch(0, inbox=chained))
        lie += batch
    assert len(anchor.state.claims[0].messages) == UNANCHORED_MAX
    assert anchor.advance() == ()
