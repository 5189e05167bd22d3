"""How a devnet's nodes may lie: liars of the simulator in real processes, and a crash loop.

`python -m ops.devnet.liar` runs one; see there why `fairlane node` cannot.
"""

from __future__ import annotations

from types import MappingProxyType

from consensus.committee import faults
from ops.sim.liars import LIARS

CRASH_LOOP = "crash-loop"
"""The devnet's own: an honest program that is killed and started again and again."""

_TRADERS = ("stuff", "bodyless", "ghost", "cycle", "plant", "expire", "introduce", "resign")
UNSUITABLE = MappingProxyType(
    dict.fromkeys(_TRADERS, "trades with the simulator's keys, which no real door takes")
)
"""Liars of the simulator that are none here, and why."""

BEHAVIOURS = MappingProxyType(
    {name: kind.about for name, kind in LIARS.items() if name not in UNSUITABLE}
    | {CRASH_LOOP: "is killed and started again, over and over"}
)
"""What each behaviour does, by its name on the command line; docs/guides/censorship-tests.md."""


class BadBehaviour(ValueError):
    """The behaviours that were asked for make no sense; the text says why."""


def parse_behaviours(asked: tuple[str, ...], nodes: int, beyond: bool) -> dict[int, str]:
    """Return the behaviour of each lying node, of `i:behaviour` each. Errors: BadBehaviour.

    More than f liars are refused unless `beyond`: nothing is promised then.
    """
    liars: dict[int, str] = {}
    for each in asked:
        place, colon, name = each.partition(":")
        if not colon or not place.isascii() or not place.isdigit():
            raise BadBehaviour(f"{each!r} is not NODE:BEHAVIOUR, for instance 4:reverse")
        if int(place) >= nodes:
            raise BadBehaviour(f"{each}: the nodes are 0 to {nodes - 1}")
        if name not in BEHAVIOURS:
            why = UNSUITABLE.get(name)
            hint = f"it {why}" if why else "--list-behaviours names them"
            raise BadBehaviour(f"{each}: no such behaviour here; {hint}")
        if int(place) in liars:
            raise BadBehaviour(f"{each}: node {place} has a behaviour already")
        liars[int(place)] = name
    if len(liars) >= nodes:
        raise BadBehaviour("one node at least must be honest")
    if len(liars) > faults(nodes) and not beyond:
        raise BadBehaviour(
            f"{len(liars)} liars among {nodes} nodes, and f is {faults(nodes)}: beyond that "
            "nothing is promised. --beyond runs it all the same, and shows what breaks"
        )
    return liars
