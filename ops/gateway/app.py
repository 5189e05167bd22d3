"""The door's routes: what a trader may ask, and the one shape of every error."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from math import ceil
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec
import trio
from msgspec import Struct

from matcher.genesis import MarketGenesis
from ops.admission import AdmittedCommand, Refusal, SigningDomain, admit_commands
from ops.gateway import wire
from ops.gateway.limits import (
    BODY_BYTES_MAX,
    COMMANDS_MAX,
    DEPTH_MAX,
    PAGE_MAX,
    RECEIPTS_MAX,
    WAIT_MS_MAX,
    Buckets,
    Limits,
)
from ops.gateway.metrics import GatewayMetrics
from ops.gateway.port import CursorLost, NodePort, SubmitResult, SubmitStatus
from ops.gateway.server import Head, Response, Server, Started
from ops.gateway.wire import CommandResult, ErrorAnswer, ErrorBody, hexed

VERIFY_INLINE_MAX = 4
"""So few signatures (50 us each) are not worth the hop to a worker thread (80 to 150 us of CPU)."""
VERIFY_THREADS = 2
PARAMETERS_MAX = 8
INT_DIGITS_MAX = 18
ERROR_CHARS_MAX = 200
METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_ENCODER = msgspec.json.Encoder()


class _SubmitRequest(Struct, forbid_unknown_fields=True):
    body: bytes | None = None
    commands: list[bytes] | None = None


_SUBMIT = msgspec.json.Decoder(_SubmitRequest)
_RECEIPTS = msgspec.json.Decoder(wire.ReceiptsRequest)


class Refused(Exception):
    """A request that is answered by an error; raised and caught within the door."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message


class _Route(NamedTuple):
    """One resource: `run` gets the head, the body and what follows the path's prefix."""

    name: str
    method: str
    run: Callable[[Head, bytes, str], Awaitable[Response]]
    body_max: int = 0
    free: bool = False


def _error(status: int, code: str, message: str) -> Response:
    body = _ENCODER.encode(ErrorAnswer(ErrorBody(code, message)))
    return Response(status, body)


def _retry(seconds: float) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"retry-after", b"%d" % max(1, ceil(seconds))),)


def _json(value: object) -> Response:
    return Response(200, _ENCODER.encode(value))


class _Query:
    """A request's parameters: each known, at most once, within its bounds. Errors: Refused."""

    def __init__(self, query: str, known: tuple[str, ...]) -> None:
        self._values: dict[str, str] = {}
        if not query:
            return
        try:
            pairs = parse_qsl(
                query, keep_blank_values=True, strict_parsing=True, max_num_fields=PARAMETERS_MAX
            )
        except ValueError:
            raise Refused(400, "bad_parameter", "the query cannot be read") from None
        for name, value in pairs:
            if name not in known:
                raise Refused(400, "bad_parameter", f"known are: {', '.join(known) or 'none'}")
            if name in self._values:
                raise Refused(400, "bad_parameter", f"{name} stands twice")
            self._values[name] = value

    def integer(self, name: str, default: int | None, lowest: int, highest: int) -> int:
        text = self._values.get(name)
        if text is None:
            if default is None:
                raise Refused(400, "missing_parameter", f"{name} is needed")
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= INT_DIGITS_MAX):
            raise Refused(400, "bad_parameter", f"{name} is a whole number")
        if not lowest <= int(text) <= highest:
            raise Refused(400, "bad_parameter", f"{name} is between {lowest} and {highest}")
        return int(text)

    def address(self, name: str) -> bytes:
        text = self._values.get(name)
        if text is None:
            raise Refused(400, "missing_parameter", f"{name} is needed")
        value = wire.unhexed(text, 20)
        if value is None:
            raise Refused(400, "bad_parameter", f"{name} is an address of 20 bytes in hex")
        return value


