"""The network's hashing and the contracts' are one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from matcher import inbox, tree
from settlement.proofs import WithdrawalProof, verify_withdrawal
from tests.contracts.chain import USDC, Tree, World, withdrawal_leaf


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.binary(min_size=20, max_size=20), st.integers(0, 2**63)), max_size=40))
def test_the_networks_withdrawals_tree_is_the_definitions(paid: list[tuple[bytes, int]]) -> None:
    ours, reference = tree.DenseTree(), {}
    for index, (recipient, amount) in enumerate(paid):
        leaf = tree.withdrawal_leaf(index, recipient, amount)
        assert leaf == withdrawal_leaf(index, "0x" + recipient.hex(), amount)
        ours.set(index, leaf)
        reference[index] = leaf
    defined = Tree(reference)
    assert ours.root() == defined.root
    for index in reference:
        assert list(ours.proof(index)) == defined.proof(index)


def test_the_vault_pays_on_the_networks_proof_and_the_inbox_chains_its_messages() -> None:
    world = World()
    wallet = world.accounts[4]
    chained = inbox.INBOX_START
    for amount in (100 * USDC, 7 * USDC):
        world.deposit(amount, wallet, sub=3)
        message = inbox.deposit_message(bytes.fromhex(wallet[2:]), 3, amount)
        chained = inbox.chain(chained, message)
    assert world.inbox.functions.entry(2).call()[0] == chained
    ours = tree.DenseTree()
    for index in range(3):
        world.withdrawals[index] = (world.accounts[5 + index], (index + 1) * USDC)
        recipient = bytes.fromhex(world.accounts[5 + index][2:])
        ours.set(index, tree.withdrawal_leaf(index, recipient, (index + 1) * USDC))
    number = world.submit(withdrawals_root=ours.root()).number
    for index in range(3):
        proof = ours.proof(index)
        recipient = bytes.fromhex(world.withdrawals[index][0][2:])
        held = WithdrawalProof(index, recipient, (index + 1) * USDC, proof)
        assert verify_withdrawal(ours.root(), held)
        world.transact(world.claim(number, index, proof=list(proof)))
