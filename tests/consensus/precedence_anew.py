"""Who comes before whom among the ids that may be ordered, as bit masks over them.

Bit k stands for the k-th id, the ids being sorted by (height of entering, id). A relation is one
Python integer per id, so comparing an id with all others costs a few operations on machine words.
Sources: Themis (eprint 2021/1465), Aequitas (eprint 2020/269), docs/protocol/fair-order.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import accumulate, zip_longest
from operator import or_
from typing import Any


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
    # From the lowest bit up: `result` holds where the bits so far are >= those of the bound.
    result = everyone
    for place, bit in enumerate(sums):
        result = result & bit if bound >> place & 1 else result | bit
    return result


class Precedence:
    """The relation of fair order on a set of ids, from the order in which n logs hold them.

    With w(a,b) the number of logs that hold a, with b later or absent: a comes before b if
    w(b,a) < T, and where neither w is below T, by the majority of w, then the lower bit.
    Every id is in at least T logs. Two ids may each come before the other; never do none.
    """

    def __init__(self, threshold: int, size: int, logs: Sequence[Sequence[int]]) -> None:
        """`logs[i]` lists the bits 0 <= k < size of the ids that log i holds, in its order."""
        self._replicas = len(logs)
        self._threshold = threshold
        self.everyone = (1 << size) - 1
        self._bit = [1 << k for k in range(size)]
        earlier: list[list[int]] = [[] for _ in range(size)]
        held: list[int] = []
        for order in logs:
            prefixes = list(accumulate([self._bit[k] for k in order], or_, initial=0))
            for k, prefix in zip(order, prefixes, strict=False):
                earlier[k].append(prefix)
            held.append(prefixes[-1])
        self.before: list[int] = []
        """before[b]: the ids a with an edge a -> b."""
        self.behind: list[int] = []
        """behind[b]: the ids a with w(b,a) < T: too few logs say that b came first."""
        self.backed: list[int] = []
        """backed[b]: the ids a with w(a,b) >= T: enough logs say that a came first."""
        # For id k, E(a) is the number of logs that hold k and have a before it, and L(a) of those
        # that lack k and hold a. With s the support of k: w(k,a) = s - E(a), w(a,k) = E(a) + L(a).
        self._support = [len(prefixes) for prefixes in earlier]
        self._earlier = [column_sums(prefixes) for prefixes in earlier]
        self._lacking: dict[int, list[int]] = {}
        self._w_other: list[list[int]] = []
        for k in range(size):
            self._compare(k, held)

    def _compare(self, k: int, held: Sequence[int]) -> None:
        earlier, support, bit = self._earlier[k], self._support[k], self._bit[k]
        behind = at_least(earlier, support - self._threshold + 1, self.everyone)
        w_other = earlier
        if support != self._replicas:
            lacks = 0
            for i, mask in enumerate(held):
                if not mask & bit:
                    lacks |= 1 << i
            sums = self._lacking.get(lacks)
            if sums is None:
                sums = column_sums([mask for i, mask in enumerate(held) if lacks >> i & 1])
                self._lacking[lacks] = sums
            w_other = added(earlier, sums)
        self._w_other.append(w_other)
        backed = at_least(w_other, self._threshold, self.everyone)
        before = behind
        contested = backed ^ (backed & behind)
        if contested:
            wins, ties = self._majority(k)
            before |= contested & (wins | (ties & (bit - 1)))
        self.before.append(before)
        self.behind.append(behind)
        self.backed.append(backed)

    def _majority(self, k: int) -> tuple[int, int]:
        """Return the ids a with w(a,k) > w(k,a), and those where both are equal (not k)."""
        earlier, support = self._earlier[k], self._support[k]
        # w(a,k) > w(k,a) is w(a,k) + E(a) > s.
        if support == self._replicas:
            wins = at_least(earlier, support // 2 + 1, self.everyone)
            return wins, at_least(earlier, (support + 1) // 2, self.everyone) ^ wins
        sums = added(self._w_other[k], earlier)
        wins = at_least(sums, support + 1, self.everyone)
        return wins, at_least(sums, support, self.everyone) ^ wins

    def beaten(self, k: int) -> int:
        """Return the ids a with w(k,a) > w(a,k)."""
        wins, ties = self._majority(k)
        return self.everyone ^ wins ^ ties ^ self._bit[k]

    def chain(self, among: int) -> Iterator[int]:
        """Yield the strongly connected components of the ids `among`, in the chain's order.

        Since any two ids have an edge, all edges between two components point one way. So an id
        has more predecessors than any id of an earlier component: it has that whole component
        and its predecessors, and the other lacks at least itself. Sorted by the number of
        predecessors, each component is therefore a run; and a run from the start is a union of
        components exactly when it holds all its members' predecessors.
        """
        members = bits(among)
        before = self.before
        members.sort(key=lambda k: (before[k] & among).bit_count())
        taken = needed = closed = 0
        for k in members:
            taken |= self._bit[k]
            needed |= before[k] & among
            if needed | taken == taken:
                yield taken ^ closed
                closed = taken

    def forced_components(self, among: int) -> list[int]:
        """Return the strongly connected components of forced edges, predecessors first.

        An edge a -> b is forced if w(b,a) < T <= w(a,b). Source: Kosaraju's algorithm.
        """
        finished: list[int] = []
        unseen = among
        while unseen:
            stack = [(unseen & -unseen).bit_length() - 1]
            unseen ^= self._bit[stack[0]]
            while stack:
                after = unseen & ~(self.behind[stack[-1]] | self.backed[stack[-1]])
                if after:
                    k = (after & -after).bit_length() - 1
                    unseen ^= self._bit[k]
                    stack.append(k)
                else:
                    finished.append(stack.pop())
        components: list[int] = []
        left = among
        for root in reversed(finished):
            if left & self._bit[root]:
                component, fresh = 0, self._bit[root]
                while fresh:
                    left ^= fresh
                    component |= fresh
                    grown = 0
                    for k in bits(fresh):
                        grown |= self.behind[k] & self.backed[k]
                    fresh = grown & left
                components.append(component)
        return components

    def forced_before(self, component: int, among: int) -> int:
        """Return the ids of `among` outside `component` with a forced edge into it."""
        sources = 0
        for k in bits(component):
            sources |= self.behind[k] & self.backed[k]
        return sources & among & ~component

    def line_up(self, among: int, rank: Callable[[int], Any]) -> list[int]:
        """Return the ids `among` in a line that respects the forced edges.

        Forced components stay whole; of those whose predecessors are all placed, the one with
        the least rank comes next; inside one, the ids go by rank. Ranks must differ.
        """
        components = self.forced_components(among)
        ranks = {k: rank(k) for k in bits(among)}
        lines = [sorted(bits(component), key=ranks.__getitem__) for component in components]
        owner = {k: number for number, line in enumerate(lines) for k in line}
        sources = [self.forced_before(component, among) for component in components]
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
