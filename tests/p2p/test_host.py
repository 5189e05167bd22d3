"""libp2p's traps on real sockets: each mend holds, and some are shown to be what holds."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import trio
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from p2p import host as host_module
from p2p.errors import HostError, LinkBroken, PortInUse
from p2p.framing import FRAME_MAX, pack
from p2p.host import (
    BUFFERED_BYTES_MAX,
    STREAMS_PER_CONNECTION_MAX,
    WINDOW_BYTES_MAX,
    Host,
    peer_id,
)
from p2p.port import check_port
from tests.p2p.mesh import LOOPBACK, SEEDS, Replica, committee, free_ports, hostile, mesh, public


async def _works(one: Replica, other: Replica) -> None:
    """Assert that a frame goes from one to the other."""
    marker = b"\0" + os.urandom(8)
    await one.until(lambda: other.index in one.up)
    assert one.transport.send(other.index, marker)
    await other.until(lambda: (one.index, marker) in other.received)


def _received(replica: Replica, expected: set[tuple[int, bytes]]) -> bool:
    return set(replica.received) == expected


async def test_everybody_reaches_everybody() -> None:
    async with mesh(5) as replicas:
        for replica in replicas:
            assert replica.transport.broadcast(b"\1" + bytes((replica.index,))) == 4
        for replica in replicas:
            expected = {(i, b"\1" + bytes((i,))) for i in range(5) if i != replica.index}
            await replica.until(partial(_received, replica, expected))
        await _works(replicas[4], replicas[0])


async def test_the_largest_frame_passes() -> None:
    async with mesh(2) as (one, other):
        largest = b"\0" + os.urandom(FRAME_MAX - 1)
        assert one.transport.send(1, largest)
        await other.until(lambda: (0, largest) in other.received)


async def test_a_stranger_is_refused() -> None:
    async with mesh(3) as replicas:
        async with hostile(replicas[0].peers, 1, seed=SEEDS[5]) as stranger:
            for _ in range(3):
                with pytest.raises(LinkBroken), trio.fail_after(10):
                    await stranger.open(0)
        assert replicas[0].received == []
        await _works(replicas[0], replicas[1])


async def test_a_stranger_is_refused_by_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the gate the same stranger gets a connection: the gate is what refuses it."""
    monkeypatch.setattr(Host, "_admits_id", lambda self, id_: True)
    async with mesh(2) as replicas, hostile(replicas[0].peers, 1, seed=SEEDS[5]) as stranger:
        await stranger._host.connect(_info(replicas[0]))
        assert stranger.connected(0)


def _info(replica: Replica) -> PeerInfo:
    key, host, port = replica.peers[replica.index]
    return PeerInfo(ID.from_string(peer_id(key)), [Multiaddr(f"/ip4/{host}/tcp/{port}")])


def _multistream(text: str) -> bytes:
    line = text.encode() + b"\n"
    return bytes((len(line),)) + line


@pytest.mark.parametrize(
    ("protocol", "answer"),
    [
        ("/plaintext/2.0.0", "na"),
        ("/secio/1.0.0", "na"),
        ("/tls/1.0.0", "na"),
        ("/noise", "/noise"),
    ],
)
async def test_only_noise_is_spoken(protocol: str, answer: str) -> None:
    async with mesh(2, running=1) as (one, _):
        stream = await trio.open_tcp_stream(*one.peers[0][1:])
        hello = _multistream("/multistream/1.0.0")
        await stream.send_all(hello + _multistream(protocol))
        expected = hello + _multistream(answer)
        received = b""
        with trio.fail_after(5):
            while len(received) < len(expected):
                received += await stream.receive_some(100)
        assert received == expected
        await stream.aclose()


async def test_garbage_on_the_socket_harms_nobody() -> None:
    async with mesh(2) as (one, other):
        for data in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(500), b"\xff" * 70_000, b""):
            stream = await trio.open_tcp_stream(*one.peers[0][1:])
            with suppress(trio.BrokenResourceError):
                await stream.send_all(data)
            await stream.aclose()
        await _works(other, one)