class Door:
    """Answers requests from one node's port; see `server.Handler`."""

    def __init__(
        self,
        node: NodePort,
        domain: SigningDomain,
        market: MarketGenesis,
        metrics: GatewayMetrics,
        limits: Limits,
        shutdown: trio.Event,
    ) -> None:
        self._node = node
        self._domain = domain
        self._market = market
        self._metrics = metrics
        self._limits = limits
        self._shutdown = shutdown
        self._buckets = Buckets(limits.rate_per_second, limits.rate_burst)
        self._submits = 0
        self._waiting = 0
        self._threads = trio.CapacityLimiter(VERIFY_THREADS)
        self._exact: dict[str, tuple[_Route, ...]] = {
            "/v1/commands": (_Route("commands", "POST", self._on_commands, BODY_BYTES_MAX),),
            "/v1/receipts": (_Route("receipts", "POST", self._on_receipts, 16_384),),
            "/v1/outcomes": (_Route("outcomes", "GET", self._on_outcomes),),
            "/v1/trades": (_Route("trades", "GET", self._on_trades),),
            "/v1/book": (_Route("book", "GET", self._on_book),),
            "/v1/account": (_Route("account", "GET", self._on_account),),
            "/v1/instruments": (_Route("instruments", "GET", self._on_instruments),),
            "/v1/status": (_Route("status", "GET", self._on_status),),
            "/v1/evidence": (_Route("evidence", "GET", self._on_evidence),),
            "/metrics": (_Route("metrics", "GET", self._on_metrics),),
            "/healthz": (_Route("healthz", "GET", self._on_health, free=True),),
            "/readyz": (_Route("readyz", "GET", self._on_ready, free=True),),
        }
        self._under: dict[str, tuple[_Route, ...]] = {
            "/v1/receipts": (_Route("receipt", "GET", self._on_receipt),),
            "/v1/proof/withdrawal": (_Route("proof", "GET", self._on_proof),),
        }

    # What the server asks.

    def error(self, status: int, code: str, message: str) -> Response:
        """Return the uniform error object, and count it as of no route."""
        self._metrics.request("none", status)
        return _error(status, code, message)

    def connections(self, count: int, refused: bool) -> None:
        """Pass the numbers on to the metrics."""
        self._metrics.connections(count)
        if refused:
            self._metrics.connection_refused()

    def precheck(self, head: Head) -> Response | None:
        """Refuse what is wrong before its body is read: route, method, size, type, rate."""
        found = self._find(head)
        if isinstance(found, Response):
            return found
        route, _ = found
        if head.content_length > route.body_max:
            message = f"a body of at most {route.body_max} bytes"
            return self.error(413, "body_too_large", message)
        if route.method == "POST" and head.content_type != "application/json":
            return self.error(415, "unsupported_media_type", "send application/json")
        return None if route.free else self._limit(head.address, 1)

    async def handle(self, head: Head, body: bytes) -> Response:
        """Answer one request."""
        found = self._find(head)
        if isinstance(found, Response):
            return found
        route, rest = found
        try:
            answer = await route.run(head, body, rest)
        except Refused as refused:
            answer = _error(refused.status, refused.code, refused.message)
        self._metrics.request(route.name, answer.status)
        return answer

    def _find(self, head: Head) -> tuple[_Route, str] | Response:
        routes, rest = self._exact.get(head.path), ""
        if routes is None:
            prefix, _, rest = head.path.rpartition("/")
            routes = self._under.get(prefix) if rest else None
        if routes is None:
            return self.error(404, "not_found", "no such resource")
        method = "GET" if head.method == "HEAD" else head.method
        for route in routes:
            if route.method == method:
                return route, rest
        allowed = ", ".join(route.method for route in routes)
        answer = self.error(405, "method_not_allowed", f"allowed: {allowed}")
        return answer._replace(headers=((b"allow", allowed.encode()),))

    def _limit(self, address: str, tokens: int) -> Response | None:
        wait = self._buckets.take(address, tokens, trio.current_time())
        if not wait:
            return None
        self._metrics.rate_limited()
        answer = self.error(429, "rate_limited", f"try again in {ceil(wait * 1000)} ms")
        return answer._replace(headers=_retry(wait))

    # Commands in.

    async def _on_commands(self, head: Head, body: bytes, _: str) -> Response:
        bodies, single = _bodies(body)
        limited = self._limit(head.address, len(bodies))
        if limited is not None:
            return limited
        ready, why = self._node.ready()
        if not ready:
            answer = _error(503, "not_ready", why)
            return answer._replace(headers=_retry(1))
        if self._submits >= self._limits.submits_max:
            answer = _error(503, "overloaded", "too many requests under way")
            return answer._replace(headers=_retry(1))
        began = time.perf_counter()
        self._submits += 1
        try:
            results = await self._submit(bodies)
        finally:
            self._submits -= 1
        self._metrics.submitted(time.perf_counter() - began)
        for result in results:
            self._metrics.command(result.status, result.error.code if result.error else "")
        return _single_answer(results[0]) if single else _json(wire.SubmitAnswer(results))

    async def _submit(self, bodies: list[bytes]) -> list[CommandResult]:
        judged = await self._admit(bodies)
        results: list[CommandResult | None] = [None] * len(bodies)
        admitted: dict[bytes, tuple[int, AdmittedCommand]] = {}
        for place, verdict in enumerate(judged):
            if isinstance(verdict, Refusal):
                results[place] = _refused("", verdict.reason, verdict.message)
            elif verdict.id in admitted:
                results[place] = _duplicate(verdict.id)
            else:
                admitted[verdict.id] = (place, verdict)
        if admitted:
            answers = await self._node.submit([command for _, command in admitted.values()])
            for (place, command), answer in zip(admitted.values(), answers, strict=True):
                assert answer.id == command.id, "the node answers in order"
                results[place] = _node_result(answer)
        return [result for result in results if result is not None]

    async def _admit(self, bodies: list[bytes]) -> Sequence[AdmittedCommand | Refusal]:
        now_ms = self._node.now_ms()
        judge = partial(admit_commands, bodies, now_ms, self._domain, self._market)
        if len(bodies) <= VERIFY_INLINE_MAX:
            return judge()
        return await trio.to_thread.run_sync(judge, limiter=self._threads)

    # How far they came.

    async def _on_receipt(self, head: Head, _: bytes, rest: str) -> Response:
        _Query(head.query, ())
        id_ = wire.parse_id(rest)
        if id_ is None:
            raise Refused(400, "bad_id", "an id is 40 bytes in hex")
        receipt = self._node.receipt(id_)
        if receipt is None:
            raise Refused(404, "unknown_id", "this node does not know the command")
        return _json(wire.receipt_answer(id_, receipt))

    async def _on_receipts(self, head: Head, body: bytes, _: str) -> Response:
        _Query(head.query, ())
        try:
            wanted = _RECEIPTS.decode(body).ids
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise Refused(400, "bad_json", 'send {"ids": ["0x..", ..]}') from None
        if not 0 < len(wanted) <= RECEIPTS_MAX:
            raise Refused(400, "too_many", f"1 to {RECEIPTS_MAX} ids")
        limited = self._limit(head.address, len(wanted) // 10)
        if limited is not None:
            return limited
        ids = [wire.parse_id(text) for text in wanted]
        receipts = []
        for id_ in ids:
            if id_ is None:
                raise Refused(400, "bad_id", "an id is 40 bytes in hex")
            receipts.append(wire.receipt_answer(id_, self._node.receipt(id_)))
        return _json(wire.ReceiptsAnswer(self._node.status().block_time_ms, receipts))

    async def _on_outcomes(self, head: Head, _: bytes, __: str) -> Response:
        after, limit, wait_ms = _page(head.query)
        try:
            found = self._node.outcomes(after, limit)
            if not found and wait_ms:
                await self._wait(partial(self._node.outcomes_beyond, after), wait_ms)
                found = self._node.outcomes(after, limit)
        except CursorLost as lost:
            raise _gone(lost) from None
        last = found[-1].sequence if found else after
        return _json(wire.OutcomesAnswer([wire.outcome_answer(o) for o in found], last))

    async def _on_trades(self, head: Head, _: bytes, __: str) -> Response:
        after, limit, wait_ms = _page(head.query)
        try:
            found = self._node.trades(after, limit)
            if not found and wait_ms:
                await self._wait(partial(self._node.trades_beyond, after), wait_ms)
                found = self._node.trades(after, limit)
        except CursorLost as lost:
            raise _gone(lost) from None
        last = found[-1].sequence if found else after
        return _json(wire.TradesAnswer([wire.trade_answer(t) for t in found], last))

    async def _wait(self, news: Callable[[], Awaitable[None]], wait_ms: int) -> None:
        """Wait for news, for `wait_ms`, or for the node's stop, whichever is first."""
        if self._waiting >= self._limits.streams_waiting_max:
            raise Refused(503, "overloaded", "too many requests wait for news; poll")

        async def first(event: Callable[[], Awaitable[None]]) -> None:
            await event()
            nursery.cancel_scope.cancel()

        self._waiting += 1
        try:
            with trio.move_on_after(wait_ms / 1000):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(first, news)
                    nursery.start_soon(first, self._shutdown.wait)
        finally:
            self._waiting -= 1

    # What stands where.

    async def _on_book(self, head: Head, _: bytes, __: str) -> Response:
        query = _Query(head.query, ("instrument", "depth"))
        instrument = query.integer("instrument", None, 0, (1 << 32) - 1)
        view = self._node.book(instrument, query.integer("depth", 20, 1, DEPTH_MAX))
        if view is None:
            raise Refused(404, "unknown_instrument", f"no instrument {instrument}")
        return _json(wire.view_answer(view))

    async def _on_account(self, head: Head, _: bytes, __: str) -> Response:
        query = _Query(head.query, ("wallet", "subaccount"))
        wallet = query.address("wallet")
        view = self._node.account(wallet, query.integer("subaccount", 0, 0, 255))
        if view is None:
            raise Refused(404, "unknown_account", "it never had a deposit here")
        return _json(wire.view_answer(view))

    async def _on_proof(self, head: Head, _: bytes, rest: str) -> Response:
        _Query(head.query, ())
        if not (rest.isascii() and rest.isdigit() and len(rest) <= INT_DIGITS_MAX):
            raise Refused(400, "bad_index", "a withdrawal's index is a whole number")
        view = self._node.withdrawal_proof(int(rest))
        if view is None:
            raise Refused(404, "no_proof", "no accepted checkpoint covers this withdrawal yet")
        return _json(wire.view_answer(view))

    async def _on_instruments(self, head: Head, _: bytes, __: str) -> Response:
        _Query(head.query, ())
        views = [wire.view_answer(view) for view in self._node.instruments()]
        return _json({"instruments": views})

    async def _on_status(self, head: Head, _: bytes, __: str) -> Response:
        _Query(head.query, ())
        return _json(wire.status_answer(self._node.status()))

    async def _on_evidence(self, head: Head, _: bytes, __: str) -> Response:
        _Query(head.query, ())
        return Response(200, self._node.evidence())

    async def _on_metrics(self, head: Head, _: bytes, __: str) -> Response:
        return Response(200, self._node.metrics_text(), METRICS_TYPE)

    async def _on_health(self, head: Head, _: bytes, __: str) -> Response:
        return _probe(self._node.health(), "unhealthy")

    async def _on_ready(self, head: Head, _: bytes, __: str) -> Response:
        return _probe(self._node.ready(), "not_ready")


def _bodies(body: bytes) -> tuple[list[bytes], bool]:
    """Return a request's commands, and whether it was the single form. Errors: Refused."""
    try:
        request = _SUBMIT.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, "bad_json", str(error)[:ERROR_CHARS_MAX]) from None
    match request:
        case _SubmitRequest(body=bytes() as one, commands=None):
            return [one], True
        case _SubmitRequest(body=None, commands=list() as many):
            if not 0 < len(many) <= COMMANDS_MAX:
                raise Refused(400, "too_many", f"1 to {COMMANDS_MAX} commands")
            return many, False
        case _:
            raise Refused(400, "bad_json", 'send either "body" or "commands"')


