"""The deterministic whole, alone in its committee: what it does, and what it never does twice."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import pytest
from msgspec.structs import replace

from consensus import committer
from consensus import effects as core
from consensus.command import EXPIRY_ORDER_MAX_MS, CommandId
from consensus.committer import DIGEST_INTERVAL
from consensus.effects import Write
from consensus.recovery import CorruptState
from consensus.shelf import newest_record
from consensus.snapshot import state_digest
from matcher.actions import (
    BUY,
    IOC,
    LIMIT,
    SCOPE_TRADE,
    SELL,
    AuthoriseSession,
    CancelAll,
    PlaceOrder,
    Withdraw,
)
from matcher.reasons import REASONS
from ops.client_keys import SignedCommand, TraderKey
from ops.replica import (
    REFUSED_FULL,
    REFUSED_TOO_FAR,
    AcceptedContent,
    Exchange,
    ExchangeReplica,
    refusal,
)
from ops.store import TABLES, MemoryStore
from settlement.checkpoint import (
    Accepted,
    BroadcastShare,
    Checkpoint,
    SafetyViolation,
    checkpoint_digest,
)
from tests.ops.solo import (
    GENESIS_MS,
    INTERVAL_MS,
    SEPARATOR,
    Solo,
    Told,
    boot,
    outcomes_by_number,
    shares_by_number,
)

ALICE, BOB = TraderKey(b"\x01" * 32), TraderKey(b"\x02" * 32)
SESSION = TraderKey(b"\x03" * 32)
USDC = 1_000_000
PRICE = 5_000_000
END_MS = GENESIS_MS + 1_080
QUIET_MS = 700
"""After so long without a kill, everything that was wished for has happened."""


def order(key: TraderKey, client_id: int, side: int, qty: int, tif: int = 0) -> PlaceOrder:
    return PlaceOrder(key.address, 0, 0, client_id, side, LIMIT, PRICE, qty, tif)


def story(solo: Solo) -> list[SignedCommand]:
    """Deposits, a session, orders that trade, a withdrawal; return the commands.

    What is wished for together comes to the same in any order: clients repeat themselves.
    """
    solo.deposit(bytes(ALICE.address), 1_000 * USDC)
    solo.deposit(bytes(BOB.address), 1_000 * USDC)
    solo.run(GENESIS_MS + 220)
    until_ms = GENESIS_MS + 900_000
    authorise = AuthoriseSession(ALICE.address, SESSION.address, SCOPE_TRADE, until_ms)
    commands = [solo.wish(ALICE, authorise), solo.wish(BOB, order(BOB, 1, SELL, 30))]
    solo.run(GENESIS_MS + 440)
    commands += [
        solo.wish(SESSION, order(ALICE, 1, BUY, 10)),
        solo.wish(BOB, order(BOB, 2, SELL, 5)),
        solo.wish(ALICE, order(ALICE, 2, BUY, 50_000)),
    ]
    solo.run(GENESIS_MS + 660)
    commands += [
        solo.wish(SESSION, order(ALICE, 3, BUY, 7, IOC)),
        solo.wish(BOB, Withdraw(BOB.address, 0, 20 * USDC, BOB.address, b"\x09" * 32)),
    ]
    solo.run(GENESIS_MS + 880)
    commands.append(solo.wish(BOB, CancelAll(BOB.address, 0)))
    solo.run(END_MS)
    return commands


def whole_digest(replica: ExchangeReplica) -> bytes:
    """Return the digest of all that the next block depends on, now."""
    return state_digest(replica.consensus.ctx.sequencer.digest(), replica.exchange.digest())


def copied(store: MemoryStore, *without: str) -> MemoryStore:
    """Return another disk with what is on this one, less some tables."""
    copy = MemoryStore()
    tables = [table for table in TABLES if table not in without]
    copy.apply([Write(t, key, value) for t in tables for key, value in store.scan(t)], sync=True)
    return copy


def undisturbed(solo: Solo) -> ExchangeReplica:
    """Return a replica that executes the same committed chain in one go, from the genesis."""
    return boot(copied(solo.store, "state", "checkpoint"))


def test_a_deposit_is_credited_and_orders_become_fills_and_outcomes() -> None:
    solo = Solo()
    commands = story(solo)
    by_number = outcomes_by_number(solo.told)
    assert sorted(by_number) == list(range(1, len(commands) + 1))
    status = {told.id: (told.status, told.reason, told.filled) for told in by_number.values()}
    assert [status[command.id] for command in commands] == [
        ("done", None, 0),
        ("resting", None, 0),
        ("filled", None, 10),
        ("resting", None, 0),
        ("rejected", "insufficient_margin", 0),
        ("filled", None, 7),
        ("done", None, 0),
        ("done", None, 0),
    ]
    assert [(fill.price, fill.qty) for fill in solo.fills.values()] == [(PRICE, 10), (PRICE, 7)]
    state = solo.replica.engine.state
    alice = state.wallets[bytes(ALICE.address)].accounts[0]
    assert alice.positions[0].lots == 17
    assert state.withdrawals == [(bytes(BOB.address), 20 * USDC)]
    assert sum(account.cash for account in state.accounts) == 1_980 * USDC


def test_a_refusal_says_why() -> None:
    horizon = (1_000 + EXPIRY_ORDER_MAX_MS).to_bytes(8, "big") + bytes(32)
    beyond = (1_001 + EXPIRY_ORDER_MAX_MS).to_bytes(8, "big") + bytes(32)
    assert refusal(CommandId(horizon), 1_000) == REFUSED_FULL
    assert refusal(CommandId(beyond), 1_000) == REFUSED_TOO_FAR
    assert {REFUSED_FULL, REFUSED_TOO_FAR} <= set(REASONS)


def test_every_reply_of_a_logged_command_names_its_batch() -> None:
    solo = Solo()
    commands = story(solo)
    seen = {reply.id: reply.seq for reply in solo.replies if reply.status == "seen"}
    assert set(seen) == {command.id for command in commands}
    assert min(seen.values()) >= 1


def test_checkpoints_are_of_the_first_digest_height_of_each_interval() -> None:
    solo = Solo()
    story(solo)
    newest, expected = GENESIS_MS // INTERVAL_MS, []
    for height, executed in sorted(solo.blocks.items()):
        number = executed.block.time_ms // INTERVAL_MS
        if height % DIGEST_INTERVAL == 0 and number > newest:
            newest = number
            expected.append((number, height))
    assert len(expected) >= 2, "the run is long enough to say something"
    assert [(c.number, c.height) for c in solo.formed.values()] == expected
    assert sorted(shares_by_number(solo.shares)) == [number for number, _ in expected]


def test_a_checkpoint_does_not_depend_on_how_its_height_was_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lived through, replayed from the genesis, or replayed from a snapshot: the same content."""
    monkeypatch.setattr(committer, "SNAPSHOT_INTERVAL", 8)
    solo = Solo()
    story(solo)
    replayed = undisturbed(solo)
    replayed.step(solo.now_ms, core.Start())
    assert replayed.formed == solo.formed
    assert newest_record(solo.store) is not None
    solo.restart()
    solo.run(solo.now_ms + 2 * INTERVAL_MS + QUIET_MS)
    later = {number for number in solo.formed if number > max(replayed.formed)}
    assert later, "checkpoints were formed on top of the snapshot"
    again = undisturbed(solo)
    again.step(solo.now_ms, core.Start())
    assert {number: again.formed[number] for number in solo.formed} == solo.formed


