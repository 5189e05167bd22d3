"""Everything that the door asks of its node.

The door never touches consensus, the engine or the store: it talks to a `NodePort`, and whatever
stands behind that must answer from its own state without waiting for the network, except where a
method says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from consensus.command import CommandId
from ops.admission import AdmittedCommand

RECEIPTS_KEPT_MS = 600_000
"""Receipts and the outcomes behind them are kept for so long after the command's expiry."""


class CursorLost(LookupError):
    """A stream no longer holds what follows the cursor; `oldest` is the first sequence it has."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"the oldest sequence held is {oldest}")
        self.oldest = oldest


class SubmitStatus(StrEnum):
    """How far a command came by the time `submit` returned."""

    SEEN = "seen"
    """It stands in a persisted batch of this node's order log."""
    DUPLICATE = "duplicate"
    """It stood there already, or has been ordered; nothing changed."""
    BUSY = "busy"
    """No room now; nothing changed: send the same bytes again after `retry_after_ms`."""
    REFUSED = "refused"
    """It can never happen, for `reason`; nothing changed."""


class SubmitResult(Struct, frozen=True, kw_only=True):
    """The node's answer to one admitted command."""

    id: CommandId
    status: SubmitStatus
    reason: str = ""
    retry_after_ms: int = 0


class SeenStage(Struct, frozen=True, kw_only=True):
    """Where the command stands in this node's own log: batch `seq` of replica `log`."""

    log: int
    seq: int


class OrderedStage(Struct, frozen=True, kw_only=True):
    """Which block's commit emitted the command, and its place among that block's commands."""

    height: int
    position: int
    block_time_ms: int


class ExecutedStage(Struct, frozen=True, kw_only=True):
    """What the engine did: `status` is one word, `reason` is empty unless it was refused.

    `sequence` numbers all outcomes of the network from 1 and is the same at every node.
    `executed_at_ms` is this node's clock, so it differs between nodes. `details` is the event as
    JSON-able values (orders, fills and so on), as docs/api.md lists them.
    """

    sequence: int
    status: str
    reason: str
    details: dict[str, object]
    executed_at_ms: int


class SettledStage(Struct, frozen=True, kw_only=True):
    """The first checkpoint accepted on chain that covers the command's block."""

    checkpoint: int


class Receipt(Struct, frozen=True, kw_only=True):
    """How far one command came, as this node knows it; a missing stage has not happened here.

    `void` says that it expired before it was ordered, by block time: it can never happen.
    """

    id: CommandId
    seen: SeenStage | None = None
    ordered: OrderedStage | None = None
    executed: ExecutedStage | None = None
    settled: SettledStage | None = None
    void: bool = False


class Outcome(Struct, frozen=True, kw_only=True):
    """One executed command in the stream of all of them. See `ExecutedStage`."""

    sequence: int
    id: CommandId
    status: str
    reason: str
    height: int
    executed_at_ms: int
    details: dict[str, object]


class Trade(Struct, frozen=True, kw_only=True):
    """One fill in the stream of all of them; `sequence` from 1, the same at every node.

    Units: `price` in ticks, `lots` in lots; `taker_side` is "buy" or "sell".
    """

    sequence: int
    instrument: int
    price: int
    lots: int
    taker_side: str
    taker_order: int
    maker_order: int
    height: int
    block_time_ms: int


class BookLevel(Struct, frozen=True, kw_only=True):
    """All that rests at one price. Units: ticks, lots."""

    price: int
    lots: int


class BookView(Struct, frozen=True, kw_only=True):
    """One instrument's book after the block `height`, best levels first."""

    instrument: int
    height: int
    block_time_ms: int
    bids: tuple[BookLevel, ...]
    asks: tuple[BookLevel, ...]


class PositionView(Struct, frozen=True, kw_only=True):
    """One open position, or open orders without one.

    Units: lots; `value` is micro-USDC: lots x (mark - funding per lot), what it adds to the cash.
    """

    instrument: int
    lots: int
    open_buys: int
    open_sells: int
    value: int


class OrderView(Struct, frozen=True, kw_only=True):
    """One resting order. Units: `price` in ticks, `lots` as placed, `open` of them still rest."""

    order_id: int
    client_id: int
    instrument: int
    side: str
    price: int
    lots: int
    open: int


class SessionView(Struct, frozen=True, kw_only=True):
    """One session key of a wallet: `scope` is "trade" or "cancel"."""

    address: bytes
    scope: str
    expires_ms: int


class AccountView(Struct, frozen=True, kw_only=True):
    """One subaccount after the block `height`; `index` is its place in the state tree.

    Units: micro-USDC.
    """

    wallet: bytes
    subaccount: int
    index: int
    height: int
    cash: int
    equity: int
    initial_margin: int
    maintenance_margin: int
    in_liquidation: bool
    positions: tuple[PositionView, ...]
    orders: tuple[OrderView, ...]
    sessions: tuple[SessionView, ...]