def _refused(id_: str, code: str, message: str) -> CommandResult:
    return CommandResult(id_, SubmitStatus.REFUSED, ErrorBody(code, message))


def _duplicate(id_: bytes) -> CommandResult:
    error = ErrorBody("duplicate", "this command is known; nothing changed, see its receipt")
    return CommandResult(hexed(id_), SubmitStatus.DUPLICATE, error)


def _node_result(answer: SubmitResult) -> CommandResult:
    id_ = hexed(answer.id)
    match answer.status:
        case SubmitStatus.SEEN:
            return CommandResult(id_, SubmitStatus.SEEN)
        case SubmitStatus.DUPLICATE:
            return _duplicate(answer.id)
        case SubmitStatus.BUSY:
            error = ErrorBody("busy", "this node's log is full; send the same bytes again")
            return CommandResult(id_, SubmitStatus.BUSY, error, max(1, answer.retry_after_ms))
        case SubmitStatus.REFUSED:
            return _refused(id_, answer.reason, "the node refused the command")


def _single_answer(result: CommandResult) -> Response:
    """Return the answer to one command: the batch's form, and the error on top."""
    status = {
        SubmitStatus.SEEN: 200,
        SubmitStatus.DUPLICATE: 409,
        SubmitStatus.BUSY: 503,
        SubmitStatus.REFUSED: 400,
    }[result.status]
    if result.error is None:
        return _json(wire.SubmitAnswer([result]))
    if result.error.code == "too_large":
        status = 413
    answer: dict[str, Any] = {"error": result.error, "results": [result]}
    headers = _retry(result.retry_after_ms / 1000) if result.status is SubmitStatus.BUSY else ()
    return Response(status, _ENCODER.encode(answer), headers=headers)


