"""libp2p behind a few calls: the only file that imports it, hardened against hostile peers.

py-libp2p 0.8.1 trusts its peers in many places; each mend below names what happens without it,
and has a test. TCP, Noise and yamux only. Source: ADR-0008.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import trio

# With the default, each partial read answers with a window update: a third of all writes.
os.environ.setdefault("PY_YAMUX_RELEASE_ON_READ", "0")

import libp2p.network.connection.swarm_connection as _swarm_connection
import libp2p.network.swarm as _swarm
import libp2p.stream_muxer.muxer_multistream as _muxer
import libp2p.stream_muxer.yamux.yamux as _yamux
import libp2p.transport.tcp.tcp as _tcp
from libp2p import new_host
from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.crypto.ed25519 import create_new_key_pair as new_ed25519
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.config import ConnectionConfig
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.rcmgr.connection_limits import ConnectionLimits
from libp2p.rcmgr.manager import ResourceLimits, ResourceManager
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.exceptions import MuxedStreamError
from multiaddr import Multiaddr

from p2p.errors import HostCrashed, HostError, LinkBroken
from p2p.link import Stream
from p2p.port import check_port

if TYPE_CHECKING:
    from trio_typing import TaskStatus

PROTOCOL: Final = TProtocol("/fairlane/1.0.0")
YAMUX: Final = TProtocol(_yamux.PROTOCOL_ID)

CONNECTIONS_PER_PEER_MAX: Final = 4
STREAMS_PER_CONNECTION_MAX: Final = 16
PENDING_MAX: Final = 1_024
"""Handshakes under way: anybody can start one, so few would let a stranger keep members out."""
BUFFERED_BYTES_MAX: Final = 8 << 20
"""Received on one connection and not yet read; our own read loops never pause."""
WINDOW_BYTES_MAX: Final = 4 << 20
NOISE_BYTES_MAX: Final = 65_519
"""Plaintext of one Noise message; libp2p's own frame size cuts each full frame into two."""
READ_BYTES: Final = 64 << 10
UNSENT_BYTES_MAX: Final = 128 << 10
"""Taken by the system and not on its way yet: else it buffers megabytes before a vote's turn."""
TURN_READS_MAX: Final = 64
"""Reads served from memory before other tasks get their turn."""
FRAME_TIMEOUT_S: Final = 4.0
WINDOW_TIMEOUT_S: Final = 5.0
UPGRADE_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 3.0

_log = logging.getLogger("fairlane.p2p")


class _Refused(Exception):
    """The peer is not of the committee, or is kept out for now."""


class _Buffered:
    """Reads a socket in large pieces and hands out exactly as many bytes as asked.

    Noise reads two bytes, then a body: unbuffered that is two system calls a message; and
    libp2p gives up a body that arrives in more than a hundred pieces.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._socket: trio.SocketStream = inner.stream.stream
        with suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX)
        self._buffer = bytearray()
        self._served = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def read(self, n: int | None = None) -> bytes:
        """Return `n` bytes, fewer only at the end of the stream; without `n` what there is."""
        wanted = 1 if n is None else n
        with _closed_mapped():
            if len(self._buffer) >= wanted:
                self._served += 1
                if self._served % TURN_READS_MAX == 0:
                    await trio.lowlevel.checkpoint()
            while len(self._buffer) < wanted:
                piece = await self._socket.receive_some(READ_BYTES)
                if not piece:
                    wanted = len(self._buffer)
                self._buffer += piece
        taken = bytes(self._buffer[: n if n is not None else len(self._buffer)])
        del self._buffer[: len(taken)]
        return taken

    async def write(self, data: bytes) -> None:
        """Write all of `data`; also a socket that we closed is an error, which libp2p hides."""
        with _closed_mapped():
            await self._socket.send_all(data)

    async def close(self) -> None:
        await self._inner.close()


class _GatedNoise(NoiseTransport):  # type: ignore[misc]
    """Admits by peer id, right after the handshake and before muxer, identify or any handler."""

    def __init__(self, key_pair: Any, admits: Callable[[ID], bool]) -> None:
        super().__init__(key_pair, noise_privkey=new_x25519().private_key)
        self._admits = admits

    async def secure_inbound(self, conn: Any) -> Any:
        secured = await super().secure_inbound(_Buffered(conn))
        if not self._admits(secured.get_remote_peer()):
            await secured.close()
            raise _Refused(str(secured.get_remote_peer()))
        return secured

    async def secure_outbound(self, conn: Any, peer_id: ID) -> Any:
        if not self._admits(peer_id):
            raise _Refused(str(peer_id))
        return await super().secure_outbound(_Buffered(conn), peer_id)


class _BoundedStreams(dict[int, Any]):
    """A connection's streams. A SYN is 12 bytes and costs us kilobytes, without any limit."""

    def __setitem__(self, key: int, value: Any) -> None:
        if len(self) >= STREAMS_PER_CONNECTION_MAX and key not in self:
            raise OSError("too many streams")  # An OSError makes yamux close the connection.
        super().__setitem__(key, value)


