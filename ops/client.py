"""The trader's client: sign, submit to several gateways, and know what became of each command.

```python
key = TraderKey(secret)
async with open_client(Config(gateways=urls, domain=domain, faults=1)) as client:
    action = PlaceOrder(wallet, 0, 0, client_id, BUY, LIMIT, price, qty)
    pending = await client.submit(key.sign(domain, action, client.expiry_ms()))
    await pending.seen()         # it stands in the persisted logs of f+1 nodes
    result = await pending.done()  # "executed", "void" or "refused"
```

The fair order protects a command once it stands in persisted logs; the first gateway sees it
before that. So each command goes to f+1 gateways or more, of which one at least is honest, and an
outcome counts when f+1 gateways say the same. Sending the same bytes again is harmless, so the
client repeats itself until it knows. What it does not know yet stands in a bounded journal.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import TypeVar

import msgspec
import trio

from consensus.command import CommandId
from ops.client_gateway import (
    BACKOFF_SECONDS_MAX,
    Config,
    Gateway,
    GatewayDown,
    GatewayError,
    Pending,
    Result,
)
from ops.client_keys import Journal, JournalFull, SignedCommand, TraderKey
from ops.gateway import wire
from ops.gateway.limits import PAGE_MAX, RECEIPTS_MAX
from ops.gateway.port import RECEIPTS_KEPT_MS, SubmitStatus

__all__ = [
    "Client",
    "Config",
    "GatewayDown",
    "GatewayError",
    "Journal",
    "JournalFull",
    "Pending",
    "Result",
    "SignedCommand",
    "TraderKey",
    "open_client",
]

T = TypeVar("T")

BY_THE_CLOCK = ("expired", "expires_too_late")
CLOSE_SECONDS = 2.0
EXECUTION_LAG_MS = 1_000
"""A node's receipts show a block's commands at most so long after its block time moved."""
SWEEP_SECONDS = 1.0
SWEEP_AFTER_SECONDS = 5.0
"""A command without an outcome is asked for by its receipt so often."""


class Client:
    """Made by `open_client`; its methods may be called from any task of the same trio run."""

    def __init__(
        self,
        config: Config,
        gateways: Sequence[Gateway],
        journal: Journal,
        now_ms: Callable[[], int],
    ) -> None:
        assert gateways and config.faults >= 0
        self.config = config
        self._gateways = gateways
        self._journal = journal
        self._now_ms = now_ms
        self._agree = min(config.faults + 1, len(config.gateways))
        self._copies = min(config.copies or config.faults + 1, len(config.gateways))
        self._pending: dict[CommandId, Pending] = {}
        self._turn = 0
        self._followed: set[int] = set()
        self._asked: dict[CommandId, float] = {}

    def expiry_ms(self) -> int:
        """Return when a command signed now should expire: `lifetime_ms` ahead."""
        return self._now_ms() + self.config.lifetime_ms

    def pending(self) -> list[Pending]:
        """Return the commands that have no outcome yet, those of an earlier run included."""
        return list(self._pending.values())

    async def submit(self, command: SignedCommand) -> Pending:
        """Journal one command and send it; returns at once. Errors: JournalFull, OSError."""
        return (await self.submit_many([command]))[0]

    async def submit_many(self, commands: Sequence[SignedCommand]) -> list[Pending]:
        """Journal commands and send them, joined into few requests.

        A command that is on its way already is not sent anew. Errors: JournalFull, OSError.
        """
        self._journal.add(commands)
        await trio.lowlevel.checkpoint()
        return [self._launch(command) for command in commands]

    def _launch(self, command: SignedCommand) -> Pending:
        known = self._pending.get(command.id)
        if known is not None:
            return known
        pending = self._pending[command.id] = Pending(command, self._copies)
        self._asked[command.id] = trio.current_time()
        self._turn += 1
        order = [
            self._gateways[(self._turn + i) % len(self._gateways)]
            for i in range(len(self._gateways))
        ]
        order.sort(key=lambda gateway: gateway.failures > 0)
        for gateway in order[: self._copies]:
            gateway.put(pending)
        return pending

    # Sending.

    async def _send_forever(self, gateway: Gateway) -> None:
        while True:
            await gateway.news.wait()
            batch = gateway.take()
            if batch:
                wait = await self._send(gateway, batch)
                if wait:
                    await trio.sleep(wait)

    async def _send(self, gateway: Gateway, batch: list[Pending]) -> float:
        """Send one batch and return how long to leave the gateway alone."""
        body = msgspec.json.encode(wire.SubmitMany([p.command.body for p in batch]))
        try:
            answer = await gateway.ask("POST", "/v1/commands", wire.SubmitAnswer, body)
            if len(answer.results) != len(batch):
                raise GatewayDown("not one result per command")
        except (GatewayDown, GatewayError) as error:
            for pending in batch:
                self._spread(pending)
                gateway.put(pending)
            return max(gateway.backoff(), getattr(error, "retry_s", 0.0))
        gateway.failures = 0
        wait_ms = 0
        for pending, result in zip(batch, answer.results, strict=True):
            match result.status:
                case SubmitStatus.SEEN | SubmitStatus.DUPLICATE:
                    pending.saw(gateway.index)
                case SubmitStatus.BUSY:
                    wait_ms = max(wait_ms, result.retry_after_ms)
                    gateway.put(pending)
                case SubmitStatus.REFUSED:
                    self._refused(pending, gateway, result)
        return min(wait_ms / 1000, BACKOFF_SECONDS_MAX)

    def _spread(self, pending: Pending) -> None:
        """Give a command to one more gateway, if there is one that has not got it."""
        for gateway in sorted(self._gateways, key=lambda g: g.failures):
            if gateway.index not in pending.assigned:
                gateway.put(pending)
                return

    def _refused(self, pending: Pending, gateway: Gateway, result: wire.CommandResult) -> None:
        """One gateway's refusal may be its own fault; the same word of f+1 of them is not.

        A refusal by the clock never ends the matter: a gateway that lies may log what it refuses,
        and an earlier run may have sent the command. There only receipts can tell.
        """
        code = result.error.code if result.error else ""
        pending.refusals[gateway.index] = code
        said = sum(other == code for other in pending.refusals.values())
        if said < self._agree or pending.seen_by:
            self._spread(pending)
        elif code not in BY_THE_CLOCK:
            self._finish(pending, Result(kind="refused", reason=code))

    # Following.

    async def _follow_forever(self, start: int) -> None:
        """Read the outcomes of one gateway, and of the next when it fails."""
        place = start
        while True:
            gateway = self._gateways[place]
            self._followed.add(place)
            try:
                await self._follow(gateway)
            except GatewayError as error:
                lost = error.code == "cursor_lost"
                await trio.sleep(0 if lost else max(gateway.backoff(), error.retry_s))
            except GatewayDown:
                await trio.sleep(gateway.backoff())
            self._followed.discard(place)
            count = len(self._gateways)
            turns = ((place + step) % count for step in range(1, count + 1))
            place = next(turn for turn in turns if turn not in self._followed)

    async def _follow(self, gateway: Gateway) -> None:
        """Read on until something fails: never returns. Errors: GatewayDown, GatewayError."""
        status = await gateway.ask("GET", "/v1/status", wire.StatusAnswer)
        after = status.outcomes
        self._asked.clear()  # Receipts tell of what was executed before this point.
        while True:
            wait_ms = self.config.poll_wait_ms
            path = f"/v1/outcomes?after={after}&limit={PAGE_MAX}&wait_ms={wait_ms}"
            page = await gateway.ask("GET", path, wire.OutcomesAnswer)
            gateway.failures = 0
            for outcome in page.outcomes:
                self._on_outcome(gateway, outcome)
            after = max(after, page.next)
            await trio.sleep(self.config.poll_seconds_min)

    def _on_outcome(self, gateway: Gateway, outcome: wire.OutcomeAnswer) -> None:
        id_ = wire.parse_id(outcome.id)
        pending = None if id_ is None else self._pending.get(id_)
        if pending is not None:
            self._vote(
                pending,
                gateway,
                Result(
                    kind="executed",
                    status=outcome.status,
                    reason=outcome.reason,
                    sequence=outcome.sequence,
                    details=outcome.details,
                ),
            )

    def _vote(self, pending: Pending, gateway: Gateway, result: Result) -> None:
        """Count a gateway's word; enough equal ones settle the matter."""
        pending.votes[gateway.index] = result
        if sum(vote == result for vote in pending.votes.values()) >= self._agree:
            self._finish(pending, result)

    def _finish(self, pending: Pending, result: Result) -> None:
        if self._pending.pop(pending.command.id, None) is not None:
            self._asked.pop(pending.command.id, None)
            self._journal.remove(pending.command.id)
            pending.finish(result)

    async def _sweep_forever(self) -> None:
        """Ask by receipt for what the stream of outcomes cannot tell any more."""
        while True:
            await trio.sleep(SWEEP_SECONDS)
            now = trio.current_time()
            due = [
                pending
                for id_, pending in self._pending.items()
                if now >= self._asked.get(id_, -inf) + SWEEP_AFTER_SECONDS
            ][:RECEIPTS_MAX]
            if due:
                await self._sweep(due)
                for pending in due:
                    self._asked[pending.command.id] = now

    async def _sweep(self, due: list[Pending]) -> None:
        ids = [wire.hexed(pending.command.id) for pending in due]
        body = msgspec.json.encode(wire.ReceiptsRequest(ids))
        for gateway in sorted(self._gateways, key=lambda g: g.failures):
            try:
                answer = await gateway.ask("POST", "/v1/receipts", wire.ReceiptsAnswer, body)
            except (GatewayDown, GatewayError):
                gateway.backoff()
                continue
            for pending, receipt in zip(due, answer.receipts, strict=False):
                word = _word(pending.command, receipt, answer.block_time_ms)
                if word is not None and receipt.id == wire.hexed(pending.command.id):
                    self._vote(pending, gateway, word)

    # Reading.

    async def status(self) -> wire.StatusAnswer:
        """Return one gateway's status. Errors: GatewayDown, GatewayError."""
        return await self._read("/v1/status", wire.StatusAnswer)

    async def book(self, instrument: int, depth: int = 20) -> wire.BookAnswer:
        """Return the best levels as one gateway knows them. Errors: as `status`."""
        path = f"/v1/book?instrument={instrument}&depth={depth}"
        return await self._read(path, wire.BookAnswer)

    async def account(self, wallet: bytes, subaccount: int = 0) -> wire.AccountAnswer:
        """Return a subaccount as one gateway knows it. Errors: as `status`."""
        path = f"/v1/account?wallet={wire.hexed(wallet)}&subaccount={subaccount}"
        return await self._read(path, wire.AccountAnswer)

    async def instruments(self) -> wire.InstrumentsAnswer:
        """Return what trades. Errors: as `status`."""
        return await self._read("/v1/instruments", wire.InstrumentsAnswer)

    async def receipt(self, id_: CommandId) -> wire.ReceiptAnswer:
        """Return a command's receipt from one gateway. Errors: as `status`."""
        return await self._read(f"/v1/receipts/{wire.hexed(id_)}", wire.ReceiptAnswer)

    async def withdrawal_proof(self, index: int) -> wire.ProofAnswer:
        """Return what `Vault.claim` wants; the contract checks it. Errors: as `status`."""
        return await self._read(f"/v1/proof/withdrawal/{index}", wire.ProofAnswer)

    async def _read(self, path: str, type_: type[T]) -> T:
        """Ask the gateways in turn until one answers."""
        self._turn += 1
        error: Exception = GatewayDown("no gateway")
        for step in range(len(self._gateways)):
            gateway = self._gateways[(self._turn + step) % len(self._gateways)]
            try:
                return await gateway.ask("GET", path, type_)
            except GatewayDown as down:
                error = down
            except GatewayError as refused:
                if refused.status < 500 and refused.status != 429:
                    raise
                error = refused
        raise error

    def _start(self, nursery: trio.Nursery) -> None:
        for command in self._journal.entries():
            self._launch(command)
        for gateway in self._gateways:
            for _ in range(self.config.requests_max):
                nursery.start_soon(self._send_forever, gateway)
        for place in range(self._agree):
            nursery.start_soon(self._follow_forever, place)
        nursery.start_soon(self._sweep_forever)