async def test_silent_connections_keep_nobody_out() -> None:
    """Two hundred handshakes that never go on, held open, and a member still gets in."""
    async with mesh(2, running=1) as (one, other), trio.open_nursery() as nursery:
        idle = [await trio.open_tcp_stream(*one.peers[0][1:]) for _ in range(200)]
        await other.start(nursery)
        await _works(other, one)
        await other.stop()
        for stream in idle:
            await stream.aclose()


async def _reopen(host: Host) -> None:
    """Assert that peer 0 still takes a stream, once the old connection is forgotten."""
    with trio.fail_after(5):
        while True:
            try:
                await (await host.open(0)).write(b"again")
            except LinkBroken:
                await trio.sleep(0.01)
            else:
                return


async def _negotiate_garbage(attacker: Host) -> None:
    """Open a stream and answer the protocol question with a line that is no text."""
    line = b"\xff\xfe\xff\n"
    stream = await attacker._network.new_stream(attacker._ids[0])
    await stream.write(_multistream("/multistream/1.0.0") + bytes((len(line),)) + line)
    await trio.sleep(0.2)


async def test_a_negotiation_that_is_not_utf8_is_survived() -> None:
    async with mesh(3, running=2) as replicas:
        async with hostile(replicas[0].peers, 2) as attacker:
            await attacker.open(0)
            for _ in range(3):
                await _negotiate_garbage(attacker)
        assert replicas[0].transport.crashes == 0
        await _works(replicas[1], replicas[0])


