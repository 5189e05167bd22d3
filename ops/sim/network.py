"""The network between simulated replicas: delay, loss, duplicates, reordering, cuts and storms."""

from __future__ import annotations

import random
from collections.abc import Callable

from ops.sim.loop import Loop
from ops.sim.plan import NetworkDials

LOOP_DELAY_US = 20
"""A frame never arrives in the instant in which it is sent."""


class Network:
    """Carries frames between replicas; all chance comes from one generator.

    Until `calm` it may lose, repeat, delay and cut off frames as its dials say. Afterwards every
    frame between running replicas arrives within the ordinary delay.
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
        self._linked: set[tuple[int, int]] = set()
        self.is_calm = False
        self.frames = self.lost = self.cut_off = self.repeated = self.bytes = 0

    def is_cut(self, sender: int, receiver: int) -> bool:
        """Say whether a partition separates the two."""
        return self._group[sender] != self._group[receiver]

    def _passes(self, sender: int, receiver: int) -> bool:
        return (sender, receiver) in self._linked and not self.is_cut(sender, receiver)

    def link(self, a: int, b: int) -> None:
        """Connect two replicas; frames between them go nowhere before."""
        self._linked |= {(a, b), (b, a)}

    def unlink(self, node: int) -> None:
        """Break all links of a replica; frames that are on their way are lost."""
        self._linked = {pair for pair in self._linked if node not in pair}

    def part(self, groups: tuple[int, ...], breaks: bool) -> list[tuple[int, int]]:
        """Let only replicas of one group hear each other; return the pairs to connect again.

        With `breaks` the links between groups break, otherwise their frames vanish unnoticed.
        """
        n = len(groups)
        self._group = list(groups)
        if breaks:
            self._linked = {pair for pair in self._linked if not self.is_cut(*pair)}
        pairs = [(a, b) for a in range(n) for b in range(a + 1, n)]
        return [p for p in pairs if not self.is_cut(*p) and p not in self._linked]

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

    def ordinary_delay_us(self) -> int:
        """Draw one ordinary one-way delay."""
        dials = self._dials
        return LOOP_DELAY_US + self._rng.randint(
            dials.delay_min_ms * 1_000, dials.delay_max_ms * 1_000
        )

    def send(self, sender: int, receiver: int, frame: bytes) -> None:
        """Take one frame on its way, or lose it."""
        rng, dials = self._rng, self._dials
        self.frames += 1
        self.bytes += len(frame)
        if not self._passes(sender, receiver):
            self.cut_off += 1
            return
        delay_us = self.ordinary_delay_us()
        if self.is_calm:
            self._carry(sender, receiver, frame, delay_us)
            return
        if rng.random() < dials.loss:
            self.lost += 1
            return
        if rng.random() < dials.slow:
            delay_us = rng.randint(delay_us, dials.slow_max_ms * 1_000)
        delay_us += self._slow_us.get((sender, receiver), 0)
        self._carry(sender, receiver, frame, delay_us)
        if rng.random() < dials.repeat:
            self.repeated += 1
            again_us = rng.randint(delay_us, 10 * delay_us)
            self._carry(sender, receiver, frame, again_us)

    def _carry(self, sender: int, receiver: int, frame: bytes, delay_us: int) -> None:
        self._loop.after(delay_us, lambda: self._arrive(sender, receiver, frame))

    def _arrive(self, sender: int, receiver: int, frame: bytes) -> None:
        if not self._passes(sender, receiver):
            self.cut_off += 1
        else:
            self._deliver(sender, receiver, frame)
