"""Readers of foreign bytes raise nothing, hold little and end soon, whatever the bytes are.

The short form of `make fuzz`: a seeded mutator, some seconds of CPU in all.
"""

from __future__ import annotations

import pytest

from consensus.admission import Admission, Refused
from consensus.codec import encode
from consensus.messages import EpochEnded, GetBatches, GetBlock, GetBodies, GetHandover
from tests.fuzz.run import Finding, audit, fuzz, one
from tests.fuzz.targets import Target, largest, message_kinds, messages, sample, targets

FRAMES = 40_000
SLOW_FRAMES = 5_000
TARGETS = {target.name: target for target in targets()}


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_frames_raise_nothing_and_cost_little(name: str) -> None:
    frames = SLOW_FRAMES if name == "stream" else FRAMES
    report = fuzz(TARGETS[name], 1, frames, audit_every=200)
    print(report)
    assert report.taken > frames // 1_000, "some must get through, or nothing deep is tried"


def test_every_kind_of_message_is_a_seed() -> None:
    seeds = dict.fromkeys(type(message).__name__ for message in messages())
    assert sorted(seeds) == sorted(message_kinds())


def test_good_messages_are_admitted() -> None:
    """From some peer: seeds that the door refuses would leave most of it untried."""
    for message in messages():
        data = encode(message)
        assert any(one(TARGETS["admission"], bytes((p + 4,)) + data) for p in range(4)), message


@pytest.mark.parametrize("name", ["message", "admission"])
def test_the_largest_frames_hold_and_take_no_more_than_their_bytes_allow(name: str) -> None:
    for frame in largest(name):
        allocated, took = audit(TARGETS[name], frame)
        size = len(frame)
        print(
            f"{name}: {frame[:12]!r} {size} bytes: {allocated / size:.1f} B/B, {took / 1e6:.1f} ms"
        )


def test_a_reader_that_raises_or_hoards_is_found() -> None:
    """The harness breaks where it should."""

    def raises(data: bytes) -> bool:
        return data.decode() != ""

    def hoards(data: bytes) -> bool:
        return len(b"x" * (data[0] if data else 1) * 1_000_000) > 0

    with pytest.raises(Finding, match="UnicodeDecodeError"):
        fuzz(Target("raises", (b"seed",), raises, 100), 0, 10_000)
    with pytest.raises(Finding, match="holds"):
        fuzz(Target("hoards", (b"\xff",), hoards, 100), 0, 1_000, audit_every=1)


def test_a_question_about_an_epoch_that_no_key_can_hold_is_refused() -> None:
    """Its number goes into a store key of four bytes: beyond them, answering raised."""
    s = sample()
    for question in (GetHandover(1 << 32), GetBatches(1 << 40, 0, s.starts[0], None)):
        with pytest.raises(Refused):
            s.admission().admit(3, encode(question))


@pytest.mark.parametrize("kind", ["vote", "commit vote", "certificate", "questions", "handover"])
def test_what_stands_for_a_digest_has_its_size(kind: str) -> None:
    """A vote may be kept for a thousand rounds: with a block of 4 MiB it would fill the memory."""
    s = sample()
    door: Admission = s.admission()
    long = bytes(5_000)
    match kind:
        case "vote":
            frames = [encode(s.vote(3, 2, long, (0,) * 4))]
        case "commit vote":
            frames = [encode(s.commit_vote(3, 2, long))]
        case "certificate":
            frames = [encode(s.proposal(s.block(3, s.qc(2, long))))]
        case "handover":
            frames = [
                encode(s.handover_vote(3, 64, long)),
                encode(EpochEnded(s.handover(64, long))),
            ]
        case _:
            frames = [encode(GetBlock(long, 0)), encode(GetBodies((long,)))]
    for frame in frames:
        with pytest.raises(Refused):
            door.admit(3, frame)
        print(kind, len(frame))
