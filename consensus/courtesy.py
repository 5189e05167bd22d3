"""How much a replica answers each peer: a bucket of bytes per peer, filled with time. Pure.

Answers come from the disk and go over the link at the asker's wish alone; without a bound one
peer that asks for the same chain again and again takes both from everybody else.
"""

from __future__ import annotations

ANSWERS_BYTES_PER_S = 32 << 20
"""For all peers together, in equal shares: one peer never gets more than its own."""
BURST_MS = 4_000
"""A share unused for so long is there at once: catching up begins at full speed."""
QUESTION_BYTES = 16 << 10
"""What a question costs besides its answer's bytes, found or not."""


class Courtesy:
    """What each peer may still be answered."""

    def __init__(self, n: int) -> None:
        self._per_ms = ANSWERS_BYTES_PER_S // (1_000 * max(1, n - 1))
        self._burst = self._per_ms * BURST_MS
        self._left = [self._burst] * n
        self._filled_ms = [0] * n

    def allows(self, peer: int, now_ms: int) -> bool:
        """Say whether `peer` may be answered now. Time that goes back counts as none."""
        passed_ms = now_ms - self._filled_ms[peer]
        if passed_ms > 0:
            self._filled_ms[peer] = now_ms
            self._left[peer] = min(self._burst, self._left[peer] + passed_ms * self._per_ms)
        return self._left[peer] > 0

    def charge(self, peer: int, answer_bytes: int) -> None:
        """Count a question of `peer` and its answer: the last one may overdraw the bucket."""
        self._left[peer] -= QUESTION_BYTES + answer_bytes
