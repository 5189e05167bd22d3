"""The inclusion rule: which heads a block must have, so that no leader leaves a log out.

Source: ARCHITECTURE.md, "Inclusion rule".
"""

from __future__ import annotations

from consensus.messages import QC, Block

EXECUTION_LAG_MAX = 32
"""A block more than this above the state it names keeps its parent's heads."""


def floor_heads(parent: Block, qc: QC, f: int, head_cap: int) -> list[int]:
    """Return the lowest seq of each log that a child of `parent` (certified by `qc`) may name.

    The (f+1)-th largest claim of the parent's voters is at most an honest one's, so what all
    honest voters hold cannot be left out for longer than a block; liars cannot raise it.
    """
    floors: list[int] = []
    for author, head in enumerate(parent.heads):
        claims = sorted((vote.seen[author] for vote in qc.votes), reverse=True)
        held = claims[f] if len(claims) > f else head.seq
        floors.append(max(head.seq, min(held, head.seq + head_cap)))
    return floors


def keeps_heads(height: int, executed_height: int) -> bool:
    """Say whether a block of `height` must keep its parent's heads: execution lags too far."""
    return height - executed_height > EXECUTION_LAG_MAX


def heads_fault(block: Block, parent: Block, f: int, head_cap: int) -> str | None:
    """Say which bound on heads `block` breaks, branches apart, or None."""
    if keeps_heads(block.height, block.executed_height):
        return None if block.heads == parent.heads else "heads move though execution lags"
    floors = floor_heads(parent, block.qc, f, head_cap)
    for author, (head, before) in enumerate(zip(block.heads, parent.heads, strict=True)):
        if head.seq < floors[author]:
            return f"log {author} left out: {head.seq} below {floors[author]}"
        if head.seq > before.seq + head_cap:
            return f"log {author} beyond the cap"
        if head.seq == before.seq and head.digest != before.digest:
            return f"log {author} changes branch"
    return None
