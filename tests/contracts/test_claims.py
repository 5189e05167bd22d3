"""Deposits, the inbox and claims, on the shipped bytecode."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consensus.digest import keccak
from tests.contracts.chain import EMPTY_LEAF, MINIMUM, USDC, Tree, World, node, withdrawal_leaf

INDEX_MAX = 2**32 - 1


@pytest.fixture
def world() -> World:
    return World()


def test_deposits_enter_the_inbox_in_order(world: World) -> None:
    chained, total = keccak(b"fairlane.inbox.v1"), 0
    assert world.inbox.functions.entry(0).call() == (chained, 0, 0)
    for k, (amount, sub) in enumerate([(MINIMUM, 0), (7 * USDC, 31), (10**15, 5)], start=1):
        wallet = world.accounts[k]
        receipt = world.deposit(amount, wallet, sub)
        message = encode(["uint256", "address", "uint256", "uint256"], [1, wallet, sub, amount])
        chained, total = keccak(chained + keccak(message)), total + amount
        expected = {"index": k, "message": message, "chained": chained}
        assert world.event(world.inbox, "Enqueued", receipt) == expected
        assert world.inbox.functions.entry(k).call() == (chained, total, 0)
        assert world.inbox.functions.entry(k - 1).call()[2] == world.now
    assert world.inbox.functions.count().call() == 3
    assert world.token.functions.balanceOf(world.vault.address).call() == total


def test_bad_deposits_are_refused(world: World) -> None:
    deposit, wallet = world.vault.functions.deposit, world.accounts[1]
    assert world.refusal(deposit(MINIMUM - 1, wallet, 0)) == "DepositTooSmall"
    assert world.refusal(deposit(0, wallet, 0)) == "DepositTooSmall"
    assert world.refusal(deposit(MINIMUM, wallet, 32)) == "BadSubaccount"
    assert world.refusal(deposit(MINIMUM, "0x" + "00" * 20, 0)) == "ZeroWallet"
    assert world.refusal(deposit(10**30, wallet, 0)) == "ERC20InsufficientBalance"
    enqueue = world.inbox.functions.enqueueDeposit(wallet, 0, MINIMUM)
    assert world.refusal(enqueue) == "OnlyVault"
    assert world.refusal(world.inbox.functions.entry(1)) == "UnknownCount"


def test_the_sum_of_deposits_stays_in_64_bits(world: World) -> None:
    world.transact(world.token.functions.mint(world.accounts[0], 2**64))
    world.deposit(2**63 - 1 - MINIMUM)
    too_much = world.vault.functions.deposit(MINIMUM + 1, world.accounts[1], 0)
    assert world.refusal(too_much) == "DepositedTooMuch"
    world.deposit(MINIMUM)


def settled(world: World, withdrawals: dict[int, int]) -> int:
    """Grant these amounts by index and have a checkpoint accepted. Return its number."""
    world.deposit(10_000 * USDC)
    for index, amount in withdrawals.items():
        world.withdrawals[index] = (world.accounts[index % 3 + 3], amount)
    return world.submit().number


def test_a_claim_pays_the_leafs_recipient_once(world: World) -> None:
    number = settled(world, {0: 5 * USDC, 1: 6 * USDC})
    recipient = world.withdrawals[1][0]
    receipt = world.transact(world.claim(number, 1), sender=world.accounts[7])
    assert world.event(world.vault, "Claimed", receipt) == {
        "index": 1,
        "recipient": recipient,
        "amount": 6 * USDC,
        "number": number,
    }
    assert world.token.functions.balanceOf(recipient).call() == 6 * USDC
    assert world.vault.functions.claimed(1).call()
    assert not world.vault.functions.claimed(0).call()
    assert world.vault.functions.claimedTotal().call() == 6 * USDC
    assert world.refusal(world.claim(number, 1)) == "AlreadyClaimed"
    later = world.submit().number
    assert world.refusal(world.claim(later, 1)) == "AlreadyClaimed"
    world.transact(world.claim(later, 0))


def test_only_the_leaf_itself_is_paid(world: World) -> None:
    number = settled(world, {0: 5 * USDC, 1: 6 * USDC, INDEX_MAX: 7 * USDC})
    proof = world.tree.proof(1)
    wrong = {
        "another amount": world.claim(number, 1, amount=6 * USDC + 1),
        "another recipient": world.claim(number, 1, recipient=world.accounts[0]),
        "another index": world.claim(number, 1, index=0),
        "an index beyond the depth": world.claim(number, 1, index=1 + 2**32),
        "the largest index": world.claim(number, 1, index=2**64 - 1),
        "no proof": world.claim(number, 1, proof=[]),
        "a shorter proof": world.claim(number, 1, proof=proof[:-1]),
        "a longer proof": world.claim(number, 1, proof=[*proof, bytes(32)]),
        "another proof": world.claim(number, 1, proof=world.tree.proof(0)),
        "a turned proof": world.claim(number, 1, proof=proof[::-1]),
        "an empty leaf": world.claim(number, 2, amount=0),
    }
    for what, claim in wrong.items():
        assert world.refusal(claim) == "BadProof", what
    world.transact(world.claim(number, INDEX_MAX))


def test_no_proof_starts_at_an_inner_node(world: World) -> None:
    number = settled(world, {0: 5 * USDC})
    root = world.tree.root
    inner = node(withdrawal_leaf(0, *world.withdrawals[0]), EMPTY_LEAF)
    assert Tree({0: withdrawal_leaf(0, *world.withdrawals[0])}).root == root
    for proof in (world.tree.proof(0)[1:], [EMPTY_LEAF, *world.tree.proof(0)[1:], inner][1:]):
        assert world.refusal(world.claim(number, 0, proof=proof)) == "BadProof"


def test_claims_need_an_accepted_and_final_checkpoint() -> None:
    world = World(dispute_delay=600)
    world.deposit(100 * USDC)
    world.withdrawals[0] = (world.accounts[3], 5 * USDC)
    unaccepted = world.next()
    assert world.refusal(world.claim(unaccepted.number, 0)) == "NotAccepted"
    assert world.refusal(world.claim(0, 0)) == "NotAccepted"
    number = world.submit().number
    accepted_at = world.now
    assert world.refusal(world.claim(number, 0)) == "NotFinal"
    assert world.refusal(world.checkpoints.functions.finalWithdrawals(number)) == "NotFinal"
    world.travel(599)
    assert world.now == accepted_at + 599
    assert world.refusal(world.claim(number, 0)) == "NotFinal"
    world.travel(1)
    assert world.checkpoints.functions.isFinal(number).call()
    world.transact(world.claim(number, 0))


def test_claims_stay_below_what_was_declared_withdrawn(world: World) -> None:
    world.deposit(1_000 * USDC)
    for index in range(2):
        world.withdrawals[index] = (world.accounts[3], 60 * USDC)
    number = world.submit(withdrawn_total=100 * USDC).number
    world.transact(world.claim(number, 0))
    assert world.refusal(world.claim(number, 1)) == "ClaimsExceedWithdrawn"


def test_gifts_to_the_vault_change_nothing(world: World) -> None:
    number = settled(world, {0: 5 * USDC})
    world.transact(world.token.functions.transfer(world.vault.address, 3 * USDC))
    world.deposit(MINIMUM)
    assert world.inbox.functions.entry(2).call()[1] == 10_001 * USDC
    world.transact(world.claim(number, 0))
    world.submit()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    granted=st.dictionaries(
        st.one_of(st.integers(0, 40), st.integers(0, INDEX_MAX)),
        st.integers(1, 900 * USDC),
        min_size=1,
        max_size=6,
    ),
    data=st.data(),
)
def test_every_leaf_is_paid_once_in_any_order(granted: dict[int, int], data: st.DataObject) -> None:
    world = World()
    number = settled(world, granted)
    before = world.token.functions.balanceOf(world.vault.address).call()
    for index in data.draw(st.permutations(sorted(granted))):
        world.transact(world.claim(number, index))
        assert world.refusal(world.claim(number, index)) == "AlreadyClaimed"
    paid = sum(granted.values())
    assert world.vault.functions.claimedTotal().call() == paid
    assert world.token.functions.balanceOf(world.vault.address).call() == before - paid
