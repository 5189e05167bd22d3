"""The node's clock: wall time that never goes back and never jumps."""

from __future__ import annotations

import time

SLEW_PPM = 20_000
"""How fast the clock follows a wall clock that was stepped: 2 % of the time that passes."""


class Clock:
    """Milliseconds since the epoch, advancing with the monotonic clock, slewed to the wall's."""

    def __init__(self) -> None:
        self._monotonic_ns = time.monotonic_ns()
        self._now_ns = time.time_ns()

    def now_ms(self) -> int:
        """Return the time. Units: milliseconds since 1970, never less than before."""
        monotonic_ns = time.monotonic_ns()
        passed = monotonic_ns - self._monotonic_ns
        self._monotonic_ns = monotonic_ns
        slew = passed * SLEW_PPM // 1_000_000
        error = time.time_ns() - (self._now_ns + passed)
        self._now_ns += passed + max(-slew, min(slew, error))
        return self._now_ns // 1_000_000