def test_a_restart_gives_the_same_state_outcomes_and_share() -> None:
    solo = Solo()
    solo.accepts = False
    story(solo)
    before, told = whole_digest(solo.replica), list(solo.told)
    height, newest = solo.replica.consensus.height, solo.shares[-1]
    copy = copied(solo.store)
    copy.crash()
    replica = boot(copy)
    assert (replica.consensus.height, whole_digest(replica)) == (height, before)
    sent = replica.step(solo.now_ms, core.Start())
    assert [e.share for e in sent if isinstance(e, BroadcastShare)] == [newest], "the stored one"
    solo.restart()
    assert outcomes_by_number(solo.told) == outcomes_by_number(told)
    snapshot = newest_record(solo.store)
    assert snapshot is not None and 0 < snapshot.height < height, "this run has both parts"
    for each in solo.blocks.values():
        assert each.replayed == (snapshot.height < each.block.height <= height)


def check_disturbed(solo: Solo, calm: Solo, commands: list[SignedCommand]) -> None:
    """Hold a run with kills against the rules, and against the run without any."""
    by_number = outcomes_by_number(solo.told)
    assert sorted(by_number) == list(range(1, len(commands) + 1)), "each happened, once"
    assert {t.id for t in by_number.values()} == {c.id for c in commands}
    shares_by_number(solo.shares)
    fresh = undisturbed(solo)
    assert whole_digest(fresh) == whole_digest(solo.replica)
    digests = fresh.consensus.ctx.executed_digests
    assert {height: solo.digests[height] for height in digests} == digests
    assert _results(by_number.values()) == _results(outcomes_by_number(calm.told).values())
    assert [(f.price, f.qty) for f in solo.fills.values()] == [
        (f.price, f.qty) for f in calm.fills.values()
    ]


