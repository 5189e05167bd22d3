"""The pacemaker's rules one by one, on a single replica that hears what the test makes up."""

from __future__ import annotations

from consensus.effects import Broadcast, Connected, Effect, Received, Send, SetTimer, Start
from consensus.effects import TimerFired as Fired
from consensus.messages import (
    CommitVote,
    GetLast,
    Last,
    Message,
    Proposal,
    RoundInfo,
    RoundTC,
    Timeout,
    Vote,
    block_digest,
)
from consensus.rounds import ANSWER_INTERVAL_MS, TIMER
from tests.consensus.samples import EPOCH, Node, Sample

SAMPLE = Sample(4)
SAMPLE.voters = (0, 1, 3)
ME = 2
NOW_MS = 100_000
P = SAMPLE.parameters


def started(me: int = ME) -> Node:
    """Return a replica in round 1 that may sign."""
    node = SAMPLE.core(me)
    node.step(NOW_MS, Start())
    for peer in range(4):
        if peer != me:
            node.step(NOW_MS, Received(peer, Last(EPOCH, NOW_MS, None, None, None, None, None)))
    assert node.core.ctx.may_sign
    return node


def said(effects: list[Effect], kind: type) -> list[Message]:
    messages = [e.message for e in effects if isinstance(e, Broadcast | Send)]
    return [message for message in messages if isinstance(message, kind)]


def waits(effects: list[Effect], now_ms: int) -> int:
    """Return how long the round timer was set for, last."""
    return [e.at_ms for e in effects if isinstance(e, SetTimer) and e.name == TIMER][-1] - now_ms


def test_a_round_that_takes_too_long_is_given_up_and_that_is_said_again_to_the_byte() -> None:
    node = started()
    assert said(node.step(NOW_MS + P.round_timer_ms - 1, Fired(TIMER)), Timeout) == []
    effects = node.step(NOW_MS + P.round_timer_ms, Fired(TIMER))
    (first,) = said(effects, Timeout)
    assert isinstance(first, Timeout)
    assert (first.round, first.lock.round, first.tc) == (1, 0, None)
    later = NOW_MS + P.round_timer_ms + waits(effects, NOW_MS + P.round_timer_ms)
    for _ in range(5):
        effects = node.step(later, Fired(TIMER))
        assert said(effects, Timeout) == [first]
        later += waits(effects, later)
    assert later - NOW_MS <= 10 * P.round_timer_ms, "said again all the time"


def test_a_timeout_on_a_higher_lock_replaces_the_one_before() -> None:
    """And it names the TC that opened its round while the lock is older than that."""
    node = started()
    node.step(NOW_MS, Received(0, RoundTC(EPOCH, SAMPLE.tc(4))))
    (first,) = said(node.step(NOW_MS + 9_000, Fired(TIMER)), Timeout)
    assert isinstance(first, Timeout)
    assert first.tc is not None
    assert (first.round, first.lock.round, first.tc.round) == (5, 0, 4)
    qc = SAMPLE.qc(3, block_digest(SAMPLE.block(3)))
    node.step(NOW_MS + 9_000, Received(0, RoundInfo(EPOCH, qc, None, 0)))
    (second,) = said(node.step(NOW_MS + 60_000, Fired(TIMER)), Timeout)
    assert isinstance(second, Timeout)
    assert (second.round, second.lock) == (5, qc)


def test_f_plus_1_timeouts_of_this_round_or_later_make_it_give_up_too() -> None:
    node = started()
    assert said(node.step(NOW_MS, Received(0, SAMPLE.timeout(0, 1))), Timeout) == []
    assert said(node.step(NOW_MS, Received(0, SAMPLE.timeout(0, 1))), Timeout) == [], "one voter"
    (own,) = said(node.step(NOW_MS, Received(1, SAMPLE.timeout(1, 1))), Timeout)
    assert isinstance(own, Timeout)
    assert own.round == 1
    other = started()
    other.step(NOW_MS, Received(0, SAMPLE.timeout(0, 1)))
    later = SAMPLE.timeout(3, 7, None, SAMPLE.tc(6))
    assert said(other.step(NOW_MS, Received(3, later)), Timeout) == []
    assert other.core.rounds.round == 7, "the TC in it opens the round that it is of"
    assert (
        said(other.step(NOW_MS, Received(0, SAMPLE.timeout(0, 8, None, SAMPLE.tc(7)))), Timeout)
        == []
    )


def test_q_timeouts_make_a_tc_that_everybody_gets_and_that_opens_the_next_round() -> None:
    node = started()
    qc = SAMPLE.qc(1, block_digest(SAMPLE.block(1)))
    node.step(NOW_MS, Received(0, SAMPLE.timeout(0, 2, qc)))
    assert node.core.rounds.round == 2
    effects = node.step(NOW_MS, Received(1, SAMPLE.timeout(1, 2, qc)))
    (tc,) = said(effects, RoundTC)
    assert isinstance(tc, RoundTC)
    assert (tc.tc.round, tc.tc.high_qc) == (2, qc), "its highest QC whole"
    assert {part.voter for part in tc.tc.timeouts} == {0, 1, ME}
    assert node.core.rounds.round == 3


