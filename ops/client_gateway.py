"""The client's side of one gateway, and of one command on its way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, TypeVar

import httpx
import msgspec
import trio
from msgspec import Struct

from consensus.command import CommandId
from ops.admission import SigningDomain
from ops.client_keys import SignedCommand
from ops.gateway import wire
from ops.gateway.limits import COMMANDS_MAX

T = TypeVar("T")

ANSWER_BYTES_MAX = 4 << 20
BACKOFF_SECONDS = 0.1
BACKOFF_SECONDS_MAX = 5.0


class GatewayDown(Exception):
    """A gateway did not answer, or not in our language."""


class GatewayError(Exception):
    """A gateway answered with an error: `status` is HTTP's, `code` for machines."""

    def __init__(self, status: int, code: str, message: str, retry_s: float) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.retry_s = retry_s


class Config(Struct, frozen=True, kw_only=True):
    """What a client needs. Units: seconds, milliseconds.

    `faults` is the network's f. Each command goes to `copies` gateways (0: f+1) and its outcome
    needs the same word of f+1; with fewer gateways than that, of all of them. `requests_max`
    requests with commands are under way at once at a gateway; what waits meanwhile is joined, so
    that more of them mean less waiting and more CPU at both ends.
    """

    gateways: Sequence[str]
    domain: SigningDomain
    faults: int
    copies: int = 0
    requests_max: int = 1
    request_seconds: float = 15.0
    poll_wait_ms: int = 5_000
    poll_seconds_min: float = 0.0
    lifetime_ms: int = 60_000


class Result(Struct, frozen=True, kw_only=True):
    """What became of a command.

    `kind` is "executed" (the engine gave it an outcome: `status`, `reason`, `sequence` and
    `details`, as docs/api.md lists them), "void" (it expired unordered and never happens),
    "refused" (f+1 gateways name the same `reason` why it cannot happen), or "unknown" (it expired
    so long ago that no gateway remembers: look at the account).
    """

    kind: str
    status: str = ""
    reason: str = ""
    sequence: int = 0
    details: dict[str, Any] = {}


class Pending:
    """One submitted command on its way."""

    def __init__(self, command: SignedCommand, copies: int) -> None:
        self.command = command
        self.result: Result | None = None
        self.seen_by: set[int] = set()
        self.assigned: set[int] = set()
        self.refusals: dict[int, str] = {}
        self.votes: dict[int, Result] = {}
        self._copies = copies
        self._seen = trio.Event()
        self._done = trio.Event()

    async def seen(self) -> None:
        """Return when enough gateways have it in persisted logs, or when its fate is known."""
        await self._seen.wait()

    async def done(self) -> Result:
        """Return what became of it."""
        await self._done.wait()
        assert self.result is not None
        return self.result

    def enough(self) -> bool:
        """Say whether no further gateway need be told."""
        return self.result is not None or len(self.seen_by) >= self._copies

    def saw(self, gateway: int) -> None:
        """Take note that a gateway has it in its log."""
        self.seen_by.add(gateway)
        if self.enough():
            self._seen.set()

    def finish(self, result: Result) -> None:
        """Take note of its fate."""
        self.result = result
        self._seen.set()
        self._done.set()


class Gateway:
    """One gateway: its connections, and what is to be sent to it."""

    def __init__(self, index: int, url: str, config: Config) -> None:
        self.index = index
        self.outbox: OrderedDict[CommandId, Pending] = OrderedDict()
        self.news = trio.Event()
        self.failures = 0
        connections = config.requests_max + 3
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=config.request_seconds,
            limits=httpx.Limits(max_connections=connections),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def put(self, pending: Pending) -> None:
        """Queue a command; the client's journal bounds how many there are."""
        pending.assigned.add(self.index)
        self.outbox[pending.command.id] = pending
        self.news.set()

    def take(self) -> list[Pending]:
        """Return what to send next; commands that need no sending any more fall out."""
        batch: list[Pending] = []
        while self.outbox and len(batch) < COMMANDS_MAX:
            _, pending = self.outbox.popitem(last=False)
            if not pending.enough():
                batch.append(pending)
        if not self.outbox:
            self.news = trio.Event()
        return batch

    async def ask(self, method: str, path: str, type_: type[T], body: bytes | None = None) -> T:
        """Return one answer. Errors: GatewayDown, GatewayError."""
        headers = {"content-type": "application/json"} if body is not None else {}
        try:
            async with self._http.stream(method, path, content=body, headers=headers) as response:
                data = bytearray()
                async for chunk in response.aiter_raw():
                    data += chunk
                    if len(data) > ANSWER_BYTES_MAX:
                        raise GatewayDown("an endless answer")
        except httpx.HTTPError as error:
            raise GatewayDown(f"{type(error).__name__}: {error}") from None
        try:
            if response.status_code >= 400:
                said = msgspec.json.decode(data, type=wire.ErrorAnswer).error
                retry = response.headers.get("retry-after", "0")
                retry_s = float(retry) if retry.isdigit() and len(retry) < 6 else 0.0
                raise GatewayError(response.status_code, said.code, said.message, retry_s)
            return msgspec.json.decode(data, type=type_, strict=False)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise GatewayDown(f"not an answer: {error}") from None

    def backoff(self) -> float:
        """Return how long to wait after one more failure."""
        self.failures += 1
        factor = float(1 << min(self.failures - 1, 10))
        return min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS * factor)
