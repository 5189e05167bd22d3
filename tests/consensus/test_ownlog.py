"""The own log keeps the order of receipt through quotas, full queues and the end of ids."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consensus.batches import INBOX_START_HASH, batch_fault, inbox_chain, link_fault
from consensus.command import CommandId
from consensus.committee import Parameters
from consensus.messages import INBOX_MESSAGES_MAX, LogBatch, Observation
from consensus.ownlog import INBOX_AHEAD_MAX, RECEIPTS_MAX, OwnLog
from tests.consensus.samples import Sample

SAMPLE = Sample(4, Parameters(entries_max=12, log_window=16))
QUOTA = SAMPLE.parameters.introduce_max(SAMPLE.n)
COMMANDS = [SAMPLE.command(b"%d" % k) for k in range(60)]
BODIES = dict(COMMANDS)


def own_log(last: LogBatch | None = None) -> OwnLog:
    head = SAMPLE.starts[0]
    return OwnLog(SAMPLE.committee, SAMPLE.parameters, 0, SAMPLE.keys.signers[0], head, last)


class OwnLogModel(RuleBasedStateMachine):
    """Receipts in a plain list; every batch must be its next part."""

    def __init__(self) -> None:
        super().__init__()
        self.log = own_log()
        self.waiting: list[tuple[CommandId, bool]] = []
        self.known: set[CommandId] = set()
        self.logged: set[CommandId] = set()
        self.batches: list[LogBatch] = []
        self.now_ms = 1_000

    @rule(k=st.integers(0, 59), introduced=st.booleans())
    def receive(self, k: int, introduced: bool) -> None:
        id_ = COMMANDS[k][0]
        assert self.log.receive(id_, introduced)
        if id_ not in self.known:
            self.known.add(id_)
            self.waiting.append((id_, introduced))

    @rule(k=st.integers(0, 59))
    def end(self, k: int) -> None:
        """Emitted or void: forgotten wherever it is, and not logged any more."""
        id_ = COMMANDS[k][0]
        self.log.forget([id_])
        self.known.discard(id_)
        self.waiting = [each for each in self.waiting if each[0] != id_]
        self.logged.discard(id_)

    @rule(later_ms=st.integers(-50, 500))
    def batch(self, later_ms: int) -> None:
        self.now_ms += later_ms
        sealed = self.log.make_batch(self.now_ms, BODIES.__getitem__)
        batch = sealed.batch
        expected: list[CommandId] = []
        introduced: list[CommandId] = []
        for id_, introduces in self.waiting:
            if len(expected) == SAMPLE.parameters.entries_max:
                break
            if introduces and len(introduced) == QUOTA:
                break
            expected.append(id_)
            introduced += [id_] * introduces
        assert list(batch.entries) == expected, "receipt order, up to the first that has no place"
        assert list(sealed.body_ids) == introduced
        assert batch_fault(batch, SAMPLE.committee, SAMPLE.parameters, SAMPLE.check) is None
        assert link_fault(self.batches[-1] if self.batches else None, batch) is None
        self.waiting = self.waiting[len(expected) :]
        self.logged |= set(expected)
        self.batches.append(batch)

    @precondition(lambda self: self.batches)
    @rule()
    def signed_by_its_author(self) -> None:
        batch = self.batches[-1]
        assert SAMPLE.sign_batch(batch) == batch

    @invariant()
    def it_knows_what_it_holds(self) -> None:
        for id_, _ in COMMANDS:
            assert self.log.holds(id_) == (id_ in self.known)
            assert self.log.is_persisted(id_) == (id_ in self.logged)


OwnLogModel.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestOwnLog = OwnLogModel.TestCase


def test_a_full_queue_refuses_and_says_so() -> None:
    log = own_log()
    for k in range(RECEIPTS_MAX):
        assert log.receive(CommandId(k.to_bytes(40, "big")), introduced=False)
    assert not log.receive(COMMANDS[0][0], introduced=False)
    assert log.waiting == RECEIPTS_MAX
    assert not log.holds(COMMANDS[0][0]), "a later receipt of it is taken again"


def test_after_a_restart_the_log_goes_on_where_it_ended() -> None:
    log = own_log()
    log.receive(COMMANDS[0][0], introduced=True)
    log.observe_inbox(0, (b"a",), inbox_chain(INBOX_START_HASH, (b"a",)))
    last = log.make_batch(9_000, BODIES.__getitem__)
    again = OwnLog(
        SAMPLE.committee, SAMPLE.parameters, 0, SAMPLE.keys.signers[0], last.head, last.batch
    )
    again.note_logged([COMMANDS[0][0]])
    assert again.is_persisted(COMMANDS[0][0])
    assert again.claimed_inbox == 1
    following = again.make_batch(8_000, BODIES.__getitem__).batch
    assert link_fault(last.batch, following) is None, "also with a clock that went back"


def test_the_window_bounds_what_is_signed_beyond_the_committed_head() -> None:
    log = own_log()
    while log.has_room(SAMPLE.starts[0]):
        log.make_batch(1_000, BODIES.__getitem__)
    assert log.head.seq == SAMPLE.parameters.log_window
    assert log.has_room(log.head)


def test_a_batch_is_due_soon_with_receipts_and_late_without() -> None:
    log = own_log()
    log.make_batch(1_000, BODIES.__getitem__)
    assert log.due_ms() == 1_000 + SAMPLE.parameters.idle_batch_ms
    log.receive(COMMANDS[0][0], introduced=False)
    assert log.due_ms() == 1_000 + SAMPLE.parameters.batch_interval_ms


def test_prices_ride_in_the_next_batch_once_the_newest_of_each_feed() -> None:
    log = own_log()
    log.observe_prices([Observation(1, 5, 10), Observation(0, 7, 10), Observation(1, 6, 11)])
    batch = log.make_batch(1_000, BODIES.__getitem__).batch
    assert batch.oracle == (Observation(0, 7, 10), Observation(1, 6, 11))
    assert log.make_batch(1_001, BODIES.__getitem__).batch.oracle == ()


@given(st.lists(st.integers(0, 150), max_size=8))
def test_the_inbox_is_claimed_message_by_message_whatever_parts_come(parts: list[int]) -> None:
    log = own_log()
    messages = tuple(b"%d" % k for k in range(150))
    claimed: list[bytes] = []
    last: LogBatch | None = None
    for upto in parts:
        since = max(0, min(log.claimed_inbox, upto) - 2)
        chained = inbox_chain(INBOX_START_HASH, messages[:upto])
        known = log.claimed_inbox
        assert log.observe_inbox(since, messages[since:upto], chained)
        assert log.claimed_inbox == max(known, upto)
        batch = log.make_batch(1_000, BODIES.__getitem__).batch
        assert len(batch.inbox.messages) <= INBOX_MESSAGES_MAX
        assert link_fault(last, batch) is None
        claimed += batch.inbox.messages
        last = batch
    assert claimed == list(messages[: len(claimed)])


def test_an_inbox_that_does_not_continue_the_claims_is_refused() -> None:
    log = own_log()
    chained = inbox_chain(INBOX_START_HASH, (b"a",))
    assert not log.observe_inbox(0, (b"b",), chained), "another chain"
    assert not log.observe_inbox(1, (b"b",), chained), "a gap"
    assert log.observe_inbox(0, (b"a",), chained)
    assert log.observe_inbox(0, (), INBOX_START_HASH), "an endpoint that lags brings nothing new"
    assert log.claimed_inbox == 1
    most = tuple(b"%d" % k for k in range(INBOX_AHEAD_MAX + 10))
    assert log.observe_inbox(1, most, inbox_chain(chained, most))
    assert log.claimed_inbox == INBOX_AHEAD_MAX
