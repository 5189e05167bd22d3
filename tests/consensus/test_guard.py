"""A key signs one thing: nothing before peers have answered, nothing beside an older record, and
nothing more once somebody else signs with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from consensus.batches import INBOX_START_HASH, inbox_chain
from consensus.codec import decode, encode
from consensus.context import KEY_SILENCE, TABLE_BATCHES, TABLE_SAFETY, batch_key
from consensus.effects import (
    Blame,
    Broadcast,
    Connected,
    Effect,
    Halt,
    L1Observed,
    Persist,
    Received,
    Send,
    Start,
    Submitted,
    TimerFired,
    Write,
)
from consensus.guard import ASK_AGAIN_MS, OWN_KEPT, TIMER, Double, Silence
from consensus.logkeeper import TIMER as BATCH_TIMER
from consensus.messages import (
    Batches,
    Blocks,
    Chain,
    CommitProof,
    CommitVote,
    GaveUp,
    GetLast,
    Last,
    LogBatch,
    Message,
    Proposal,
    RoundInfo,
    RoundTC,
    Timeout,
    Vote,
    block_digest,
)
from consensus.ownlog import INBOX_AHEAD_MAX
from consensus.rounds import TIMER as ROUND_TIMER
from consensus.words import STATEMENTS_MAX, Words, gave_up_of
from ops.sim.disk import SimDisk
from tests.consensus.samples import EPOCH, Node, Sample

SAMPLE = Sample()
ME = 2
OTHERS = Sample()
OTHERS.voters = (0, 1, 3)
"""Makes certificates that need nothing of our key."""
NOW_MS = 50_000
LATER_MS = NOW_MS + 5_000
FULL = (9, 9, 9, 9)
SIGNED = Vote | CommitVote | Timeout | Proposal | LogBatch


def words(nonce: int = NOW_MS, **said: object) -> Last:
    empty = dict.fromkeys(("vote", "commit_vote", "gave_up", "proposal", "batch"))
    return Last(epoch=EPOCH, nonce=nonce, **{**empty, **said})  # type: ignore[arg-type]


def signatures(effects: list[Effect]) -> list[Message]:
    return [
        e.message for e in effects if isinstance(e, Broadcast) and isinstance(e.message, SIGNED)
    ]


def questions(effects: list[Effect]) -> list[int]:
    return [e.peer for e in effects if isinstance(e, Send) and isinstance(e.message, GetLast)]


def asking(disk: SimDisk | None = None) -> Node:
    node = SAMPLE.core(ME, disk)
    assert questions(node.step(NOW_MS, Start())) == [0, 1, 3]
    return node


def signing(disk: SimDisk | None = None) -> Node:
    """Return a node whose peers know nothing of its key, and that has signed a batch."""
    node = asking(disk)
    node.step(NOW_MS, Received(0, words()))
    node.step(NOW_MS, Received(1, words()))
    assert node.core.ctx.may_sign
    assert signatures(node.step(LATER_MS, TimerFired(BATCH_TIMER)))
    return node


def tempt(node: Node, now_ms: int = LATER_MS) -> list[Message]:
    """Give a node every occasion to sign something; return what it did sign."""
    proposal = SAMPLE.proposal(SAMPLE.block(1))
    id_, body = SAMPLE.command(b"tempting")
    done: list[Message] = []
    for event in (
        Submitted(id_, body),
        TimerFired(BATCH_TIMER),
        Received(0, proposal),
        Received(0, RoundInfo(EPOCH, OTHERS.qc(1, block_digest(proposal.block)), None, 0)),
        Received(0, RoundTC(EPOCH, OTHERS.tc(4))),
        Received(1, SAMPLE.timeout(1, 5, None, OTHERS.tc(4))),
        Received(3, SAMPLE.timeout(3, 5, None, OTHERS.tc(4))),
        TimerFired(ROUND_TIMER),
        TimerFired("propose"),
    ):
        done += signatures(node.step(now_ms, event))
        now_ms += 100
    return done


def test_nothing_is_signed_before_enough_peers_have_answered() -> None:
    node = asking()
    assert tempt(node) == []
    assert signatures(node.step(LATER_MS, Received(0, words()))) == []
    assert tempt(node) == []
    assert signatures(node.step(LATER_MS, Received(0, words()))) == [], "one peer counts once"
    assert node.core.guard.answers_missing == 1
    node.step(LATER_MS, Received(3, words()))
    assert node.core.ctx.may_sign
    assert signatures(node.step(LATER_MS, TimerFired(BATCH_TIMER)))
    assert tempt(SAMPLE.core(0)) == [], "not even asked yet"


def test_held_back_only_by_the_answers() -> None:
    """What tempts a node does make it sign everything when it may."""
    node = signing()
    kinds = {type(message) for message in tempt(node, LATER_MS + 10_000)}
    assert kinds >= {LogBatch, Vote, Timeout}


def test_a_network_of_one_asks_nobody() -> None:
    node = Sample(1).core(0)
    node.step(NOW_MS, Start())
    assert node.core.ctx.may_sign


def test_it_asks_again_on_a_timer_and_when_a_link_comes_up() -> None:
    node = asking()
    node.step(NOW_MS, Received(3, words()))
    assert questions(node.step(NOW_MS + 1, Connected(1))) == [1]
    assert questions(node.step(NOW_MS + 1, Connected(3))) == [], "it has answered"
    assert questions(node.step(NOW_MS + ASK_AGAIN_MS, TimerFired(TIMER))) == [0, 1]
    node.step(NOW_MS + ASK_AGAIN_MS, Received(0, words()))
    assert questions(node.step(LATER_MS, TimerFired(TIMER))) == []
    assert questions(node.step(LATER_MS, Connected(1))) == []


def test_an_answer_to_an_earlier_start_or_in_another_name_does_not_count() -> None:
    node = asking()
    for peer in (0, 1, 3):
        node.step(NOW_MS, Received(peer, words(nonce=NOW_MS - 1)))
    assert node.core.guard.answers_missing == 2
    others = words(vote=SAMPLE.vote(1, 9, bytes(32), FULL))
    assert [e.peer for e in node.step(NOW_MS, Received(1, others)) if isinstance(e, Blame)] == [1]
    assert node.core.guard.answers_missing == 2


def test_peers_answer_while_they_ask_themselves_and_not_too_often() -> None:
    """All start together: nobody waits for another's silence to end."""
    nodes = [SAMPLE.core(i) for i in range(4)]
    for node in nodes:
        node.step(NOW_MS, Start())
    assert not any(node.core.ctx.may_sign for node in nodes)
    for node in nodes:
        for peer in nodes:
            if peer is not node:
                for effect in peer.step(NOW_MS, Received(node.me, GetLast(EPOCH, NOW_MS))):
                    if isinstance(effect, Send) and isinstance(effect.message, Last):
                        node.step(NOW_MS, Received(peer.me, effect.message))
    assert all(node.core.ctx.may_sign for node in nodes)
    flood = [nodes[0].step(NOW_MS + 1, Received(1, GetLast(EPOCH, k))) for k in range(20)]
    assert not any(effects for effects in flood)


