"""Trading: order flow at an offered rate, signed by fifty traders, to all gateways."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import trio

from ops.admission import SigningDomain
from ops.client import Client, JournalFull, Pending
from ops.devnet.orders import IndexFollower, Scale, to_action
from ops.devnet.traders import Trader
from ops.flow.event import FlowEvent
from ops.gateway.wire import hexed

TICK_S = 0.04
EXPIRIES = 1_000
"""Expiries differ by a millisecond each: two equal actions are two commands, not one resent."""
BURST_MAX = 500
"""Commands sent in one go after a pause; what is overdue beyond that is sent in the next ones."""


class Load:
    """An open loop: events go out at their time, whatever became of those before."""

    def __init__(
        self,
        client: Client,
        domain: SigningDomain,
        traders: Sequence[Trader],
        follower: IndexFollower,
        scale: Scale,
    ) -> None:
        self._client = client
        self._domain = domain
        self._traders = traders
        self._follower = follower
        self._scale = scale
        self._trader_of: dict[str, int] = {}
        self.submitted_ms: dict[str, int] = {}
        """Command id in hex -> when it was handed to the client."""
        self.started_s = 0.0
        self.late = 0
        self._signed = 0
        self._pending: dict[str, Pending] = {}
        self.done = False

    def stop(self) -> None:
        """Send no more."""
        self.done = True

    @property
    def seen(self) -> list[str]:
        """The commands that at least one gateway has in a persisted log, by its word."""
        return [id_ for id_, pending in self._pending.items() if pending.seen_by]

    def of_trader(self, place: int) -> list[str]:
        """Return the commands of one trader, by his place."""
        return [id_ for id_, trader in self._trader_of.items() if trader == place]

    async def run(
        self, events: Iterator[FlowEvent], rate: int, count_max: int, seconds: float
    ) -> None:
        """Send `rate` events a second, for `seconds` or until `count_max` or the last."""
        self.started_s = trio.current_time()
        sent = 0
        exhausted = False
        while not exhausted and not self.done and sent < count_max:
            elapsed = trio.current_time() - self.started_s
            if elapsed >= seconds:
                break
            due = min(int(elapsed * rate) + 1, count_max) - sent
            batch: list[FlowEvent] = []
            for _ in range(min(due, BURST_MAX)):
                event = next(events, None)
                if event is None:
                    exhausted = True
                    break
                batch.append(event)
            if batch:
                sent += await self._send(batch)
            await trio.sleep(TICK_S)
        self.done = True

    async def _send(self, batch: list[FlowEvent]) -> int:
        """Sign and submit events, each by the trader whose orders its id belongs to."""
        commands = []
        for event in batch:
            self._follower.take(event)
            trader = self._traders[event.id % len(self._traders)]
            action = to_action(event, bytes(trader.wallet.address), self._scale)
            expiry_ms = self._client.expiry_ms() + self._signed % EXPIRIES
            self._signed += 1
            commands.append(trader.session.sign(self._domain, action, expiry_ms))
        now_ms = time.time_ns() // 1_000_000
        while True:
            try:
                pending = await self._client.submit_many(commands)
                break
            except JournalFull:
                self.late += 1
                await trio.sleep(0.1)
        for event, command, each in zip(batch, commands, pending, strict=True):
            id_ = hexed(command.id)
            self.submitted_ms[id_] = now_ms
            self._pending[id_] = each
            self._trader_of[id_] = event.id % len(self._traders)
        return len(batch)