def _word(command: SignedCommand, receipt: wire.ReceiptAnswer, block_time_ms: int) -> Result | None:
    """Return what a receipt says of a command's fate, or None while it says nothing."""
    executed = receipt.executed
    if isinstance(executed, wire.ExecutedAnswer):
        return Result(
            kind="executed",
            status=executed.status,
            reason=executed.reason,
            sequence=executed.sequence,
            details=executed.details,
        )
    if receipt.state == "void":
        return Result(kind="void")
    late_ms = block_time_ms - command.expires_ms
    if receipt.state in ("unknown", "seen") and late_ms > EXECUTION_LAG_MS:
        return Result(kind="void" if late_ms <= RECEIPTS_KEPT_MS else "unknown")
    return None


def wall_clock_ms() -> int:
    """Return the wall clock."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def open_client(
    config: Config,
    journal: Journal | None = None,
    now_ms: Callable[[], int] = wall_clock_ms,
) -> AsyncIterator[Client]:
    """Run a client; what the journal still holds is sent again at once.

    On leaving, unconfirmed commands stay in the journal, and their `Pending` never ends.
    """
    journal = Journal() if journal is None else journal
    gateways = [Gateway(i, url, config) for i, url in enumerate(config.gateways)]
    try:
        async with trio.open_nursery() as nursery:
            client = Client(config, gateways, journal, now_ms)
            client._start(nursery)
            try:
                yield client
            finally:
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
            for gateway in gateways:
                await gateway.close()
        journal.close()
