"""Real transports on loopback, and hostile members of their committee."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from nacl.signing import SigningKey

from p2p.host import Host
from p2p.link import Stream
from p2p.transport import Peer, Transport

SEEDS = [bytes((i + 1,)) * 32 for i in range(6)]
LOOPBACK = "127.0.0.1"


def public(seed: bytes) -> bytes:
    """Return the network public key of a seed."""
    return bytes(SigningKey(seed).verify_key)


def free_ports(n: int) -> list[int]:
    """Return ports that nobody listens on right now."""
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind((LOOPBACK, 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def committee(n: int) -> list[Peer]:
    """Return n replicas on free ports."""
    return [(public(SEEDS[i]), LOOPBACK, port) for i, port in enumerate(free_ports(n))]


class Replica:
    """One transport with what it received and when its links came up."""

    def __init__(self, peers: list[Peer], index: int) -> None:
        self.peers, self.index = peers, index
        self.received: list[tuple[int, bytes]] = []
        self.blamed: list[tuple[int, str]] = []
        self.up: set[int] = set()
        self._changed = trio.Event()
        _, host, port = peers[index]
        self.transport = Transport(
            SEEDS[index],
            index,
            peers,
            (host, port),
            self._on_frame,
            on_up=self._on_up,
            on_down=self._on_down,
            on_malformed=lambda peer, why: self._note(self.blamed, (peer, why)),
        )
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()

    async def start(self, nursery: trio.Nursery) -> None:
        """Run in `nursery` until `stop`."""
        await nursery.start(self._run)

    async def _run(self, task_status: Any) -> None:
        with self._scope:
            await self.transport.run(task_status=task_status)
        self._stopped.set()

    async def stop(self) -> None:
        """Stop, and return when all is closed."""
        self._scope.cancel()
        await self._stopped.wait()

    async def until(self, condition: Callable[[], bool], seconds: float = 10) -> float:
        """Wait for something to become true here; return how long it took."""
        begun = trio.current_time()
        with trio.fail_after(seconds):
            while not condition():
                self._changed = trio.Event()
                with trio.move_on_after(0.05):
                    await self._changed.wait()
        return trio.current_time() - begun

    def _note(self, where: list[Any], what: Any) -> None:
        where.append(what)
        self._changed.set()

    def _on_frame(self, peer: int, frame: bytes) -> bool:
        self._note(self.received, (peer, frame))
        return True

    def _on_up(self, peer: int) -> None:
        self.up.add(peer)
        self._changed.set()

    def _on_down(self, peer: int) -> None:
        self.up.discard(peer)
        self._changed.set()


@asynccontextmanager
async def mesh(n: int, running: int | None = None) -> AsyncIterator[list[Replica]]:
    """Run the first `running` of n replicas, all links between them up."""
    peers = committee(n)
    replicas = [Replica(peers, i) for i in range(n)]
    started = replicas[: n if running is None else running]
    async with trio.open_nursery() as nursery:
        for replica in started:
            await replica.start(nursery)
        for replica in started:
            others = {other.index for other in started} - {replica.index}
            await replica.until(lambda r=replica, o=others: r.up >= o)  # type: ignore[misc]
        yield replicas
        for replica in started:
            replica._scope.cancel()


async def _ignore(peer: int, stream: Stream) -> None:
    await trio.sleep_forever()


@asynccontextmanager
async def hostile(
    peers: list[Peer],
    index: int,
    seed: bytes | None = None,
    on_stream: Callable[[int, Stream], Any] = _ignore,
) -> AsyncIterator[Host]:
    """Run a bare host with the key of member `index` (or `seed`), to be used against the rules."""
    _, host, port = peers[index]
    listen = (host, port if seed is None else free_ports(1)[0])
    one = Host(seed or SEEDS[index], peers, listen, lambda _: True, on_stream)
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        yield one
        nursery.cancel_scope.cancel()
