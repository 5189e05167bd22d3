"""What was found wrong in a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

VIOLATIONS_MAX = 100
"""More are counted but not kept."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One invariant that did not hold: which, when (virtual time), at which node, and how."""

    kind: str
    at_us: int
    node: int | None
    text: str

    def __str__(self) -> str:
        where = "" if self.node is None else f" node {self.node}:"
        return f"[{self.kind}] at {self.at_us / 1000:.1f} ms:{where} {self.text}"


class Ledger:
    """Violations in the order in which they were found; some kinds may be passed over."""

    def __init__(
        self,
        now_us: Callable[[], int],
        ignored: frozenset[str] = frozenset(),
        on_found: Callable[[], None] = lambda: None,
    ) -> None:
        self._now_us = now_us
        self._ignored = ignored
        self._on_found = on_found
        self.violations: list[Violation] = []
        self.count = 0

    def found(self, kind: str, node: int | None, text: str) -> None:
        """Note a violation, unless its kind is ignored in this run."""
        if kind in self._ignored:
            return
        self.count += 1
        self._on_found()
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(Violation(kind, self._now_us(), node, text))

    @property
    def is_clean(self) -> bool:
        return self.count == 0