def _page(query_string: str) -> tuple[int, int, int]:
    query = _Query(query_string, ("after", "limit", "wait_ms"))
    after = query.integer("after", 0, 0, (1 << 53) - 1)
    limit = query.integer("limit", 100, 1, PAGE_MAX)
    return after, limit, query.integer("wait_ms", 0, 0, WAIT_MS_MAX)


def _gone(lost: CursorLost) -> Refused:
    message = f"the oldest held is {lost.oldest}; go on after {lost.oldest - 1}"
    return Refused(410, "cursor_lost", message)


def _probe(state: tuple[bool, str], code: str) -> Response:
    good, why = state
    return _json({"ok": True}) if good else _error(503, code, why)


async def serve(
    node: NodePort,
    domain: SigningDomain,
    market: MarketGenesis,
    host: str,
    port: int,
    shutdown: trio.Event,
    *,
    metrics: GatewayMetrics,
    limits: Limits | None = None,
    task_status: Started = trio.TASK_STATUS_IGNORED,
) -> None:
    """Open the door of `node` until `shutdown`; reports the bound port through `task_status`.

    Errors: OSError when the address cannot be bound.
    """
    limits = limits or Limits()
    door = Door(node, domain, market, metrics, limits, shutdown)
    await Server(door, limits, shutdown).serve(host, port, task_status)
