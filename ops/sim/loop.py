"""Virtual time: a queue of actions, in order of time and then of their making."""

from __future__ import annotations

import heapq
from collections.abc import Callable

ACTIONS_MAX = 200_000
"""Actions that may wait; a run that reaches this multiplies its own messages."""


class RunawayRun(RuntimeError):
    """More actions wait than any bounded protocol could have in flight."""


class Loop:
    """Runs actions at their virtual times. Units: microseconds since the start of the run."""

    def __init__(self) -> None:
        self.now_us = 0
        self.actions_run = 0
        self._made = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []

    def __len__(self) -> int:
        return len(self._queue)

    def at(self, time_us: int, action: Callable[[], None]) -> None:
        """Run `action` at `time_us`, or now if that is past. Errors: RunawayRun."""
        if len(self._queue) >= ACTIONS_MAX:
            raise RunawayRun(f"{ACTIONS_MAX} actions wait at {self.now_us} us")
        self._made += 1
        heapq.heappush(self._queue, (max(time_us, self.now_us), self._made, action))

    def after(self, delay_us: int, action: Callable[[], None]) -> None:
        """Run `action` when `delay_us` have passed."""
        self.at(self.now_us + delay_us, action)

    def run_until(self, time_us: int, goes_on: Callable[[], bool]) -> None:
        """Run all actions up to `time_us`, as long as `goes_on`."""
        queue = self._queue
        while queue and queue[0][0] <= time_us and goes_on():
            self.now_us, _, action = heapq.heappop(queue)
            self.actions_run += 1
            action()
        if goes_on():
            self.now_us = max(self.now_us, time_us)
