"""Block sync: ranges of the committed chain, and of the logs under it, from all peers at once.

Each range is asked of one peer, so nothing comes twice; one that does not answer in time is asked
of another, and the peer left alone for a while. A run of blocks is proved by its last, a run of
batches by the heads that those blocks name, so a liar costs its range and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from consensus.context import Context
from consensus.logstore import MissingBatch
from consensus.messages import (
    FETCH_BATCHES_MAX,
    FETCH_BLOCKS_MAX,
    Block,
    Chain,
    GetBatches,
    GetChain,
    Head,
)

TIMER = "chainsync"
RANGES_MAX = 16
"""Ranges of blocks that are asked for or wait for an earlier one."""
BLOCKS_AHEAD_MAX = 512
"""Blocks asked for beyond the committed tip; they wait in memory."""
SEGMENTS_PER_PEER_MAX = 4
"""Runs of batches asked of one peer at one time."""
ANSWER_MS = 800
LEFT_ALONE_MS = 3_000
PAUSE_MS = 50


@dataclass(slots=True)
class _Range:
    """Committed blocks `first` to `last`; `peer` is asked since `asked_ms`, or nobody (-1)."""

    first: int
    last: int
    peer: int = -1
    asked_ms: int = 0
    chain: Chain | None = None


@dataclass(slots=True)
class _Segment:
    """The batches of a log after one head up to another that a committed block names."""

    author: int
    after: Head
    until: Head
    height: int
    peer: int = -1
    asked_ms: int = 0


class ChainSync:
    """What is asked of whom while peers are far ahead."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._ranges: list[_Range] = []
        self._segments: list[_Segment] = []
        self._heads: list[Head] = []
        """Per log the head up to which segments were made."""
        self._delivered = 0
        self._heights: Sequence[int] = ()
        self._left_alone_ms: dict[int, int] = {}
        self._turn = 0

    @property
    def active(self) -> bool:
        """Whether blocks are asked for."""
        return bool(self._ranges)

    def __len__(self) -> int:
        return len(self._ranges) + len(self._segments)

    def covers(self, author: int) -> bool:
        """Say whether batches of this log are on their way for the next blocks."""
        return any(s.author == author and s.peer >= 0 for s in self._segments)

    def top(self, heights: Sequence[int]) -> int:
        """Return the height that f + 1 peers claim: somebody honest has it."""
        return sorted(heights, reverse=True)[self._ctx.committee.f]

    def follow(self, heights: Sequence[int]) -> None:
        """Peers say that they have committed up to `heights`: ask for what we lack."""
        self._heights = heights
        tip = self._ctx.tree.tip.height
        self._delivered = max(self._delivered, tip)
        if not self._heads or (not self.active and not self._segments):
            self._heads = list(self._ctx.sequencer.heads)
        last = self._ranges[-1].last if self._ranges else self._delivered
        top = min(self.top(heights), tip + BLOCKS_AHEAD_MAX)
        while last < top and len(self._ranges) < RANGES_MAX:
            self._ranges.append(_Range(last + 1, min(last + FETCH_BLOCKS_MAX, top)))
            last = self._ranges[-1].last
        self.work()

    def work(self) -> None:
        """Forget what has come, give up on who does not answer, ask the next."""
        ctx = self._ctx
        tip = ctx.tree.tip.height
        self._ranges = [r for r in self._ranges if r.last > tip]
        self._segments = [s for s in self._segments if not self._is_held(s)]
        for each in self._waiting():
            if ctx.now_ms - each.asked_ms >= ANSWER_MS:
                self._left_alone_ms[each.peer] = ctx.now_ms + LEFT_ALONE_MS
                each.peer = -1
                ctx.count("sync_unanswered")
        load = self._load()
        for each in self._ranges:
            if each.peer < 0 and each.chain is None:
                self._ask(each, each.last, load)
        window = 2 * ctx.parameters.log_window
        for segment in self._segments:
            if segment.peer < 0:
                base = ctx.logs.bases[segment.author].seq
                if segment.until.seq <= base + window:
                    self._ask(segment, segment.height, load)
        if self._ranges or self._segments:
            ctx.timer(TIMER, ctx.now_ms + PAUSE_MS)

    def _is_held(self, segment: _Segment) -> bool:
        logs, author = self._ctx.logs, segment.author
        if logs.bases[author].seq >= segment.until.seq:
            return True
        if segment.peer < 0 or logs.batch(author, segment.until.digest) is None:
            return False
        # The last batch alone may have come by itself; the others are what was asked for.
        after = segment.after if segment.after.seq > logs.bases[author].seq else logs.bases[author]
        return not isinstance(logs.path(author, after, segment.until), MissingBatch)

    def _load(self) -> dict[int, int]:
        """Return how much is asked of each peer."""
        load = dict.fromkeys(range(self._ctx.committee.n), 0)
        for each in self._waiting():
            load[each.peer] += 1
        return load

    def _waiting(self) -> list[_Range | _Segment]:
        """Return what somebody is asked for."""
        asked: list[_Range | _Segment] = [r for r in self._ranges if r.chain is None]
        asked += self._segments
        return [each for each in asked if each.peer >= 0]

    def _ask(self, each: _Range | _Segment, height: int, load: dict[int, int]) -> None:
        """Ask the least asked peer that says it has committed `height`."""
        ctx = self._ctx
        self._turn += 1
        n = ctx.committee.n
        peers = [
            p
            for p in range(n)
            if p != ctx.me
            and self._heights[p] >= height
            and self._left_alone_ms.get(p, 0) <= ctx.now_ms
            and load[p] < SEGMENTS_PER_PEER_MAX
        ]
        if not peers:
            return
        peer = min(peers, key=lambda p: (load[p], (p + self._turn) % n))
        load[peer] += 1
        each.peer, each.asked_ms = peer, ctx.now_ms
        if isinstance(each, _Range):
            ctx.send(peer, GetChain(each.first))
        else:
            epoch = ctx.committee.epoch
            ctx.send(peer, GetBatches(epoch, each.author, each.after, each.until))

    def on_chain(self, peer: int, chain: Chain) -> list[Chain] | None:
        """Take a proven run; return those that follow what was delivered, in order.

        None when it is no answer to a question from here.
        """
        first = chain.blocks[0].height
        for place, each in enumerate(self._ranges):
            if each.first == first and each.peer == peer and each.chain is None:
                last = chain.blocks[-1].height
                if last < each.last:
                    # It ends where its proof is; the rest is a range of its own.
                    self._ranges.insert(place + 1, _Range(last + 1, each.last))
                    each.last = last
                each.chain = chain
                break
        else:
            return None
        return self._deliver()

    def _deliver(self) -> list[Chain]:
        ready: list[Chain] = []
        while self._ranges and self._ranges[0].first <= self._delivered + 1:
            chain = self._ranges[0].chain
            if chain is None:
                break
            ready.append(chain)
            self._delivered = max(self._delivered, self._ranges.pop(0).last)
            self._divide(chain.blocks)
        self.follow(self._heights)
        return ready

    def _divide(self, blocks: tuple[Block, ...]) -> None:
        """Make segments of the batches under these blocks, each as long as one answer."""
        for author in range(self._ctx.committee.n):
            start = self._heads[author]
            before = start
            for block in blocks:
                head = block.heads[author]
                if head.seq - start.seq > FETCH_BATCHES_MAX:
                    self._add(author, start, before, block.height)
                    start = before
                before = head
            self._add(author, start, before, blocks[-1].height)
            self._heads[author] = before

    def _add(self, author: int, after: Head, until: Head, height: int) -> None:
        own = author == self._ctx.me and self._ctx.own.head.seq >= until.seq
        if until.seq > after.seq and not own:
            self._segments.append(_Segment(author, after, until, height))
