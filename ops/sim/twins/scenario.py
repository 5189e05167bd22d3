"""Twins scenarios: who leads a round, who hears whom in it, and the file that says so.

Format: the twins-simulator's, `{"num_of_nodes", "num_of_twins", "scenarios": [{"round_leaders",
"round_partitions", "firewall"}]}`. Source: Bano et al., "Twins: BFT Systems Made Robust"
(arXiv 2004.10617).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

NODES_MIN = 4
NODES_MAX = 31
ROUND_MAX = 1_000
NAMED_ROUNDS_MAX = 64
SCENARIOS_MAX = 1_000_000
FILE_BYTES_MAX = 256 << 20


class BadScenario(ValueError):
    """The file describes no scenario that can be run; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How many replicas there are, and how many of them, the first ones, have a twin."""

    nodes: int
    twins: int

    @property
    def size(self) -> int:
        """How many nodes run: replicas and twins."""
        return self.nodes + self.twins

    @property
    def byzantine(self) -> tuple[int, ...]:
        """The nodes that share a key with another one."""
        return (*range(self.twins), *range(self.nodes, self.size))

    @property
    def honest(self) -> tuple[int, ...]:
        return tuple(range(self.twins, self.nodes))

    def replica(self, node: int) -> int:
        """Return whose key a node has: node `nodes + i` is the twin of node i."""
        return node if node < self.nodes else node - self.nodes

    def check(self) -> None:
        """Errors: BadScenario."""
        if not NODES_MIN <= self.nodes <= NODES_MAX:
            raise BadScenario(
                f"num_of_nodes is {self.nodes}; {NODES_MIN} to {NODES_MAX} can be simulated"
            )
        if not 0 <= self.twins < self.nodes:
            raise BadScenario(f"num_of_twins is {self.twins}; fewer than the nodes can have twins")


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is special in the named rounds; all others are whole and led in turn.

    `leaders[r]` are the nodes that may propose, all of one replica, which leads. `partitions[r]`
    are disjoint groups that hear only themselves; a node in none hears nobody. `firewall[r][i]`
    are the nodes that do not hear node i.
    """

    leaders: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    partitions: Mapping[int, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    firewall: Mapping[int, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)

    @property
    def last_round(self) -> int:
        """The last named round, 0 if none is."""
        return max((*self.leaders, *self.partitions, *self.firewall), default=0)

    def as_json(self) -> dict[str, object]:
        """Return the scenario as the file format has it."""
        firewall = {
            str(r): {str(i): list(cut) for i, cut in cuts.items()}
            for r, cuts in self.firewall.items()
        }
        plain: dict[str, object] = {
            "round_leaders": {str(r): list(nodes) for r, nodes in self.leaders.items()},
            "round_partitions": {
                str(r): [list(group) for group in groups] for r, groups in self.partitions.items()
            },
        }
        return plain | ({"firewall": firewall} if firewall else {})


class _File(msgspec.Struct, forbid_unknown_fields=True):
    num_of_nodes: int
    num_of_twins: int
    scenarios: list[_Scenario]


class _Scenario(msgspec.Struct, forbid_unknown_fields=True):
    round_leaders: dict[int, list[int] | int] = {}
    round_partitions: dict[int, list[list[int]]] = {}
    firewall: dict[int, dict[int, list[int]]] = {}


def read_file(data: bytes) -> tuple[Setting, list[Scenario]]:
    """Return what a scenario file describes. Errors: BadScenario."""
    if len(data) > FILE_BYTES_MAX:
        raise BadScenario(f"{len(data)} bytes, at most {FILE_BYTES_MAX}")
    try:
        raw = msgspec.json.decode(data, type=_File, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadScenario(str(error)) from None
    setting = Setting(raw.num_of_nodes, raw.num_of_twins)
    setting.check()
    if not raw.scenarios:
        raise BadScenario("`scenarios` is empty")
    if len(raw.scenarios) > SCENARIOS_MAX:
        raise BadScenario(f"{len(raw.scenarios)} scenarios, at most {SCENARIOS_MAX}")
    scenarios: list[Scenario] = []
    for number, each in enumerate(raw.scenarios, 1):
        try:
            scenarios.append(_checked(setting, each))
        except BadScenario as error:
            raise BadScenario(f"scenario {number}: {error}") from None
    return setting, scenarios


def write_file(setting: Setting, scenarios: Iterable[Scenario]) -> bytes:
    """Return the file that describes `scenarios`."""
    return msgspec.json.encode(
        {
            "num_of_nodes": setting.nodes,
            "num_of_twins": setting.twins,
            "scenarios": [each.as_json() for each in scenarios],
        }
    )


def _checked(setting: Setting, raw: _Scenario) -> Scenario:
    leaders = {
        r: _leaders(setting, r, [nodes] if isinstance(nodes, int) else nodes)
        for r, nodes in raw.round_leaders.items()
    }
    partitions = {r: _groups(setting, r, groups) for r, groups in raw.round_partitions.items()}
    firewall: dict[int, dict[int, tuple[int, ...]]] = {}
    for r, cuts in raw.firewall.items():
        for sender, receivers in cuts.items():
            _nodes(setting, f"firewall of round {r}", [sender])
            _nodes(setting, f"firewall of round {r}, sender {sender}", receivers)
        firewall[r] = {sender: tuple(receivers) for sender, receivers in cuts.items()}
    named = {*leaders, *partitions, *firewall}
    if len(named) > NAMED_ROUNDS_MAX:
        raise BadScenario(f"{len(named)} rounds are named, at most {NAMED_ROUNDS_MAX}")
    for r in sorted(named):
        if not 1 <= r <= ROUND_MAX:
            raise BadScenario(f"round {r}; rounds are 1 to {ROUND_MAX}")
    return Scenario(leaders, partitions, firewall)


def _nodes(setting: Setting, where: str, nodes: Iterable[int]) -> None:
    given = list(nodes)
    for node in given:
        if not 0 <= node < setting.size:
            raise BadScenario(f"{where}: there is no node {node}, only 0 to {setting.size - 1}")
    if len(set(given)) != len(given):
        raise BadScenario(f"{where}: a node stands twice")


def _leaders(setting: Setting, r: int, nodes: list[int]) -> tuple[int, ...]:
    where = f"leaders of round {r}"
    _nodes(setting, where, nodes)
    if not nodes:
        raise BadScenario(f"{where}: nobody; name at least one node")
    if len({setting.replica(node) for node in nodes}) > 1:
        raise BadScenario(f"{where}: {nodes} are not twins; one replica leads a round")
    return tuple(nodes)


def _groups(setting: Setting, r: int, groups: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    _nodes(setting, f"partitions of round {r}", (node for group in groups for node in group))
    return tuple(tuple(group) for group in groups)
