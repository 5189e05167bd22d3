"""Asking for what is missing: to its end, fairly shared, of the right peers, not for ever."""

from __future__ import annotations

from consensus.batches import SealedBatch
from consensus.committee import Parameters
from consensus.effects import Effect, Received, Send, TimerFired
from consensus.fetch import (
    ASKS_MAX,
    ECHO_ASKS_MAX,
    RETRY_MAX_MS,
    TIMER,
    TRIES_MAX,
    WantBatches,
    WantBlock,
    WantBody,
    WantChain,
)
from consensus.messages import (
    FETCH_BATCHES_MAX,
    Batches,
    GetBatches,
    GetBlock,
    GetBodies,
    GetChain,
    Head,
)
from tests.consensus.samples import Node, Sample, digest_of

SAMPLE = Sample(4, Parameters(log_window=256))
AUTHOR = 1


def hold(node: Node, run: list[SealedBatch]) -> None:
    for sealed in run:
        node.core.keeper.hold(sealed)


def sent(effects: list[Effect]) -> list[tuple[int, object]]:
    return [(e.peer, e.message) for e in effects if isinstance(e, Send)]


def fetch_until_held(asker: Node, answerer: Node, end: Head, rounds_max: int) -> int:
    """Let the two exchange questions and answers; return how many rounds it took."""
    fetcher = asker.core._fetcher
    now_ms = 1_000
    for rounds in range(rounds_max):
        path = asker.core.ctx.logs.path(AUTHOR, SAMPLE.starts[AUTHOR], end)
        if isinstance(path, list):
            return rounds
        missing = getattr(path, "head", end)
        fetcher.want(WantBatches(AUTHOR, None, missing, missing.seq), [answerer.me], after_ms=0)
        now_ms += RETRY_MAX_MS
        for peer, question in sent(asker.step(now_ms, TimerFired(TIMER))):
            if peer == answerer.me and isinstance(question, GetBatches):
                for _, answer in sent(answerer.step(now_ms, Received(asker.me, question))):
                    asker.step(now_ms, Received(answerer.me, answer))  # type: ignore[arg-type]
    raise AssertionError(f"still not whole after {rounds_max} rounds")


def test_a_gap_far_beyond_the_committed_head_is_filled() -> None:
    """Once each answer began at the committed head and none reached beyond 64 batches."""
    asker, answerer = SAMPLE.core(0), SAMPLE.core(2)
    run = SAMPLE.log(AUTHOR, 3 * FETCH_BATCHES_MAX)
    hold(answerer, run)
    hold(asker, [s for s in run if s.batch.seq not in (70, 71, 150, len(run))])
    assert fetch_until_held(asker, answerer, run[-1].head, rounds_max=5) <= 4


def test_a_whole_other_branch_is_fetched_over_the_one_that_is_held() -> None:
    asker, answerer = SAMPLE.core(0), SAMPLE.core(2)
    mine, theirs = SAMPLE.log(AUTHOR, 200, b"mine"), SAMPLE.log(AUTHOR, 200, b"theirs")
    hold(asker, mine)
    hold(answerer, theirs)
    fetch_until_held(asker, answerer, theirs[-1].head, rounds_max=12)


def test_a_log_from_nothing_takes_one_round_for_each_answer() -> None:
    asker, answerer = SAMPLE.core(0), SAMPLE.core(2)
    run = SAMPLE.log(AUTHOR, 4 * FETCH_BATCHES_MAX)
    hold(answerer, run)
    assert fetch_until_held(asker, answerer, run[-1].head, rounds_max=6) <= 4


def test_a_liars_answer_with_many_branches_leaves_room_for_the_wanted_one() -> None:
    asker = SAMPLE.core(0)
    end = SAMPLE.log(AUTHOR, 1, b"true")[0]
    asker.core._fetcher.want(WantBatches(AUTHOR, None, end.head, 1), [2], after_ms=0)
    flood = tuple(SAMPLE.log(AUTHOR, 1, b"%d" % k)[0].batch for k in range(30))
    asker.step(1_000, Received(3, Batches(flood)))
    assert asker.core.ctx.logs.batches_held() <= 3
    asker.step(1_000, Received(3, Batches((end.batch,))))
    assert asker.core.ctx.logs.batch(AUTHOR, end.digest) is not None


