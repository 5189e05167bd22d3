"""A peer gets its share of answers and no more; what one peer asks costs the others nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus import courtesy as courtesy_module
from consensus.codec import encode
from consensus.courtesy import ANSWERS_BYTES_PER_S, BURST_MS, QUESTION_BYTES, Courtesy
from consensus.effects import Received, Send, Start
from consensus.messages import Batches, GetBatches
from consensus.serve import ANSWER_BYTES_MAX
from ops.sim.report import run
from tests.consensus.samples import EPOCH, Sample
from tests.sim.runs import assert_held, quick

ASKS = st.lists(
    st.tuples(st.integers(-5, 2_000), st.integers(0, 3), st.integers(0, ANSWER_BYTES_MAX)),
    max_size=200,
)


@given(ASKS)
def test_in_any_time_a_peer_gets_at_most_its_burst_its_share_and_one_answer(
    asks: list[tuple[int, int, int]],
) -> None:
    courtesy = Courtesy(4)
    now_ms = latest_ms = 10_000
    share = ANSWERS_BYTES_PER_S // 3
    given_bytes = [0] * 4
    for pause_ms, peer, size in asks:
        now_ms += pause_ms
        latest_ms = max(latest_ms, now_ms)
        if courtesy.allows(peer, now_ms):
            courtesy.charge(peer, size)
            given_bytes[peer] += size + QUESTION_BYTES
        # The bucket is full at the start, so what passed since counts once more than the burst.
        most = share * (BURST_MS + latest_ms - 10_000) // 1_000
        assert given_bytes[peer] <= most + ANSWER_BYTES_MAX + QUESTION_BYTES


@given(ASKS)
def test_what_others_ask_changes_nothing_for_a_peer(asks: list[tuple[int, int, int]]) -> None:
    crowded, alone = Courtesy(4), Courtesy(4)
    now_ms = 10_000
    for pause_ms, peer, size in asks:
        now_ms += pause_ms
        allowed = crowded.allows(peer, now_ms)
        if peer == 2:
            assert alone.allows(peer, now_ms) == allowed
        if allowed:
            crowded.charge(peer, size)
            if peer == 2:
                alone.charge(peer, size)


def test_a_peer_that_asked_for_too_much_is_answered_again_after_a_while() -> None:
    courtesy = Courtesy(5)
    while courtesy.allows(1, 1_000):
        courtesy.charge(1, ANSWER_BYTES_MAX)
    assert not courtesy.allows(1, 1_050)
    assert courtesy.allows(1, 1_000 + 1_000)


class Asked:
    """A replica that holds a log, and what it answers."""

    def __init__(self) -> None:
        self.sample = Sample()
        self.node = self.sample.core(0)
        self.node.step(0, Start())
        for sealed in self.sample.log(1, 8):
            self.node.step(1, Received(1, sealed.batch))

    def ask(self, now_ms: int, peer: int) -> int:
        """Return the bytes of the answer to `peer`."""
        question = GetBatches(EPOCH, 1, self.sample.starts[1], None)
        answers = [
            effect.message
            for effect in self.node.step(now_ms, Received(peer, question))
            if isinstance(effect, Send) and effect.peer == peer
        ]
        return sum(len(encode(answer)) for answer in answers if isinstance(answer, Batches))


def test_the_same_question_without_end_is_answered_at_the_rate_of_its_share() -> None:
    asked = Asked()
    size = asked.ask(10, 2)
    assert size > 1_000
    total = size + sum(asked.ask(10 + k // 6, 2) for k in range(6_000))
    share = ANSWERS_BYTES_PER_S // (asked.sample.committee.n - 1)
    questions = share * (BURST_MS + 1_000) // 1_000 // (QUESTION_BYTES + size) + 1
    assert total <= questions * size
    assert asked.node.core.ctx.counters["answers_withheld"] > 0
    assert asked.ask(1_010, 3) == size, "another peer is answered all the same"


def test_without_the_bucket_everything_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courtesy_module, "ANSWERS_BYTES_PER_S", 1 << 50)
    asked = Asked()
    size = asked.ask(10, 2)
    assert sum(asked.ask(10, 2) for _ in range(6_000)) == 6_000 * size


def test_a_machine_that_was_down_for_long_catches_up_without_meeting_the_bound() -> None:
    plan = quick("long-down", 5, seed=3)
    report = run(replace(plan, commands_per_s=60))
    assert_held(report)
    assert report.counters.get("answers_withheld", 0) == 0
