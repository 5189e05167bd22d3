"""Check withdrawal, account and value proofs against roots, holding no state.

Every hash starts with a byte that says what it is (leaf 0x00, node 0x01, state root 0x02), so no
leaf can pass for a node, nor the other way round. Source: ARCHITECTURE.md, "Settlement".
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from consensus.digest import keccak, signed_word, word

DEPTH = 32
POSITIONS_MAX = 128
EMPTY_LEAF = keccak(b"fairlane.empty.leaf")

_WITHDRAWAL = keccak(b"Withdrawal(uint64 index,address recipient,uint256 amount)")
_ACCOUNT = keccak(
    b"Account(uint64 index,address wallet,uint8 subaccount,int256 cash,bytes32 positions)"
)
_VALUE = keccak(b"Value(uint32 instrument,int256 value)")


class WithdrawalProof(Struct, frozen=True, array_like=True):
    """That `recipient` may claim `amount` micro-USDC as withdrawal `index`.

    Shape: `siblings` are 32 hashes, the leaf's neighbour first; so in every proof here.
    """

    index: int
    recipient: bytes
    amount: int
    siblings: tuple[bytes, ...]


class AccountProof(Struct, frozen=True, array_like=True):
    """That subaccount `index` holds `cash` micro-USDC and `positions` of (instrument, lots).

    Shape: positions sorted by instrument, each once. `values_root` completes the state root.
    """

    index: int
    wallet: bytes
    subaccount: int
    cash: int
    positions: tuple[tuple[int, int], ...]
    siblings: tuple[bytes, ...]
    values_root: bytes


class ValueProof(Struct, frozen=True, array_like=True):
    """That a lot of `instrument` is worth `value` micro-USDC; its leaf's index is `index`."""

    index: int
    instrument: int
    value: int
    siblings: tuple[bytes, ...]
    accounts_root: bytes


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return keccak(b"\x01" + left + right)


def state_root(accounts_root: bytes, values_root: bytes) -> bytes:
    """Return the root over the accounts' and the values' trees."""
    return keccak(b"\x02" + accounts_root + values_root)


def withdrawal_leaf(index: int, recipient: bytes, amount: int) -> bytes:
    """Return the leaf of one withdrawal."""
    return keccak(b"\x00" + _WITHDRAWAL + word(index) + word(recipient) + word(amount))


def account_leaf(
    index: int, wallet: bytes, subaccount: int, cash: int, positions: Sequence[tuple[int, int]]
) -> bytes:
    """Return the leaf of one subaccount; positions as in `AccountProof`."""
    packed = b"".join(word(instrument) + signed_word(lots) for instrument, lots in positions)
    words = (word(index), word(wallet), word(subaccount), signed_word(cash), keccak(packed))
    return keccak(b"\x00" + _ACCOUNT + b"".join(words))


def value_leaf(instrument: int, value: int) -> bytes:
    """Return the leaf of one instrument's value."""
    return keccak(b"\x00" + _VALUE + word(instrument) + signed_word(value))


def root_from(leaf: bytes, index: int, siblings: Sequence[bytes]) -> bytes | None:
    """Return the root that `siblings` lead to from `leaf` at `index`; None when they cannot."""
    if not 0 <= index < 1 << DEPTH or len(siblings) != DEPTH:
        return None
    node = leaf
    for level, sibling in enumerate(siblings):
        if len(sibling) != 32:
            return None
        node = node_hash(sibling, node) if index >> level & 1 else node_hash(node, sibling)
    return node


def verify_withdrawal(withdrawals_root: bytes, proof: WithdrawalProof) -> bool:
    """Say whether `proof` holds under a checkpoint's `withdrawals_root`; never raises."""
    if not _unsigned(64, proof.index) or not _unsigned(256, proof.amount):
        return False
    if len(proof.recipient) != 20:
        return False
    leaf = withdrawal_leaf(proof.index, proof.recipient, proof.amount)
    return root_from(leaf, proof.index, proof.siblings) == withdrawals_root


def verify_account(root: bytes, proof: AccountProof) -> bool:
    """Say whether `proof` holds under a checkpoint's `state_root`; never raises."""
    bounded = (
        _unsigned(64, proof.index)
        and _unsigned(8, proof.subaccount)
        and len(proof.wallet) == 20
        and len(proof.values_root) == 32
        and _signed(proof.cash)
        and len(proof.positions) <= POSITIONS_MAX
        and all(_unsigned(32, i) and _signed(lots) for i, lots in proof.positions)
        and all(a < b for (a, _), (b, _) in pairwise(proof.positions))
    )
    if not bounded:
        return False
    p = proof
    leaf = account_leaf(p.index, p.wallet, p.subaccount, p.cash, p.positions)
    accounts_root = root_from(leaf, p.index, p.siblings)
    return accounts_root is not None and state_root(accounts_root, p.values_root) == root


def verify_value(root: bytes, proof: ValueProof) -> bool:
    """Say whether `proof` holds under a checkpoint's `state_root`; never raises."""
    bounded = _unsigned(32, proof.instrument) and _signed(proof.value)
    if not bounded or len(proof.accounts_root) != 32:
        return False
    leaf = value_leaf(proof.instrument, proof.value)
    values_root = root_from(leaf, proof.index, proof.siblings)
    return values_root is not None and state_root(proof.accounts_root, values_root) == root


def _unsigned(bits: int, value: int) -> bool:
    return 0 <= value < 1 << bits


def _signed(value: int) -> bool:
    return -(1 << 255) <= value < 1 << 255
