"""Held against a replica's memory: every container within what its bounds allow.

Containers are found by walking the replica's objects, not from a list, so that a new one is
measured from the day it is there: by its own bound if `OWN_BOUNDS` has one, else by one that is
small enough for a leak to show.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from consensus.blocktree import BLOCKS_MAX, RECENT_MAX
from consensus.committer import DIGESTS_KEPT
from consensus.fetch import ASKS_MAX, ECHO_ASKS_MAX
from consensus.logstore import BRANCHES_PER_PEER_MAX, EXPIRIES_SLACK
from consensus.ownlog import RECEIPTS_MAX
from consensus.replica import Replica
from consensus.rounds import COMMIT_ROUNDS_MAX
from consensus.tally import ROUNDS_AHEAD_MAX, ROUNDS_BEHIND_MAX
from consensus.words import STATEMENTS_MAX

UNKNOWN_MAX = 2_048
"""The most that a container without a bound of its own may hold: what grows with every message or
command passes it within seconds of a run."""
WALK_MAX = 200_000
"""Objects looked at in one walk."""

_CONTAINERS = (dict, list, deque, set)


def sizes(core: Replica) -> dict[str, int]:
    """Return how much the containers of a replica hold, by where they are.

    Shape: `ctx.logs._held[]` is the sum over all containers inside the container `ctx.logs._held`.
    """
    found: dict[str, int] = {}
    seen = {id(core): None}
    stack: list[tuple[str, object]] = [("", core)]
    looked_at = 0
    while stack and looked_at < WALK_MAX:
        looked_at += 1
        path, thing = stack.pop()
        if isinstance(thing, _CONTAINERS):
            found[path] = found.get(path, 0) + len(thing)
            inside = thing.values() if isinstance(thing, dict) else thing
            parts = [(path + "[]", each) for each in inside]
        else:
            parts = [(f"{path}.{name}".lstrip("."), each) for name, each in _attributes(thing)]
        for where, part in parts:
            if _is_worth(part) and id(part) not in seen:
                seen[id(part)] = None
                stack.append((where, part))
    return found


def _is_worth(thing: object) -> bool:
    """Say whether a container can be in `thing`: it is one, or an object of ours that changes."""
    if isinstance(thing, _CONTAINERS):
        return True
    kind = type(thing)
    return kind.__module__.startswith("consensus.") and not isinstance(thing, msgspec.Struct)


def _attributes(thing: object) -> Iterator[tuple[str, object]]:
    yield from getattr(thing, "__dict__", {}).items()
    for kind in type(thing).__mro__:
        slots = getattr(kind, "__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(thing, name):
                yield name, getattr(thing, name)


def _batches(core: Replica) -> int:
    """Return the most batches that may be held of all logs."""
    n, parameters = core.ctx.committee.n, core.ctx.parameters
    return n * 2 * parameters.log_window * (1 + n * BRANCHES_PER_PEER_MAX)


def _ids(core: Replica) -> int:
    """Return the most ids that the held batches can name, which bounds what is pending."""
    return _batches(core) * core.ctx.parameters.entries_max


def _rounds(core: Replica) -> int:
    n = core.ctx.committee.n
    return n * (ROUNDS_AHEAD_MAX + ROUNDS_BEHIND_MAX + 1)


Bound = Callable[[Replica], int]

OWN_BOUNDS: dict[str, Bound] = {
    "ctx.tree._blocks": lambda _: BLOCKS_MAX + RECENT_MAX,
    "ctx.tree._certified": lambda _: BLOCKS_MAX,
    "ctx.tree._certain": lambda _: BLOCKS_MAX + RECENT_MAX,
    "ctx.tree._children": lambda _: BLOCKS_MAX + RECENT_MAX,
    "ctx.executed_digests": lambda _: DIGESTS_KEPT + 1,
    "ctx.logs._held[]": _batches,
    "ctx.logs._after[]": _batches,
    "ctx.logs._by_seq[]": _batches,
    "ctx.logs._after[][]": _batches,
    "ctx.logs._by_seq[][]": _batches,
    "ctx.logs._bodies": _ids,
    "ctx.logs._waiting": _ids,
    "ctx.logs._waiting[]": _ids,
    "ctx.logs._expiries": lambda core: 3 * _ids(core) + EXPIRIES_SLACK,
    "ctx.own._waiting": lambda _: RECEIPTS_MAX,
    "_fetcher._asks": lambda _: ASKS_MAX + ECHO_ASKS_MAX,
    "_fetcher._asks[].targets": lambda core: core.ctx.committee.n * (ASKS_MAX + ECHO_ASKS_MAX),
    "_fetcher._due": lambda _: 4 * (ASKS_MAX + ECHO_ASKS_MAX),
    "rounds._votes._votes[]": _rounds,
    "rounds._commit_votes._votes[]": lambda core: (
        core.ctx.committee.n * (COMMIT_ROUNDS_MAX + ROUNDS_AHEAD_MAX)
    ),
    "rounds._timeouts._timeouts[]": _rounds,
    "keeper._unanswered": lambda _: RECEIPTS_MAX,
}
"""By place: what the protocol's own limits come to."""
BY_PENDING = ("ctx.sequencer.fair.", "ctx.own._logged")
"""Places that hold what is pending or remembered until it expires."""
BY_KEY = "guard.words._spoken[]."
"""Places that hold what each key has signed in the rounds around ours."""
BY_BATCH = ".missing"
"""Places inside a held batch that hold some of its entries."""


def bound(core: Replica, place: str) -> int:
    """Return the most that the container at `place` may hold."""
    own = OWN_BOUNDS.get(place)
    if own is not None:
        return own(core)
    if place.startswith(BY_KEY):
        return core.ctx.committee.n * STATEMENTS_MAX
    by_ids = place.startswith(BY_PENDING) or place.endswith(BY_BATCH)
    return _ids(core) if by_ids else UNKNOWN_MAX


def oversized(core: Replica) -> Iterator[str]:
    """Yield what holds more than it may."""
    for place, size in sorted(sizes(core).items()):
        most = bound(core, place)
        if size > most:
            yield f"{size} in {place}, at most {most}"
