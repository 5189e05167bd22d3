"""What goes first: the lanes of a link, how much waits in each, and which message takes which.

Votes, proposals and certificates decide how fast blocks come, so nothing large may stand before
them. Order is kept within a lane, not between lanes; the core bears any order. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from consensus.messages import (
    Batches,
    Blocks,
    Bodies,
    CommitVote,
    EpochEnded,
    GetBatches,
    GetBlock,
    GetBodies,
    GetChain,
    GetHandover,
    GetLast,
    GetState,
    HandoverVote,
    Last,
    LogBatch,
    Proposal,
    RoundInfo,
    RoundTC,
    Timeout,
    Vote,
)
from p2p.framing import FRAME_MAX, LANES, SETTLEMENT


class Lane(IntEnum):
    """The lanes of a link, what is sent first at the top."""

    URGENT = 0
    """Votes, timeouts, proposals, certificates, settlement shares."""
    LOGS = 1
    """Log batches as they are made."""
    FETCH = 2
    """Questions, and the batches, bodies and blocks that somebody lacks to vote."""
    BULK = 3
    """Chains for who is far behind, and whatever has no other lane."""


assert len(Lane) == LANES


QUICK_LANES: Final = (Lane.URGENT, Lane.LOGS)
"""Small messages, whose order among themselves is best kept."""
SLOW_LANES: Final = (Lane.FETCH, Lane.BULK)
"""Answers of up to megabytes: checking one takes longer than a vote may wait."""
assert sorted(QUICK_LANES + SLOW_LANES) == list(Lane)


@dataclass(frozen=True, slots=True)
class LaneRule:
    """How much of one peer waits in one lane, and what is dropped when it is full."""

    frames_max: int
    bytes_max: int
    drops_oldest: bool
    """Whether the newest frame supersedes the oldest; else the newest is dropped."""
    turn_frames_max: int
    """How many frames of all peers together one turn of the node takes at most."""
    turn_bytes_max: int
    """The turn ends at the frame that reaches this."""


LANE_RULES: Final = {
    # A vote of an old round is worth nothing beside one of a new round.
    Lane.URGENT: LaneRule(2_048, 8 << 20, True, 96, 4 << 20),
    # A log is hash-linked: its prefix is of use, and the gap is fetched.
    Lane.LOGS: LaneRule(4_096, 8 << 20, False, 96, 4 << 20),
    Lane.FETCH: LaneRule(2_048, 8 << 20, False, 60, 1 << 20),
    # Whoever lacks it asks again.
    Lane.BULK: LaneRule(1_024, 8 << 20, False, 4, 1 << 18),
}

assert all(rule.bytes_max >= FRAME_MAX for rule in LANE_RULES.values())


@dataclass(frozen=True, slots=True)
class LaneStats:
    """What waits in a lane now, and what it has dropped since the start. Units: frames, bytes."""

    queued_frames: int = 0
    queued_bytes: int = 0
    dropped: int = 0


_LANE_OF_KIND: Final = {
    str(kind.__struct_config__.tag).encode(): lane
    for lane, kinds in (
        (Lane.URGENT, (Proposal, Vote, CommitVote, Timeout, RoundTC, RoundInfo, HandoverVote)),
        (Lane.LOGS, (LogBatch,)),
        (Lane.FETCH, (GetBatches, Batches, GetBodies, Bodies, GetBlock, Blocks)),
        (Lane.FETCH, (GetChain, GetState, GetHandover, EpochEnded, GetLast, Last)),
    )
    for kind in kinds
}


def lane_of(frame: bytes) -> Lane:
    """Return the lane of a frame by the kind of its message; unknown ones are bulk.

    A message is a MessagePack array whose first member is its kind. Whoever lies about the kind
    sends what cannot be decoded, and is cut off for that.
    """
    if frame[0] == SETTLEMENT:
        return Lane.URGENT
    head = frame[1:40]
    at = 3 if head[:1] == b"\xdc" else 1
    size = head[at] & 0x1F if len(head) > at and head[at] & 0xE0 == 0xA0 else 0
    return _LANE_OF_KIND.get(head[at + 1 : at + 1 + size], Lane.BULK)
