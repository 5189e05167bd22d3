"""What waits to be sent to one peer: a bounded queue per lane, cut into bounded writes. Pure.

Each write takes the lanes from the first to the last, and of each lane at least one piece. So a
frame waits for the write under way and for those of its own lane, and no lane starves. Large
frames go in pieces, between which those of other lanes may come.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from p2p.framing import HEADER_BYTES, header
from p2p.lanes import LANE_RULES, Lane, lane_of

PIECE_BYTES_MAX: Final = 16_000
"""Of a frame in one piece."""
WRITE_BYTES_TARGET: Final = 3 * (PIECE_BYTES_MAX + HEADER_BYTES) + 1
"""A write that has this much takes no further frame, except for lanes that have none in it. So
four pieces of one lane fill one Noise message; a byte more would make it two."""
WRITE_BYTES_MAX: Final = WRITE_BYTES_TARGET + len(Lane) * (PIECE_BYTES_MAX + HEADER_BYTES)


class _Queue:
    """The frames of one lane, and how much of them is in the write under way."""

    __slots__ = ("_lane", "_rule", "_taken", "_taken_offset", "dropped", "frames", "size")

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._rule = LANE_RULES[lane]
        self.frames: deque[bytes] = deque()
        self.size = 0
        self.dropped = 0
        self._taken = 0  # Frames that end in the write under way.
        self._taken_offset = 0  # How much of the next one is in that write or has left.

    def put(self, frame: bytes) -> bool:
        """Queue a frame; False when it was dropped."""
        while self._is_full(frame):
            self.dropped += 1
            oldest = self._taken + (self._taken_offset > 0)
            if not self._rule.drops_oldest or oldest >= len(self.frames):
                return False
            self.size -= len(self.frames[oldest])
            del self.frames[oldest]
        self.frames.append(frame)
        self.size += len(frame)
        return True

    def _is_full(self, frame: bytes) -> bool:
        rule = self._rule
        return len(self.frames) >= rule.frames_max or self.size + len(frame) > rule.bytes_max

    def take(self, parts: list[bytes | memoryview], size: int) -> int:
        """Add pieces to a write of `size` bytes; return its size then."""
        first = True
        while self._taken < len(self.frames) and (first or size < WRITE_BYTES_TARGET):
            first = False
            frame, start = self.frames[self._taken], self._taken_offset
            end = min(len(frame), start + PIECE_BYTES_MAX)
            parts.append(header(self._lane, end - start, end < len(frame)))
            parts.append(memoryview(frame)[start:end] if end - start < len(frame) else frame)
            size += HEADER_BYTES + end - start
            if end < len(frame):
                self._taken_offset = end
            else:
                self._taken += 1
                self._taken_offset = 0
        return size

    def done(self) -> int:
        """Forget what the write took; return the number of frames that have left whole."""
        left = self._taken
        for _ in range(left):
            self.size -= len(self.frames.popleft())
        self._taken = 0
        return left

    def undo(self) -> None:
        """The stream is gone, and what has left of the first frame is lost with it."""
        self._taken = self._taken_offset = 0

    def clear(self) -> int:
        """Drop everything; return how many frames that were."""
        dropped = len(self.frames)
        self.dropped += dropped
        self.frames.clear()
        self.size = 0
        self.undo()
        return dropped


class Outbox:
    """All lanes towards one peer."""

    def __init__(self) -> None:
        self._queues = {lane: _Queue(lane) for lane in Lane}

    def __len__(self) -> int:
        return sum(len(queue.frames) for queue in self._queues.values())

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return sum(queue.size for queue in self._queues.values())

    def waiting(self, lane: Lane) -> tuple[int, int]:
        """Return the frames and bytes that wait in a lane."""
        return len(self._queues[lane].frames), self._queues[lane].size

    def dropped(self, lane: Lane) -> int:
        """Return how many frames of a lane were dropped so far."""
        return self._queues[lane].dropped

    def put(self, frame: bytes, lane: Lane | None = None) -> bool:
        """Queue a frame in its lane; False when that one was dropped."""
        return self._queues[lane_of(frame) if lane is None else lane].put(frame)

    def take(self) -> bytes:
        """Return the next write, at most WRITE_BYTES_MAX; empty when nothing waits.

        `done` or `undo` must come before the next one.
        """
        parts: list[bytes | memoryview] = []
        size = 0
        for queue in self._queues.values():
            size = queue.take(parts, size)
        return b"".join(parts)

    def done(self) -> int:
        """The write has left; return how many frames are whole with it."""
        return sum(queue.done() for queue in self._queues.values())

    def undo(self) -> None:
        """The stream broke: every frame that is not known to have left goes again, whole."""
        for queue in self._queues.values():
            queue.undo()

    def clear(self) -> int:
        """Drop everything that waits; return how many frames that were."""
        return sum(queue.clear() for queue in self._queues.values())
