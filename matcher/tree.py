"""Dense Merkle trees of depth 32 over Keccak-256: accounts, values, withdrawals.

node(l, r) = keccak(0x01 | l | r), leaf = keccak(0x00 | typehash | words); leaves that are not set
are EMPTY_LEAF. Bit k of a leaf's index is its side at level k (0: left).
Source: ARCHITECTURE.md, "Trees".
"""

from __future__ import annotations

from typing import Final

from consensus.digest import keccak, signed_word, word

DEPTH: Final = 32
EMPTY_LEAF: Final = keccak(b"fairlane.empty.leaf")
LEAVES_MAX: Final = 1 << DEPTH

_ACCOUNT = keccak(
    b"Account(uint64 index,address wallet,uint8 subaccount,int256 cash,bytes32 positions)"
)
_VALUE = keccak(b"Value(uint32 instrument,int256 value)")
_WITHDRAWAL = keccak(b"Withdrawal(uint64 index,address recipient,uint256 amount)")


def node(left: bytes, right: bytes) -> bytes:
    """Return the parent of two nodes."""
    return keccak(b"\x01" + left + right)


def _empty_levels() -> tuple[bytes, ...]:
    levels = [EMPTY_LEAF]
    for _ in range(DEPTH):
        levels.append(node(levels[-1], levels[-1]))
    return tuple(levels)


EMPTY: Final = _empty_levels()
"""EMPTY[k] is the root of an empty subtree of height k."""


def account_leaf(
    index: int, wallet: bytes, subaccount: int, cash: int, positions: list[tuple[int, int]]
) -> bytes:
    """Return an account's leaf; `positions` are (instrument, lots), sorted, without zeros."""
    packed = b"".join(word(instrument) + signed_word(lots) for instrument, lots in positions)
    return keccak(
        b"\x00"
        + _ACCOUNT
        + word(index)
        + word(wallet)
        + word(subaccount)
        + signed_word(cash)
        + keccak(packed)
    )


def value_leaf(instrument: int, value: int) -> bytes:
    """Return the leaf of an instrument's value. Units: micro-USDC a lot."""
    return keccak(b"\x00" + _VALUE + word(instrument) + signed_word(value))


def withdrawal_leaf(index: int, recipient: bytes, amount: int) -> bytes:
    """Return a withdrawal's leaf. Units: micro-USDC."""
    return keccak(b"\x00" + _WITHDRAWAL + word(index) + word(recipient) + word(amount))


def state_root(accounts: bytes, values: bytes) -> bytes:
    """Return the checkpoint's state root over the two subtrees' roots."""
    return keccak(b"\x02" + accounts + values)


class DenseTree:
    """A tree whose set leaves are 0..n-1: one bytearray per level, changed parents rehashed.

    `set` only notes a leaf; `root` and `proof` hash what changed since the last call.
    """

    __slots__ = ("_changed", "_levels")

    def __init__(self) -> None:
        self._levels: list[bytearray] = [bytearray()]
        self._changed: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._levels[0]) // 32

    def set(self, index: int, leaf: bytes) -> None:
        """Put `leaf` (32 bytes) at `index`, which is at most the number of leaves."""
        leaves = self._levels[0]
        assert len(leaf) == 32 and 0 <= 32 * index <= len(leaves) and index < LEAVES_MAX
        leaves[32 * index : 32 * index + 32] = leaf
        self._changed[index] = None

    def leaf(self, index: int) -> bytes:
        """Return the leaf at `index`, the empty one if none was set."""
        return self._at(0, index)

    def root(self) -> bytes:
        """Return the root of the whole tree of depth 32."""
        self._rehash()
        height = len(self._levels) - 1
        root = self._at(height, 0)
        for level in range(height, DEPTH):
            root = node(root, EMPTY[level])
        return root

    def proof(self, index: int) -> tuple[bytes, ...]:
        """Return the 32 siblings of the leaf at `index`, the lowest first."""
        assert 0 <= index < LEAVES_MAX
        self._rehash()
        return tuple(self._at(level, (index >> level) ^ 1) for level in range(DEPTH))

    def _at(self, level: int, index: int) -> bytes:
        if level >= len(self._levels):
            return self._above(level) if index == 0 else EMPTY[level]
        row = self._levels[level]
        return bytes(row[32 * index : 32 * index + 32]) or EMPTY[level]

    def _above(self, level: int) -> bytes:
        """Return the leftmost node of a level above the stored ones."""
        height = len(self._levels) - 1
        found = self._at(height, 0)
        for below in range(height, level):
            found = node(found, EMPTY[below])
        return found

    def _rehash(self) -> None:
        """Hash the parents of everything that changed, level by level, up to a single node."""
        if not self._changed:
            return
        changed = sorted(self._changed)
        self._changed.clear()
        level = 0
        while len(self._levels[level]) > 32:
            below = self._levels[level]
            if len(self._levels) == level + 1:
                self._levels.append(bytearray())
                changed = list(range((len(below) // 32 + 1) // 2 * 2))
            above = self._levels[level + 1]
            parents: list[int] = []
            last = -1
            for index in changed:
                if index >> 1 != last:
                    last = index >> 1
                    parents.append(last)
            empty = EMPTY[level]
            for parent in parents:
                pair = below[64 * parent : 64 * parent + 64]
                if len(pair) == 32:
                    pair += empty
                above[32 * parent : 32 * parent + 32] = keccak(b"\x01" + pair)
            changed = parents
            level += 1
