"""What clients are told of their commands: numbered, bounded, durable, the same after a restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from consensus.command import CommandId
from consensus.digest import Digest
from consensus.effects import Reply, Start, Write
from consensus.fairorder import OrderedBatch
from consensus.messages import InboxClaim, LogBatch
from consensus.sequencer import OrderedBlock
from matcher.outcome import CommandOutcome, Fill
from ops import journal as module
from ops.gateway.port import CursorLost, Receipt
from ops.journal import Journal, pending_here
from ops.replica import Executed, FormedCheckpoint
from ops.store import MemoryStore
from tests.ops import solo as solo_module
from tests.ops.solo import Solo
from tests.ops.test_replica import BOB, order

NOW_MS = 1_000_000


def id_of(n: int, expires_ms: int = NOW_MS + 60_000) -> CommandId:
    return CommandId(expires_ms.to_bytes(8, "big") + n.to_bytes(32, "big"))


def block(
    height: int,
    ids: list[CommandId],
    first: int,
    *,
    time_ms: int = NOW_MS,
    fills: int = 0,
    trade: int = 1,
    replayed: bool = False,
) -> Executed:
    ordered = OrderedBlock(
        height=height,
        round=height,
        digest=Digest(bytes(32)),
        time_ms=time_ms,
        batches=(OrderedBatch(height, tuple(ids)),),
        ids=tuple(ids),
        refused=(),
        observations=(),
        inbox=(),
        inbox_hash=bytes(32),
    )
    events: list[Any] = [Fill(trade + i, 0, 5, 7, 0, 1, 2, 3, 4, 0, 0) for i in range(fills)]
    events += [CommandOutcome(id_, "resting", None, 7, 0, 3) for id_ in ids]
    return Executed(ordered, tuple(events), first, replayed)


def logged(seq: int, *ids: CommandId) -> LogBatch:
    """Return an own batch; the journal looks at its place and its entries only."""
    claim = InboxClaim(0, bytes(32), ())
    return LogBatch(1, 0, seq, bytes(32), NOW_MS, ids, (), (), claim, bytes(64))


class Node:
    """A journal on its disk, driven as the driver does."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.journal = Journal(self.store, 0)
        self.height = 0
        self.outcomes = 0

    def turn(self, *events: Reply | LogBatch | Executed, now_ms: int = NOW_MS) -> list[CommandId]:
        """Record events, write, then tell; return the void ids."""
        writes: list[Write] = []
        for event in events:
            if not isinstance(event, Reply):
                self.journal.record(event, now_ms, writes)
        self.store.apply(writes, sync=True)
        void: list[CommandId] = []
        for event in events:
            if isinstance(event, Reply):
                self.journal.on_reply(event)
            elif isinstance(event, LogBatch):
                self.journal.on_logged(event)
            else:
                void += self.journal.on_executed(event)
        return void

    def execute(self, ids: list[CommandId], **more: Any) -> list[CommandId]:
        self.height += 1
        first = self.outcomes + 1
        self.outcomes += len(ids)
        return self.turn(block(self.height, ids, first, **more))

    def state(self, id_: CommandId) -> str:
        """Return the furthest stage of a receipt."""
        receipt = self.journal.receipt(id_)
        if receipt is None:
            return "unknown"
        if receipt.void:
            return "void"
        stages = ("settled", "executed", "ordered", "seen")
        return next(stage for stage in stages if getattr(receipt, stage) is not None)


def test_a_command_goes_from_seen_to_settled() -> None:
    node, id_ = Node(), id_of(1)
    assert node.state(id_) == "unknown"
    node.turn(logged(12, id_))
    assert node.state(id_) == "seen"
    node.execute([id_of(2), id_])
    receipt = node.journal.receipt(id_)
    assert receipt is not None and receipt.seen and receipt.ordered and receipt.executed
    assert (receipt.seen.log, receipt.seen.seq) == (0, 12)
    assert (receipt.ordered.height, receipt.ordered.position) == (1, 1)
    assert (receipt.executed.sequence, receipt.executed.status) == (2, "resting")
    node.journal.on_accepted(FormedCheckpoint(9, 8, 0, bytes(32), bytes(32), bytes(32)))
    assert node.state(id_) == "settled"
    node.execute([])
    node.height = 8
    node.execute([id_of(3)])
    assert node.state(id_of(3)) == "executed", "height 9 is beyond the checkpoint of height 8"


def test_nothing_is_shown_before_it_is_written() -> None:
    node, id_ = Node(), id_of(1)
    executed = block(1, [id_], 1, fills=1)
    writes: list[Write] = []
    node.journal.record(logged(3, id_), NOW_MS, writes)
    node.journal.record(executed, NOW_MS, writes)
    node.store.apply(writes, sync=True)
    assert node.state(id_) == "unknown"
    assert not node.journal.outcomes(0, 10) and not node.journal.trades(0, 10)
    assert node.journal.trade_count == 0
    node.journal.on_logged(logged(3, id_))
    node.journal.on_executed(executed)
    receipt = node.journal.receipt(id_)
    assert receipt is not None and receipt.seen is not None and receipt.seen.seq == 3
    assert len(node.journal.outcomes(0, 10)) == len(node.journal.trades(0, 10)) == 1


