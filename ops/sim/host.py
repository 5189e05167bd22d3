"""One simulated machine: a clock that is off, a disk that forgets, and a replica that may die."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from consensus.effects import Effect, Input
from consensus.replica import Replica
from ops.sim.disk import SimDisk
from ops.sim.executor import HashChain
from ops.sim.liars import Frame, Liar

WALL_START_MS = 1_000_000
"""What an exact clock shows when a run begins."""
PPM = 1_000_000

LiarEffect = Effect | Frame


class HostClock:
    """What one machine's clock shows: off by a skew, and running at a rate of its own.

    It never jumps, as the node's never does (`ops/clock.py`): a step of the wall clock is followed
    at a changed rate. Units: microseconds of virtual time in, milliseconds shown out.
    """

    def __init__(self, skew_ms: int, drift_ppm: int) -> None:
        self._from_us = 0
        self._shown_us = (WALL_START_MS + skew_ms) * 1_000
        self._rate = PPM + drift_ppm

    def now_ms(self, now_us: int) -> int:
        """Return what the clock shows at a virtual time."""
        return (self._shown_us + (now_us - self._from_us) * self._rate // PPM) // 1_000

    def due_us(self, at_ms: int) -> int:
        """Return the first virtual time at which the clock shows `at_ms`, at its present rate."""
        return self._from_us - (self._shown_us - at_ms * 1_000) * PPM // self._rate

    def run_at(self, now_us: int, rate_ppm: int) -> None:
        """Gain `rate_ppm` from `now_us` on."""
        self._shown_us += (now_us - self._from_us) * self._rate // PPM
        self._from_us = now_us
        self._rate = PPM + rate_ppm


class Host:
    """What stays of a replica over its crashes, and the replica itself while it runs."""

    def __init__(
        self,
        me: int,
        clock: HostClock,
        make_core: Callable[[SimDisk, HashChain], Replica],
        make_executor: Callable[[], HashChain],
        liar: Liar | None,
    ) -> None:
        self.me = me
        self.clock = clock
        self.disk = SimDisk()
        self.liar = liar
        self.is_honest = liar is None
        self._make_core = make_core
        self._make_executor = make_executor
        self.executor = make_executor()
        self.core: Replica | None = None
        self.incarnation = 0
        self.timers: dict[str, int] = {}
        self.effects_left: int | None = None
        """When a number: the machine dies after so many further effects."""
        self.busy = False
        """Whether it waits for its disk, or stands still: inputs wait in `inbox`."""
        self.inbox: deque[Input] = deque()
        self.waiting_from: dict[int, int] = {}
        """Frames in the inbox, by peer."""
        self.checked: tuple[object, object] = (None, None)
        """The certificates that were looked at last, and the tip."""
        self.checked_tip: object = None

    @property
    def is_up(self) -> bool:
        return self.core is not None

    @property
    def height(self) -> int:
        """The committed height, 0 while down."""
        return self.core.height if self.core is not None else 0

    def now_ms(self, now_us: int) -> int:
        """Return what this machine's clock shows at a virtual time."""
        return self.clock.now_ms(now_us)

    def boot(self) -> None:
        """Start a replica from what the disk holds. Errors: whatever the replica raises."""
        self._end()
        self.executor = self._make_executor()
        self.core = self._make_core(self.disk, self.executor)
        if self.liar is not None:
            self.liar.adopt(self.core)

    def crash(self, rng: random.Random) -> None:
        """Lose the process, and of the disk what chance takes of the unsynced end."""
        self.core = None
        self._end()
        self.disk.crash(rng)

    def _end(self) -> None:
        self.incarnation += 1
        self.timers.clear()
        self.effects_left = None
        self.busy = False
        self.inbox.clear()
        self.waiting_from.clear()
        self.checked = (None, None)

    def step(self, now_us: int, event: Input) -> list[LiarEffect]:
        """Put one input through the replica, or through the liar around it."""
        core = self.core
        assert core is not None
        now_ms = self.clock.now_ms(now_us)
        if self.liar is not None:
            return self.liar.step(now_ms, event)
        return core.step(now_ms, event)  # type: ignore[return-value]  # list is invariant