# What a key may have signed, and in what a peer can show it. Rounds are above any record's.

HIGH = 90
BLOCK = SAMPLE.block(HIGH)
DIGEST = block_digest(BLOCK)
OWN_BLOCK = SAMPLE.block(HIGH + 4)
assert SAMPLE.committee.leader(OWN_BLOCK.round) == ME
VOTE = SAMPLE.vote(ME, HIGH, DIGEST, FULL)
COMMIT = SAMPLE.commit_vote(ME, HIGH, DIGEST)
GAVE_UP = gave_up_of(SAMPLE.timeout(ME, HIGH))
PROPOSAL = SAMPLE.proposal(OWN_BLOCK)
BATCH = SAMPLE.batch(ME, SAMPLE.log(ME, 3)[-1].head)
QC = SAMPLE.qc(HIGH, DIGEST, FULL)
CHILD = SAMPLE.block(HIGH + 1, OTHERS.qc(HIGH, DIGEST, FULL), 2)
CHILD_QC = SAMPLE.qc(HIGH + 1, block_digest(CHILD), FULL)
TC = SAMPLE.tc(HIGH)
PROOF = CommitProof(
    HIGH, DIGEST, tuple((v, SAMPLE.commit_vote(v, HIGH, DIGEST).signature) for v in range(3))
)
SHOWN: dict[str, Callable[[], Message]] = {
    "last vote": lambda: words(vote=VOTE),
    "last commit vote": lambda: words(commit_vote=COMMIT),
    "last timeout": lambda: words(gave_up=GAVE_UP),
    "last proposal": lambda: words(proposal=PROPOSAL),
    "last batch": lambda: words(batch=BATCH),
    "vote": lambda: VOTE,
    "commit vote": lambda: COMMIT,
    "timeout": lambda: SAMPLE.timeout(ME, HIGH),
    "proposal": lambda: PROPOSAL,
    "batch": lambda: BATCH,
    "batches": lambda: Batches((BATCH,)),
    "QC in a round info": lambda: RoundInfo(EPOCH, QC, None, 0),
    "QC in a timeout": lambda: SAMPLE.timeout(1, HIGH + 1, QC),
    "QC in a proposal": lambda: SAMPLE.proposal(SAMPLE.block(HIGH + 1, QC, 2)),
    "QC in blocks": lambda: Blocks((SAMPLE.block(HIGH + 1, QC, 2),)),
    "QC of a chain's child": lambda: Chain((BLOCK,), None, CHILD, CHILD_QC),
    "TC": lambda: RoundTC(EPOCH, TC),
    "TC in a round info": lambda: RoundInfo(EPOCH, SAMPLE.qc(0, b""), TC, 0),
    "TC in a timeout": lambda: SAMPLE.timeout(1, HIGH + 1, None, TC),
    "commit proof": lambda: Chain((BLOCK,), PROOF, None, None),
}


