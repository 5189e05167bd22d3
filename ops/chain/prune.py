"""Forget the embedded chain's old states: mark what recent ones reach, drop the rest.

py-evm writes every trie node of every block into one store and never removes one.
"""

from __future__ import annotations

from collections.abc import Iterable

import rlp  # type: ignore[import-untyped]
from eth.abc import BlockHeaderAPI

_EMPTY = b""


def prune(store: dict[bytes, bytes], recent: Iterable[BlockHeaderAPI]) -> None:
    """Drop from `store` every trie node, code and header that `recent` blocks do not need.

    Keys that are not 32 bytes are py-evm's look-up tables; those by number or hash of old
    blocks go too.
    """
    kept: dict[bytes, None] = {}
    lookups: dict[bytes, None] = {}
    for header in recent:
        kept[bytes(header.hash)] = None
        kept[bytes(header.transaction_root)] = None
        kept[bytes(header.receipt_root)] = None
        lookups[f"block-number-to-hash:{header.block_number}".encode()] = None
        lookups[f"block-hash-to-score:{header.hash!r}".encode()] = None
        _mark(store, bytes(header.state_root), kept)
    for key in list(store):
        if key.startswith(b"v1:") or key in lookups or key in kept:
            continue
        del store[key]


def _mark(store: dict[bytes, bytes], root: bytes, kept: dict[bytes, None]) -> None:
    """Mark the state trie below `root`, each account's storage trie and its code."""
    stack = [(root, True)]
    while stack:
        key, accounts = stack.pop()
        if key in kept or key not in store:
            continue
        kept[key] = None
        _children(rlp.decode(store[key]), accounts, stack, kept)


def _children(
    node: list[object],
    accounts: bool,
    stack: list[tuple[bytes, bool]],
    kept: dict[bytes, None],
) -> None:
    """Push what `node` refers to: a hash, or a short child held inline."""
    if len(node) == 17:
        references = node[:16]
    else:
        path, value = node
        assert isinstance(path, bytes)
        if path[0] & 0x20:  # A leaf: its value is an account, or a storage slot's word.
            if accounts:
                assert isinstance(value, bytes)
                _, _, storage_root, code_hash = rlp.decode(value)
                stack.append((bytes(storage_root), False))
                kept[bytes(code_hash)] = None
            return
        references = [value]
    for reference in references:
        if isinstance(reference, list):
            _children(reference, accounts, stack, kept)
        elif reference != _EMPTY:
            assert isinstance(reference, bytes)
            stack.append((reference, accounts))
