"""A bounded HTTP/1.1 server for one handler: h11 parses, trio carries.

It is our own because a general ASGI server costs four times the CPU here and lets one connection's
exception end the process, which for a replica is a fault. Each stage of a request has a deadline,
each address a share of the connections, and no exception of a connection leaves it.
Source: RFC 9112; h11's documentation, "Getting started".
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import NamedTuple, Protocol

import h11
import trio

from ops.gateway.limits import HEAD_BYTES_MAX, HEADERS_MAX, Limits, rate_key

READ_BYTES_MAX = 16_384
LINGER_BYTES_MAX = 1 << 20
ADDRESS_MAX = 64
BACKLOG = 256
LOG = logging.getLogger("fairlane.gateway")

Headers = tuple[tuple[bytes, bytes], ...]


class Head(NamedTuple):
    """A request before its body: `address` is what rates are counted by."""

    method: str
    path: str
    query: str
    content_type: str
    content_length: int
    address: str


class Response(NamedTuple):
    """An answer; `close` ends the connection after it."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: Headers = ()
    close: bool = False


class Handler(Protocol):
    """What the server asks of the routes."""

    def precheck(self, head: Head) -> Response | None:
        """Refuse a request before a byte of its body is read, or return None."""
        ...

    async def handle(self, head: Head, body: bytes) -> Response:
        """Answer a request; an exception is answered by `failure`."""
        ...

    def error(self, status: int, code: str, message: str) -> Response:
        """Return the uniform error object."""
        ...

    def connections(self, count: int, refused: bool) -> None:
        """Take note of the number of open connections, and of one refused."""
        ...


class Started(Protocol):
    """The part of trio's task status that `serve` uses; stub packages disagree on its name."""

    def started(self, value: int) -> None: ...


class _Cut(Exception):
    """Stop reading this connection, after `response` if there is one."""

    def __init__(self, response: Response | None) -> None:
        super().__init__()
        self.response = response


class Server:
    """The listener, and the account of who is connected."""

    def __init__(self, handler: Handler, limits: Limits, shutdown: trio.Event) -> None:
        self._handler = handler
        self._limits = limits
        self._shutdown = shutdown
        self._open: Counter[str] = Counter()
        self._idle: dict[trio.CancelScope, None] = {}
        self._bodies_bytes = 0

    @property
    def stopping(self) -> bool:
        """Whether every answer is to be its connection's last."""
        return self._shutdown.is_set()

    async def serve(
        self,
        host: str,
        port: int,
        task_status: Started = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `shutdown`, then let what is under way end in `graceful_seconds`.

        Reports the port that was bound. Errors: OSError when the address cannot be bound.
        """
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(self._accept, listeners, connections)
                task_status.started(listeners[0].socket.getsockname()[1])
                await self._shutdown.wait()
                accepting.cancel_scope.cancel()
            for scope in list(self._idle):
                scope.cancel()
            connections.cancel_scope.deadline = trio.current_time() + self._limits.graceful_seconds

    async def _accept(
        self, listeners: list[trio.SocketListener], connections: trio.Nursery
    ) -> None:
        await trio.serve_listeners(self._connection, listeners, handler_nursery=connections)

    async def _connection(self, stream: trio.SocketStream) -> None:
        key = ""
        try:
            key = rate_key(stream.socket.getpeername()[0])
            if not self._claim(key):
                self._handler.connections(self._open.total(), True)
                key = ""
                await self._turn_away(stream)
                return
            self._handler.connections(self._open.total(), False)
            await _Connection(self, stream, self._handler, self._limits, key).run()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The client went away.
        except Exception:
            # Whatever a stranger's bytes can make fail must not end the replica.
            LOG.exception("connection dropped")
        finally:
            if key:
                self._open[key] -= 1
                if not self._open[key]:
                    del self._open[key]
                self._handler.connections(self._open.total(), False)
            await trio.aclose_forcefully(stream)

    def _claim(self, key: str) -> bool:
        limits = self._limits
        if self._open.total() >= limits.connections_max:
            return False
        many = self._open[key] >= limits.connections_per_address_max
        if many and key not in limits.proxies:
            return False
        self._open[key] += 1
        return True

    async def _turn_away(self, stream: trio.SocketStream) -> None:
        answer = self._handler.error(503, "too_many_connections", "try again later")
        data = _encode(h11.Connection(h11.SERVER), answer._replace(close=True))
        with trio.move_on_after(1):  # It costs no more than the slot that it did not get.
            await stream.send_all(data)
            await stream.send_eof()
            await stream.receive_some(READ_BYTES_MAX)

    def reserve(self, size: int) -> bool:
        """Take room for a request's body, if there is some; `reserve(-size)` gives it back."""
        if size > 0 and self._bodies_bytes + size > self._limits.bodies_bytes_max:
            return False
        self._bodies_bytes += size
        return True

    def idle(self, scope: trio.CancelScope) -> None:
        """Let a stop cancel `scope`, which only waits for a next request."""
        self._idle[scope] = None
        if self.stopping:
            scope.cancel()

    def busy(self, scope: trio.CancelScope) -> None:
        """Undo `idle`."""
        self._idle.pop(scope, None)


def _encode(connection: h11.Connection, answer: Response, head_only: bool = False) -> bytes:
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", answer.content_type),
        (b"content-length", b"%d" % len(answer.body)),
        (b"cache-control", b"no-store"),
        *answer.headers,
    ]
    if answer.close:
        headers.append((b"connection", b"close"))
    events: list[h11.Event] = [h11.Response(status_code=answer.status, headers=headers)]
    if not head_only:
        events.append(h11.Data(data=answer.body))
    events.append(h11.EndOfMessage())
    return b"".join(connection.send(event) or b"" for event in events)


