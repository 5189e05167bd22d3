"""Merkle trees against the definition written out."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode as abi
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.digest import (
    CHUNK_BYTES_MAX,
    STATE_FANOUT,
    chunk_name,
    keccak,
    node_name,
    piece_name,
    tagged,
)
from matcher import tree
from matcher.chunks import ChunkTree
from matcher.tree import DEPTH, EMPTY, EMPTY_LEAF, DenseTree

leaf_bytes = st.binary(min_size=32, max_size=32)
changes_of_chunks = st.lists(st.tuples(st.integers(0, 30), st.binary(max_size=9)), max_size=7)


def naive_root(leaves: dict[int, bytes], level: int = DEPTH, at: int = 0) -> bytes:
    """The definition: a subtree without leaves is that level's empty one."""
    if not any(index >> level == at for index in leaves):
        return EMPTY[level]
    if level == 0:
        return leaves[at]
    left = naive_root(leaves, level - 1, 2 * at)
    return keccak(b"\x01" + left + naive_root(leaves, level - 1, 2 * at + 1))


def climb(leaf: bytes, index: int, proof: tuple[bytes, ...]) -> bytes:
    for level, sibling in enumerate(proof):
        pair = (sibling, leaf) if index >> level & 1 else (leaf, sibling)
        leaf = keccak(b"\x01" + pair[0] + pair[1])
    return leaf


@given(st.lists(st.lists(st.tuples(st.integers(0, 40), leaf_bytes), max_size=8), max_size=6))
@settings(max_examples=60, deadline=None)
def test_root_and_proofs_follow_the_definition(rounds: list[list[tuple[int, bytes]]]) -> None:
    dense, leaves = DenseTree(), {}
    for changes in rounds:
        for wish, leaf in changes:
            index = min(wish, len(dense))
            dense.set(index, leaf)
            leaves[index] = leaf
        root = naive_root(leaves)
        assert dense.root() == root
        for index in (0, 1, len(leaves) - 1, len(leaves), 1000, 2**32 - 1):
            if index >= 0:
                proof = dense.proof(index)
                assert len(proof) == DEPTH
                assert climb(leaves.get(index, EMPTY_LEAF), index, proof) == root


def test_the_empty_root_is_a_constant_and_not_zero() -> None:
    value = EMPTY_LEAF
    for _ in range(32):
        value = keccak(b"\x01" + value + value)
    assert DenseTree().root() == value == EMPTY[32] != bytes(32)


def test_a_gap_is_our_own_fault() -> None:
    with pytest.raises(AssertionError):
        DenseTree().set(1, bytes(32))


def test_leaves_are_abi_words() -> None:
    who = b"\x11" * 20
    rows = [(0, -5), (3, 7)]
    packed = keccak(b"".join(abi(["uint256", "int256"], row) for row in rows))
    head = keccak(
        b"Account(uint64 index,address wallet,uint8 subaccount,int256 cash,bytes32 positions)"
    )
    words = abi(["uint64", "address", "uint8", "int256", "bytes32"], [4, who, 2, -9, packed])
    assert tree.account_leaf(4, who, 2, -9, rows) == keccak(b"\x00" + head + words)
    head = keccak(b"Value(uint32 instrument,int256 value)")
    words = abi(["uint32", "int256"], [3, -8])
    assert tree.value_leaf(3, -8) == keccak(b"\x00" + head + words)
    head = keccak(b"Withdrawal(uint64 index,address recipient,uint256 amount)")
    words = abi(["uint64", "address", "uint256"], [3, who, 8])
    assert tree.withdrawal_leaf(3, who, 8) == keccak(b"\x00" + head + words)
    assert tree.state_root(who, who) == keccak(b"\x02" + who + who)


def naive_chunks(chunks: list[bytes], store: dict[bytes, bytes]) -> bytes:
    """The root by its definition; `store` gets what every name stands for."""
    row = []
    for chunk in chunks:
        row.append(chunk_name(chunk))
        if len(chunk) > CHUNK_BYTES_MAX:
            size = CHUNK_BYTES_MAX
            pieces = [chunk[i : i + size] for i in range(0, len(chunk), size)]
            salt = tagged(b"fairlane/whole-chunk", chunk)
            names = [piece_name(salt, place, piece) for place, piece in enumerate(pieces)]
            store.update(zip(names, (b"\x00" + piece for piece in pieces), strict=True))
            store[row[-1]] = b"\x01" + salt + b"".join(names)
        else:
            store[row[-1]] = b"\x00" + chunk
    level = 0
    while len(row) > 1:
        level += 1
        groups = [b"".join(row[i : i + STATE_FANOUT]) for i in range(0, len(row), STATE_FANOUT)]
        row = [node_name(level, group) for group in groups]
        store.update((name, b"\x01" + group) for name, group in zip(row, groups, strict=True))
    return row[0] if row else bytes(32)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(changes_of_chunks, max_size=8),
    st.integers(1, 3),
    st.sampled_from([0, 1, STATE_FANOUT - 1, STATE_FANOUT + 1, STATE_FANOUT**2 - 2]),
)
def test_chunks_follow_the_definition(
    rounds: list[list[tuple[int, bytes]]], every: int, filled: int
) -> None:
    """The root is the naive one, and what `take` gives keeps a store exactly at the state.

    As in a state, no two places ever hold equal chunks; some chunks are long.
    """
    grown, chunks = ChunkTree(), [b"%d:" % index for index in range(filled)]
    for index, chunk in enumerate(chunks):
        grown.set(index, chunk)
    kept: dict[bytes, bytes] = {}
    for number, changes in enumerate(rounds):
        for wish, seed in changes:
            index = min(wish, len(chunks)) if wish % 2 else max(0, len(chunks) - wish)
            chunk = b"%d:" % index + seed * (70_000 if b"\xff" in seed else 1)
            grown.set(index, chunk)
            chunks[index : index + 1] = [chunk]
        wanted: dict[bytes, bytes] = {}
        assert grown.root() == naive_chunks(chunks, wanted)
        if number % every == 0:
            fresh, gone = grown.take()
            for name in gone:
                del kept[name]
            kept.update((bytes(name), object_) for name, object_ in fresh.items())
            assert kept == wanted
