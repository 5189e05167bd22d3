"""The network between simulated replicas: delay, loss, duplicates, reordering, cuts and storms."""

from __future__ import annotations

import random
from collections.abc import Callable

from ops.sim.loop import Loop
from ops.sim.plan import NetworkDials
from ops.sim.wan import one_way_us

LOOP_DELAY_US = 20
"""A frame never arrives in the instant in which it is sent."""
TAIL_SIGMA = 0.8
TAIL_TIMES_MAX = 10
"""A long-tailed delay is lognormal with this sigma, and at most so many times its median."""


class Network:
    """Carries frames between replicas; all chance comes from one generator.

    Until `calm` it may lose, repeat, delay and cut off frames as its dials say. Afterwards every
    frame between running replicas arrives within the ordinary delay. Frames overtake each other
    as their delays fall, also on one link, which is more than TCP would do.
    """

    def __init__(
        self,
        loop: Loop,
        rng: random.Random,
        n: int,
        dials: NetworkDials,
        deliver: Callable[[int, int, bytes], None],
    ) -> None:
        self._loop = loop
        self._rng = rng
        self._dials = dials
        self._deliver = deliver
        self._group = [0] * n
        self._slow_us: dict[tuple[int, int], int] = {}
        self._links = [[False] * n for _ in range(n)]
        self._open = [[False] * n for _ in range(n)]
        """Linked, and in one group: `_refresh` keeps it so."""
        base_us = one_way_us(dials.wan, n) if dials.wan else [[0] * n for _ in range(n)]
        least_us = LOOP_DELAY_US + dials.delay_min_ms * 1_000
        self._least_us = [[least_us + each for each in row] for row in base_us]
        self._span_us = (dials.delay_max_ms - dials.delay_min_ms) * 1_000 + 1
        self.is_calm = not dials.disturbs
        self.frames = self.lost = self.cut_off = self.repeated = self.bytes = 0

    def is_cut(self, sender: int, receiver: int) -> bool:
        """Say whether a partition separates the two."""
        return self._group[sender] != self._group[receiver]

    def _refresh(self) -> None:
        group = self._group
        self._open = [
            [linked and group[a] == group[b] for b, linked in enumerate(row)]
            for a, row in enumerate(self._links)
        ]

    def link(self, a: int, b: int) -> None:
        """Connect two replicas; frames between them go nowhere before."""
        self._links[a][b] = self._links[b][a] = True
        self._open[a][b] = self._open[b][a] = not self.is_cut(a, b)

    def unlink(self, node: int) -> None:
        """Break all links of a replica; frames that are on their way are lost."""
        for other, row in enumerate(self._links):
            row[node] = self._links[node][other] = False
        self._refresh()

    def part(self, groups: tuple[int, ...], breaks: bool) -> list[tuple[int, int]]:
        """Let only replicas of one group hear each other; return the pairs to connect again.

        With `breaks` the links between groups break, otherwise their frames vanish unnoticed.
        """
        n = len(groups)
        self._group = list(groups)
        pairs = [(a, b) for a in range(n) for b in range(a + 1, n)]
        if breaks:
            for a, b in pairs:
                if self.is_cut(a, b):
                    self._links[a][b] = self._links[b][a] = False
        self._refresh()
        return [(a, b) for a, b in pairs if not self.is_cut(a, b) and not self._links[a][b]]

    def calm(self) -> None:
        """End loss, repetition, slow frames and storms."""
        self.is_calm = True
        self._slow_us.clear()

    def stir(self) -> None:
        """Draw anew which directed links are slow, and by how much."""
        rng, dials, n = self._rng, self._dials, len(self._group)
        self._slow_us = {
            (a, b): rng.randrange(dials.storm_max_ms * 1_000)
            for a in range(n)
            for b in range(n)
            if a != b and rng.random() < dials.storm
        }

    def ordinary_delay_us(self, sender: int, receiver: int) -> int:
        """Draw one ordinary one-way delay: the way's least, and a varying part."""
        least_us = self._least_us[sender][receiver]
        if self._dials.tail:
            times = min(self._rng.lognormvariate(0.0, TAIL_SIGMA), TAIL_TIMES_MAX)
            return least_us + int(self._span_us * times / 2)
        return least_us + int(self._rng.random() * self._span_us)

    def send(self, sender: int, receiver: int, frame: bytes) -> None:
        """Take one frame on its way, or lose it."""
        self.frames += 1
        self.bytes += len(frame)
        if not self._open[sender][receiver]:
            self.cut_off += 1
            return
        delay_us = self.ordinary_delay_us(sender, receiver)
        if self.is_calm:
            self._loop.after(delay_us, self._arrive, sender, receiver, frame)
            return
        rng, dials = self._rng, self._dials
        if rng.random() < dials.loss:
            self.lost += 1
            return
        if rng.random() < dials.slow:
            delay_us = max(delay_us, rng.randint(0, dials.slow_max_ms * 1_000))
        delay_us += self._slow_us.get((sender, receiver), 0)
        self._loop.after(delay_us, self._arrive, sender, receiver, frame)
        if rng.random() < dials.repeat:
            self.repeated += 1
            again_us = rng.randint(delay_us, 10 * delay_us)
            self._loop.after(again_us, self._arrive, sender, receiver, frame)

    def _arrive(self, sender: int, receiver: int, frame: bytes) -> None:
        if not self._open[sender][receiver]:
            self.cut_off += 1
        else:
            self._deliver(sender, receiver, frame)