class _Connection:
    """One client's connection: requests one after another, each stage with its deadline."""

    def __init__(
        self,
        server: Server,
        stream: trio.SocketStream,
        handler: Handler,
        limits: Limits,
        address: str,
    ) -> None:
        self._server = server
        self._stream = stream
        self._handler = handler
        self._limits = limits
        self._address = address
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)

    async def run(self) -> None:
        """Answer requests until either side has enough."""
        for served in range(self._limits.requests_per_connection_max):
            last = served + 1 == self._limits.requests_per_connection_max
            head: Head | None = None
            try:
                head = await self._head(first=served == 0)
                if head is None:
                    return
                answer = await self._answer(head)
            except _Cut as cut:
                if cut.response is None:
                    return
                answer = cut.response._replace(close=True)
            if last or self._server.stopping:
                answer = answer._replace(close=True)
            await self._write(answer, head is not None and head.method == "HEAD")
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                await self._linger()
                return
            self._http.start_next_cycle()

    async def _head(self, first: bool) -> Head | None:
        """Return the next request's head, or None when the client is done."""
        begun = first  # A fresh connection owes a request at once.
        seconds = self._limits.head_seconds if first else self._limits.idle_seconds
        deadline = trio.current_time() + seconds
        while True:
            event = self._next_event()
            if type(event) is h11.Request:
                return self._read_request(event)
            if event is not h11.NEED_DATA:
                return None
            with trio.CancelScope(deadline=deadline) as scope:
                if not begun:
                    self._server.idle(scope)
                try:
                    data = await self._stream.receive_some(READ_BYTES_MAX)
                finally:
                    self._server.busy(scope)
            if scope.cancelled_caught:
                if not begun:
                    return None
                raise _Cut(self._handler.error(408, "timeout", "the request came too slowly"))
            if not begun:
                begun = True
                deadline = trio.current_time() + self._limits.head_seconds
            self._http.receive_data(data)

    def _read_request(self, request: h11.Request) -> Head:
        """Return what we use of a head. Errors: _Cut, when its body cannot be bounded."""
        if request.http_version not in (b"1.0", b"1.1"):
            raise _Cut(self._handler.error(505, "bad_http", "speak HTTP/1.1"))
        length = 0
        content_type = ""
        address = self._address
        size = len(request.target)
        for name, value in request.headers:
            size += len(name) + len(value) + 4
            if name == b"content-length":
                length = int(value)
            elif name == b"content-type":
                content_type = value.decode("latin-1").partition(";")[0].strip().lower()
            elif name == b"x-forwarded-for" and self._address in self._limits.proxies:
                address = rate_key(value.decode("latin-1").rpartition(",")[2].strip()[:ADDRESS_MAX])
            elif name == b"transfer-encoding":
                message = "send a content-length, not chunks"
                raise _Cut(self._handler.error(411, "length_required", message))
        if size > HEAD_BYTES_MAX or len(request.headers) > HEADERS_MAX:
            message = f"at most {HEADERS_MAX} headers, {HEAD_BYTES_MAX} bytes"
            raise _Cut(self._handler.error(431, "headers_too_large", message))
        path, _, query = request.target.decode("ascii").partition("?")
        return Head(request.method.decode("ascii"), path, query, content_type, length, address)

    async def _answer(self, head: Head) -> Response:
        refused = self._handler.precheck(head)
        if refused is not None:
            if head.content_length:
                # A body that we will not read ends the connection: the next request is behind it.
                return refused._replace(close=True)
            await self._body(0)
            return refused
        if not self._server.reserve(head.content_length):
            answer = self._handler.error(503, "overloaded", "too many requests under way")
            return answer._replace(close=True)
        try:
            return await self._handled(head)
        finally:
            self._server.reserve(-head.content_length)

    async def _handled(self, head: Head) -> Response:
        if self._http.they_are_waiting_for_100_continue:
            go = self._http.send(h11.InformationalResponse(status_code=100, headers=[]))
            await self._send(go or b"")
        body = await self._body(head.content_length)
        try:
            with trio.move_on_after(self._limits.handle_seconds):
                return await self._handler.handle(head, body)
        except Exception:
            # A failing view must not end the replica, nor tell a stranger how it failed.
            LOG.exception("%s %s failed", head.method, head.path)
            return self._handler.error(500, "internal", "the request failed; it was logged")
        return self._handler.error(503, "timeout", "the node did not answer in time")

    async def _body(self, length: int) -> bytes:
        body = bytearray()
        deadline = trio.current_time() + self._limits.body_seconds
        while True:
            event = self._next_event()
            if type(event) is h11.Data:
                body += event.data
                assert len(body) <= length, "h11 enforces content-length"
            elif type(event) is h11.EndOfMessage:
                return bytes(body)
            elif event is h11.NEED_DATA:
                with trio.CancelScope(deadline=deadline) as scope:
                    self._http.receive_data(await self._stream.receive_some(READ_BYTES_MAX * 4))
                if scope.cancelled_caught:
                    raise _Cut(self._handler.error(408, "timeout", "the body came too slowly"))
            else:
                raise _Cut(None)

    def _next_event(self) -> object:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                raise _Cut(None) from None
            status = error.error_status_hint
            code = "headers_too_large" if status == 431 else "bad_http"
            raise _Cut(self._handler.error(status, code, "not a request we can read")) from None

    async def _write(self, answer: Response, head_only: bool) -> None:
        await self._send(_encode(self._http, answer, head_only))

    async def _send(self, data: bytes) -> None:
        with trio.move_on_after(self._limits.write_seconds) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            raise trio.BrokenResourceError("the client does not read")

    async def _linger(self) -> None:
        """Read on for a moment after the last answer, so that a reset does not destroy it."""
        with trio.move_on_after(self._limits.linger_seconds):
            await self._stream.send_eof()
            left = LINGER_BYTES_MAX
            while left > 0:
                data = await self._stream.receive_some(READ_BYTES_MAX * 4)
                if not data:
                    return
                left -= len(data)
