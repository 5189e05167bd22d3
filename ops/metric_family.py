"""How this project's metrics are made: names with our prefix, labels with a bound."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

PREFIX = "fairlane"
LABELS_MAX = 64
"""Distinct values of one open label, such as a reject's reason; later ones count as "other"."""
OTHER = "other"

FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
LATENCY = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SLOW = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 60.0)
SIZES = (0.0, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0)


disable_created_metrics()  # type: ignore[no-untyped-call]  # They double the exposition for nothing.


class Bounded:
    """The children of a metric with one open label."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._children: dict[str, Counter] = {}

    def inc(self, value: str, amount: float = 1) -> None:
        child = self._children.get(value)
        if child is None:
            if len(self._children) >= LABELS_MAX:
                value = OTHER
            child = self._children[value] = self._counter.labels(value)
        child.inc(amount)


class Family:
    """Makes the metrics of one subsystem in one registry."""

    def __init__(self, registry: CollectorRegistry, subsystem: str) -> None:
        self._registry = registry
        self._subsystem = subsystem

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(name, text, labels, PREFIX, self._subsystem, registry=self._registry)

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(name, text, labels, PREFIX, self._subsystem, registry=self._registry)

    def histogram(
        self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        return Histogram(
            name, text, labels, PREFIX, self._subsystem, registry=self._registry, buckets=buckets
        )