def _results(told: Iterable[Told]) -> dict[bytes, tuple[str, str | None, int]]:
    return {each.id: (each.status, each.reason, each.filled) for each in told}


@lru_cache
def calm() -> tuple[Solo, list[SignedCommand]]:
    """Return the run without any kill, and its commands."""
    solo = Solo()
    return solo, story(solo)


def disturbed(kill_at: int, power_loss: bool, kind: type[Solo] = Solo) -> None:
    """Run the story with one kill and hold it against the rules."""
    solo = kind(kill_at, power_loss)
    commands = story(solo)
    solo.run(solo.now_ms + QUIET_MS)
    assert solo.kills == 1
    check_disturbed(solo, calm()[0], commands)


@pytest.mark.parametrize("power_loss", [False, True])
def test_a_kill_between_any_two_effects_does_no_harm(power_loss: bool) -> None:
    """Every effect of the run is once the last of its life: no share, number, outcome differs."""
    for kill_at in range(1, calm()[0].effects + 1):
        try:
            disturbed(kill_at, power_loss)
        except AssertionError as error:
            raise AssertionError(f"kill_at={kill_at} power_loss={power_loss}") from error


class Hasty(Solo):
    """A machine that sends before it writes: the barrier of `Persist` broken on purpose."""

    def arranged(self, effects: list[object]) -> list[object]:
        return sorted(effects, key=lambda effect: isinstance(effect, core.Persist))


def test_a_machine_that_sends_before_it_writes_is_caught() -> None:
    wanted = {"one number, two outcomes", "one number, two shares"}
    faults: set[str] = set()
    for kill_at in range(1, calm()[0].effects + 1):
        try:
            disturbed(kill_at, True, Hasty)
        except AssertionError as error:
            faults.add(str(error).split("\n")[0])
        if wanted <= faults:
            return
    raise AssertionError(f"only found: {faults}")


def test_a_restart_that_forgets_the_outcomes_number_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The counter is part of the snapshot: without it numbers are given out twice."""
    monkeypatch.setattr(committer, "SNAPSHOT_INTERVAL", 8)
    load = Exchange.load

    def forgetful(self: Exchange, parts: Any) -> None:
        load(self, parts)
        self.outcomes = 0

    middle = calm()[0].effects // 2
    disturbed(middle, True)
    monkeypatch.setattr(Exchange, "load", forgetful)
    with pytest.raises(CorruptState, match="another state digest"):
        disturbed(middle, True)


def test_a_checkpoint_that_depends_on_the_path_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked to sign another content for a number that it has signed, a replica stops."""
    checkpoint = ExchangeReplica._checkpoint

    def personal(self: ExchangeReplica, *about: Any) -> Checkpoint:
        made = checkpoint(self, *about)
        return replace(made, net_total=made.net_total + solo.kills)

    monkeypatch.setattr(ExchangeReplica, "_checkpoint", personal)
    solo = Solo()
    solo.accepts = False
    story(solo)
    snapshots = [Write("state", key, None) for key, _ in solo.store.scan("state")]
    solo.store.apply(snapshots, sync=True)
    with pytest.raises(SafetyViolation, match="signed"):
        solo.restart()


def test_an_accepted_checkpoint_says_which_state_peers_may_come_for() -> None:
    """The chain's word reaches the snapshots; what it did not accept does not."""
    solo = Solo()
    story(solo)
    shelf = solo.replica.consensus.ctx.shelf
    newest = max(solo.formed.values(), key=lambda formed: formed.number)
    solo.replica.step(solo.now_ms, Accepted(newest.number, newest.digest))
    assert shelf.accepted_height == newest.height
    assert newest.height in [record.height for record in shelf.kept if record.is_milestone]
    later = solo.replica._checkpoint(
        newest.height + 8,
        (newest.number + 1) * INTERVAL_MS,
        solo.replica.engine.checkpoint_state(),
        bytes(32),
    )
    digest = checkpoint_digest(SEPARATOR, later)
    solo.replica.step(solo.now_ms, AcceptedContent(later, bytes(32)))
    assert shelf.accepted_height == newest.height, "not what was accepted"
    solo.replica.step(solo.now_ms, AcceptedContent(later, digest))
    assert shelf.accepted_height == newest.height + 8
