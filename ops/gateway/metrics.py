"""The metrics of the trader's door."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from ops.metric_family import LATENCY, Bounded, Family


class GatewayMetrics:
    """The trader's door."""

    def __init__(self, registry: CollectorRegistry) -> None:
        f = Family(registry, "gateway")
        self._requests = f.counter("requests", "Requests answered.", ("route", "code"))
        self._children: dict[tuple[str, int], Counter] = {}
        self._seconds = f.histogram(
            "submit_seconds", "Time to answer a request with commands.", LATENCY
        )
        self._commands = Bounded(
            f.counter("commands", "Commands submitted, by what the door said.", ("status",))
        )
        self._failed = Bounded(
            Family(registry, "mempool").counter(
                "failed_txs", "Commands refused at the door, by reason.", ("reason",)
            )
        )
        self._connections = f.gauge("connections", "Open connections.")
        self._refused = f.counter("connections_refused", "Connections turned away.")
        self._limited = f.counter("rate_limited", "Requests turned away by their rate.")

    def request(self, route: str, code: int) -> None:
        """A request was answered; `route` is one of the door's own, never a client's text."""
        child = self._children.get((route, code))
        if child is None:
            child = self._requests.labels(route, str(code))
            self._children[route, code] = child
        child.inc()

    def submitted(self, seconds: float) -> None:
        """A request with commands was answered."""
        self._seconds.observe(seconds)

    def command(self, status: str, reason: str) -> None:
        """One command got this status at the door; `reason` is empty when it was taken."""
        self._commands.inc(status)
        if reason:
            self._failed.inc(reason)

    def connections(self, count: int) -> None:
        """How many connections are open."""
        self._connections.set(count)

    def connection_refused(self) -> None:
        """A connection was turned away."""
        self._refused.inc()

    def rate_limited(self) -> None:
        """A request was turned away by its rate."""
        self._limited.inc()
