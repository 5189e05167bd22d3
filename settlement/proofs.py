"""Check withdrawal, account and value proofs against roots, holding no state.

`matcher.tree` says how leaves and nodes are hashed. Source: ARCHITECTURE.md, "Trees".
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from matcher.tree import DEPTH, account_leaf, node, state_root, value_leaf, withdrawal_leaf

POSITIONS_MAX = 128


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


def root_from(leaf: bytes, index: int, siblings: Sequence[bytes]) -> bytes | None:
    """Return the root that `siblings` lead to from `leaf` at `index`; None when they cannot."""
    if not 0 <= index < 1 << DEPTH or len(siblings) != DEPTH:
        return None
    root = leaf
    for level, sibling in enumerate(siblings):
        if len(sibling) != 32:
            return None
        root = node(sibling, root) if index >> level & 1 else node(root, sibling)
    return root


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
    leaf = account_leaf(p.index, p.wallet, p.subaccount, p.cash, list(p.positions))
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
