"""The edge of all machines at once: a frame that many receive is decoded and checked once.

Admission is a function of the sender and the frame, and of nothing that differs between the
machines of one epoch: which committee it is, the parameters, the keys. So the outcome for one
receiver is the outcome for all, and the message, which is immutable, may be the same object.
"""

from __future__ import annotations

from collections.abc import Callable

from consensus.admission import Admission, Refused
from consensus.messages import Message

OUTCOMES_MAX = 16_384
"""Outcomes remembered; then all are forgotten, which costs time and changes nothing."""


class Edge:
    """Admits frames for all machines; the same frame of the same sender is checked once."""

    def __init__(self, make: Callable[[], Admission]) -> None:
        self._admission = make()
        self._outcomes: dict[tuple[int, bytes], Message | Refused] = {}
        self.checked = 0
        """Frames that were not answered from memory."""

    def admit(self, sender: int, frame: bytes) -> Message:
        """Return what `Admission.admit` returns. Errors: Refused."""
        name = (sender, frame)
        known = self._outcomes.get(name)
        if known is None:
            self.checked += 1
            if len(self._outcomes) >= OUTCOMES_MAX:
                self._outcomes.clear()
            try:
                known = self._admission.admit(sender, frame)
            except Refused as refused:
                known = refused
            self._outcomes[name] = known
        if isinstance(known, Refused):
            raise known
        return known
