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
        self.stopped = False
        """Set by whoever has seen enough: no further action runs."""
        self._made = 0
        self._queue: list[tuple[int, int, Callable[..., None], tuple[object, ...]]] = []

    def __len__(self) -> int:
        return len(self._queue)

    def at(self, time_us: int, action: Callable[..., None], *args: object) -> None:
        """Run `action(*args)` at `time_us`, or now if that is past. Errors: RunawayRun."""
        if len(self._queue) >= ACTIONS_MAX:
            raise RunawayRun(f"{ACTIONS_MAX} actions wait at {self.now_us} us")
        self._made += 1
        if time_us < self.now_us:
            time_us = self.now_us
        heapq.heappush(self._queue, (time_us, self._made, action, args))

    def after(self, delay_us: int, action: Callable[..., None], *args: object) -> None:
        """Run `action(*args)` when `delay_us`, at least none, have passed. Errors: RunawayRun."""
        queue = self._queue
        if len(queue) >= ACTIONS_MAX:
            raise RunawayRun(f"{ACTIONS_MAX} actions wait at {self.now_us} us")
        self._made += 1
        heapq.heappush(queue, (self.now_us + delay_us, self._made, action, args))

    def run_until(self, time_us: int, goes_on: Callable[[], bool] | None = None) -> None:
        """Run all actions up to `time_us`, until `stopped` is set or `goes_on` says no."""
        queue, pop = self._queue, heapq.heappop
        while queue and not self.stopped and queue[0][0] <= time_us:
            self.now_us, _, action, args = pop(queue)
            self.actions_run += 1
            action(*args)
            if goes_on is not None and not goes_on():
                return
        if not self.stopped:
            self.now_us = max(self.now_us, time_us)
