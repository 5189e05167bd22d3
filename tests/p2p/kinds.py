"""Frames that look like a message of each lane."""

from __future__ import annotations

from p2p.framing import CONSENSUS, frame
from p2p.lanes import Lane

LANE_KINDS = {
    Lane.URGENT: b"vote",
    Lane.LOGS: b"batch",
    Lane.FETCH: b"bodies",
    Lane.BULK: b"chain",
}


def of_lane(lane: Lane, data: bytes) -> bytes:
    """Return a frame of a lane, with `data` in place of its fields."""
    kind = LANE_KINDS[lane]
    return frame(CONSENSUS, b"\x99" + bytes((0xA0 | len(kind),)) + kind + data)
