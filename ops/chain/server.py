"""Serve the embedded chain over HTTP on this machine, and mine a block each period.

One process, one thread: a request and a block never run at once. Only loopback is served, since
anybody who reaches the port can use the chain.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import h11
import trio

from ops.chain.embedded import EmbeddedChain
from ops.chain.rpc import REQUEST_BYTES_MAX, answer

CONNECTIONS_MAX = 256
IDLE_TIMEOUT_S = 75.0
READ_TIMEOUT_S = 10.0
READ_BYTES = 64 << 10
_HEADERS = [("content-type", "application/json")]

Clock = Callable[[], float]


async def serve(
    chain: EmbeddedChain,
    host: str,
    port: int,
    block_time_s: float = 1.0,
    clock: Clock = time.time,
    task_status: Any = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `chain` and mine until cancelled; the started value is the port.

    Errors: ValueError for an address that is not loopback; OSError when the port is taken.
    """
    if not ip_address(host).is_loopback:
        raise ValueError(f"{host} is not a loopback address")
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(port, host=host)
        nursery.start_soon(_mine, chain, block_time_s, clock)
        room = trio.Semaphore(CONNECTIONS_MAX)

        async def handle(stream: trio.SocketStream) -> None:
            try:
                room.acquire_nowait()
            except trio.WouldBlock:
                await stream.aclose()
                return
            try:
                await _connection(chain, stream)
            finally:
                room.release()

        task_status.started(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(handle, listeners, handler_nursery=nursery)


async def _mine(chain: EmbeddedChain, block_time_s: float, clock: Clock) -> None:
    """Mine at a steady pace; after a stall, go on from now instead of catching up."""
    next_s = trio.current_time()
    while True:
        chain.mine(int(clock()))
        next_s = max(next_s + block_time_s, trio.current_time())
        await trio.sleep_until(next_s)


async def _connection(chain: EmbeddedChain, stream: trio.SocketStream) -> None:
    """Answer requests on one connection until the client leaves, errs or falls silent."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    http = h11.Connection(h11.SERVER)
    async with stream:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                try:
                    status, body = await _request(chain, http, stream)
                except h11.RemoteProtocolError as error:
                    status, body = error.error_status_hint, b"bad request"
                if status == 0:
                    return
                await _respond(http, stream, status, body)
                if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                    return
                http.start_next_cycle()


async def _request(
    chain: EmbeddedChain, http: h11.Connection, stream: trio.SocketStream
) -> tuple[int, bytes]:
    """Read one request and return its answer; status 0 means the client is gone."""
    method, body, timeout_s = b"", bytearray(), IDLE_TIMEOUT_S
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            with trio.move_on_after(timeout_s) as scope:
                http.receive_data(await stream.receive_some(READ_BYTES))
            if scope.cancelled_caught:
                return 0, b""
        elif isinstance(event, h11.Request):
            method, timeout_s = event.method, READ_TIMEOUT_S
            if http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await stream.send_all(http.send(go_on) or b"")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > REQUEST_BYTES_MAX:
                return 413, b"request too large"
        elif isinstance(event, h11.EndOfMessage):
            if method != b"POST":
                return 405, b"POST only"
            return 200, answer(chain, bytes(body))
        else:
            return 0, b""


async def _respond(
    http: h11.Connection, stream: trio.SocketStream, status: int, body: bytes
) -> None:
    if http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    headers = [*_HEADERS, ("content-length", str(len(body)))]
    parts = (
        h11.Response(status_code=status, headers=headers),
        h11.Data(data=body),
        h11.EndOfMessage(),
    )
    with trio.move_on_after(READ_TIMEOUT_S):
        await stream.send_all(b"".join(http.send(part) or b"" for part in parts))
