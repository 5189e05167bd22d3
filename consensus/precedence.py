"""Who comes before whom among the ids that may be ordered, as bit masks over them.

Bit k stands for the k-th id, the ids being sorted by (height of entering, id). A relation is one
Python integer per id, so comparing an id with all others costs a few operations on machine words.
Sources: Themis (eprint 2021/1465), Aequitas (eprint 2020/269), docs/protocol/fair-order.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import accumulate
from operator import or_
from typing import Any


def bits(mask: int) -> Iterator[int]:
    """Yield the positions of the ones of `mask`, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def column_sums(masks: Sequence[int]) -> list[int]:
    """Add up `masks` as columns of single bits, by carry-save adders.

    Shape: masks again, least significant first: bit k of mask j is bit j of column k's sum.
    """
    sums: list[int] = []
    column = list(masks)
    while column:
        carries: list[int] = []
        while len(column) > 2:
            a, b, c = column.pop(), column.pop(), column.pop()
            partial = a ^ b
            column.append(partial ^ c)
            carries.append((a & b) | (partial & c))
        if len(column) == 2:
            a, b = column
            sums.append(a ^ b)
            carries.append(a & b)
        else:
            sums.append(column[0])
        column = carries
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
        self.size = size
        self.everyone = (1 << size) - 1
        self._bit = [1 << k for k in range(size)]
        self._earlier: list[list[int]] = [[] for _ in range(size)]
        """For each id and each log that holds it: which ids that log holds before it."""
        self._held: list[int] = []
        for order in logs:
            ones = [self._bit[k] for k in order]
            prefixes = list(accumulate(ones, or_, initial=0))
            for k, prefix in zip(order, prefixes, strict=False):
                self._earlier[k].append(prefix)
            self._held.append(prefixes[-1])
        self.before: list[int] = []
        """before[b]: the ids a with an edge a -> b."""
        self.behind: list[int] = []
        """behind[b]: the ids a with w(b,a) < T: too few logs say that b came first."""
        self.backed: list[int] = []
        """backed[b]: the ids a with w(a,b) >= T: enough logs say that a came first."""
        for k in range(size):
            self._compare(k)

    def _absent(self, k: int) -> list[int]:
        """Return what each log that lacks id k holds: all of that counts as before k there."""
        return [held for held in self._held if not held & self._bit[k]]

    def _compare(self, k: int) -> None:
        # With s the support of k and E(a) the number of logs that hold k and have a before it:
        # w(k,a) = s - E(a), and w(a,k) = E(a) + the number of logs that hold a and lack k.
        earlier = self._earlier[k]
        support = len(earlier)
        sums = column_sums(earlier)
        behind = at_least(sums, support - self._threshold + 1, self.everyone)
        if support != self._replicas:
            sums = column_sums(earlier + self._absent(k))
        backed = at_least(sums, self._threshold, self.everyone)
        before = behind
        contested = backed ^ (backed & behind)
        if contested:
            wins, ties = self._majority(k)
            before |= contested & (wins | (ties & (self._bit[k] - 1)))
        self.before.append(before)
        self.behind.append(behind)
        self.backed.append(backed)

    def _majority(self, k: int) -> tuple[int, int]:
        """Return the ids a with w(a,k) > w(k,a), and those where both are equal (not k)."""
        earlier = self._earlier[k]
        support = len(earlier)
        # w(a,k) > w(k,a) is 2 E(a) + absences > s.
        if support == self._replicas:
            sums = column_sums(earlier)
            wins = at_least(sums, support // 2 + 1, self.everyone)
            return wins, at_least(sums, (support + 1) // 2, self.everyone) ^ wins
        sums = column_sums(earlier + earlier + self._absent(k))
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
        members = list(bits(among))
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
