"""The edge refuses every message in which any one field was changed, and hostile sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from msgspec import Struct
from msgspec.structs import fields, replace

from consensus.admission import ROUND_MAX, Admission, Refused
from consensus.batches import NO_CLAIM
from consensus.codec import encode
from consensus.messages import (
    FETCH_BATCHES_MAX,
    FETCH_BLOCKS_MAX,
    FETCH_IDS_MAX,
    QC,
    STATE_NAMES_MAX,
    Batches,
    Blocks,
    Bodies,
    Chain,
    CommitProof,
    EpochEnded,
    GetBatches,
    GetBlock,
    GetBodies,
    GetChain,
    GetHandover,
    GetLast,
    GetState,
    Head,
    Last,
    Message,
    Observation,
    Pruned,
    RoundInfo,
    RoundTC,
    StateObjects,
    block_digest,
)
from consensus.snapshot import OBJECT_BYTES_MAX
from consensus.words import gave_up_of
from tests.consensus.samples import Sample

SAMPLE = Sample()
ID, BODY = SAMPLE.command(b"admission")
SEEN = (1, 2, 3, 4)
B1 = SAMPLE.block(1)
D1 = block_digest(B1)
QC1 = SAMPLE.qc(1, D1, SEEN)
B2 = SAMPLE.block(2, QC1, height=2)
QC2 = SAMPLE.qc(2, block_digest(B2), SEEN)
B3_AFTER_TIMEOUT = replace(SAMPLE.block(3, QC1, height=2), tc=SAMPLE.tc(2, QC1))
PROOF = CommitProof(1, D1, tuple((v, SAMPLE.commit_vote(v, 1, D1).signature) for v in range(3)))
BATCH = SAMPLE.batch(2, None, (ID,), (BODY,), 5, (Observation(0, 1, 1),), NO_CLAIM)
LEADER = SAMPLE.committee.leader

GOOD: dict[str, tuple[int, Message]] = {
    "question for state": (2, GetState(7, (bytes(32),))),
    "objects of state": (2, StateObjects(7, (b"\x00chunk", b""))),
    "pruned": (2, Pruned(17)),
    "batch": (2, BATCH),
    "proposal": (LEADER(2), SAMPLE.proposal(B2)),
    "proposal after a timeout": (LEADER(3), SAMPLE.proposal(B3_AFTER_TIMEOUT)),
    "vote": (1, SAMPLE.vote(1, 2, D1, SEEN)),
    "commit vote": (1, SAMPLE.commit_vote(1, 2, D1)),
    "timeout": (1, SAMPLE.timeout(1, 2, QC1)),
    "timeout with TC": (1, SAMPLE.timeout(1, 4, QC1, SAMPLE.tc(3, QC1))),
    "tc": (0, RoundTC(1, SAMPLE.tc(3, QC1))),
    "round info": (0, RoundInfo(1, QC1, SAMPLE.tc(3, QC1), 7)),
    "batches": (0, Batches((BATCH,))),
    "bodies": (0, Bodies((BODY,))),
    "blocks": (0, Blocks((B1, B2))),
    "chain by proof": (0, Chain((B1,), PROOF, None, None)),
    "chain by child": (0, Chain((B1,), None, B2, QC2)),
    "last words": (
        0,
        Last(
            1,
            5,
            SAMPLE.vote(2, 2, D1, SEEN),
            SAMPLE.commit_vote(2, 2, D1),
            gave_up_of(SAMPLE.timeout(2, 2, QC1)),
            SAMPLE.proposal(B2),
            BATCH,
        ),
    ),
    "get last": (0, GetLast(1, 5)),
    "handover vote": (1, SAMPLE.handover_vote(1, 70, D1)),
    "epoch ended": (0, EpochEnded(SAMPLE.handover(70, D1))),
    "get handover": (0, GetHandover(1)),
    "get batches": (0, GetBatches(1, 3, Head(4, bytes(32)), Head(9, bytes(32)))),
    "get bodies": (0, GetBodies((ID,))),
    "get block": (0, GetBlock(D1, 3)),
    "get chain": (0, GetChain(3)),
}
UNSIGNED = (
    "question for state",
    "objects of state",
    "pruned",
    "get last",
    "get handover",
    "get batches",
    "get bodies",
    "get block",
    "get chain",
)
FREE = {("round info", "committed_height"), ("round info", "tc"), ("last words", "nonce")}
"""Fields that nothing covers: what they may hold is bounded, and believed only so far."""


def admit(peer: int, message: object, admission: Admission | None = None) -> Message:
    return (admission or SAMPLE.admission()).admit(peer, encode(message))


def changed(value: object) -> Iterator[object]:
    """Yield values that differ from `value` in exactly one place, however deep."""
    if isinstance(value, Struct):
        for field in fields(value):
            for other in changed(getattr(value, field.name)):
                yield replace(value, **{field.name: other})
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
        if value:
            yield value - 1
    elif isinstance(value, bytes):
        yield value[:-1] + bytes((value[-1] ^ 1,)) if value else b"\0"
        yield value + b"\0"
    elif isinstance(value, tuple):
        for k, part in enumerate(value):
            for other in changed(part):
                yield (*value[:k], other, *value[k + 1 :])
            yield (*value[:k], *value[k + 1 :])
            yield (*value[: k + 1], part, *value[k + 1 :])
    elif value is not None:
        raise AssertionError(f"what is {value!r}?")


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_message_is_admitted_as_it_is(kind: str) -> None:
    peer, message = GOOD[kind]
    assert admit(peer, message) == message


@pytest.mark.parametrize("kind", [kind for kind in GOOD if kind not in UNSIGNED])
def test_a_change_of_any_single_field_is_refused(kind: str) -> None:
    """An admission that has just verified the good one remembers no more than that one."""
    peer, message = GOOD[kind]
    admission = SAMPLE.admission()
    admission.admit(peer, encode(message))
    passed: list[tuple[str, object]] = []
    count = 0
    for field in fields(message):
        for other in changed(getattr(message, field.name)):
            count += 1
            forged = replace(message, **{field.name: other})
            try:
                admission.admit(peer, encode(forged))
            except Refused:
                continue
            if (kind, field.name) not in FREE:
                passed.append((field.name, other))
    print(f"{kind}: {count} changes")
    assert count
    assert not [each for each in passed if not harmless(kind, *each)]


def harmless(kind: str, field: str, other: object) -> bool:
    """Some changes make another true statement: fewer items asked for or answered, or a block
    that nobody asked for by that digest."""
    if kind in ("batches", "bodies") and isinstance(other, tuple):
        return not other or all(part == other[0] for part in other)
    if kind == "blocks" and isinstance(other, tuple):
        # The last one is known by the digest that was asked for, those before it by its link.
        return other in ((B1,), (B2,)) or other[:-1] == (B1,)
    return False


@pytest.mark.parametrize("kind", ["batch", "vote", "commit vote", "timeout", "handover vote"])
def test_who_speaks_for_another_is_refused(kind: str) -> None:
    peer, message = GOOD[kind]
    with pytest.raises(Refused):
        admit((peer + 1) % SAMPLE.n, message)


def cut(qc: QC, count: int) -> QC:
    return replace(qc, votes=qc.votes[:count])


HOSTILE: dict[str, Callable[[], object]] = {
    "QC below the quorum": lambda: RoundInfo(1, cut(QC1, 2), None, 0),
    "voter twice": lambda: RoundInfo(
        1, replace(QC1, votes=(*QC1.votes[:2], QC1.votes[1])), None, 0
    ),
    "genesis QC of another block": lambda: RoundInfo(1, QC(0, bytes(32), ()), None, 0),
    "genesis QC with votes": lambda: RoundInfo(1, replace(QC1, round=0), None, 0),
    "TC that hides its highest QC": lambda: RoundTC(
        1, replace(SAMPLE.tc(3, QC1), high_qc=SAMPLE.qc(0, b""))
    ),
    "TC on a QC of its own round": lambda: RoundTC(1, SAMPLE.tc(1, QC1)),
    "timeout below its lock": lambda: SAMPLE.timeout(0, 1, QC1),
    "timeout of a round that nothing opens": lambda: SAMPLE.timeout(0, 5, QC1),
    "timeout with the TC of another round": lambda: SAMPLE.timeout(0, 5, QC1, SAMPLE.tc(3, QC1)),
    "vote in round 0": lambda: SAMPLE.vote(0, 0, D1, SEEN),
    "vote without bound": lambda: SAMPLE.vote(0, ROUND_MAX, D1, SEEN),
    "vote with a short claim": lambda: SAMPLE.vote(0, 1, D1, SEEN[:3]),
    "vote with a negative claim": lambda: SAMPLE.vote(0, 1, D1, (-1, 0, 0, 0)),
    "block on a QC of its own round": lambda: Blocks((SAMPLE.block(1, QC1, 2),)),
    "block of height 0": lambda: Blocks((SAMPLE.block(1, None, 0),)),
    "block that executed itself": lambda: Blocks((replace(B1, executed_height=1),)),
    "block without a head": lambda: Blocks((replace(B1, heads=B1.heads[:3]),)),
    "block of another epoch": lambda: Blocks((replace(B1, epoch=2),)),
    "blocks out of order": lambda: Blocks((B2, B1)),
    "empty chain": lambda: Chain((), PROOF, None, None),
    "chain without a proof": lambda: Chain((B1,), None, None, None),
    "chain with another's proof": lambda: Chain((B1, B2), PROOF, None, None),
    "chain whose child is not certified": lambda: Chain((B1,), None, B2, QC1),
    "chain whose child comes rounds later": lambda: Chain(
        (B1,), None, B3_AFTER_TIMEOUT, SAMPLE.qc(3, block_digest(B3_AFTER_TIMEOUT), SEEN)
    ),
    "too many batches": lambda: Batches((BATCH,) * (FETCH_BATCHES_MAX + 1)),
    "too many bodies": lambda: Bodies((BODY,) * (FETCH_IDS_MAX + 1)),
    "too many blocks": lambda: Blocks((B1,) * (FETCH_BLOCKS_MAX + 1)),
    "question for too much": lambda: GetBodies((ID,) * (FETCH_IDS_MAX + 1)),
    "question about nobody": lambda: GetBatches(1, 100, Head(0, bytes(32)), None),
    "question about a bad head": lambda: GetBatches(1, 0, Head(0, bytes(31)), None),
    "next committee with a key twice": lambda: EpochEnded(
        replace(SAMPLE.handover(70, D1), keys=(SAMPLE.keys.publics[0],) * 4)
    ),
    "next committee without members": lambda: EpochEnded(replace(SAMPLE.handover(70, D1), keys=())),
    "question for too much state": lambda: GetState(1, (bytes(32),) * (STATE_NAMES_MAX + 1)),
    "question for a short name": lambda: GetState(1, (bytes(31),)),
    "too much state": lambda: StateObjects(1, (b"",) * (STATE_NAMES_MAX + 1)),
    "an object too large": lambda: StateObjects(1, (bytes(OBJECT_BYTES_MAX + 1),)),
    "blocks from below zero": lambda: Pruned(-1),
    "question below zero": lambda: GetChain(-1),
    "body that nobody signed": lambda: Bodies((BODY[:-1] + b"\x07",)),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_messages_are_refused(what: str) -> None:
    with pytest.raises(Refused):
        admit(0, HOSTILE[what]())


def test_garbage_is_refused_with_a_reason() -> None:
    with pytest.raises(Refused, match="malformed"):
        SAMPLE.admission().admit(0, b"\xc1garbage")


def test_what_was_verified_once_is_not_verified_again() -> None:
    """A QC mostly holds votes that came one by one before."""
    calls: list[bytes] = []

    def counting(public: bytes, message: bytes, signature: bytes) -> bool:
        calls.append(message)
        return SAMPLE.keys.verify(public, message, signature)

    admission = Admission(
        SAMPLE.committee, SAMPLE.parameters, SAMPLE.genesis_digest, SAMPLE.check, counting
    )
    for voter in SAMPLE.voters:
        admit(voter, SAMPLE.vote(voter, 1, D1, SEEN), admission)
    assert len(calls) == len(SAMPLE.voters)
    admit(0, RoundInfo(1, QC1, None, 0), admission)
    assert len(calls) == len(SAMPLE.voters)
    forged = replace(QC1, votes=(replace(QC1.votes[0], voter=3), *QC1.votes[1:]))
    with pytest.raises(Refused):
        admit(0, RoundInfo(1, forged, None, 0), admission)


def test_every_kind_of_message_is_tried_here() -> None:
    tried = {type(message) for _, message in GOOD.values()}
    assert tried == set(Message.__args__)
