"""A node small enough to read in a minute, with real state, behind the door's port.

Commands go into a log, `execute` gives each exactly one outcome. Several nodes may share one
`TinyLedger`, as replicas share the committed order.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from consensus.command import CommandId, decode_command, expires_ms
from matcher.actions import PlaceOrder, parse
from ops.admission import AdmittedCommand
from ops.gateway.port import (
    AccountView,
    BookLevel,
    BookView,
    CursorLost,
    ExecutedStage,
    InstrumentView,
    OrderedStage,
    OrderView,
    Outcome,
    PositionView,
    Receipt,
    SeenStage,
    SessionView,
    SettledStage,
    StatusView,
    SubmitResult,
    SubmitStatus,
    Trade,
    WithdrawalProofView,
)

NETWORK = bytes(range(32))
VAULT = b"\xaa" * 20


class TinyLedger:
    """What the network has agreed on: one order, one outcome per command."""

    def __init__(self, now_ms: int) -> None:
        self.block_time_ms = now_ms
        self.height = 0
        self.outcomes: list[Outcome] = []
        self.trades: list[Trade] = []
        self.receipts: dict[CommandId, Receipt] = {}
        self.oldest = 1
        self.news = trio.Event()

    def block(self, ids: Sequence[CommandId], bodies: dict[CommandId, bytes]) -> None:
        """Execute `ids` in a block of its own; each at most once, none after its expiry."""
        self.height += 1
        for position, id_ in enumerate(ids):
            if id_ in self.receipts:
                continue
            if expires_ms(id_) <= self.block_time_ms:
                self.receipts[id_] = Receipt(id=id_, void=True)
                continue
            self._execute(id_, position, bodies[id_])
        self.news.set()
        self.news = trio.Event()

    def _execute(self, id_: CommandId, position: int, body: bytes) -> None:
        action = parse(decode_command(body).payload)
        sequence = len(self.outcomes) + 1
        status, reason = "accepted", ""
        if isinstance(action, PlaceOrder) and action.qty == 13:
            status, reason = "rejected", "unlucky"
        self.outcomes.append(
            Outcome(
                sequence=sequence,
                id=id_,
                status=status,
                reason=reason,
                height=self.height,
                executed_at_ms=self.block_time_ms,
                details={"qty": getattr(action, "qty", 0)},
            )
        )
        if isinstance(action, PlaceOrder) and not reason:
            self.trades.append(
                Trade(
                    sequence=len(self.trades) + 1,
                    instrument=action.instrument,
                    price=action.price,
                    lots=action.qty,
                    taker_side="buy",
                    taker_order=sequence,
                    maker_order=0,
                    height=self.height,
                    block_time_ms=self.block_time_ms,
                )
            )
        self.receipts[id_] = Receipt(
            id=id_,
            ordered=OrderedStage(
                height=self.height, position=position, block_time_ms=self.block_time_ms
            ),
            executed=ExecutedStage(
                sequence=sequence,
                status=status,
                reason=reason,
                details={"qty": getattr(action, "qty", 0)},
                executed_at_ms=self.block_time_ms,
            ),
            settled=SettledStage(checkpoint=1) if sequence == 1 else None,
        )


class TinyNode:
    """A `NodePort`. `room` is how many commands its log takes, `auto` executes each at once."""

    def __init__(
        self, ledger: TinyLedger, *, replica: int = 0, room: int = 10_000, auto: bool = True
    ) -> None:
        self.ledger = ledger
        self.replica = replica
        self.room = room
        self.auto = auto
        self.log: dict[CommandId, bytes] = {}
        self.submits = 0
        self.stuck = False
        self.broken = False
        self.tells_void = True
        self.ready_why = ""
        self.healthy_why = ""
        self.metrics = b"# none\n"
        self.clock_ms: int | None = None

    def now_ms(self) -> int:
        return self.ledger.block_time_ms if self.clock_ms is None else self.clock_ms

    async def submit(self, commands: Sequence[AdmittedCommand]) -> list[SubmitResult]:
        self.submits += 1
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise RuntimeError("the secret of the house")
        if self.stuck:
            await trio.sleep_forever()
        results = [self._take(command) for command in commands]
        if self.auto:
            self.execute()
        return results

    def _take(self, command: AdmittedCommand) -> SubmitResult:
        status, retry = SubmitStatus.SEEN, 0
        if command.id in self.log:
            status = SubmitStatus.DUPLICATE
        elif len(self.log) >= self.room:
            status, retry = SubmitStatus.BUSY, 50
        else:
            self.log[command.id] = command.body
        return SubmitResult(id=command.id, status=status, retry_after_ms=retry)

    def execute(self) -> None:
        """Put what is logged here into one block."""
        self.ledger.block([i for i in self.log if i not in self.ledger.receipts], self.log)

    def receipt(self, id_: CommandId) -> Receipt | None:
        known = self.ledger.receipts.get(id_)
        if known is None and id_ not in self.log:
            return None
        base = known or Receipt(id=id_)
        if id_ not in self.log:
            return base
        return Receipt(
            id=id_,
            seen=SeenStage(log=self.replica, seq=list(self.log).index(id_) + 1),
            ordered=base.ordered,
            executed=base.executed,
            settled=base.settled,
            void=base.void and self.tells_void,
        )

    def outcomes(self, after: int, limit: int) -> Sequence[Outcome]:
        if after + 1 < self.ledger.oldest:
            raise CursorLost(self.ledger.oldest)
        return self.ledger.outcomes[after : after + limit]

    async def outcomes_beyond(self, after: int) -> None:
        while len(self.ledger.outcomes) <= after:
            await self.ledger.news.wait()

    def trades(self, after: int, limit: int) -> Sequence[Trade]:
        return self.ledger.trades[after : after + limit]

    async def trades_beyond(self, after: int) -> None:
        while len(self.ledger.trades) <= after:
            await self.ledger.news.wait()

    def instruments(self) -> Sequence[InstrumentView]:
        return [
            InstrumentView(
                id=i,
                symbol=symbol,
                kind="perpetual",
                tick_size=10_000,
                lot_size="0.0001",
                tick_value=1,
                qty_max=100,
                index_price=50_000_000_000,
                mark_price=10**17,
                funding_rate=-(10**17),
                last_price=0,
                band_low=1,
                band_high=2,
                open_interest=3,
                state="open",
            )
            for i, symbol in enumerate(("BTC-PERP", "ETH-PERP"))
        ]

    def book(self, instrument: int, depth: int) -> BookView | None:
        if instrument not in range(2):
            return None
        levels = [BookLevel(price=100 - i, lots=5) for i in range(300)]
        return BookView(
            instrument=instrument,
            height=self.ledger.height,
            block_time_ms=self.ledger.block_time_ms,
            bids=tuple(levels[:depth]),
            asks=(),
        )

    def account(self, wallet: bytes, subaccount: int) -> AccountView | None:
        if wallet != VAULT:
            return None
        return AccountView(
            wallet=wallet,
            subaccount=subaccount,
            index=7,
            height=self.ledger.height,
            cash=10**18 + 1,
            equity=-5,
            initial_margin=1,
            maintenance_margin=2,
            in_liquidation=False,
            positions=(PositionView(instrument=1, lots=-3, open_buys=1, open_sells=0, value=-21),),
            orders=(
                OrderView(
                    order_id=9, client_id=4, instrument=1, side="buy", price=5, lots=6, open=2
                ),
            ),
            sessions=(SessionView(address=b"\x01" * 20, scope="trade", expires_ms=1),),
        )

    def withdrawal_proof(self, index: int) -> WithdrawalProofView | None:
        if index:
            return None
        return WithdrawalProofView(
            index=0,
            recipient=VAULT,
            amount=10**17,
            checkpoint=3,
            withdrawals_root=b"\x05" * 32,
            siblings=tuple(bytes([i]) * 32 for i in range(32)),
        )

    def status(self) -> StatusView:
        ledger = self.ledger
        return StatusView(
            version="0.1.0",
            network=NETWORK,
            chain_id=31337,
            vault=VAULT,
            replica=self.replica,
            replicas=5,
            faults=1,
            epoch=0,
            round=ledger.height,
            height=ledger.height,
            block_time_ms=ledger.block_time_ms,
            executed_height=ledger.height,
            executed_digest=bytes(32),
            recent_digests=((8, bytes(32)),),
            outcomes=len(ledger.outcomes),
            trades=len(ledger.trades),
            pending=0,
            peers=4,
            inbox_count=0,
            checkpoint_formed=0,
            checkpoint_accepted=0,
            settled_height=0,
            syncing=False,
            silent="",
        )

    def evidence(self) -> bytes:
        return b"{}"

    def health(self) -> tuple[bool, str]:
        return not self.healthy_why, self.healthy_why

    def ready(self) -> tuple[bool, str]:
        return not self.ready_why, self.ready_why

    def metrics_text(self) -> bytes:
        return self.metrics
