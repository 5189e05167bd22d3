"""What has arrived and waits for the node: a bounded queue per peer, served in turn.

A full queue drops the newest frame of that peer alone: a peer that floods cannot take another's
place, and the read loops never pause (a paused reader makes an honest sender cut its stream).
"""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

FRAMES_MAX: Final = 4_096
BYTES_MAX: Final = 16 << 20
"""Per peer; one frame always fits, since it is larger than the largest frame."""


class Inbox:
    """Frames by peer, taken one from each peer in turn."""

    def __init__(self, n: int, frames_max: int = FRAMES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._queues: list[deque[bytes]] = [deque() for _ in range(n)]
        self._bytes = [0] * n
        self._frames_max = frames_max
        self._bytes_max = bytes_max
        self._turns: deque[int] = deque()  # Peers with frames, the next to be served first.
        self._filled = trio.Event()
        self.dropped = [0] * n

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def put(self, peer: int, frame: bytes) -> bool:
        """Queue a frame of `peer`; False when its queue is full and the frame is dropped."""
        queue = self._queues[peer]
        if len(queue) >= self._frames_max or self._bytes[peer] + len(frame) > self._bytes_max:
            self.dropped[peer] += 1
            return False
        if not queue:
            self._turns.append(peer)
        queue.append(frame)
        self._bytes[peer] += len(frame)
        self._filled.set()
        return True

    def take(self, frames_max: int) -> list[tuple[int, bytes]]:
        """Return up to `frames_max` frames with their peers, one peer after the other."""
        taken: list[tuple[int, bytes]] = []
        while self._turns and len(taken) < frames_max:
            peer = self._turns.popleft()
            frame = self._queues[peer].popleft()
            self._bytes[peer] -= len(frame)
            taken.append((peer, frame))
            if self._queues[peer]:
                self._turns.append(peer)
        return taken

    async def wait(self) -> None:
        """Return when there is a frame to take."""
        while not self._turns:
            self._filled = trio.Event()
            await self._filled.wait()