async def test_without_the_guard_it_stops_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own handler lets the error through; then the transport starts a new host."""
    hardened = Host._hardened

    def unguarded(self: Host) -> Any:
        host = hardened(self)
        host.get_network().set_stream_handler(host._swarm_stream_handler)
        return host

    monkeypatch.setattr(Host, "_hardened", unguarded)
    async with mesh(3, running=2) as replicas:
        async with hostile(replicas[0].peers, 2) as attacker:
            await attacker.open(0)
            await _negotiate_garbage(attacker)
            await replicas[0].until(lambda: replicas[0].transport.crashes > 0)
        await _works(replicas[1], replicas[0])


async def test_an_exception_in_a_handler_stops_one_stream() -> None:
    calls = []

    async def broken(peer: int, stream: Any) -> None:
        calls.append(peer)
        raise KeyError("a bug of ours")

    peers = committee(2)
    async with hostile(peers, 0, on_stream=broken), hostile(peers, 1) as other:
        for i in range(3):
            with pytest.raises(LinkBroken), trio.fail_after(5):
                await (await other.open(0)).read(1)
            assert calls == [1] * (i + 1)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(struct.pack(">I", FRAME_MAX + 1), "at most", id="oversize"),
        pytest.param(pack(b"\x63unknown"), "unknown channel 99", id="channel"),
        pytest.param(b"\xff" * 100, "unknown lane 7", id="garbage"),
    ],
)
async def test_malformed_frames_cost_the_connection(data: bytes, why: str) -> None:
    async with mesh(3, running=2) as replicas:
        one = replicas[0]
        async with hostile(one.peers, 2) as attacker:
            stream = await attacker.open(0)
            await stream.write(pack(b"\0fine"))
            await one.until(lambda: (2, b"\0fine") in one.received)
            await stream.write(data)
            await one.until(lambda: bool(one.blamed))
            assert one.blamed[0][0] == 2
            assert why in one.blamed[0][1]
            assert one.transport.stats()[2].malformed == 1
            with pytest.raises(LinkBroken), trio.fail_after(5):
                await stream.read(1)
            with pytest.raises(LinkBroken), trio.fail_after(5):
                await (await attacker.open(0)).read(1)  # Kept out for a while.
            await trio.sleep(1.1)
            again = await attacker.open(0)
            await again.write(pack(b"\0back"))
            await one.until(lambda: (2, b"\0back") in one.received)
        await _works(replicas[1], one)


async def _flood_window(stop_at: int) -> int:
    """Send past the window to a reader that never reads; return the most that was held."""
    peers = committee(2)
    held = 0
    async with hostile(peers, 0) as victim, hostile(peers, 1) as attacker:
        stream = await attacker.open(0)
        muxed = stream._inner.muxed_stream  # type: ignore[attr-defined]
        (connection,) = victim._network.get_connections(victim._ids[1])
        body = bytes(60_000)
        header = struct.pack("!BBHII", 0, 0, 0, muxed.stream_id, len(body))
        with trio.fail_after(20), suppress(LinkBroken):
            while not muxed.conn.event_shutting_down.is_set() and held < stop_at:
                with host_module._broken_mapped():
                    await muxed.conn._write_frame(header + body)
                buffers = connection.muxed_conn.stream_buffers.values()
                held = max(held, sum(map(len, buffers)))
        if held < stop_at:
            await _reopen(attacker)
    return held


async def test_a_peer_that_ignores_the_window_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < await _flood_window(2 * BUFFERED_BYTES_MAX) <= BUFFERED_BYTES_MAX
    monkeypatch.setattr(host_module, "BUFFERED_BYTES_MAX", 1 << 40)
    assert await _flood_window(2 * BUFFERED_BYTES_MAX) >= 2 * BUFFERED_BYTES_MAX


async def _flood_streams(stop_at: int) -> int:
    """Open streams without end; return the most that the other side kept."""
    peers = committee(2)
    most = 0
    async with hostile(peers, 0) as victim, hostile(peers, 1) as attacker:
        stream = await attacker.open(0)
        conn = stream._inner.muxed_conn  # type: ignore[attr-defined]
        (connection,) = victim._network.get_connections(victim._ids[1])
        with trio.fail_after(20), suppress(LinkBroken):
            for i in count(1001, 2):
                if conn.event_shutting_down.is_set() or most >= stop_at:
                    break
                with host_module._broken_mapped():
                    await conn._write_frame(struct.pack("!BBHII", 0, 1, 1, i, 0))
                most = max(most, len(connection.muxed_conn.streams))
        if most < stop_at:
            await _reopen(attacker)
    return most


async def test_a_peer_that_opens_streams_without_end_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 0 < await _flood_streams(100) <= STREAMS_PER_CONNECTION_MAX
    monkeypatch.setattr(host_module, "STREAMS_PER_CONNECTION_MAX", 1 << 40)
    assert await _flood_streams(100) >= 100


async def test_a_slow_reader_gets_everything_and_holds_no_more_than_the_window() -> None:
    sent = os.urandom(3 * WINDOW_BYTES_MAX)
    got = bytearray()
    done = trio.Event()
    held = 0

    async def slow(peer: int, stream: Any) -> None:
        nonlocal held
        while len(got) < len(sent):
            got.extend(await stream.read(100_000))
            buffers = stream._muxed.conn.stream_buffers.values()
            held = max(held, sum(map(len, buffers)))
            await trio.sleep(0.001)
        done.set()

    peers = committee(2)
    async with hostile(peers, 0, on_stream=slow), hostile(peers, 1) as sender:
        stream = await sender.open(0)
        with trio.fail_after(20):
            for start in range(0, len(sent), 1 << 18):
                await stream.write(sent[start : start + (1 << 18)])
            await done.wait()
    assert got == sent
    assert held <= WINDOW_BYTES_MAX


async def test_small_frames_cost_no_window_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """libp2p's own stream answers every other one of them."""
    written = 0
    write_frame = host_module._SafeYamux._write_frame

    async def counted(self: Any, data: bytes) -> None:
        nonlocal written
        written += 1
        await write_frame(self, data)

    async with mesh(2) as (one, other):
        monkeypatch.setattr(host_module._SafeYamux, "_write_frame", counted)
        for i in range(100):
            assert one.transport.send(1, bytes((0, i)))
            await other.until(lambda i=i: len(other.received) == i + 1)  # type: ignore[misc]
        assert 100 <= written <= 110  # And a heartbeat or two.


async def test_both_directions_at_once_stay_whole() -> None:
    async with mesh(2) as (one, other):
        frames = [b"\0" + bytes((i,)) + os.urandom(200_000) for i in range(30)]
        for frame in frames:
            assert one.transport.send(1, frame)
            assert other.transport.send(0, frame)
        for replica, peer in ((one, 1), (other, 0)):
            await replica.until(lambda r=replica: len(r.received) == 30)  # type: ignore[misc]
            assert replica.received == [(peer, frame) for frame in frames]


