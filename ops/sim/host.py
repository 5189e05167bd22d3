"""One simulated machine: a clock that is off, a disk that forgets, and a replica that may die."""

from __future__ import annotations

import random
from collections.abc import Callable

from consensus.admission import Admission
from consensus.effects import Effect, Input
from consensus.replica import Replica
from ops.sim.disk import SimDisk
from ops.sim.executor import HashChain
from ops.sim.liars import Frame, Liar

WALL_START_MS = 1_000_000
"""What an exact clock shows when a run begins."""

LiarEffect = Effect | Frame


class Host:
    """What stays of a replica over its crashes, and the replica itself while it runs."""

    def __init__(
        self,
        me: int,
        skew_ms: int,
        admission: Callable[[], Admission],
        make_core: Callable[[SimDisk, HashChain], Replica],
        make_executor: Callable[[], HashChain],
        liar: Liar | None,
    ) -> None:
        self.me = me
        self.disk = SimDisk()
        self.liar = liar
        self._skew_ms = skew_ms
        self._make_admission = admission
        self._make_core = make_core
        self._make_executor = make_executor
        self.admission = admission()
        self.executor = make_executor()
        self.core: Replica | None = None
        self.incarnation = 0
        self.timers: dict[str, int] = {}
        self.effects_left: int | None = None
        """When a number: the machine dies after so many further effects."""

    @property
    def is_honest(self) -> bool:
        return self.liar is None

    @property
    def is_up(self) -> bool:
        return self.core is not None

    @property
    def height(self) -> int:
        """The committed height, 0 while down."""
        return self.core.height if self.core is not None else 0

    def now_ms(self, now_us: int) -> int:
        """Return what this machine's clock shows at a virtual time."""
        return WALL_START_MS + self._skew_ms + now_us // 1_000

    def due_us(self, at_ms: int) -> int:
        """Return the first virtual time at which this machine's clock shows `at_ms`."""
        return (at_ms - WALL_START_MS - self._skew_ms) * 1_000

    def boot(self) -> None:
        """Start a replica from what the disk holds. Errors: whatever the replica raises."""
        self.incarnation += 1
        self.timers.clear()
        self.effects_left = None
        self.admission = self._make_admission()
        self.executor = self._make_executor()
        self.core = self._make_core(self.disk, self.executor)
        if self.liar is not None:
            self.liar.adopt(self.core)

    def crash(self, rng: random.Random) -> None:
        """Lose the process, and of the disk what chance takes of the unsynced end."""
        self.core = None
        self.incarnation += 1
        self.effects_left = None
        self.timers.clear()
        self.disk.crash(rng)

    def step(self, now_us: int, event: Input) -> list[LiarEffect]:
        """Put one input through the replica, or through the liar around it."""
        assert self.core is not None
        now_ms = self.now_ms(now_us)
        if self.liar is not None:
            return self.liar.step(now_ms, event)
        return list(self.core.step(now_ms, event))