def test_timers_grow_by_half_with_each_failed_round_whoever_s_timer_ended_it() -> None:
    """To a cap, and a certificate of a block resets them. Leaders that fail again get a quarter."""
    node = started()
    wanted, round_ = P.round_timer_ms, 1
    for _ in range(12):
        effects = node.step(NOW_MS, Received(0, RoundTC(EPOCH, SAMPLE.tc(round_))))
        round_ += 1
        wanted = min(wanted * 3 // 2, P.round_timer_max_ms)
        failed_before = round_ > 4
        assert waits(effects, NOW_MS) == (wanted // 4 if failed_before else wanted)
    assert wanted == P.round_timer_max_ms
    qc = SAMPLE.qc(round_, block_digest(SAMPLE.block(round_)))
    effects = node.step(NOW_MS, Received(0, RoundInfo(EPOCH, qc, None, 0)))
    assert waits(effects, NOW_MS) == P.round_timer_ms // 4, "the next leader did fail its turn"
    for _ in range(3):
        round_ += 1
        qc = SAMPLE.qc(round_, block_digest(SAMPLE.block(round_)))
        effects = node.step(NOW_MS, Received(0, RoundInfo(EPOCH, qc, None, 0)))
    assert waits(effects, NOW_MS) == P.round_timer_ms, "the first leader's turn was good again"


def test_whoever_speaks_of_an_older_round_is_told_the_highest_certificates() -> None:
    node = started()
    qc = SAMPLE.qc(5, block_digest(SAMPLE.block(5)))
    node.step(NOW_MS, Received(0, RoundInfo(EPOCH, qc, None, 0)))
    node.step(NOW_MS, Received(0, RoundTC(EPOCH, SAMPLE.tc(8, qc))))
    old: list[Message] = [
        SAMPLE.timeout(3, 2, None, SAMPLE.tc(1)),
        SAMPLE.vote(3, 2, bytes(32), (0,) * 4),
        SAMPLE.proposal(SAMPLE.block(1)),
        RoundInfo(EPOCH, SAMPLE.qc(1, block_digest(SAMPLE.block(1))), None, 0),
    ]
    now = NOW_MS
    for message in old:
        now += ANSWER_INTERVAL_MS
        effects = node.step(now, Received(3, message))
        (told,) = said(effects, RoundInfo)
        assert isinstance(told, RoundInfo)
        assert told.lock == qc
        assert told.tc is not None
        assert told.tc.round == 8
        assert said(node.step(now + 1, Received(3, message)), RoundInfo) == [], "not too often"
    (told,) = said(node.step(now + 1, Connected(3)), RoundInfo)
    assert isinstance(told, RoundInfo)
    assert told.lock == qc


def test_a_qc_raises_the_lock_also_of_a_round_that_was_given_up_and_gets_no_commit_vote() -> None:
    node = started()
    node.step(NOW_MS + P.round_timer_ms, Fired(TIMER))
    qc = SAMPLE.qc(1, block_digest(SAMPLE.block(1)))
    effects = node.step(NOW_MS + P.round_timer_ms, Received(0, RoundInfo(EPOCH, qc, None, 0)))
    assert said(effects, CommitVote) == []
    assert node.core.ctx.safety.lock == qc
    assert node.core.rounds.round == 2
    good = started()
    (vote,) = said(good.step(NOW_MS, Received(0, RoundInfo(EPOCH, qc, None, 0))), CommitVote)
    assert isinstance(vote, CommitVote)
    assert (vote.round, vote.block) == (1, qc.block)
    again = good.step(NOW_MS, Received(1, SAMPLE.timeout(1, 2, qc)))
    assert said(again, CommitVote) == [], "once a block"


def test_a_restart_begins_one_above_the_highest_certificate_and_repeats_itself() -> None:
    node = started()
    proposal = SAMPLE.proposal(SAMPLE.block(1))
    (vote,) = said(node.step(NOW_MS, Received(1, proposal)), Vote)
    qc = SAMPLE.qc(1, proposal.block.digest)
    (commit,) = said(node.step(NOW_MS, Received(0, RoundInfo(EPOCH, qc, None, 0))), CommitVote)
    node.step(NOW_MS, Received(0, RoundTC(EPOCH, SAMPLE.tc(6, qc))))
    (timeout,) = said(node.step(NOW_MS + 60_000, Fired(TIMER)), Timeout)
    back = SAMPLE.core(ME, node.disk)
    effects = back.step(NOW_MS + 61_000, Start())
    assert back.core.rounds.round == 7
    words = [e.message for e in effects if isinstance(e, Broadcast)]
    spoken = [m for m in words if isinstance(m, Proposal | Vote | CommitVote | Timeout)]
    newest_vote = back.core.ctx.safety.vote
    assert newest_vote is not None
    assert newest_vote == vote or newest_vote.round > 1
    assert spoken == [
        m for m in (back.core.ctx.safety.proposal, newest_vote, commit, timeout) if m is not None
    ]
    assert said(effects, GetLast), "and asks, before it says anything new"
    for _ in range(3):
        assert said(back.step(NOW_MS + 99_000, Fired(TIMER)), Timeout) == []