async def test_no_identify_is_asked_for() -> None:
    """It would run as a system task, where a hostile answer's exception ends the program."""
    peers = committee(2)
    asked = []
    async with hostile(peers, 0) as victim, hostile(peers, 1) as attacker:

        async def identify(stream: Any) -> None:
            asked.append(stream)
            await stream.write(b"\xff" * 100)

        attacker._host.set_stream_handler(TProtocol("/ipfs/id/1.0.0"), identify)
        await victim.open(1)
        await attacker.open(0)
        await trio.sleep(0.3)
    assert asked == []


async def test_a_second_host_on_the_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with mesh(2, running=1) as (one, _):
        twin = Replica(one.peers, 0)
        with pytest.raises(
            PortInUse, match=f"port {one.peers[0][2]} on 127.0.0.1 is already in use"
        ):
            await twin.transport.run()
        monkeypatch.setattr(host_module, "check_port", lambda listen: None)
        with pytest.raises(HostError, match="cannot listen"):  # Both at the same moment.
            await Replica(one.peers, 0).transport.run()


async def test_names_are_taken_for_addresses() -> None:
    one, other = ((public(SEEDS[i]), "localhost", port) for i, port in enumerate(free_ports(2)))
    async with hostile([one, other], 0), hostile([one, other], 1) as dialler:
        await dialler.open(0)
    nowhere = [(public(SEEDS[0]), "no-such-host.invalid", 1)]
    with pytest.raises(HostError, match="no-such-host"):
        await Replica(nowhere, 0).transport.run()


def test_an_address_that_is_not_ours_is_told() -> None:
    with pytest.raises(HostError, match="cannot listen on 192"):
        check_port(("192.0.2.1", free_ports(1)[0]))


def _sockets() -> int:
    process = psutil.Process()
    return len(process.net_connections(kind="tcp"))


async def test_stopping_leaves_no_sockets_and_a_restart_no_gap() -> None:
    before = _sockets()
    async with mesh(3) as replicas, trio.open_nursery() as nursery:
        assert _sockets() > before
        await replicas[1].stop()
        again = Replica(replicas[1].peers, 1)
        await again.start(nursery)
        for other in (replicas[0], replicas[2]):
            assert await other.until(partial(other.up.__contains__, 1)) < 5
            await _works(again, other)
            await _works(other, again)
        await again.stop()
    assert _sockets() == before


async def test_three_hundred_reconnects_are_survived() -> None:
    """The library's own limits count connections that are long gone, and then take no more."""
    peers = committee(4)

    async def reconnect(victim: Host, index: int) -> None:
        async with hostile(peers, index) as member:
            for _ in range(100):
                await _reopen(member)
                await member.abort(0)
                while member.connected(0) or victim.connected(index):  # noqa: ASYNC110
                    await trio.sleep(0.005)

    async with hostile(peers, 0) as victim:
        async with trio.open_nursery() as nursery:
            for index in (1, 2, 3):
                nursery.start_soon(reconnect, victim, index)
        with trio.fail_after(5):
            while victim._network.get_connections():  # noqa: ASYNC110
                await trio.sleep(0.05)


async def test_the_library_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    async with mesh(2, running=1) as (one, _):
        async with hostile(one.peers, 1) as attacker:
            await attacker.open(0)
            await _negotiate_garbage(attacker)
            await attacker.abort(0)
        await trio.sleep(0.3)
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")


def test_a_peer_id_is_libp2ps() -> None:
    """From the libp2p peer-ids specification's Ed25519 test vector."""
    key = bytes.fromhex("1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e")
    assert peer_id(key) == "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"


async def _taken_by_the_system() -> int:
    """Return how many bytes can be written to a peer that never reads its socket."""
    listener = socket.create_server((LOOPBACK, 0))
    stream = await trio.open_tcp_stream(*listener.getsockname())
    buffered = host_module._Buffered(SimpleNamespace(stream=SimpleNamespace(stream=stream)))
    taken = 0
    with trio.move_on_after(0.5):
        while True:
            await buffered.write(bytes(16 << 10))
            taken += 16 << 10
    await stream.aclose()
    listener.close()
    return taken


async def test_the_system_buffers_little_ahead_of_a_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await _taken_by_the_system() < 1 << 20
    monkeypatch.setattr(host_module, "UNSENT_BYTES_MAX", (1 << 31) - 1)
    assert await _taken_by_the_system() > 1 << 20, "without the bound it would not"
