"""Who comes before whom among the ids that may be ordered, as bit masks over them.

Bit k stands for the k-th id in the order of first appearance. A relation is one Python integer
per id, so comparing an id with all others costs a few operations on machine words, and only ids
that a log has just taken, or may yet take, are compared again.
Sources: Themis (eprint 2021/1465), Aequitas (eprint 2020/269), docs/protocol/fair-order.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import zip_longest
from typing import Any

FRESH_MAX = 8
"""Prefixes kept of an id before they are added up: that is only worth it for ids to be compared."""


def bits(mask: int) -> list[int]:
    """Return the positions of the ones of `mask`, lowest first."""
    if mask.bit_count() * 8 > mask.bit_length():
        return [k for k, one in enumerate(bin(mask)[:1:-1]) if one == "1"]
    places: list[int] = []
    while mask:
        low = mask & -mask
        places.append(low.bit_length() - 1)
        mask ^= low
    return places


def column_sums(masks: Sequence[int]) -> list[int]:
    """Add up `masks` as columns of single bits, by carry-save adders.

    Shape: masks again, least significant first: bit k of mask j is bit j of column k's sum.
    """
    sums: list[int] = []
    column = masks
    while column:
        carries: list[int] = []
        total = column[0]
        for at in range(2, len(column), 2):
            b, c = column[at - 1], column[at]
            partial = total ^ b
            carries.append((total & b) | (partial & c))
            total = partial ^ c
        if not len(column) & 1:
            carries.append(total & column[-1])
            total ^= column[-1]
        sums.append(total)
        column = carries
    return sums


def added(left: Sequence[int], right: Sequence[int]) -> list[int]:
    """Return the sums of two lots of `column_sums`."""
    sums: list[int] = []
    carry = 0
    for a, b in zip_longest(left, right, fillvalue=0):
        partial = a ^ b
        sums.append(partial ^ carry)
        carry = (a & b) | (partial & carry)
    sums.append(carry)
    return sums


def at_least(sums: Sequence[int], bound: int, everyone: int) -> int:
    """Return the columns whose sum (from `column_sums`) is at least `bound`."""
    if bound <= 0:
        return everyone
    if bound >> len(sums):
        return 0
    # From the lowest one of the bound up: `result` holds where the bits so far are >= the bound's.
    lowest = (bound & -bound).bit_length() - 1
    result = sums[lowest]
    for place in range(lowest + 1, len(sums)):
        result = result & sums[place] if bound >> place & 1 else result | sums[place]
    return result


def forced_components(forced: Mapping[int, tuple[int, int]], among: int) -> list[int]:
    """Return the strongly connected components of forced edges, predecessors first.

    Shape: `forced[k]` are the ids with an edge to k, and those with one from it.
    Source: Kosaraju's algorithm.
    """
    finished: list[int] = []
    unseen = among
    while unseen:
        stack = [(unseen & -unseen).bit_length() - 1]
        unseen ^= 1 << stack[0]
        while stack:
            after = unseen & forced[stack[-1]][1]
            if after:
                k = (after & -after).bit_length() - 1
                unseen ^= 1 << k
                stack.append(k)
            else:
                finished.append(stack.pop())
    components: list[int] = []
    left = among
    for root in reversed(finished):
        if left >> root & 1:
            component, fresh = 0, 1 << root
            while fresh:
                left ^= fresh
                component |= fresh
                grown = 0
                for k in bits(fresh):
                    grown |= forced[k][0]
                fresh = grown & left
            components.append(component)
    return components


class _Known:
    """What is known of one id."""

    __slots__ = ("bit", "fresh", "holders", "lower", "row", "row_turn", "sums")

    def __init__(self, bit: int) -> None:
        self.bit = bit
        self.holders = 0
        """The logs that hold it."""
        self.sums: list[int] = []
        """E(a), as `column_sums`, but for the prefixes in `fresh`."""
        self.fresh: list[int] = []
        self.lower = 0
        """The ids that win a tie: those that entered the comparison before."""
        self.row = 0
        """The ids with an edge to it, when `row_turn` was the turn; -1 for never."""
        self.row_turn = -1


def _add_up(id_: _Known) -> list[int]:
    """Return E(a) of an id."""
    if id_.fresh:
        sums = column_sums(id_.fresh)
        id_.fresh.clear()
        if id_.sums:
            sums = added(id_.sums, sums)
        while sums and not sums[-1]:
            sums.pop()
        id_.sums = sums
    return id_.sums


class Precedence:
    """The relation of fair order on ids that come and go, from the order in which n logs hold them.

    With w(a,b) the number of logs that hold a, with b later or absent: a comes before b if
    w(b,a) < T, and where neither w is below T, by the majority of w, then whichever entered the
    comparison first. Only ids in at least T logs are asked for; two of them may each come before
    the other; never do none.

    An id has one bit from its first entry on. What is kept of it changes only when a log takes
    it: for id k, E(a) is the number of logs that hold k and have a before it. With L(a) the number
    of those that lack k and hold a, and s the support of k: w(k,a) = s - E(a) and
    w(a,k) = E(a) + L(a).
    Bits are never used again, so those of ids that are gone may stay in any mask: whoever asks
    says among which ids. When too many are dead, the owner starts anew.
    """

    def __init__(self, threshold: int, replicas: int) -> None:
        self._threshold = threshold
        self._all_logs = (1 << replicas) - 1
        self.everyone = 0
        """All bits that were ever given."""
        self.held = [0] * replicas
        """held[i]: the ids that log i holds."""
        self._known: list[_Known] = []
        self._compared = 0
        self._turn = 0
        self._moved = [0] * replicas
        """The turn in which each log last took an id."""
        self._lacking: dict[int, list[int]] = {}

    def __len__(self) -> int:
        """Return how many bits were given."""
        return len(self._known)

    def new(self) -> int:
        """Return the bit of a new id."""
        k = len(self._known)
        self._known.append(_Known(1 << k))
        return k

    def extend(self, log: int, ids: Sequence[int]) -> None:
        """Append to a log ids that it lacks."""
        if not ids:
            return
        self.everyone = (1 << len(self._known)) - 1
        self._turn += 1
        self._moved[log] = self._turn
        self._lacking.clear()
        holder, held = 1 << log, self.held[log]
        for k in ids:
            id_ = self._known[k]
            id_.holders |= holder
            id_.row_turn = -1
            id_.fresh.append(held)
            held |= id_.bit
            if len(id_.fresh) >= FRESH_MAX:
                _add_up(id_)
        self.held[log] = held

    def support(self, k: int) -> int:
        """Return how many logs hold `k`."""
        return self._known[k].holders.bit_count()

    def enter(self, k: int) -> None:
        """Let `k` be compared; it loses ties against those that entered before."""
        id_ = self._known[k]
        id_.lower = self._compared
        self._compared |= id_.bit

    def _w_other(self, id_: _Known, earlier: list[int]) -> list[int]:
        """Return w(a,k) of every a."""
        lacks = self._all_logs ^ id_.holders
        if not lacks:
            return earlier
        sums = self._lacking.get(lacks)
        if sums is None:
            sums = column_sums([mask for i, mask in enumerate(self.held) if lacks >> i & 1])
            self._lacking[lacks] = sums
        return added(earlier, sums)

    def before(self, k: int) -> int:
        """Return the ids a with an edge a -> k."""
        id_ = self._known[k]
        made = id_.row_turn
        if made >= 0 and (made == self._turn or self._stands(id_, made)):
            return id_.row
        earlier, support = _add_up(id_), id_.holders.bit_count()
        w_other = self._w_other(id_, earlier)
        row = at_least(earlier, support - self._threshold + 1, self.everyone)
        backed = at_least(w_other, self._threshold, self.everyone)
        contested = backed ^ (backed & row)
        if contested:
            wins, ties = self._majority(id_, earlier, w_other)
            row |= contested & (wins | (ties & id_.lower))
        id_.row, id_.row_turn = row, self._turn
        return row

    def _stands(self, id_: _Known, made: int) -> bool:
        """Say whether no log that lacks an id took anything after turn `made`."""
        lacks = self._all_logs ^ id_.holders
        return not any(moved > made and lacks >> log & 1 for log, moved in enumerate(self._moved))

    def behind(self, k: int) -> int:
        """Return the ids a with w(k,a) < T: too few logs say that k came first."""
        id_ = self._known[k]
        bound = id_.holders.bit_count() - self._threshold + 1
        return at_least(_add_up(id_), bound, self.everyone)

    def backed(self, k: int) -> int:
        """Return the ids a with w(a,k) >= T: enough logs say that a came first."""
        id_ = self._known[k]
        return at_least(self._w_other(id_, _add_up(id_)), self._threshold, self.everyone)

    def _majority(self, id_: _Known, earlier: list[int], w_other: list[int]) -> tuple[int, int]:
        """Return the ids a with w(a,k) > w(k,a), and those where both are equal (not k)."""
        support = id_.holders.bit_count()
        # w(a,k) > w(k,a) is w(a,k) + E(a) > s.
        if w_other is earlier:
            wins = at_least(earlier, support // 2 + 1, self.everyone)
            if support & 1:
                return wins, 0
            return wins, at_least(earlier, support // 2, self.everyone) ^ wins
        sums = added(w_other, earlier)
        wins = at_least(sums, support + 1, self.everyone)
        return wins, at_least(sums, support, self.everyone) ^ wins

    def beaten(self, k: int) -> int:
        """Return the ids a with w(k,a) > w(a,k)."""
        id_ = self._known[k]
        earlier = _add_up(id_)
        wins, ties = self._majority(id_, earlier, self._w_other(id_, earlier))
        return self.everyone ^ wins ^ ties ^ id_.bit

    def chain(self, among: int, whole: int | None = None) -> Iterator[int]:
        """Yield the strongly connected components of the ids `among`, in the chain's order.

        With `whole`, up to the first one that is not all in it; the edges of the others are
        not looked at.

        Since any two ids have an edge, all edges between two components point one way. So an id
        has more predecessors than any id of an earlier component: it has that whole component
        and its predecessors, and the other lacks at least itself. Sorted by the number of
        predecessors, each component is therefore a run; and a run from the start is a union of
        components exactly when it holds all its members' predecessors. An id that has one
        outside of `whole` comes after that one's component begins, and so do all that follow.
        """
        usable = among if whole is None else among & whole
        rows: list[tuple[int, int, int]] = []
        for k in bits(usable):
            row = self.before(k) & among
            rows.append((row.bit_count(), k, row))
        rows.sort()
        taken = needed = closed = 0
        for _, k, row in rows:
            if row & ~usable:
                return
            taken |= self._known[k].bit
            needed |= row
            if needed | taken == taken:
                yield taken ^ closed
                closed = taken

    def _forced(self, among: int) -> dict[int, tuple[int, int]]:
        """Return the ids of `among` with a forced edge to, and from, each of them.

        An edge a -> b is forced if w(b,a) < T <= w(a,b).
        """
        forced: dict[int, tuple[int, int]] = {}
        for k in bits(among):
            behind, backed = self.behind(k), self.backed(k)
            after = among & ~(behind | backed | self._known[k].bit)
            forced[k] = behind & backed & among, after
        return forced

    def line_up(self, among: int, rank: Callable[[int], Any]) -> list[int]:
        """Return the ids `among` in a line that respects the forced edges.

        Forced components stay whole; of those whose predecessors are all placed, the one with
        the least rank comes next; inside one, the ids go by rank. Ranks must differ.
        """
        forced = self._forced(among)
        components = forced_components(forced, among)
        ranks = {k: rank(k) for k in forced}
        lines = [sorted(bits(component), key=ranks.__getitem__) for component in components]
        owner = {k: number for number, line in enumerate(lines) for k in line}
        sources: list[int] = []
        for component, members in zip(components, lines, strict=True):
            source = 0
            for k in members:
                source |= forced[k][0]
            sources.append(source & ~component)
        ready = [(ranks[lines[j][0]], j) for j, source in enumerate(sources) if not source]
        heapify(ready)
        # Each waiting component watches one predecessor that is not placed yet.
        watchers: list[list[int]] = [[] for _ in components]
        for j, source in enumerate(sources):
            if source:
                watchers[owner[source.bit_length() - 1]].append(j)
        placed = 0
        line: list[int] = []
        while ready:
            _, placing = heappop(ready)
            line += lines[placing]
            placed |= components[placing]
            for j in watchers[placing]:
                waits_for = sources[j] & ~placed
                if waits_for:
                    watchers[owner[waits_for.bit_length() - 1]].append(j)
                else:
                    heappush(ready, (ranks[lines[j][0]], j))
        assert len(line) == len(ranks), "forced components have no cycle among them"
        return line