@pytest.mark.parametrize("how", SHOWN)
def test_a_statement_that_the_record_does_not_know_means_silence(how: str) -> None:
    """However it comes. It stays over restarts; the replica follows, and serves, and says why."""
    node = asking()
    node.step(NOW_MS, Received(1, SHOWN[how]()))
    for peer in (0, 1, 3):
        node.step(NOW_MS, Received(peer, words()))
    assert tempt(node) == []
    again = SAMPLE.core(ME, node.disk)
    assert questions(again.step(LATER_MS, Start())) == []
    for peer in (0, 1, 3):
        again.step(LATER_MS, Received(peer, words(nonce=LATER_MS)))
    assert tempt(again) == []
    for each in (node, again):
        silence = each.core.guard.silence
        assert silence is not None
        assert not each.core.halted
        assert "our signature" in silence.why
        assert each.core.ctx.counters["silent"] == 1
        raw = each.disk.durable(TABLE_SAFETY, KEY_SILENCE)
        assert raw is not None
        assert decode(Silence, raw) == silence


@pytest.mark.parametrize("how", SHOWN)
def test_a_signature_that_a_signing_replica_did_not_make_stops_it(how: str) -> None:
    node = signing()
    effects = node.step(LATER_MS, Received(1, SHOWN[how]()))
    halts = [effect for effect in effects if isinstance(effect, Halt)]
    assert len(halts) == 1
    assert node.core.halted
    assert "did not make it" in halts[0].why
    dump = decode(Double, halts[0].dump)
    assert dump.theirs
    assert dump.why == halts[0].why
    assert signatures(effects) == []
    assert node.step(LATER_MS, TimerFired(BATCH_TIMER)) == []


def own_words(node: Node) -> list[Message]:
    return tempt(node, LATER_MS + 10_000)


def test_what_it_signed_itself_is_no_surprise_in_whatever_comes_back() -> None:
    """Its very statements, also inside certificates of others, before and after a restart."""
    node = signing()
    said = own_words(node)
    vote = [m for m in said if isinstance(m, Vote)][-1]
    timeouts = [m for m in said if isinstance(m, Timeout)]
    batches = [m for m in said if isinstance(m, LogBatch)]
    votes = [vote] + [SAMPLE.vote(v, vote.round, vote.block, vote.seen) for v in (0, 1)]
    qc = SAMPLE.qc(vote.round, vote.block, vote.seen)
    assert {v.signature for v in votes} == {v.signature for v in qc.votes}
    shown: list[Message] = [*said, RoundInfo(EPOCH, qc, None, 0), Batches(tuple(batches))]
    shown += [words(vote=vote, gave_up=gave_up_of(timeout)) for timeout in timeouts]
    back = SAMPLE.core(ME, node.disk)
    back.step(LATER_MS, Start())
    for each in (node, back):
        for message in shown:
            each.step(LATER_MS + 20_000, Received(1, message))
        for peer in (0, 1, 3):
            each.step(LATER_MS, Received(peer, words(nonce=LATER_MS)))
        assert not each.core.halted
        assert each.core.guard.silence is None
        assert each.core.ctx.may_sign


