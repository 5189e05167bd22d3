"""Asking peers for what is missing: f+1 of them at once, in turn, until it is not needed."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from consensus.command import CommandId
from consensus.context import Context
from consensus.logstore import MissingBatch
from consensus.messages import (
    FETCH_IDS_MAX,
    GetBatches,
    GetBlock,
    GetBodies,
    GetChain,
    Head,
    LogBatch,
    Message,
    batch_digest,
)

ASKS_MAX = 8_192
"""Things asked for at one time. When full, new wishes wait until they are wished again."""
ECHO_ASKS_MAX = 4_096
"""Bodies asked for at one time only to echo them, in equal shares for all logs."""
TRIES_MAX = 64
"""Rounds of asking after which a wish is dropped; whoever still needs it wishes again."""
PATIENCE_MS = 20
"""What is missing is often on its way: it is asked for after this long."""
RETRY_MS = 100
RETRY_MAX_MS = 1_000
REPEAT_GRID_MS = 50
TIMER = "fetch"


@dataclass(frozen=True, slots=True)
class WantBody:
    id: CommandId


@dataclass(frozen=True, slots=True)
class WantBatches:
    """Log `author` up to the batch `until` from what is committed, or (None) ready up to `seq`
    after the head `after`."""

    author: int
    after: Head | None
    until: Head | None
    seq: int


@dataclass(frozen=True, slots=True)
class WantBlock:
    digest: bytes


@dataclass(frozen=True, slots=True)
class WantChain:
    """Committed blocks above `height`."""

    height: int


Wish = WantBody | WantBatches | WantBlock | WantChain


@dataclass(slots=True)
class _Ask:
    targets: list[int]
    due_ms: int
    log: int | None
    hint: int | None
    next: int = 0
    tries: int = 0


class Fetcher:
    """Outstanding wishes and whom to ask next."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._asks: dict[Wish, _Ask] = {}
        self._logs: dict[int, dict[WantBatches, _Ask]] = {}
        self._chains: dict[WantChain, _Ask] = {}
        self._echoes = [0] * ctx.committee.n
        self._due: list[tuple[int, int, Wish]] = []
        self._pushed = 0
        self._timer_ms = 0

    def __len__(self) -> int:
        return len(self._asks)

    def want(
        self,
        wish: Wish,
        targets: Iterable[int],
        after_ms: int = PATIENCE_MS,
        echo_of: int | None = None,
    ) -> None:
        """Ask `targets` (then everybody) for `wish`, first in `after_ms`.

        What is wanted only as an echo of log `echo_of` has its log's share of places, so that
        a liar's ghosts leave room for what blocks and votes need.
        """
        ctx = self._ctx
        first = [p for p in targets if p != ctx.me]
        ask = self._asks.get(wish)
        if ask is None:
            if not self._has_place(echo_of):
                ctx.count("fetch_refused")
                return
            everybody = dict.fromkeys([*first, *range(ctx.committee.n)])
            others = [p for p in everybody if p != ctx.me]
            hint = first[0] if first else None
            ask = _Ask(others, ctx.now_ms + after_ms, echo_of, hint)
            self._add(wish, ask)
            return
        if ask.log is not None and echo_of is None:
            self._echoes[ask.log] -= 1
            ask.log = None
        if first and echo_of is None and ask.hint != first[0]:
            # Somebody new is said to hold it: that one next, and soon.
            ask.hint = first[0]
            ask.next = ask.targets.index(first[0])
            self._set_due(wish, ask, min(ask.due_ms, ctx.now_ms + after_ms))

    def _has_place(self, echo_of: int | None) -> bool:
        if echo_of is None:
            return len(self._asks) - sum(self._echoes) < ASKS_MAX
        return self._echoes[echo_of] < ECHO_ASKS_MAX // len(self._echoes)

    def _add(self, wish: Wish, ask: _Ask) -> None:
        self._asks[wish] = ask
        match wish:
            case WantBatches(author):
                self._logs.setdefault(author, {})[wish] = ask
            case WantChain():
                self._chains[wish] = ask
            case _:
                pass
        if ask.log is not None:
            self._echoes[ask.log] += 1
        self._set_due(wish, ask, ask.due_ms)

    def _drop(self, wish: Wish, ask: _Ask) -> None:
        del self._asks[wish]
        match wish:
            case WantBatches(author):
                del self._logs[author][wish]
            case WantChain():
                del self._chains[wish]
            case _:
                pass
        if ask.log is not None:
            self._echoes[ask.log] -= 1

    def _set_due(self, wish: Wish, ask: _Ask, due_ms: int) -> None:
        ask.due_ms = due_ms
        if ask.targets:
            self._pushed += 1
            heapq.heappush(self._due, (due_ms, self._pushed, wish))
            self._arm(due_ms)

    def asked_for_log(self, author: int) -> bool:
        """Say whether batches of log `author` are asked for, beyond those that come unasked."""
        return bool(self._logs.get(author))

    def named(self, batches: Sequence[LogBatch]) -> list[bool]:
        """Say which batches of an answer, in seq order, lie on a path that ends as we asked."""
        ends: dict[int, dict[bytes, None]] = {}
        marks = [False] * len(batches)
        for k in range(len(batches) - 1, -1, -1):
            batch = batches[k]
            if batch.author not in ends:
                asked = self._logs.get(batch.author, {})
                ends[batch.author] = {w.until.digest: None for w in asked if w.until is not None}
            wanted = ends[batch.author]
            if wanted and batch_digest(batch) in wanted:
                wanted[batch.prev] = None
                marks[k] = True
        return marks

    def asked_for_block(self, digest: bytes) -> bool:
        return WantBlock(digest) in self._asks

    def asked_for_chain(self) -> bool:
        """Say whether committed blocks are asked for that have not come."""
        return any(not self._satisfied(wish) for wish in self._chains)

    def progress(self, author: int, peer: int) -> None:
        """New batches of log `author` came from `peer`: ask it at once for the rest."""
        for wish, ask in self._logs.get(author, {}).items():
            ask.tries = 0
            if peer in ask.targets:
                ask.next = ask.targets.index(peer)
            if ask.due_ms > self._ctx.now_ms:
                self._set_due(wish, ask, self._ctx.now_ms)

    def tick(self) -> None:
        """Send what is due; forget what has come or was asked for too often."""
        ctx, now, due = self._ctx, self._ctx.now_ms, self._due
        self._timer_ms = 0
        bodies: dict[int, list[CommandId]] = {}
        while due and due[0][0] <= now:
            at_ms, _, wish = heapq.heappop(due)
            ask = self._asks.get(wish)
            if ask is None or ask.due_ms != at_ms:
                continue
            if self._satisfied(wish) or ask.tries >= TRIES_MAX:
                self._drop(wish, ask)
                continue
            for _ in range(min(ctx.committee.f + 1, len(ask.targets))):
                peer = ask.targets[ask.next % len(ask.targets)]
                ask.next += 1
                if isinstance(wish, WantBody):
                    bodies.setdefault(peer, []).append(wish.id)
                else:
                    ctx.send(peer, self._question(wish, ask.tries))
            ask.tries += 1
            again_ms = now + min(RETRY_MS * ask.tries, RETRY_MAX_MS)
            # Repeats fall on one grid, so that many of them make one tick and few messages.
            self._set_due(wish, ask, again_ms - again_ms % REPEAT_GRID_MS)
        for peer, ids in bodies.items():
            for start in range(0, len(ids), FETCH_IDS_MAX):
                ctx.send(peer, GetBodies(tuple(ids[start : start + FETCH_IDS_MAX])))
        if due:
            self._arm(due[0][0])

    def _arm(self, at_ms: int) -> None:
        if self._timer_ms == 0 or at_ms < self._timer_ms:
            self._timer_ms = at_ms
            self._ctx.timer(TIMER, at_ms)

    def _question(self, wish: WantBatches | WantBlock | WantChain, tries: int) -> Message:
        match wish:
            case WantBatches(author, after, until, _):
                logs = self._ctx.logs
                if after is None:
                    # What is held may be another branch: every other time from what is committed.
                    after = logs.bases[author] if tries % 2 else logs.furthest(author)
                return GetBatches(self._ctx.committee.epoch, author, after, until)
            case WantBlock(digest):
                return GetBlock(digest, self._ctx.tree.tip.height)
            case WantChain(height):
                return GetChain(height + 1)

    def _satisfied(self, wish: Wish) -> bool:
        ctx = self._ctx
        match wish:
            case WantBody(id_):
                return not ctx.logs.is_waited_for(id_)
            case WantBlock(digest):
                return ctx.tree.block(digest) is not None
            case WantChain(height):
                return ctx.tree.tip.height > height
            case WantBatches(author, after, until, seq):
                base = ctx.logs.bases[author]
                if base.seq >= seq:
                    return True
                if until is not None:
                    # The end may have come by itself, and what is before it not.
                    return not isinstance(ctx.logs.path(author, base, until), MissingBatch)
                start = after or base
                return start.seq + len(ctx.logs.deepest(author, start, seq - start.seq)) >= seq
