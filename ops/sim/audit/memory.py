"""Held against a replica's memory: every container within what its bounds allow."""

from __future__ import annotations

from collections.abc import Iterator

from consensus.blocktree import BLOCKS_MAX, RECENT_MAX
from consensus.committer import DIGESTS_KEPT
from consensus.fetch import ASKS_MAX, ECHO_ASKS_MAX
from consensus.logstore import BRANCHES_PER_PEER_MAX
from consensus.ownlog import RECEIPTS_MAX
from consensus.replica import Replica
from consensus.tally import ROUNDS_AHEAD_MAX, ROUNDS_BEHIND_MAX


def sizes(core: Replica) -> dict[str, int]:
    """Return how much each of a replica's containers holds."""
    ctx = core.ctx
    rounds = core.rounds
    return {
        "batches": ctx.logs.batches_held(),
        "bodies": ctx.logs.bodies_held(),
        "blocks": len(ctx.tree),
        "state digests": len(ctx.executed_digests),
        "receipts": ctx.own.waiting,
        "asks": len(core._fetcher),
        "votes": len(rounds._votes),
        "commit votes": len(rounds._commit_votes),
        "timeouts": len(rounds._timeouts),
    }


def bounds(core: Replica) -> dict[str, int]:
    """Return the most that each container may hold."""
    ctx = core.ctx
    n, parameters = ctx.committee.n, ctx.parameters
    batches = n * 2 * parameters.log_window * (1 + n * BRANCHES_PER_PEER_MAX)
    rounds = ROUNDS_AHEAD_MAX + ROUNDS_BEHIND_MAX + 1
    return {
        "batches": batches,
        "bodies": batches * parameters.entries_max,
        "blocks": BLOCKS_MAX + RECENT_MAX,
        "state digests": DIGESTS_KEPT + 1,
        "receipts": RECEIPTS_MAX,
        "asks": ASKS_MAX + ECHO_ASKS_MAX,
        "votes": n * rounds,
        "commit votes": n * (rounds + DIGESTS_KEPT),
        "timeouts": n * rounds,
    }


def oversized(core: Replica) -> Iterator[str]:
    """Yield what holds more than it may."""
    most = bounds(core)
    for what, size in sizes(core).items():
        if size > most[what]:
            yield f"{size} {what}, at most {most[what]}"
