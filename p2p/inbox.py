"""What has arrived and waits for the node: bounded lanes per peer, served in turn.

A full lane drops frames of its peer alone: a peer that floods cannot take another's place, and
the read loops never pause (a paused reader makes an honest sender cut its stream). A turn takes
of every lane a bounded part, so neither a peer nor a lane can keep others from being served, and
no vote waits while more than a bounded number of bytes is verified.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

import trio

from p2p.lanes import LANE_RULES, Lane, LaneRule, LaneStats, lane_of

TURN_FRAMES_MAX: Final = sum(rule.turn_frames_max for rule in LANE_RULES.values())


class _LaneQueues:
    """One lane of all peers."""

    def __init__(self, n: int, rule: LaneRule) -> None:
        self._rule = rule
        self._queues: list[deque[bytes]] = [deque() for _ in range(n)]
        self._bytes = [0] * n
        self._turns: deque[int] = deque()  # Peers with frames, the next to be served first.
        self.dropped = [0] * n

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def bytes_of(self, peer: int) -> int:
        return self._bytes[peer]

    def put(self, peer: int, frame: bytes) -> bool:
        """Queue a frame of `peer`; False when it was dropped."""
        queue, rule = self._queues[peer], self._rule
        while len(queue) >= rule.frames_max or self._bytes[peer] + len(frame) > rule.bytes_max:
            self.dropped[peer] += 1
            if not rule.drops_oldest or not queue:
                return False
            self._bytes[peer] -= len(queue.popleft())
            if not queue:
                self._turns.remove(peer)
        if not queue:
            self._turns.append(peer)
        queue.append(frame)
        self._bytes[peer] += len(frame)
        return True

    def take(self, taken: list[tuple[int, bytes]], frames_max: int) -> None:
        """Move what a turn may take to `taken`, one peer after the other."""
        frames = min(frames_max, self._rule.turn_frames_max)
        size = 0
        while self._turns and frames and size < self._rule.turn_bytes_max:
            peer = self._turns.popleft()
            frame = self._queues[peer].popleft()
            self._bytes[peer] -= len(frame)
            taken.append((peer, frame))
            size += len(frame)
            frames -= 1
            if self._queues[peer]:
                self._turns.append(peer)


class Inbox:
    """Frames by lane and peer; of each lane, one from each peer in turn."""

    def __init__(self, n: int, rules: Mapping[Lane, LaneRule] = LANE_RULES) -> None:
        self._lanes = {lane: _LaneQueues(n, rules[lane]) for lane in Lane}
        self._n = n
        self._filled = trio.Event()

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    @property
    def dropped(self) -> list[int]:
        """Frames dropped so far, by peer."""
        return [
            sum(queues.dropped[peer] for queues in self._lanes.values()) for peer in range(self._n)
        ]

    def stats(self) -> dict[Lane, LaneStats]:
        """Return what waits in each lane, and what it has dropped."""
        return {
            lane: LaneStats(
                len(queues), sum(map(queues.bytes_of, range(self._n))), sum(queues.dropped)
            )
            for lane, queues in self._lanes.items()
        }

    def put(self, peer: int, frame: bytes) -> bool:
        """Queue a frame of `peer`; False when its lane is full and the frame is dropped."""
        self._filled.set()
        return self._lanes[lane_of(frame)].put(peer, frame)

    def holds(self, lanes: Iterable[Lane]) -> bool:
        """Say whether a frame waits in any of these lanes."""
        return any(len(self._lanes[lane]) for lane in lanes)

    def take(
        self, frames_max: int = TURN_FRAMES_MAX, lanes: Iterable[Lane] = Lane
    ) -> list[tuple[int, bytes]]:
        """Return what a turn of the node takes, with the peers; the first lanes come first."""
        taken: list[tuple[int, bytes]] = []
        for lane in lanes:
            self._lanes[lane].take(taken, frames_max - len(taken))
        return taken

    async def wait(self) -> None:
        """Return when there is a frame to take."""
        while not len(self):
            self._filled = trio.Event()
            await self._filled.wait()