@pytest.mark.parametrize("kind", ["vote", "other seen", "timeout", "batch"])
def test_another_statement_of_a_round_that_is_in_the_record(kind: str) -> None:
    """Silence for one that is back; for one that signs on, the end, with both in the dump."""
    node = signing()
    said = own_words(node)
    vote = [m for m in said if isinstance(m, Vote)][-1]
    own = [m for m in said if isinstance(m, Timeout)][-1]
    other: dict[str, Last] = {
        "vote": words(LATER_MS, vote=SAMPLE.vote(ME, vote.round, bytes(32), vote.seen)),
        "other seen": words(LATER_MS, vote=SAMPLE.vote(ME, vote.round, vote.block, FULL)),
        "timeout": words(
            LATER_MS,
            gave_up=gave_up_of(SAMPLE.timeout(ME, own.round, SAMPLE.qc(own.round - 1, DIGEST))),
        ),
        "batch": words(LATER_MS, batch=SAMPLE.batch(ME, None, (), (), 7)),
    }
    back = SAMPLE.core(ME, node.disk)
    back.step(LATER_MS, Start())
    back.step(LATER_MS, Received(1, other[kind]))
    assert back.core.guard.silence is not None
    halts = [e for e in node.step(LATER_MS, Received(1, other[kind])) if isinstance(e, Halt)]
    dump = decode(Double, halts[0].dump)
    assert dump.ours
    assert dump.theirs
    assert dump.ours != dump.theirs


def test_a_committed_log_that_is_longer_than_the_record_means_silence() -> None:
    """A record that went back alone, without the chain beside it."""
    node = asking()
    ctx = node.core.ctx
    batch = SAMPLE.batch(ME)
    ctx.logs.bases[ME] = SAMPLE.log(ME, 2)[-1].head
    ctx.logs.base_batches[ME] = batch
    ctx.held_back = True
    assert not node.core.guard.start()
    silence = node.core.guard.silence
    assert silence is not None
    assert "batch 2 of our log is committed" in silence.why


def test_a_silent_replica_learns_its_own_log_from_others() -> None:
    node = asking()
    log = SAMPLE.log(ME, 3)
    node.step(NOW_MS, Received(1, words(batch=log[-1].batch)))
    node.step(NOW_MS, Received(1, Batches(tuple(sealed.batch for sealed in log))))
    assert node.core.ctx.logs.furthest(ME) == log[-1].head
    signer = signing()
    signer.step(LATER_MS, Received(1, Batches((signer.core.ctx.logs.newest(ME),))))  # type: ignore[arg-type]
    assert not signer.core.halted


def test_a_silent_replica_does_not_hold_up_the_watcher() -> None:
    """It claims nothing, so nothing of the inbox waits in it, however much comes."""
    node = asking()
    node.step(NOW_MS, Received(1, words(vote=VOTE)))
    count, chained = 0, INBOX_START_HASH
    for k in range(200):
        messages = tuple(b"%d %d" % (k, i) for i in range(64))
        chained = inbox_chain(chained, messages)
        node.step(NOW_MS, L1Observed(count, messages, chained))
        count += len(messages)
        assert node.core.keeper.next_inbox() == count
    assert count > INBOX_AHEAD_MAX


def test_the_silence_of_another_epoch_is_over() -> None:
    node = asking()
    node.step(NOW_MS, Received(1, words(vote=VOTE)))
    silence = node.core.guard.silence
    assert silence is not None
    later = Sample(4)
    later.committee.epoch = EPOCH + 1
    assert later.core(ME, node.disk).core.guard.silence is None
    assert SAMPLE.core(ME, node.disk).core.guard.silence == silence


def test_own_statements_are_remembered_within_a_bound_and_never_misjudged() -> None:
    guard = signing().core.guard
    for round_ in range(1, 3 * OWN_KEPT):
        guard._note(SAMPLE.vote(ME, round_, DIGEST, FULL))
        guard._note(SAMPLE.timeout(ME, round_))
    assert len(guard._own[Vote]) == OWN_KEPT
    assert len(guard._own_gave_ups) == OWN_KEPT
    for round_ in (1, OWN_KEPT, 2 * OWN_KEPT, 3 * OWN_KEPT - 1):
        guard._check(SAMPLE.vote(ME, round_, DIGEST, FULL))
        guard._check(gave_up_of(SAMPLE.timeout(ME, round_)))
    assert not guard.halted
    guard._check(SAMPLE.vote(ME, 2 * OWN_KEPT + 1, bytes(32), FULL))
    assert guard.halted