def test_an_old_page_ends_where_the_told_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECENT_MAX", 2)
    node = Node()
    node.execute([id_of(i) for i in range(5)])
    late = block(2, [id_of(7)], 6)
    writes: list[Write] = []
    node.journal.record(late, NOW_MS, writes)
    node.store.apply(writes, sync=True)
    assert [outcome.sequence for outcome in node.journal.outcomes(1, 10)] == [2, 3, 4, 5]


def test_what_expires_unordered_is_void_and_only_that() -> None:
    node = Node()
    soon, later, done = id_of(1, NOW_MS + 10), id_of(2, NOW_MS + 99), id_of(3, NOW_MS + 10)
    for seq, id_ in enumerate((soon, later, done), 1):
        node.turn(logged(seq, id_))
    assert node.execute([done], time_ms=NOW_MS + 9) == []
    assert node.execute([], time_ms=NOW_MS + 10) == [soon]
    assert [node.state(id_) for id_ in (soon, later, done)] == ["void", "seen", "executed"]
    receipt = node.journal.receipt(soon)
    assert receipt is not None and receipt.seen is not None and receipt.seen.seq == 1
    assert node.execute([], time_ms=NOW_MS + 99) == [later]


def test_a_client_told_expired_can_ask_again() -> None:
    node, id_ = Node(), id_of(1)
    node.turn(Reply(id_, "expired"))
    assert node.journal.receipt(id_) == Receipt(id=id_, void=True)


def test_an_id_answered_after_its_outcome_is_not_held_for_void() -> None:
    """With a committee of one, a command is logged and executed in one step."""
    node, id_ = Node(), id_of(1, NOW_MS + 10)
    node.turn(logged(1, id_), block(1, [id_], 1))
    node.turn(logged(1, id_))
    node.height = node.outcomes = 1
    assert node.execute([], time_ms=NOW_MS + 1_000) == []
    assert node.state(id_) == "executed"


def test_an_outcome_of_what_the_own_log_never_held_shows_no_seen_stage() -> None:
    node, id_ = Node(), id_of(1)
    node.turn(Reply(id_, "seen", 0, 0))
    assert node.state(id_) == "unknown", "the others' logs ordered it first"
    node.execute([id_])
    receipt = node.journal.receipt(id_)
    assert receipt is not None and receipt.seen is None and receipt.executed is not None


def test_what_the_own_log_holds_is_known_whoever_brought_it() -> None:
    """An echo too: a client that is told "duplicate" here finds its receipt here."""
    node, ids = Node(), [id_of(n) for n in range(3)]
    node.turn(logged(5, *ids))
    for id_ in ids:
        receipt = node.journal.receipt(id_)
        assert receipt is not None and receipt.seen is not None and receipt.seen.seq == 5


def test_cursors_that_are_lost_say_where_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_MAX", 10)
    monkeypatch.setattr(module, "RECENT_MAX", 4)
    node = Node()
    for n in range(30):
        node.execute([id_of(n)], fills=1, trade=n + 1)
    with pytest.raises(CursorLost) as lost:
        node.journal.outcomes(0, 5)
    assert lost.value.oldest == 21
    assert [o.sequence for o in node.journal.outcomes(20, 100)] == list(range(21, 31))
    assert node.state(id_of(19)) == "unknown" and node.state(id_of(20)) == "executed"
    left = [key for key, _ in node.store.scan("receipts")]
    assert len(left) == len(list(node.store.scan("outcomes"))) == 10
    with pytest.raises(CursorLost) as lost:
        node.journal.trades(0, 5)
    assert lost.value.oldest == 21
    assert [t.sequence for t in node.journal.trades(22, 3)] == [23, 24, 25]
    assert len(list(node.store.scan("trades"))) == 10


async def test_who_waits_is_woken_by_news() -> None:
    node = Node()
    woken: list[str] = []

    async def wait(name: str, news: Callable[[], Any]) -> None:
        await news()
        woken.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "outcome", lambda: node.journal.outcomes_beyond(0))
        nursery.start_soon(wait, "trade", lambda: node.journal.trades_beyond(1))
        await trio.testing.wait_all_tasks_blocked()
        node.execute([id_of(1)], fills=1)
        await trio.testing.wait_all_tasks_blocked()
        assert woken == ["outcome"]
        node.execute([], fills=1, trade=2)
        await trio.testing.wait_all_tasks_blocked()
        assert woken == ["outcome", "trade"]


