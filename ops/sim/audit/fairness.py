"""The promise of fair order, against the true order in which honest replicas received.

Knows nothing of how the order is computed. Source: ARCHITECTURE.md, "Fair order".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


def unfair_pairs(
    receipts: Sequence[Sequence[bytes]],
    liars: int,
    received_min: int,
    emission: Sequence[tuple[int, bytes]],
    still_open: Mapping[bytes, int],
    is_void_for: Callable[[bytes, bytes], bool],
) -> list[tuple[bytes, bytes]]:
    """Return pairs (a, b): `received_min` replicas had a before b, yet b was emitted earlier.

    `receipts` are the honest replicas' persisted receipts in order; each liar counts as having
    had a first, which is the strict form. Ids of one batch are never a violation: `emission` has
    (batch number, id) in order, `still_open` the numbers of ids whose batch goes on. An `a` that
    had expired when `b` was emitted (`is_void_for(a, b)`) owes nothing.
    """
    name = {id_: k for k, id_ in enumerate(dict.fromkeys(i for log in receipts for i in log))}
    everywhere = (1 << len(name)) - 1
    mates: dict[int, int] = {}
    numbered = [*emission, *((number, id_) for id_, number in still_open.items())]
    for number, id_ in numbered:
        if id_ in name:
            mates[number] = mates.get(number, 0) | 1 << name[id_]
    before = [_before(log, name) for log in receipts]
    held = [_mask(log, name) for log in receipts]
    pairs: list[tuple[bytes, bytes]] = []
    names = list(name)
    later = everywhere
    for number, b in emission:
        if b in name:
            later &= ~(1 << name[b])
        masks = [at.get(b, all_) for at, all_ in zip(before, held, strict=True)]
        bad = at_least(masks, received_min - liars, everywhere) & later & ~mates.get(number, 0)
        while bad:
            low = bad & -bad
            bad ^= low
            a = names[low.bit_length() - 1]
            if not is_void_for(a, b):
                pairs.append((a, b))
    return pairs


def _mask(log: Sequence[bytes], name: Mapping[bytes, int]) -> int:
    mask = 0
    for id_ in log:
        mask |= 1 << name[id_]
    return mask


def _before(log: Sequence[bytes], name: Mapping[bytes, int]) -> dict[bytes, int]:
    """Return for each id of a log the mask of those before it."""
    masks: dict[bytes, int] = {}
    mask = 0
    for id_ in log:
        if id_ not in masks:
            masks[id_] = mask
            mask |= 1 << name[id_]
    return masks


def at_least(masks: Sequence[int], count: int, everywhere: int) -> int:
    """Return the bits that are set in at least `count` of `masks`."""
    reached = [everywhere, *([0] * max(count, 0))]
    for mask in masks:
        for k in range(len(reached) - 1, 0, -1):
            reached[k] |= reached[k - 1] & mask
    return reached[-1]
