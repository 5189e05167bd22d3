"""Proofs hold exactly for what is in a tree, checked against a naive tree written on its own."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode as abi_encode
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from matcher import tree
from settlement import proofs

ADDRESS = st.binary(min_size=20, max_size=20)
MONEY = st.integers(min_value=-(2**63), max_value=2**63 - 1)
INDEX = st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1))


class NaiveTree:
    """A sparse tree of depth 32, hashed from the definition, by recursion."""

    def __init__(self, leaves: dict[int, bytes]) -> None:
        self.leaves = leaves
        self.empty = [keccak(b"fairlane.empty.leaf")]
        for _ in range(32):
            self.empty.append(keccak(b"\x01" + self.empty[-1] * 2))

    def node(self, level: int, position: int) -> bytes:
        low, high = position << level, (position + 1) << level
        if not any(low <= index < high for index in self.leaves):
            return self.empty[level]
        if level == 0:
            return self.leaves[position]
        children = self.node(level - 1, 2 * position), self.node(level - 1, 2 * position + 1)
        return keccak(b"\x01" + children[0] + children[1])

    @property
    def root(self) -> bytes:
        return self.node(32, 0)

    def siblings(self, index: int) -> tuple[bytes, ...]:
        return tuple(self.node(level, (index >> level) ^ 1) for level in range(32))


def leaf(type_: str, abi: list[str], values: list[Any]) -> bytes:
    return keccak(b"\x00" + keccak(type_.encode()) + abi_encode(abi, values))


def withdrawal(index: int, recipient: bytes, amount: int) -> bytes:
    type_ = "Withdrawal(uint64 index,address recipient,uint256 amount)"
    return leaf(type_, ["uint64", "address", "uint256"], [index, recipient, amount])


def account(
    index: int, wallet: bytes, sub: int, cash: int, positions: list[tuple[int, int]]
) -> bytes:
    packed = b"".join(abi_encode(["uint32", "int256"], list(pair)) for pair in positions)
    type_ = "Account(uint64 index,address wallet,uint8 subaccount,int256 cash,bytes32 positions)"
    return leaf(
        type_,
        ["uint64", "address", "uint8", "int256", "bytes32"],
        [index, wallet, sub, cash, keccak(packed)],
    )


def changed(proof: Any, **fields: Any) -> Any:
    values = {name: getattr(proof, name) for name in proof.__struct_fields__}
    return type(proof)(**{**values, **fields})


withdrawals = st.dictionaries(
    INDEX, st.tuples(ADDRESS, st.integers(0, 2**64)), min_size=1, max_size=6
)
positions = st.dictionaries(st.integers(0, 2**32 - 1), MONEY, max_size=4)
accounts = st.dictionaries(
    INDEX, st.tuples(ADDRESS, st.integers(0, 31), MONEY, positions), min_size=1, max_size=5
)
values = st.dictionaries(INDEX, st.tuples(st.integers(0, 2**32 - 1), MONEY), min_size=1, max_size=5)


@given(withdrawals)
@settings(max_examples=12, deadline=None)
def test_a_withdrawal_is_proved_and_nothing_near_it(entries: dict[int, tuple[bytes, int]]) -> None:
    tree = NaiveTree({i: withdrawal(i, *entry) for i, entry in entries.items()})
    for index, (recipient, amount) in entries.items():
        proof = proofs.WithdrawalProof(index, recipient, amount, tree.siblings(index))
        assert proofs.verify_withdrawal(tree.root, proof)
        assert not proofs.verify_withdrawal(bytes(32), proof)
        far = tuple(reversed(proof.siblings))
        for wrong in (
            changed(proof, amount=amount + 1),
            changed(proof, amount=-1),
            changed(proof, amount=amount + (1 << 256)),
            changed(proof, index=index ^ 1),
            changed(proof, index=index + (1 << 32)),
            changed(proof, index=-1),
            changed(proof, recipient=bytes(20) if any(recipient) else b"\x01" * 20),
            changed(proof, recipient=bytes(12) + recipient),
            changed(proof, siblings=proof.siblings[:-1]),
            changed(proof, siblings=(*proof.siblings, tree.empty[32])),
            changed(proof, siblings=(b"", *proof.siblings[1:])),
            changed(proof, siblings=far),
        ):
            assert not proofs.verify_withdrawal(tree.root, wrong)


@given(accounts, values)
@settings(max_examples=12, deadline=None)
def test_accounts_and_values_are_proved_under_the_state_root(
    holders: dict[int, tuple[bytes, int, int, dict[int, int]]],
    marks: dict[int, tuple[int, int]],
) -> None:
    lots = {i: sorted(entry[3].items()) for i, entry in holders.items()}
    tree = NaiveTree({i: account(i, *entry[:3], lots[i]) for i, entry in holders.items()})
    value_type = "Value(uint32 instrument,int256 value)"
    value_tree = NaiveTree(
        {i: leaf(value_type, ["uint32", "int256"], list(mark)) for i, mark in marks.items()}
    )
    root = keccak(b"\x02" + tree.root + value_tree.root)
    for i, (wallet, sub, cash, _) in holders.items():
        held = tuple(lots[i])
        proof = proofs.AccountProof(i, wallet, sub, cash, held, tree.siblings(i), value_tree.root)
        assert proofs.verify_account(root, proof)
        for wrong in (
            changed(proof, cash=cash + 1),
            changed(proof, subaccount=sub + 1),
            changed(proof, index=i ^ 1),
            changed(proof, positions=(*held, (2**32 - 1, 1))),
            changed(proof, positions=held[:-1] if held else ((1, 1),)),
            changed(proof, values_root=tree.root),
        ):
            assert not proofs.verify_account(root, wrong)
        assert not proofs.verify_account(tree.root, proof)
    for i, (instrument, value) in marks.items():
        proof_ = proofs.ValueProof(i, instrument, value, value_tree.siblings(i), tree.root)
        assert proofs.verify_value(root, proof_)
        assert not proofs.verify_value(root, changed(proof_, value=value + 1))
        assert not proofs.verify_value(root, changed(proof_, instrument=instrument ^ 1))
        assert not proofs.verify_value(root, changed(proof_, accounts_root=value_tree.root))


def test_unsorted_repeated_or_too_many_positions_prove_nothing() -> None:
    wallet = b"\x22" * 20
    for held in ([(2, 1), (1, 1)], [(1, 1), (1, 1)], [(i, 1) for i in range(129)]):
        tree = NaiveTree({0: account(0, wallet, 0, 5, held)})
        root = keccak(b"\x02" + tree.root + tree.empty[32])
        proof = proofs.AccountProof(0, wallet, 0, 5, tuple(held), tree.siblings(0), tree.empty[32])
        assert not proofs.verify_account(root, proof)


def test_a_node_cannot_pass_for_a_leaf() -> None:
    """A proof that starts one level up must fail, since a leaf's hash names its type."""
    tree = NaiveTree({0: withdrawal(0, b"\x22" * 20, 5), 1: withdrawal(1, b"\x33" * 20, 7)})
    inner = tree.node(1, 0)
    assert proofs.root_from(inner, 0, (*tree.siblings(0)[1:], tree.empty[31])) != tree.root


class _Sloppy:
    """`root_from` that does not look at how many siblings there are."""

    @staticmethod
    def root_from(leaf_: bytes, index: int, siblings: tuple[bytes, ...]) -> bytes | None:
        node = leaf_
        for level, sibling in enumerate(siblings):
            node = tree.node(sibling, node) if index >> level & 1 else tree.node(node, sibling)
        return node


def test_mutation_unchecked_depth_lets_a_lone_leaf_prove_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipient = b"\x22" * 20
    forged_root = withdrawal(0, recipient, 5)
    proof = proofs.WithdrawalProof(0, recipient, 5, ())
    assert not proofs.verify_withdrawal(forged_root, proof)
    monkeypatch.setattr(proofs, "root_from", _Sloppy.root_from)
    assert proofs.verify_withdrawal(forged_root, proof)