class _QuickLock:
    """A lock that costs no turn of the scheduler while nobody else holds it, unlike trio's."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def __aenter__(self) -> None:
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


class _QuickStream(_yamux.YamuxStream):  # type: ignore[misc]
    """A stream with one writer and one reader, which needs no locks, and sparing of updates.

    libp2p's answers every other small read with a window update, a write of its own. This one
    gives credit back when half of the window is used, and widens the window at the first time.
    """

    _opened: trio.Event | None = None
    _window = _yamux.DEFAULT_WINDOW_SIZE
    _owed = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.window_lock = _QuickLock()

    @property
    def send_window(self) -> int:
        """How many bytes the other side takes."""
        return self._send_window

    @send_window.setter
    def send_window(self, size: int) -> None:
        self._send_window = size
        if size > 0 and self._opened is not None:
            self._opened.set()

    async def write(self, data: bytes) -> None:
        sent = 0
        while sent < len(data):
            if self.send_closed or self.closed:
                raise MuxedStreamError("closed for sending")
            if self.send_window <= 0:
                await self._wait_for_window()
                continue
            chunk = data[sent : sent + min(self.send_window, NOISE_BYTES_MAX - 12)]
            self.send_window -= len(chunk)
            sent += len(chunk)
            await self.conn._write_frame(
                struct.pack("!BBHII", 0, 0, 0, self.stream_id, len(chunk)) + chunk
            )

    async def _wait_for_window(self) -> None:
        self._opened = trio.Event()
        with trio.move_on_after(WINDOW_TIMEOUT_S):
            await self._opened.wait()
            return
        raise MuxedStreamError("no window")

    async def _auto_tune_and_send_window_update(self, *, bytes_read: int = 0) -> None:
        self._owed += bytes_read
        if self._owed < self._window // 2:
            return
        credit = self._owed + WINDOW_BYTES_MAX - self._window
        self._window, self._owed = WINDOW_BYTES_MAX, 0
        self.recv_window += credit
        await self.send_window_update(credit)


class _SafeYamux(_yamux.Yamux):  # type: ignore[misc]
    """Yamux that never writes half a frame and never buffers without limit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.streams = _BoundedStreams()
        self.streams_lock = _QuickLock()
        self._write_lock = _QuickLock()

    async def _write_frame(self, data: bytes) -> None:
        """Write a frame whole: a cancelled write would leave Noise out of step for ever."""
        async with self._write_lock:
            with trio.move_on_after(FRAME_TIMEOUT_S) as scope:
                scope.shield = True
                await self.secured_conn.write(data)
                return
        await self.secured_conn.close()
        raise ConnectionClosedError("the peer does not read", transport="tcp")

    async def _read_data_body(self, length: int) -> bytes:
        """Refuse what exceeds every window we gave: libp2p logs it, and buffers it.

        Of all errors TooSlowError is the one that makes the connection close wherever it comes
        from; any other leaves the body unread, and what follows it out of step.
        """
        if sum(map(len, self.stream_buffers.values())) + length > BUFFERED_BYTES_MAX:
            raise trio.TooSlowError
        return bytes(await super()._read_data_body(length))


