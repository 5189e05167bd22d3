"""Asking peers for what is missing: f+1 of them at once, in turn, until it is not needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from consensus.command import CommandId
from consensus.context import Context
from consensus.messages import (
    FETCH_IDS_MAX,
    GetBatches,
    GetBlock,
    GetBodies,
    GetChain,
    Head,
    Message,
)

ASKS_MAX = 8_192
"""Things asked for at one time. When full, new wishes wait until they are wished again."""
TRIES_MAX = 64
"""Rounds of asking after which a wish is dropped; whoever still needs it wishes again."""
PATIENCE_MS = 20
"""What is missing is often on its way: it is asked for after this long."""
RETRY_MS = 100
RETRY_MAX_MS = 1_000
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
    targets: list[int] = field(default_factory=list)
    next: int = 0
    due_ms: int = 0
    tries: int = 0


class Fetcher:
    """Outstanding wishes and whom to ask next."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._asks: dict[Wish, _Ask] = {}
        self._timer_ms = 0

    def __len__(self) -> int:
        return len(self._asks)

    def want(self, wish: Wish, targets: Iterable[int], after_ms: int = PATIENCE_MS) -> None:
        """Ask `targets` (then everybody) for `wish`, first in `after_ms`."""
        ctx = self._ctx
        ask = self._asks.get(wish)
        if ask is None:
            if len(self._asks) >= ASKS_MAX:
                ctx.count("fetch_refused")
                return
            ask = self._asks[wish] = _Ask(due_ms=ctx.now_ms + after_ms)
            everybody = [*targets, *range(ctx.committee.n)]
            ask.targets = [p for p in dict.fromkeys(everybody) if p != ctx.me]
        if ask.targets:
            self._arm(ask.due_ms)

    def asked_for_log(self, author: int) -> bool:
        """Say whether batches of log `author` are asked for, beyond those that come unasked."""
        return any(isinstance(w, WantBatches) and w.author == author for w in self._asks)

    def asked_for_block(self, digest: bytes) -> bool:
        return WantBlock(digest) in self._asks

    def asked_for_chain(self) -> bool:
        """Say whether committed blocks are asked for that have not come."""
        return any(isinstance(w, WantChain) and not self._satisfied(w) for w in self._asks)

    def progress(self, author: int) -> None:
        """Batches of log `author` came: ask at once for the rest of what is wanted of it."""
        for wish, ask in self._asks.items():
            if isinstance(wish, WantBatches) and wish.author == author:
                ask.due_ms, ask.tries = self._ctx.now_ms, 0
                self._arm(ask.due_ms)

    def tick(self) -> None:
        """Send what is due; forget what has come or was asked for too often."""
        ctx, now = self._ctx, self._ctx.now_ms
        self._timer_ms = 0
        bodies: dict[int, list[CommandId]] = {}
        next_ms: int | None = None
        for wish, ask in list(self._asks.items()):
            if self._satisfied(wish) or ask.tries >= TRIES_MAX:
                del self._asks[wish]
                continue
            if ask.due_ms <= now:
                for _ in range(min(ctx.committee.f + 1, len(ask.targets))):
                    peer = ask.targets[ask.next % len(ask.targets)]
                    ask.next += 1
                    if isinstance(wish, WantBody):
                        bodies.setdefault(peer, []).append(wish.id)
                    else:
                        ctx.send(peer, self._question(wish))
                ask.tries += 1
                ask.due_ms = now + min(RETRY_MS * ask.tries, RETRY_MAX_MS)
            next_ms = ask.due_ms if next_ms is None else min(next_ms, ask.due_ms)
        for peer, ids in bodies.items():
            for start in range(0, len(ids), FETCH_IDS_MAX):
                ctx.send(peer, GetBodies(tuple(ids[start : start + FETCH_IDS_MAX])))
        if next_ms is not None:
            self._arm(next_ms)

    def _arm(self, at_ms: int) -> None:
        if self._timer_ms == 0 or at_ms < self._timer_ms:
            self._timer_ms = at_ms
            self._ctx.timer(TIMER, at_ms)

    def _question(self, wish: WantBatches | WantBlock | WantChain) -> Message:
        match wish:
            case WantBatches(author, after, until, _):
                return GetBatches(author, after or self._ctx.logs.bases[author], until)
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
                    return ctx.logs.batch(author, until.digest) is not None
                start = after or base
                return start.seq + len(ctx.logs.deepest(author, start, seq - start.seq)) >= seq
