"""Two statements that contradict each other are heard together, however each of them came."""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

from consensus.messages import (
    Blocks,
    Chain,
    CommitProof,
    Message,
    RoundInfo,
    RoundTC,
    block_digest,
)
from consensus.words import CERTIFICATES_MAX, ROUNDS_KEPT, Contradiction, Words
from tests.consensus.samples import EPOCH, Sample

SAMPLE = Sample(4)
LIAR = 1
SEEN, OTHER_SEEN = (1, 1, 1, 1), (2, 1, 1, 1)
ONE, TWO = SAMPLE.block(5), replace(SAMPLE.block(5), height=2)
A, B = block_digest(ONE), block_digest(TWO)
GENESIS = SAMPLE.qc(0, b"")


def proof(block: bytes) -> CommitProof:
    votes = tuple((v, SAMPLE.commit_vote(v, 5, block).signature) for v in SAMPLE.voters)
    return CommitProof(5, block, votes)


def votes(block: bytes, seen: tuple[int, ...]) -> list[Message]:
    """A vote of round 5 by itself, and in certificates, wherever those stand."""
    qc = SAMPLE.qc(5, block, seen)
    return [
        SAMPLE.vote(LIAR, 5, block, seen),
        RoundInfo(EPOCH, qc, None, 0),
        SAMPLE.timeout(2, 6, qc),
        SAMPLE.proposal(SAMPLE.block(6, qc, 2)),
        Blocks((SAMPLE.block(6, qc, 2),)),
        RoundTC(EPOCH, SAMPLE.tc(6, qc)),
    ]


def commit_votes(block: bytes) -> list[Message]:
    held = ONE if block == A else TWO
    return [SAMPLE.commit_vote(LIAR, 5, block), Chain((held,), proof(block), None, None)]


WAYS: dict[str, tuple[list[Message], list[Message]]] = {
    "vote": (votes(A, SEEN), [*votes(B, SEEN), *votes(A, OTHER_SEEN)]),
    "commit_vote": (commit_votes(A), commit_votes(B)),
    "commit_vote_after_timeout": (
        commit_votes(A),
        [
            SAMPLE.timeout(LIAR, 7, None, SAMPLE.tc(6)),
            RoundTC(EPOCH, SAMPLE.tc(7)),
            RoundInfo(EPOCH, GENESIS, SAMPLE.tc(5), 0),
        ],
    ),
    "proposal": ([SAMPLE.proposal(ONE)], [SAMPLE.proposal(TWO)]),
}


def heard(words: Words, *messages: Message) -> list[Contradiction]:
    found = [words.hear(said) for message in messages for said in words.statements(message)]
    return [each for each in found if each is not None]


@pytest.mark.parametrize("kind", WAYS)
def test_a_contradiction_is_heard_in_whatever_its_halves_came(kind: str) -> None:
    first, second = WAYS[kind]
    assert SAMPLE.committee.leader(5) == LIAR
    pairs = list(itertools.product(first, second))
    for one, other in [*pairs, *((b, a) for a, b in pairs)]:
        found = heard(Words(SAMPLE.committee), one, other)
        mine = [each for each in found if each.offender == LIAR and each.kind == kind]
        assert mine, (type(one), type(other))
        assert mine[0].position == 5


def test_what_comes_again_is_no_contradiction() -> None:
    words = Words(SAMPLE.committee)
    messages = [*votes(A, SEEN), *commit_votes(A), SAMPLE.proposal(ONE)]
    assert heard(words, *messages, *messages) == []


def test_a_certificate_is_looked_into_once() -> None:
    words = Words(SAMPLE.committee)
    qc = SAMPLE.qc(5, A, SEEN)
    assert len(list(words.of_qc(EPOCH, qc))) == len(qc.votes)
    assert list(words.of_qc(EPOCH, qc)) == []
    for k in range(CERTIFICATES_MAX):
        list(words.of_qc(EPOCH, SAMPLE.qc(6 + k, A, SEEN)))
    assert len(words._looked_into) == CERTIFICATES_MAX


def test_statements_of_rounds_long_over_are_not_compared() -> None:
    words = Words(SAMPLE.committee)
    words.hear(SAMPLE.vote(LIAR, 5, A, SEEN))
    words.enter(5 + ROUNDS_KEPT)
    assert words.hear(SAMPLE.vote(LIAR, 5, B, SEEN)) is not None
    words.enter(6 + ROUNDS_KEPT)
    assert words.hear(SAMPLE.vote(LIAR, 5, B, OTHER_SEEN)) is None