def _reuse_address_only(sock: Any) -> None:
    """Let a restart bind at once, but not two hosts at the same time (SO_REUSEPORT would)."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


_yamux.YamuxStream = _QuickStream
_muxer.Yamux = _SafeYamux  # The class in `muxer_opt` is ignored for /yamux/1.0.0.
_yamux.MAX_WINDOW_SIZE = WINDOW_BYTES_MAX
_yamux.MAX_MESSAGE_SIZE = NOISE_BYTES_MAX
_tcp._set_reuse_flags = _reuse_address_only
_swarm._HAPPY_EYEBALLS_DELAY = 0  # Each dial would wait 250 ms.

if "LIBP2P_DEBUG" not in os.environ:
    logging.getLogger("libp2p").addHandler(logging.NullHandler())
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    # This module logs to the root logger, which would set up handlers nobody asked for.
    _swarm_connection.logging = logging.getLogger("libp2p.network.connection")


class Host:
    """One replica's libp2p host: opens streams to, and takes them from, the committee only."""

    def __init__(
        self,
        seed: bytes,
        peers: Sequence[tuple[bytes, str, int]],
        listen: tuple[str, int],
        admits: Callable[[int], bool],
        on_stream: Callable[[int, Stream], Awaitable[None]],
    ) -> None:
        """`peers` are network public key, host and port in replica order, ourselves included.

        `admits` is asked for each connection of a member; `on_stream` serves an inbound stream.
        """
        self._key_pair = new_ed25519(seed)
        self._ids = [ID.from_pubkey(Ed25519PublicKey.from_bytes(key)) for key, _, _ in peers]
        self._index = {id_: i for i, id_ in enumerate(self._ids)}
        self._addresses = [(host, port) for _, host, port in peers]
        self._listen = listen
        self._admits = admits
        self._on_stream = on_stream
        self._host = self._hardened()
        self._network = self._host.get_network()

    def _hardened(self) -> Any:
        n = len(self._ids)
        total = CONNECTIONS_PER_PEER_MAX * n + 16
        gate = _GatedNoise(self._key_pair, self._admits_id)
        host = new_host(
            key_pair=self._key_pair,
            sec_opt={NOISE: gate},  # The default also takes PLAINTEXT: anybody could be anybody.
            muxer_opt={YAMUX: _SafeYamux},
            negotiate_timeout=int(UPGRADE_TIMEOUT_S),
            disable_identify_address_discovery=True,
            # Inbound slots are never given back, so they must not be what limits us.
            connection_config=ConnectionConfig(
                max_connections=1_000_000,
                min_connections=0,
                low_watermark=0,
                high_watermark=1_000_000,
                max_connections_per_peer=CONNECTIONS_PER_PEER_MAX - 1,
                inbound_upgrade_timeout=UPGRADE_TIMEOUT_S,
                outbound_upgrade_timeout=UPGRADE_TIMEOUT_S,
                dial_timeout=UPGRADE_TIMEOUT_S,
                inbound_stream_protocol_negotiation_timeout=UPGRADE_TIMEOUT_S,
                outbound_stream_protocol_negotiation_timeout=UPGRADE_TIMEOUT_S,
            ),
            resource_manager=ResourceManager(
                limits=ResourceLimits(
                    max_connections=total + PENDING_MAX,
                    max_streams=total * STREAMS_PER_CONNECTION_MAX,
                ),
                connection_limits=ConnectionLimits(
                    max_pending_inbound=PENDING_MAX,
                    max_established_per_peer=CONNECTIONS_PER_PEER_MAX,
                    max_established_total=total,
                ),
                enable_rate_limiting=False,
                enable_circuit_breaker=False,
                enable_graceful_degradation=False,
            ),
        )
        # The link redials; a dial that tries again by itself would only be late.
        host.get_network().retry_config.max_retries = 0
        # It would dial peers by itself, past our turns and penalties.
        host.get_network().auto_connector.maybe_connect = trio.lowlevel.checkpoint
        # Identify runs as a trio system task: an exception in it would end the whole program.
        host._schedule_identify = lambda *_args, **_kwargs: None
        inner = host._swarm_stream_handler

        async def guarded(stream: Any) -> None:
            """Keep a handler's exception, or a negotiation's, from stopping the host."""
            try:
                await inner(stream)
            except Exception:  # noqa: BLE001  Whatever it is, a peer can cause it.
                _log.debug("stream handler failed", exc_info=True)
                with suppress(Exception):
                    await stream.reset()

        host.get_network().set_stream_handler(guarded)
        host.set_stream_handler(PROTOCOL, self._inbound)
        return host

    def _admits_id(self, id_: ID) -> bool:
        peer = self._index.get(id_)
        return peer is not None and self._admits(peer)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, and serve until cancelled. Errors: PortInUse, HostCrashed, HostError."""
        try:
            found = await trio.socket.getaddrinfo(*self._listen, type=socket.SOCK_STREAM)
        except OSError as error:
            raise HostError(f"cannot listen on {self._listen[0]}: {error.strerror}") from None
        host, port = found[0][4][:2]
        check_port((host, port))
        address = _multiaddr(host, port)
        with _crash_mapped():
            async with self._running(address):
                if self._network.listeners:
                    task_status.started()
                    await trio.sleep_forever()
        raise HostError(f"cannot listen on {address}")

    @asynccontextmanager
    async def _running(self, address: Multiaddr) -> AsyncIterator[None]:
        async with self._host.run([address]):
            try:
                yield
            finally:
                # Leaving `run` alone leaves sockets open; a stuck peer would hold up the rest.
                with trio.CancelScope(shield=True):
                    for peer in range(len(self._ids)):
                        await self.abort(peer)
                    with trio.move_on_after(CLOSE_TIMEOUT_S):
                        await self._host.close()

    async def _inbound(self, stream: Any) -> None:
        peer = self._index[stream.muxed_conn.peer_id]  # Authenticated by Noise.
        mapped = _MappedStream(stream)
        try:
            await self._on_stream(peer, mapped)
        finally:
            with trio.move_on_after(1) as scope:
                scope.shield = True
                await mapped.close()  # libp2p does not.

    async def open(self, peer: int) -> Stream:
        """Return a new stream to `peer`, dialling if there is no connection.

        Errors: LinkBroken.
        """
        id_ = self._ids[peer]
        with _broken_mapped():
            for connection in self._network.get_connections(id_):
                if connection.is_closed:  # It stays listed for a while, and blocks the dial.
                    self._network.remove_conn(connection)
            if not self.connected(peer):
                host, port = self._addresses[peer]
                # Resolved by the system, not by libp2p: /etc/hosts counts, and names may move.
                found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                addresses = [_multiaddr(at[0], at[1]) for *_, at in found]
                self._network.unblock_peer(id_)  # A failed dial blocks the peer for 60 s.
                self._network.peerstore.clear_addrs(id_)
                await self._host.connect(PeerInfo(id_, addresses))
            return _MappedStream(await self._host.new_stream(id_, [PROTOCOL]))

    def connected(self, peer: int) -> bool:
        """Say whether there is a connection to `peer`, whoever dialled it."""
        return any(not c.is_closed for c in self._network.get_connections(self._ids[peer]))

    async def abort(self, peer: int) -> None:
        """Cut all connections to `peer`; libp2p's own way says goodbye and hangs on a stuck one."""
        for connection in self._network.get_connections(self._ids[peer]):
            with trio.move_on_after(1), suppress(Exception):
                await connection.muxed_conn.secured_conn.close()


