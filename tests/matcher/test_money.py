"""Money in and out: deposits land somewhere whatever comes, withdrawals leave what margin needs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.digest import keccak, word
from matcher.actions import Withdraw
from matcher.engine import BlockInput
from matcher.inbox import INBOX_START, chain, deposit_message
from matcher.outcome import Deposited, InboxRefused, Moved, Withdrawn
from matcher.tree import DenseTree, withdrawal_leaf
from matcher.units import wide
from tests.matcher import naive_margin as naive
from tests.matcher.market import BUY, USDC, World, free_genesis, ready, wallet

SELL = 1
A, B = wallet(0), wallet(1)
TO = b"\x42" * 20


def kinds(events: tuple[object, ...]) -> list[object]:
    return [e for e in events if isinstance(e, Deposited | InboxRefused | Moved)]


def withdrawal(who: bytes, amount: int, sub: int = 0, client: int = 1) -> Withdraw:
    return Withdraw(who, sub, amount, TO, client.to_bytes(32, "big"))


def test_the_hash_chain_is_the_contracts() -> None:
    message = deposit_message(A, 3, 5)
    assert message == bytes(31) + b"\x01" + bytes(12) + A + word(3) + word(5)
    assert keccak(b"fairlane.inbox.v1") == INBOX_START
    assert chain(INBOX_START, message) == keccak(INBOX_START + keccak(message))


def test_a_first_deposit_opens_the_subaccount_with_the_next_index() -> None:
    world = World()
    world.block()
    assert kinds(world.deposit(A, 10 * USDC, 3)) == [Deposited(1, A, 3, 2, 10 * USDC)]
    assert kinds(world.deposit(A, 1, 3)) == [Deposited(2, A, 3, 2, 1)]
    assert kinds(world.deposit(B, 10 * USDC)) == [Deposited(3, B, 0, 3, 10 * USDC)]
    assert world.engine.account_view(A, 3)["cash"] == 10 * USDC + 1
    assert world.engine.account_view(A, 0) == {}


def test_small_first_deposits_wait_in_suspense_and_then_follow() -> None:
    world = World()
    world.block()
    small = 6 * USDC
    assert kinds(world.deposit(A, small)) == [Deposited(1, A, 255, 2, small, "deposit_min")]
    opened = kinds(world.deposit(A, small, 1))
    assert opened == [Deposited(2, A, 1, 3, small), Moved(A, 3, small)]
    assert world.engine.account_view(A, 1)["cash"] == 2 * small
    assert world.engine.account_view(A, 255)["cash"] == 0


def test_suspense_can_be_withdrawn() -> None:
    world = World()
    world.block()
    world.deposit(A, 5 * USDC, 32)
    assert world.run(withdrawal(A, 5 * USDC + 1, 255)).reason == "insufficient_margin"
    assert world.run(withdrawal(A, 5 * USDC, 255)).status == "done"
    assert world.engine.checkpoint_state().net_total == 0


@pytest.mark.parametrize(
    ("sub", "amount", "reason"),
    [
        (32, 10 * USDC, "deposit_subaccount"),
        (255, 10 * USDC, "deposit_subaccount"),
        (2**256 - 1, 10 * USDC, "deposit_subaccount"),
        (0, 1, "deposit_min"),
        (0, 1 << 63, "deposit_amount"),
        (0, 2**256 - 1, "deposit_amount"),
    ],
)
def test_what_cannot_be_credited_is_held_for_the_wallet(sub: int, amount: int, reason: str) -> None:
    world = World()
    world.block()
    assert kinds(world.deposit(A, amount, sub)) == [Deposited(1, A, 255, 2, wide(amount), reason)]
    assert world.engine.checkpoint_state().net_total == amount
    naive.check_money(world.state, amount)


def test_full_tables_still_keep_the_money() -> None:
    world = World(free_genesis(accounts_max=1, suspense_max=1))
    world.block()
    world.deposit(A, 10 * USDC)
    assert kinds(world.deposit(B, 10 * USDC))[0].reason == "accounts_full"  # type: ignore[attr-defined]
    full = kinds(world.deposit(wallet(2), 10 * USDC))[0]
    assert full == Deposited(3, wallet(2), 253, 1, 10 * USDC, "suspense_full")
    assert world.state.insurance.cash == 10 * USDC
    naive.check_money(world.state, 30 * USDC)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "inbox_malformed"),
        (bytes(127), "inbox_malformed"),
        (word(1) + b"\xff" * 96, "inbox_malformed"),
        (word(0) + word(A) + word(0) + word(5), "inbox_kind"),
        (word(2) + word(A) + word(0) + word(5), "inbox_kind"),
        (word(1) + word(A) + word(0) + word(0), "inbox_zero"),
    ],
)
def test_other_messages_are_consumed_with_a_reason(message: bytes, reason: str) -> None:
    world = World()
    world.block()
    assert kinds(world.block(inbox=(message,)).events) == [InboxRefused(1, reason)]
    checkpoint = world.engine.checkpoint_state()
    assert (checkpoint.inbox_count, checkpoint.net_total) == (1, 0)
    assert checkpoint.inbox_hash == chain(INBOX_START, message)


def test_a_broken_hash_chain_stops_the_engine() -> None:
    world = World()
    with pytest.raises(AssertionError, match="hash chain"):
        world.engine.apply(BlockInput(1, 1, (), (b"x",), INBOX_START, ()))


def test_a_withdrawal_debits_and_is_provable() -> None:
    world = ready(100)
    empty = world.engine.checkpoint_state()
    assert empty.withdrawals_root == DenseTree().root()
    done = world.run(withdrawal(A, 30 * USDC))
    assert (done.status, done.order_id) == ("done", 0)
    assert world.run(withdrawal(A, 30 * USDC)).reason == "duplicate_client_id"
    events = world.block(world.command(withdrawal(A, 20 * USDC, client=2))).events
    assert Withdrawn(1, A, 0, TO, 20 * USDC) in events
    after = world.engine.checkpoint_state()
    assert after.withdrawn_total == 50 * USDC == 100 * USDC - after.net_total
    tree = DenseTree()
    for index, amount in enumerate((30, 20)):
        tree.set(index, withdrawal_leaf(index, TO, amount * USDC))
    assert after.withdrawals_root == tree.root()
    for index, amount in enumerate((30, 20)):
        leaf, proof = world.engine.withdrawal_proof(index)
        assert leaf == (index, TO, amount * USDC)
        assert proof == tree.proof(index)
    with pytest.raises(IndexError):
        world.engine.withdrawal_proof(2)


def test_withdrawals_need_the_wallet_money_and_margin() -> None:
    world = ready(100, 100_000)
    assert world.run(withdrawal(A, 1), b"\x01" * 20).reason == "wallet_only"
    assert world.run(withdrawal(wallet(7), 1)).reason == "unknown_account"
    assert world.run(withdrawal(A, USDC - 1)).reason == "withdrawal_min"
    assert world.run(withdrawal(A, 101 * USDC)).reason == "insufficient_margin"
    insurance = bytes.fromhex(world.genesis.insurance_wallet)
    assert world.run(withdrawal(insurance, 5 * USDC, 253)).reason == "system_account"
    world.place(B, SELL, 23_600, 30_000)
    world.place(A, BUY, 23_600, 30_000)
    free = world.engine.account_view(A, 0)["initial_margin"]
    assert isinstance(free, int)
    assert world.run(withdrawal(A, free + 1)).reason == "insufficient_margin"
    assert world.run(withdrawal(A, free)).status == "done"
    assert world.engine.account_view(A, 0)["initial_margin"] == 0


def test_profit_not_yet_realised_may_leave_and_fees_may_be_collected() -> None:
    world = ready(100, 100_000)
    world.place(B, SELL, 23_600, 30_000)
    world.place(A, BUY, 23_600, 30_000)
    world.move_spot(0, 280_000_000)
    assert world.run(withdrawal(A, 150 * USDC)).status == "done"
    fees = world.state.fees.cash
    collector = bytes.fromhex(world.genesis.fee_wallet)
    assert world.run(withdrawal(collector, fees, 254)).status == "done", (
        "below the minimum, but all"
    )
    assert world.state.fees.cash == 0
    naive.check_money(world.state, world.deposited)


def test_no_withdrawal_with_positions_while_the_oracle_is_stale() -> None:
    world = ready(100, 100)
    world.place(B, SELL, 23_600, 100)
    world.place(A, BUY, 23_600, 100)
    world.deposit(wallet(2), 50 * USDC)
    world.quiet = True
    world.block(after_ms=11_000)
    assert world.run(withdrawal(A, 5 * USDC)).reason == "oracle_stale"
    assert world.run(withdrawal(wallet(2), 5 * USDC)).status == "done", "cash alone needs no price"


messages = st.one_of(
    st.binary(max_size=140),
    st.builds(
        lambda kind, who, sub, amount: word(kind) + word(wallet(who)) + word(sub) + word(amount),
        st.integers(0, 3),
        st.integers(0, 3),
        st.one_of(st.integers(0, 40), st.integers(250, 256), st.integers(0, 2**256 - 1)),
        st.one_of(st.integers(0, 20 * USDC), st.integers(0, 2**256 - 1)),
    ),
)


@given(st.lists(messages, max_size=12))
@settings(max_examples=60, deadline=None)
def test_net_total_is_what_the_contract_counts_whatever_comes(inbox: list[bytes]) -> None:
    world = World(free_genesis(accounts_max=2, suspense_max=2))
    counted = sum(
        int.from_bytes(m[96:], "big") for m in inbox
        if len(m) == 128 and m[:32] == word(1) and m[32:44] == bytes(12)
    )  # fmt: skip
    events = world.block(inbox=tuple(inbox)).events
    assert len([e for e in events if isinstance(e, Deposited | InboxRefused)]) == len(inbox)
    assert world.engine.checkpoint_state().net_total == counted
    naive.check_money(world.state, counted)