def test_peers_remember_the_newest_words_of_a_key_over_all_rounds_and_their_own_restart() -> None:
    """Tallies forget rounds that are over; the newest statement of each kind stays, and what a
    disk certifies comes back with it."""
    heard = Sample()
    heard.voters = (1, 2, 3)
    peer = SAMPLE.core(0)
    peer.step(NOW_MS, Start())
    batch = SAMPLE.batch(ME)
    vote, commit = SAMPLE.vote(ME, 3, DIGEST, FULL), SAMPLE.commit_vote(ME, 3, DIGEST)
    timeout, own = SAMPLE.timeout(ME, 3), SAMPLE.proposal(SAMPLE.block(6))
    older: list[Message] = [
        SAMPLE.vote(ME, 1, bytes(32), FULL),
        SAMPLE.commit_vote(ME, 1, bytes(32)),
    ]
    older += [SAMPLE.timeout(ME, 1), SAMPLE.proposal(SAMPLE.block(2))]
    for message in (*older, vote, commit, timeout, own, batch):
        peer.step(NOW_MS, Received(ME, message))
    peer.step(NOW_MS, Received(1, RoundTC(EPOCH, heard.tc(500))))
    for round_ in range(501, 501 + 3 * STATEMENTS_MAX):
        peer.step(NOW_MS, Received(1, SAMPLE.vote(1, round_, DIGEST, FULL)))
    assert words_of(peer) == words(
        7, vote=vote, commit_vote=commit, proposal=own, batch=batch, gave_up=gave_up_in_tc(500)
    )
    peer.step(NOW_MS, Received(1, RoundInfo(EPOCH, heard.qc(HIGH, DIGEST, FULL), None, 0)))
    peer.step(NOW_MS, TimerFired(BATCH_TIMER))
    for other in (1, 3):  # Its records are written with its next synced words.
        peer.step(NOW_MS, Received(other, words()))
    peer.step(LATER_MS, TimerFired(BATCH_TIMER))
    after = words_of(SAMPLE.core(0, peer.disk))
    assert after.vote == SAMPLE.vote(ME, HIGH, DIGEST, FULL)
    assert after.gave_up == gave_up_in_tc(500)
    assert after.batch == batch


def test_after_a_restart_a_peer_shows_the_batch_that_was_signed_or_none() -> None:
    """What a snapshot knows of a committed batch is no batch: whoever sends it is cut off."""
    peer = SAMPLE.core(0)
    ctx = peer.core.ctx
    sealed = SAMPLE.log(ME, 1)[0]
    ctx.logs.bases[ME] = ctx.sequencer.heads[ME] = sealed.head
    ctx.logs.base_batches[ME] = ctx.sequencer.last_batch(ME)
    assert ctx.logs.newest(ME) != sealed.batch
    assert words_of(peer).batch is None
    key = batch_key(EPOCH, ME, sealed.head)
    peer.disk.persist(Persist((Write(TABLE_BATCHES, key, encode(sealed.batch)),), sync=True))
    peer.core.ctx.now_ms = 0
    again = peer.step(LATER_MS + 9_000, Received(ME, GetLast(EPOCH, 8)))
    (last,) = [e.message for e in again if isinstance(e, Send) and isinstance(e.message, Last)]
    assert last.batch == sealed.batch


def gave_up_in_tc(round_: int) -> GaveUp:
    return gave_up_of(SAMPLE.timeout(ME, round_))


def words_of(peer: Node) -> Last:
    effects = peer.step(LATER_MS + 1_000, Received(ME, GetLast(EPOCH, 7)))
    return next(e.message for e in effects if isinstance(e, Send) and isinstance(e.message, Last))


def test_what_is_remembered_of_others_is_bounded() -> None:
    heard = Words(SAMPLE.committee)
    for round_ in range(1, 2_000):
        heard.enter(round_)
        for far in (round_, round_ + 10, round_ + 10_000):
            heard.hear(SAMPLE.vote(1, far, DIGEST, FULL))
            heard.hear(SAMPLE.commit_vote(1, far, DIGEST))
            heard.hear(gave_up_of(SAMPLE.timeout(1, far)))
            heard.hear(SAMPLE.proposal(SAMPLE.block(far)))
    assert len(heard) <= SAMPLE.n * 4 * STATEMENTS_MAX
    assert len(heard.of(1)) <= 3 * STATEMENTS_MAX