def test_it_asks_the_named_peers_first_then_everybody_in_turn() -> None:
    node = SAMPLE.core(0)
    fetcher = node.core._fetcher
    fetcher.want(WantBlock(digest_of(b"block")), [3], after_ms=0)
    asked: list[int] = []
    for turn in range(4):
        effects = node.step(1_000 + turn * RETRY_MAX_MS, TimerFired(TIMER))
        asked += [peer for peer, message in sent(effects) if isinstance(message, GetBlock)]
    assert asked[0] == 3
    assert sorted(dict.fromkeys(asked)) == [1, 2, 3], "never itself"
    assert len(asked) == 4 * (SAMPLE.committee.f + 1), "f+1 at once"


def test_a_new_claimant_is_asked_next_and_soon() -> None:
    node = SAMPLE.core(0)
    fetcher, wish = node.core._fetcher, WantBlock(digest_of(b"block"))
    fetcher.want(wish, [1], after_ms=0)
    for turn in range(8):
        node.step(1_000 + turn * RETRY_MAX_MS, TimerFired(TIMER))
    now_ms = 1_000 + 7 * RETRY_MAX_MS + 5
    node.core.ctx.now_ms = now_ms
    fetcher.want(wish, [2], after_ms=0)
    effects = node.step(now_ms, TimerFired(TIMER))
    assert sent(effects)[0][0] == 2


def test_a_wish_ends_when_it_is_fulfilled_or_nobody_answers() -> None:
    node = SAMPLE.core(0)
    fetcher = node.core._fetcher
    fetcher.want(WantBlock(SAMPLE.genesis_digest), [1], after_ms=0)
    assert sent(node.step(1_000, TimerFired(TIMER))) == [], "it is here"
    fetcher.want(WantBlock(digest_of(b"nowhere")), [1], after_ms=0)
    now_ms, questions = 1_000, 0
    while len(fetcher):
        now_ms += RETRY_MAX_MS
        questions += len(sent(node.step(now_ms, TimerFired(TIMER))))
        assert questions < 1_000
    assert questions == TRIES_MAX * (SAMPLE.committee.f + 1)


def test_questions_name_where_to_go_on() -> None:
    node = SAMPLE.core(0)
    fetcher = node.core._fetcher
    after = Head(7, digest_of(b"head"))
    ids = [SAMPLE.command(b"%d" % k)[0] for k in range(3)]
    sealed = SAMPLE.batch(2, None, tuple(ids))
    node.step(1_000, Received(2, sealed))
    fetcher.want(WantChain(0), [1], after_ms=0)
    fetcher.want(WantBatches(1, after, None, 9), [1], after_ms=0)
    messages = [message for _, message in sent(node.step(1_100, TimerFired(TIMER)))]
    assert GetChain(1) in messages
    assert GetBatches(1, 1, after, None) in messages
    bodies = [message for message in messages if isinstance(message, GetBodies)]
    assert bodies and bodies[0].ids == tuple(ids), "one question for many bodies"


def test_a_liars_ghosts_take_only_its_own_share_of_places() -> None:
    """What blocks and votes need is asked for however many ids that do not exist are logged."""
    node = SAMPLE.core(0)
    fetcher = node.core._fetcher
    ghosts = iter(range(10 * ASKS_MAX))

    def flood(author: int, count: int) -> None:
        for _ in range(count):
            wish = WantBody(SAMPLE.command(b"ghost %d" % next(ghosts))[0])
            fetcher.want(wish, [author], echo_of=author)

    flood(1, ECHO_ASKS_MAX)
    share = ECHO_ASKS_MAX // SAMPLE.n
    assert len(fetcher) == share
    flood(2, 10)
    assert len(fetcher) == share + 10, "another log has its own share"
    for k in range(ASKS_MAX + 5):
        fetcher.want(WantBlock(digest_of(b"%d" % k)), [1])
    assert len(fetcher) == share + 10 + ASKS_MAX
    assert node.core.ctx.counters["fetch_refused"] == ECHO_ASKS_MAX - share + 5


def test_a_body_that_a_block_needs_leaves_the_share_of_echoes() -> None:
    node = SAMPLE.core(0)
    fetcher = node.core._fetcher
    wishes = [WantBody(SAMPLE.command(b"%d" % k)[0]) for k in range(ECHO_ASKS_MAX // 4 + 1)]
    for wish in wishes[:-1]:
        fetcher.want(wish, [1], echo_of=1)
    fetcher.want(wishes[-1], [1], echo_of=1)
    assert len(fetcher) == len(wishes) - 1
    fetcher.want(wishes[0], [2])
    fetcher.want(wishes[-1], [1], echo_of=1)
    assert len(fetcher) == len(wishes)
