"""What f+1 voters hold cannot be left out; what liars claim binds nobody beyond what one holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from consensus.committee import faults, quorum
from consensus.inclusion import EXECUTION_LAG_MAX, floor_heads, heads_fault
from consensus.messages import QC, Block, Head, SignedSeen
from tests.consensus.samples import Sample, digest_of

SAMPLE = Sample()
CAP = 10
PARENT = replace(SAMPLE.block(1), heads=tuple(Head(5 * i, digest_of(b"%d" % i)) for i in range(4)))


def qc(*claims: tuple[int, ...]) -> QC:
    return QC(1, bytes(32), tuple(SignedSeen(v, seen, b"") for v, seen in enumerate(claims)))


def child(heads: tuple[Head, ...], certificate: QC, executed: int = 0, height: int = 2) -> Block:
    return replace(
        PARENT, round=2, height=height, qc=certificate, heads=heads, executed_height=executed
    )


def heads(*seqs: int) -> tuple[Head, ...]:
    return tuple(
        before if before.seq == seq else Head(seq, digest_of(b"new"))
        for seq, before in zip(seqs, PARENT.heads, strict=True)
    )


@given(st.integers(4, 20), st.data())
def test_the_floor_is_between_what_honest_voters_hold(n: int, data: st.DataObject) -> None:
    """Whatever f liars claim: not above the best honest claim, not below the (f+1)-th best."""
    f, q = faults(n), quorum(n)
    liars = data.draw(st.integers(0, f))
    honest = data.draw(st.lists(st.integers(0, 40), min_size=q - liars, max_size=q - liars))
    lies = data.draw(st.lists(st.integers(0, 1 << 40), min_size=liars, max_size=liars))
    votes = tuple(SignedSeen(v, (seen,), b"") for v, seen in enumerate([*honest, *lies]))
    parent = replace(PARENT, heads=(Head(3, bytes(32)),))
    (floor,) = floor_heads(parent, QC(1, bytes(32), votes), f, 1_000)
    ranked = sorted(honest, reverse=True)
    assert floor <= max(3, ranked[0])
    assert floor >= max(3, ranked[min(f, len(ranked) - 1)])


def test_the_floor_never_asks_beyond_the_cap_nor_behind_the_parent() -> None:
    certificate = qc((0, 100, 12, 0), (0, 100, 12, 0), (0, 100, 11, 99))
    assert floor_heads(PARENT, certificate, 1, CAP) == [0, 15, 12, 15]
    assert floor_heads(PARENT, qc(), 1, CAP) == [0, 5, 10, 15], "the genesis' QC claims nothing"


CLAIMS = qc((2, 7, 10, 15), (2, 7, 10, 15), (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("seqs", "fault"),
    [
        ((2, 7, 10, 15), None),
        ((10, 15, 20, 25), None),
        ((1, 7, 10, 15), "log 0 left out"),
        ((2, 6, 10, 15), "log 1 left out"),
        ((2, 7, 9, 15), "log 2 left out"),
        ((11, 7, 10, 15), "log 0 beyond the cap"),
        ((2, 7, 10, 26), "log 3 beyond the cap"),
    ],
)
def test_heads_lie_between_floor_and_cap(seqs: tuple[int, ...], fault: str | None) -> None:
    found = heads_fault(child(heads(*seqs), CLAIMS), PARENT, 1, CAP)
    assert (found is None) if fault is None else (found is not None and found.startswith(fault))


def test_a_head_that_stays_stays_on_its_branch() -> None:
    changed = (*PARENT.heads[:3], Head(15, digest_of(b"another branch")))
    nothing_owed = qc((0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0))
    assert heads_fault(child(PARENT.heads, nothing_owed), PARENT, 1, CAP) is None
    assert heads_fault(child(changed, nothing_owed), PARENT, 1, CAP) == "log 3 changes branch"


def test_while_execution_lags_heads_stay_and_nothing_is_owed() -> None:
    height = EXECUTION_LAG_MAX + 1
    lagging = child(PARENT.heads, CLAIMS, executed=0, height=height)
    assert heads_fault(lagging, PARENT, 1, CAP) is None
    moving = child(heads(2, 7, 10, 15), CLAIMS, executed=0, height=height)
    assert heads_fault(moving, PARENT, 1, CAP) == "heads move though execution lags"
    assert heads_fault(replace(moving, executed_height=1), PARENT, 1, CAP) is None
    assert heads_fault(replace(lagging, executed_height=1), PARENT, 1, CAP) is not None