def test_memory_is_level_whatever_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times its bounds through it, with expiries and strangers: nothing grows on."""
    for name in ("RECENT_MAX", "SEEN_MAX", "VOID_MAX", "EXPIRIES_SLACK"):
        monkeypatch.setattr(module, name, 50)
    node = Node()
    tops: list[int] = []
    for phase in range(3):
        for n in range(phase * 500, phase * 500 + 500):
            time_ms = NOW_MS + n
            lost, done = id_of(2 * n, time_ms + 900), id_of(2 * n + 1, time_ms + 900)
            node.turn(logged(n + 1, lost), logged(n + 1, done))
            node.turn(Reply(id_of(n, 5), "expired"), Reply(id_of(n), "busy", 5))
            node.execute([done], time_ms=time_ms, fills=1, trade=n + 1)
        tops.append(sum(node.journal.sizes().values()))
    sizes = node.journal.sizes()
    assert sizes["_logged"] == sizes["_recorded"] == 0, "nothing between two calls"
    assert all(size <= 150 for name, size in sizes.items() if name != "_trades"), sizes
    assert tops[1] - sizes["_trades"] <= tops[0], "the first phase fills it, no other adds"


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("seen"), st.integers(0, 12)),
        st.tuples(st.just("expired"), st.integers(0, 12)),
        st.tuples(st.just("block"), st.lists(st.integers(0, 12), max_size=3, unique=True)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_receipts_and_outcomes_follow_a_plain_model(events: list[tuple[str, Any]]) -> None:
    """Against a dictionary: the furthest stage of each command, and the stream, from disk too."""
    node = Node()
    ids = [id_of(n, NOW_MS + 10 * n) for n in range(13)]
    seen: dict[int, bool] = {}
    void: dict[int, bool] = {}
    done: list[int] = []
    time_ms = NOW_MS - 1
    for kind, what in events:
        if kind == "seen" and what not in done and what not in void and 10 * what > _age(time_ms):
            node.turn(logged(1, ids[what]))
            seen[what] = True
        elif kind == "expired" and what not in done and 10 * what <= _age(time_ms):
            node.turn(Reply(ids[what], "expired"))
            void[what] = True
        elif kind == "block":
            time_ms += 7
            fresh = [n for n in what if n not in done and 10 * n > _age(time_ms)]
            node.execute([ids[n] for n in fresh], time_ms=time_ms)
            done += fresh
            void.update({n: True for n in seen if n not in done and 10 * n <= _age(time_ms)})
    expected = [
        "executed" if n in done else "void" if n in void else "seen" if n in seen else "unknown"
        for n in range(13)
    ]
    assert [node.state(id_) for id_ in ids] == expected
    stream = node.journal.outcomes(0, 100)
    assert [outcome.id for outcome in stream] == [ids[n] for n in done]
    again = Node(node.store)
    again.journal.resume(len(done), 0, {})
    assert again.journal.outcomes(0, 100) == stream
    for n in done:
        assert again.journal.receipt(ids[n]) == node.journal.receipt(ids[n])


def _age(time_ms: int) -> int:
    return time_ms - NOW_MS


def test_a_replayed_block_is_told_as_it_was_told_first() -> None:
    node, id_ = Node(), id_of(1)
    node.turn(logged(4, id_))
    node.execute([id_], fills=2)
    told, trades = node.journal.outcomes(0, 9), node.journal.trades(0, 9)
    again = Node(node.store)
    again.journal.resume(1, 2, {})
    assert again.journal.outcomes(0, 9) == told, "from disk, before the replay"
    assert again.journal.trades(0, 9) == trades, "from disk as well"
    writes: list[Write] = []
    replayed = block(1, [id_], 1, fills=2, replayed=True)
    again.journal.record(replayed, NOW_MS + 99_999, writes)
    again.journal.on_executed(replayed)
    assert writes == []
    assert again.journal.outcomes(0, 9) == told
    assert again.journal.trades(0, 9) == trades
    assert again.journal.receipt(id_) == node.journal.receipt(id_)


def test_after_taking_over_a_state_older_trades_are_elsewhere_and_said_to_be() -> None:
    journal = Journal(MemoryStore(), 0)
    journal.resume(5, 8, {})
    assert journal.trade_count == 8
    with pytest.raises(CursorLost) as lost:
        journal.trades(3, 5)
    assert lost.value.oldest == 9
    assert journal.trades(8, 5) == []


def test_a_restarted_node_knows_what_stands_in_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logged and not ordered: the batches on disk say so."""
    slow = replace(solo_module.PARAMETERS, block_interval_ms=200)
    monkeypatch.setattr(solo_module, "PARAMETERS", slow)
    solo = Solo()
    solo.run(solo.now_ms + 1_000)
    wish = solo.wish(BOB, order(BOB, 1, 1, 5))
    own = solo.replica.consensus.ctx.own
    while not own.is_persisted(wish.id):
        solo.run(solo.now_ms + 1)
    there = {wish.id: own.head.seq}
    assert pending_here(solo.replica.consensus.ctx) == there
    solo.store.crash()
    assert pending_here(solo._life().consensus.ctx) == there
    solo.step(Start())
    solo.run(solo.now_ms + 400)
    assert [told.id for told in solo.told] == [wish.id]
    assert pending_here(solo.replica.consensus.ctx) == {}
