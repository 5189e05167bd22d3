"""Everybody's order logs above their committed heads, with all branches, and the bodies.

A log is a chain of signed batches; a liar's may branch. Kept are batches within two of the
author's windows (ADR-0012), the first per (author, seq) unasked, others only when a proposal or an
asked-for answer names them. Batches at or below a committed head leave memory; disk keeps them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from consensus.batches import NO_CLAIM, SealedBatch, link_fault
from consensus.command import CommandId, expires_ms
from consensus.committee import Committee, Parameters
from consensus.digest import Digest
from consensus.messages import Head, InboxClaim, LogBatch

EXPIRIES_SLACK = 4_096
"""Emitted commands stay in the expiry queue until there are so many more of them than held."""
LOG_BYTES_MAX = 32 << 20
"""Bytes kept unasked of one log above its committed head; later batches are fetched when named."""
NAMED_BYTES_MAX = 4 * LOG_BYTES_MAX
"""Bytes of one log beyond which all rivals of the first batches go, to make room for what is named
now: a liar that leads again and again can have each of its proposals name another branch."""
BRANCHES_PER_PEER_MAX = 2
"""Rival batches at one position of a log that one peer's answers may add: each peer has places of
its own, so that a liar with many branches cannot fill those that the committed one will need."""


@dataclass(frozen=True, slots=True)
class MissingBatch:
    """A path ends at a batch that is not held."""

    head: Head


@dataclass(frozen=True, slots=True)
class MissingBodies:
    """A path is whole, but these commands are not held."""

    ids: tuple[CommandId, ...]


@dataclass(frozen=True, slots=True)
class BrokenPath:
    """No valid run of batches leads from one head to the other."""

    why: str


Path = list[SealedBatch] | MissingBatch | BrokenPath


class LogStore:
    """Batches above the committed heads, by digest and by predecessor, and command bodies."""

    def __init__(
        self,
        committee: Committee,
        parameters: Parameters,
        bases: Iterable[Head],
        start: InboxClaim = NO_CLAIM,
    ) -> None:
        """`start` is the claim that each log's first batch goes on from."""
        self._start = start
        self.named_bytes_max = NAMED_BYTES_MAX
        self._parameters = parameters
        self.bases: list[Head] = list(bases)
        self.base_batches: list[LogBatch | None] = [None] * committee.n
        self._held: list[dict[Digest, SealedBatch]] = [{} for _ in range(committee.n)]
        self._after: list[dict[bytes, list[SealedBatch]]] = [{} for _ in range(committee.n)]
        self._by_seq: list[dict[int, list[SealedBatch]]] = [{} for _ in range(committee.n)]
        self._sizes = [0] * committee.n
        self._bodies: dict[CommandId, bytes] = {}
        self._expiries: list[CommandId] = []
        self._waiting: dict[CommandId, list[SealedBatch]] = {}
        self._given: list[dict[int, dict[int, int]]] = [{} for _ in range(committee.n)]
        """By author, seq and peer: the rival batches that the peer's answers have added."""
        self.branched: dict[int, tuple[SealedBatch, SealedBatch]] = {}
        """The first two batches seen at one seq, by author: evidence of a forked log."""

    def body(self, id_: CommandId) -> bytes | None:
        return self._bodies.get(id_)

    def bodies_held(self) -> int:
        return len(self._bodies)

    def batches_held(self) -> int:
        return sum(len(held) for held in self._held)

    def batch(self, author: int, digest: bytes) -> SealedBatch | None:
        return self._held[author].get(Digest(digest))

    def has_room(
        self, batch: LogBatch, digest: Digest, giver: int | None = None, named: bool = False
    ) -> bool:
        """Say whether `batch` is kept: in the window, and first at its seq or worth a branch.

        Worth one is what is `named` by a path that we asked for, what a held batch stands on, and
        of an asked-for answer by `giver` so much that no peer can take the place of another's.
        """
        author, seq = batch.author, batch.seq
        base = self.bases[author].seq
        if not base < seq <= base + 2 * self._parameters.log_window:
            return False
        if named:
            if self._sizes[author] > self.named_bytes_max:
                self._drop_rivals(author)
            return True
        if giver is None and self._sizes[author] > LOG_BYTES_MAX:
            return False
        if not self._by_seq[author].get(seq) or digest in self._after[author]:
            return True
        if giver is None:
            return False
        given = self._given[author].setdefault(seq, {})
        given[giver] = given.get(giver, 0) + 1
        return given[giver] <= BRANCHES_PER_PEER_MAX

    def rival(self, batch: LogBatch, digest: Digest) -> SealedBatch | None:
        """Return a different batch at the same position: with `batch`, evidence of a fork."""
        for other in self._by_seq[batch.author].get(batch.seq, ()):
            if other.digest != digest:
                return other
        return None

    def add(self, sealed: SealedBatch, needless: Iterable[CommandId]) -> None:
        """Hold a valid batch; `needless` are entries that need no body (void or emitted)."""
        batch = sealed.batch
        self._held[batch.author][sealed.digest] = sealed
        self._sizes[batch.author] += _size(batch)
        self._after[batch.author].setdefault(batch.prev, []).append(sealed)
        rivals = self._by_seq[batch.author].setdefault(batch.seq, [])
        rivals.append(sealed)
        if len(rivals) > 1:
            self.branched.setdefault(batch.author, (rivals[0], sealed))
        for id_, body in zip(sealed.body_ids, batch.bodies, strict=True):
            self.add_body(id_, body)
        free = dict.fromkeys(needless)
        for entry in batch.entries:
            id_ = CommandId(entry)
            if id_ not in self._bodies and id_ not in free:
                sealed.missing[id_] = None
                if id_ not in self._waiting:
                    self._waiting[id_] = []
                    heapq.heappush(self._expiries, id_)
                self._waiting[id_].append(sealed)

    def add_body(self, id_: CommandId, body: bytes) -> None:
        """Hold a verified command; batches that waited for it come nearer to ready."""
        if id_ in self._bodies:
            return
        self._bodies[id_] = body
        heapq.heappush(self._expiries, id_)
        self.satisfy(id_)

    def satisfy(self, id_: CommandId) -> None:
        """Stop waiting for the body of `id_`: it is held, or needed no more."""
        for sealed in self._waiting.pop(id_, ()):
            sealed.missing.pop(id_, None)

    def is_waited_for(self, id_: CommandId) -> bool:
        return id_ in self._waiting

    def drop_body(self, id_: CommandId) -> None:
        """Forget the body of an emitted command; disk keeps it."""
        self._bodies.pop(id_, None)

    def expire(self, block_time_ms: int) -> list[CommandId]:
        """Forget the bodies of void commands, stop waiting for them, and say which they were."""
        void: list[CommandId] = []
        while self._expiries and expires_ms(self._expiries[0]) <= block_time_ms:
            id_ = heapq.heappop(self._expiries)
            self._bodies.pop(id_, None)
            self.satisfy(id_)
            void.append(id_)
        if len(self._expiries) > 2 * (len(self._bodies) + len(self._waiting)) + EXPIRIES_SLACK:
            self._expiries = sorted({**self._bodies, **self._waiting})
        return void

    def _follows(self, sealed: SealedBatch) -> bool | None:
        """Say whether a batch may follow its predecessor; None while that is not held."""
        if sealed.follows is None:
            batch = sealed.batch
            base = self.bases[batch.author]
            if batch.prev == base.digest:
                prev = self.base_batches[batch.author]
                known = prev is not None or base.seq == 0
            else:
                held = self._held[batch.author].get(Digest(batch.prev))
                prev = held.batch if held is not None else None
                known = held is not None
            if known:
                sealed.follows = link_fault(prev, batch, self._start) is None
        return sealed.follows

    def path(self, author: int, start: Head, end: Head) -> Path:
        """Return the batches after `start` up to `end`, oldest first, or what stands in the way."""
        run: list[SealedBatch] = []
        if start == end:
            return run
        at = end
        while at.digest != start.digest:
            if at.seq <= start.seq:
                return BrokenPath("branch does not extend the earlier head")
            sealed = self._held[author].get(Digest(at.digest))
            if sealed is None:
                return MissingBatch(at)
            if sealed.batch.seq != at.seq:
                return BrokenPath("head names another seq")
            run.append(sealed)
            at = Head(at.seq - 1, sealed.batch.prev)
        if at.seq != start.seq:
            return BrokenPath("head names another seq")
        run.reverse()
        for sealed in run:
            follows = self._follows(sealed)
            if follows is None:
                return MissingBatch(start)
            if not follows:
                return BrokenPath("batch does not follow its predecessor")
        return run

    def bodies_missing(self, run: Iterable[SealedBatch]) -> MissingBodies | None:
        """Say which commands of these batches are not held."""
        ids: dict[CommandId, None] = {}
        for sealed in run:
            if sealed.missing:
                ids.update(sealed.missing)
        return MissingBodies(tuple(ids)) if ids else None

    def deepest(self, author: int, start: Head, batches_max: int) -> list[SealedBatch]:
        """Return the longest run of ready batches after `start`, at most `batches_max` of them."""
        return self._longest(author, start, batches_max, ready=True)

    def furthest(self, author: int) -> Head:
        """Return the end of the longest held run after the committed head, bodies held or not."""
        base = self.bases[author]
        run = self._longest(author, base, 2 * self._parameters.log_window, ready=False)
        return run[-1].head if run else base

    def newest(self, author: int) -> LogBatch | None:
        """Return the highest batch that is known of a log: held, or the committed head."""
        by_seq = self._by_seq[author]
        return by_seq[max(by_seq)][0].batch if by_seq else self.base_batches[author]

    def _longest(
        self, author: int, start: Head, batches_max: int, ready: bool
    ) -> list[SealedBatch]:
        after = self._after[author]
        best: list[SealedBatch] = []
        stack: list[tuple[bytes, list[SealedBatch]]] = [(start.digest, [])]
        while stack:
            digest, run = stack.pop()
            while len(run) < batches_max:
                nexts = [
                    sealed
                    for sealed in after.get(digest, ())
                    if not (ready and sealed.missing) and self._follows(sealed)
                ]
                if not nexts:
                    break
                for other in nexts[1:]:
                    stack.append((other.digest, [*run, other]))
                run.append(nexts[0])
                digest = nexts[0].digest
            if len(run) > len(best):
                best = run
        return best

    def commit(self, author: int, run: list[SealedBatch]) -> None:
        """Move the committed head of log `author` over `run`; older batches leave memory."""
        if not run:
            return
        last = run[-1]
        first_seq = self.bases[author].seq + 1
        self.bases[author] = last.head
        self.base_batches[author] = last.batch
        for seq in range(first_seq, last.batch.seq + 1):
            self._given[author].pop(seq, None)
            for sealed in self._by_seq[author].pop(seq, ()):
                self._forget(sealed)

    def _drop_rivals(self, author: int) -> None:
        """Forget all but the first batch at each position; what a block names is asked for anew."""
        for rivals in self._by_seq[author].values():
            for sealed in rivals[1:]:
                self._forget(sealed)
            del rivals[1:]
        self._given[author].clear()

    def _forget(self, sealed: SealedBatch) -> None:
        author = sealed.batch.author
        del self._held[author][sealed.digest]
        self._sizes[author] -= _size(sealed.batch)
        siblings = self._after[author].get(sealed.batch.prev)
        if siblings is not None:
            siblings.remove(sealed)
            if not siblings:
                del self._after[author][sealed.batch.prev]
        for id_ in sealed.missing:
            waiting = self._waiting.get(id_)
            if waiting is not None:
                waiting.remove(sealed)
                if not waiting:
                    del self._waiting[id_]


def _size(batch: LogBatch) -> int:
    """Return about how many bytes a batch takes on the wire."""
    messages = sum(len(message) for message in batch.inbox.messages)
    return 256 + 40 * len(batch.entries) + sum(len(body) for body in batch.bodies) + messages
