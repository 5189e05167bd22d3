"""What the door asks of a running node, answered from the driver, the engine and the journal."""

from __future__ import annotations

import time
from collections.abc import Sequence

import trio

from consensus.command import CommandId
from consensus.effects import Reply, Submitted
from ops import views
from ops.admission import AdmittedCommand
from ops.clock import Clock
from ops.config import Genesis
from ops.driver import Driver
from ops.evidencefile import SHOWN_BYTES_MAX, stored_evidence
from ops.gateway.port import (
    AccountView,
    BookView,
    InstrumentView,
    Outcome,
    Receipt,
    StatusView,
    SubmitResult,
    SubmitStatus,
    Trade,
    WithdrawalProofView,
)
from ops.journal import Journal
from ops.metrics import Metrics
from ops.observe import OwnCommands
from ops.store import Storage
from p2p.transport import Transport

BUSY_RETRY_MS = 500
STALLED_MS = 10_000
"""A node whose block time is older than this is not ready: no quorum, or far behind."""
DIGESTS_SHOWN = 16

_STATUS = {
    "seen": SubmitStatus.SEEN,
    "duplicate": SubmitStatus.DUPLICATE,
    "busy": SubmitStatus.BUSY,
    "expired": SubmitStatus.REFUSED,
}


class NodeView:
    """One running node behind the door."""

    def __init__(
        self,
        version: str,
        genesis: Genesis,
        network: bytes,
        driver: Driver,
        journal: Journal,
        clock: Clock,
        metrics: Metrics,
        own: OwnCommands,
        transport: Transport,
        store: Storage,
    ) -> None:
        self._version = version
        self._genesis = genesis
        self._network = network
        self._driver = driver
        self._journal = journal
        self._clock = clock
        self._metrics = metrics
        self._own = own
        self._transport = transport
        self._store = store
        self._waiting: dict[CommandId, list[_Waiter]] = {}
        self._proofs = views.WithdrawalProofs(driver.replica.engine)

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def on_reply(self, reply: Reply) -> None:
        """Give the core's answer to whoever submitted the command."""
        self._journal.on_reply(reply)
        self._own.answered(reply, time.perf_counter())
        result = SubmitResult(
            id=reply.id,
            status=_STATUS[reply.status],
            reason="expired" if reply.status == "expired" else "",
            retry_after_ms=reply.retry_after_ms,
        )
        for waiter in self._waiting.pop(reply.id, ()):
            waiter.result = result
            waiter.answered.set()

    async def submit(self, commands: Sequence[AdmittedCommand]) -> list[SubmitResult]:
        started = time.perf_counter()
        waiters: list[_Waiter] = []
        for command in commands:
            waiter = _Waiter(command.id)
            waiters.append(waiter)
            if self._driver.offer(Submitted(command.id, command.body)):
                self._waiting.setdefault(command.id, []).append(waiter)
                self._own.submitted(command.id, started)
            else:
                waiter.answered.set()
        try:
            for waiter in waiters:
                await waiter.answered.wait()
        finally:
            for waiter in waiters:
                self._forget(waiter)
        return [waiter.result for waiter in waiters]

    def _forget(self, waiter: _Waiter) -> None:
        others = self._waiting.get(waiter.id)
        if others is not None and waiter in others:
            others.remove(waiter)
            if not others:
                del self._waiting[waiter.id]

    def receipt(self, id_: CommandId) -> Receipt | None:
        return self._journal.receipt(id_)

    def outcomes(self, after: int, limit: int) -> Sequence[Outcome]:
        return self._journal.outcomes(after, limit)

    async def outcomes_beyond(self, after: int) -> None:
        await self._journal.outcomes_beyond(after)

    def trades(self, after: int, limit: int) -> Sequence[Trade]:
        return self._journal.trades(after, limit)

    async def trades_beyond(self, after: int) -> None:
        await self._journal.trades_beyond(after)

    def instruments(self) -> Sequence[InstrumentView]:
        return views.instruments(self._driver.replica.engine)

    def book(self, instrument: int, depth: int) -> BookView | None:
        return views.book(self._driver.replica.engine, instrument, depth)

    def account(self, wallet: bytes, subaccount: int) -> AccountView | None:
        return views.account(self._driver.replica.engine, wallet, subaccount)

    def withdrawal_proof(self, index: int) -> WithdrawalProofView | None:
        return self._proofs.proof(index, self._journal.newest_settled)

    def status(self) -> StatusView:
        replica = self._driver.replica
        consensus, exchange = replica.consensus, replica.exchange
        digests = consensus.ctx.executed_digests
        executed = max(digests, default=0)
        committee = replica.config.committee
        stats = self._transport.stats()
        settled = self._journal.newest_settled
        return StatusView(
            version=self._version,
            network=self._network,
            chain_id=self._genesis.chain_id,
            vault=self._genesis.contracts.vault,
            replica=replica.config.me,
            replicas=committee.n,
            faults=committee.f,
            epoch=committee.epoch,
            round=consensus.rounds.round,
            height=consensus.height,
            block_time_ms=consensus.ctx.sequencer.time_ms,
            executed_height=executed,
            executed_digest=digests.get(executed, bytes(32)),
            recent_digests=tuple(
                (height, bytes(digests[height])) for height in sorted(digests)[-DIGESTS_SHOWN:]
            ),
            outcomes=exchange.outcomes,
            trades=self._journal.trade_count,
            pending=len(consensus.ctx.sequencer.fair),
            peers=sum(peer.connected for peer in stats.values()),
            inbox_count=consensus.ctx.sequencer.inbox_count,
            checkpoint_formed=max(replica.formed, default=0),
            checkpoint_accepted=max(replica.checkpoints.accepted_number, 0),
            settled_height=settled.height if settled is not None else 0,
            syncing=consensus.keeper.behind,
            silent=consensus.guard.silence.why if consensus.guard.silence is not None else "",
        )

    def evidence(self) -> bytes:
        keys = self._genesis.committee().keys
        found = stored_evidence(self._store, self._network, keys, SHOWN_BYTES_MAX)
        return found.to_json()

    def health(self) -> tuple[bool, str]:
        if self._driver.replica.consensus.halted:
            return False, "halted"
        return True, ""

    def ready(self) -> tuple[bool, str]:
        replica = self._driver.replica
        guard = replica.consensus.guard
        if guard.silence is not None:
            return False, f"silent until the next epoch: {guard.silence.why}"
        if guard.is_asking:
            missing = guard.answers_missing
            return False, f"asking what this key has signed: {missing} peers have not answered"
        if replica.consensus.keeper.behind:
            return False, "catching up"
        if replica.consensus.height == 0:
            return False, "no block yet"
        if self.now_ms() - replica.consensus.ctx.sequencer.time_ms > STALLED_MS:
            return False, "block time stands still: no quorum"
        return True, ""

    def metrics_text(self) -> bytes:
        return self._metrics.text()


class _Waiter:
    """Somebody who waits for the core's answer about one command; until then it is `busy`."""

    def __init__(self, id_: CommandId) -> None:
        self.id = id_
        self.answered = trio.Event()
        self.result = SubmitResult(id=id_, status=SubmitStatus.BUSY, retry_after_ms=BUSY_RETRY_MS)
