"""What every node says happened: outcomes, digests, checkpoints. Followed from all nodes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
import msgspec
import trio

from ops.gateway import wire
from ops.gateway.limits import PAGE_MAX

POLL_S = 0.5
STATUS_S = 0.5
RETRY_S = 0.5
TIMEOUT_S = 10.0

_OUTCOMES = msgspec.json.Decoder(wire.OutcomesAnswer, strict=False)
_STATUS = msgspec.json.Decoder(wire.StatusAnswer, strict=False)


@dataclass(slots=True)
class NodeRecord:
    """What one node said so far. Times are its clock's, which is ours too: one machine."""

    index: int
    url: str
    next_outcome: int = 0
    executed_ms: dict[str, int] = field(default_factory=dict)
    heights: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    twice: int = 0
    digests: dict[int, str] = field(default_factory=dict)
    status: wire.StatusAnswer | None = None
    settled_at_ms: dict[int, int] = field(default_factory=dict)
    """Height that an accepted checkpoint covers -> when this was seen."""


class Watch:
    """Follows all nodes of a devnet."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.nodes = [NodeRecord(i, url) for i, url in enumerate(urls)]

    async def run(self) -> None:
        """Follow until cancelled; a node that is down is asked again and again."""
        async with trio.open_nursery() as nursery:
            for node in self.nodes:
                nursery.start_soon(self._follow, node)
                nursery.start_soon(self._poll_status, node)

    async def _follow(self, node: NodeRecord) -> None:
        async with httpx.AsyncClient(base_url=node.url, timeout=TIMEOUT_S) as client:
            while True:
                path = f"/v1/outcomes?after={node.next_outcome}&limit={PAGE_MAX}"
                try:
                    response = await client.get(path)
                    response.raise_for_status()
                    page = _OUTCOMES.decode(response.content)
                except (httpx.HTTPError, msgspec.MsgspecError):
                    await trio.sleep(RETRY_S)
                    continue
                for outcome in page.outcomes:
                    self._take(node, outcome)
                node.next_outcome = max(node.next_outcome, page.next)
                if len(page.outcomes) < PAGE_MAX:
                    await trio.sleep(POLL_S)

    @staticmethod
    def _take(node: NodeRecord, outcome: wire.OutcomeAnswer) -> None:
        if outcome.id in node.executed_ms:
            node.twice += 1
            return
        node.executed_ms[outcome.id] = outcome.executed_at_ms
        node.heights[outcome.id] = outcome.height
        if outcome.status == "rejected":
            node.rejected[outcome.id] = outcome.reason

    async def _poll_status(self, node: NodeRecord) -> None:
        async with httpx.AsyncClient(base_url=node.url, timeout=TIMEOUT_S) as client:
            while True:
                try:
                    response = await client.get("/v1/status")
                    response.raise_for_status()
                    status = _STATUS.decode(response.content)
                except (httpx.HTTPError, msgspec.MsgspecError):
                    node.status = None
                else:
                    node.status = status
                    node.digests.update(status.recent_digests)
                    node.settled_at_ms.setdefault(
                        status.settled_height, time.time_ns() // 1_000_000
                    )
                await trio.sleep(STATUS_S)

    def everywhere(self, ids: Sequence[str]) -> int:
        """Return how many of these commands have an outcome at every node."""
        return sum(all(id_ in node.executed_ms for node in self.nodes) for id_ in ids)

    def agreed(self) -> tuple[int, str] | None:
        """Return the highest height whose digest all nodes told, with it, if it is the same.

        None while there is no common height; a digest of "" when they differ.
        """
        common = dict.fromkeys(self.nodes[0].digests)
        for node in self.nodes[1:]:
            common = dict.fromkeys(height for height in common if height in node.digests)
        if not common:
            return None
        for height in common:
            if len({node.digests[height] for node in self.nodes}) > 1:
                return height, ""
        height = max(common)
        return height, self.nodes[0].digests[height]

    def height(self) -> int:
        """Return the highest height that any node told."""
        return max((node.status.height for node in self.nodes if node.status), default=0)

    def executed_latencies(self, submitted: dict[str, int], confirmations: int) -> list[int]:
        """Return submit-to-executed at the `confirmations`-th node, for each command that has it.

        Units: milliseconds.
        """
        found = []
        for id_, at_ms in submitted.items():
            times = sorted(n.executed_ms[id_] for n in self.nodes if id_ in n.executed_ms)
            if len(times) >= confirmations:
                found.append(times[confirmations - 1] - at_ms)
        return sorted(found)

    def settled_latencies(self, submitted: dict[str, int]) -> list[int]:
        """Return submit-to-settled as the first node saw it, within its polling interval."""
        node = self.nodes[0]
        steps = sorted(node.settled_at_ms.items())
        found = []
        for id_, at_ms in submitted.items():
            height = node.heights.get(id_)
            if height is None:
                continue
            seen = next((when for covered, when in steps if covered >= height), None)
            if seen is not None:
                found.append(seen - at_ms)
        return sorted(found)