class _MappedStream:
    """A libp2p stream whose many exceptions are one."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._muxed = inner.muxed_stream

    async def read(self, bytes_max: int) -> bytes:
        with _broken_mapped():
            data = await self._muxed.read(bytes_max)
            if not data:
                raise LinkBroken("end of stream")
            return bytes(data)

    async def write(self, data: bytes) -> None:
        with _broken_mapped():
            await self._muxed.write(data)

    async def close(self) -> None:
        with suppress(Exception):
            await self._inner.reset()


def peer_id(public: bytes) -> str:
    """Return the libp2p peer id of an Ed25519 public key, as other tools show it."""
    return str(ID.from_pubkey(Ed25519PublicKey.from_bytes(public)))


def _multiaddr(host: str, port: int) -> Multiaddr:
    return Multiaddr(f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}")


@contextmanager
def _closed_mapped() -> Iterator[None]:
    """Turn trio's errors of a socket into the one that libp2p knows."""
    try:
        yield
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise ConnectionClosedError(str(error), transport="tcp") from None


@contextmanager
def _broken_mapped() -> Iterator[None]:
    """Turn whatever libp2p raises on a stream or a dial into LinkBroken."""
    try:
        yield
    except LinkBroken:
        raise
    except Exception as error:
        raise LinkBroken(f"{type(error).__name__}: {error}") from error


@contextmanager
def _crash_mapped() -> Iterator[None]:
    """Turn whatever makes libp2p's service stop into HostCrashed."""
    try:
        yield
    except Exception as error:
        raise HostCrashed(f"{type(error).__name__}: {error}") from error