class InstrumentView(Struct, frozen=True, kw_only=True):
    """One instrument's terms and its prices now.

    Units: `tick_size` micro-USDC per whole unit of the underlying, `lot_size` as a decimal string
    of whole units, `tick_value` micro-USDC per tick per lot; `index_price` and `mark_price`
    micro-USDC per whole unit, 0 before the first observation; `funding_rate` WAD per 8 hours;
    `last_price` and the band in ticks; `qty_max` and `open_interest` in lots. `state` is "open",
    or "cancel_only" while the index is stale.
    """

    id: int
    symbol: str
    kind: str
    tick_size: int
    lot_size: str
    tick_value: int
    qty_max: int
    index_price: int
    mark_price: int
    funding_rate: int
    last_price: int
    band_low: int
    band_high: int
    open_interest: int
    state: str


class WithdrawalProofView(Struct, frozen=True, kw_only=True):
    """What `Vault.claim` wants for one withdrawal, against the accepted checkpoint `checkpoint`.

    Shape: `siblings` are 32 hashes of 32 bytes, lowest level first. Units: micro-USDC.
    """

    index: int
    recipient: bytes
    amount: int
    checkpoint: int
    withdrawals_root: bytes
    siblings: tuple[bytes, ...]


class StatusView(Struct, frozen=True, kw_only=True):
    """What an operator or a client wants to know first.

    `executed_digest` is the state digest at `executed_height`, `recent_digests` those of the last
    heights that have one: two nodes are compared where they have a height in common.
    `settled_height` is the height that the newest checkpoint on chain covers. `network`
    (32 bytes), `chain_id` and `vault` are what a client signs for. `silent` says why the node
    signs nothing until the next epoch, and is empty otherwise.
    """

    version: str
    network: bytes
    chain_id: int
    vault: bytes
    replica: int
    replicas: int
    faults: int
    epoch: int
    round: int
    height: int
    block_time_ms: int
    executed_height: int
    executed_digest: bytes
    recent_digests: tuple[tuple[int, bytes], ...]
    outcomes: int
    trades: int
    pending: int
    peers: int
    inbox_count: int
    checkpoint_formed: int
    checkpoint_accepted: int
    settled_height: int
    syncing: bool
    silent: str


class NodePort(Protocol):
    """The node as the door sees it. Nothing here raises but what is named."""

    def now_ms(self) -> int:
        """Return the wall clock that the door judges expiry by."""
        ...

    async def submit(self, commands: Sequence[AdmittedCommand]) -> list[SubmitResult]:
        """Return one result per command, in order, once their fate at this node is known.

        SEEN and DUPLICATE are said only of what stands in a persisted batch of the own log. The
        door cancels the call when its request runs out of time; the commands may still happen.
        """
        ...

    def receipt(self, id_: CommandId) -> Receipt | None:
        """Return how far the command came, or None when this node does not know it (any more).

        A receipt is kept until `RECEIPTS_KEPT_MS` of block time after the command's expiry.
        """
        ...

    def outcomes(self, after: int, limit: int) -> Sequence[Outcome]:
        """Return up to `limit` outcomes with sequence > `after`. Errors: CursorLost."""
        ...

    async def outcomes_beyond(self, after: int) -> None:
        """Return as soon as an outcome with sequence > `after` exists."""
        ...

    def trades(self, after: int, limit: int) -> Sequence[Trade]:
        """Return up to `limit` trades with sequence > `after`. Errors: CursorLost."""
        ...

    async def trades_beyond(self, after: int) -> None:
        """Return as soon as a trade with sequence > `after` exists."""
        ...

    def instruments(self) -> Sequence[InstrumentView]:
        """Return all instruments by id."""
        ...

    def book(self, instrument: int, depth: int) -> BookView | None:
        """Return the best `depth` levels of each side; None for an unknown instrument."""
        ...

    def account(self, wallet: bytes, subaccount: int) -> AccountView | None:
        """Return the subaccount, or None when it never had a deposit."""
        ...

    def withdrawal_proof(self, index: int) -> WithdrawalProofView | None:
        """Return the proof against the newest accepted checkpoint that covers it, if any."""
        ...

    def status(self) -> StatusView:
        """Return the node's state; cheap."""
        ...

    def evidence(self) -> bytes:
        """Return the evidence that this node has found, as the JSON of `ops.evidencefile`."""
        ...

    def health(self) -> tuple[bool, str]:
        """Say whether the node works at all; if not, why: it should be restarted."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Say whether the node takes commands now; if not, why (syncing, no quorum, ...)."""
        ...

    def metrics_text(self) -> bytes:
        """Return the Prometheus exposition."""
        ...
