"""The devnet's price source: a board that the load writes and every node reads over HTTP."""

from __future__ import annotations

import time

import msgspec
import trio

from ops.gateway.limits import Limits
from ops.gateway.server import Head, Response, Server, Started


class PriceBoard:
    """The newest price of each feed. Units: micro-USDC per whole unit."""

    def __init__(self, values: dict[int, int]) -> None:
        self._values = dict(values)

    def set(self, feed: int, value: int) -> None:
        """Show another price from now on."""
        self._values[feed] = value

    def value(self, feed: int) -> int:
        return self._values[feed]

    def precheck(self, head: Head) -> Response | None:
        """Refuse what is no request for prices."""
        if head.method != "GET" or head.path != "/prices":
            return self.error(404, "not_found", "only GET /prices is here")
        return None

    async def handle(self, head: Head, body: bytes) -> Response:
        """Answer with every feed as of now."""
        now_ms = time.time_ns() // 1_000_000
        rows = [[feed, value, now_ms] for feed, value in sorted(self._values.items())]
        return Response(200, msgspec.json.encode({"observations": rows}))

    def error(self, status: int, code: str, message: str) -> Response:
        """Return an error object."""
        return Response(status, msgspec.json.encode({"error": {"code": code, "message": message}}))

    def connections(self, count: int, refused: bool) -> None:
        """Nobody counts them here."""


async def serve_prices(
    board: PriceBoard,
    host: str,
    port: int,
    task_status: Started = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the board until cancelled. Errors: OSError when the address cannot be bound."""
    await Server(board, Limits(), trio.Event()).serve(host, port, task_status)
