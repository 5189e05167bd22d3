"""The JSON of the door, shared by server and client: one struct per object.

Bytes travel as lower-case hex with 0x, command bodies as base64. Money is a decimal string of
micro-USDC, since it may pass 2**53; every other integer is a JSON number. docs/api.md tells it to
traders.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from consensus.command import COMMAND_ID_BYTES, CommandId
from ops.gateway.port import (
    AccountView,
    BookView,
    InstrumentView,
    Outcome,
    Receipt,
    StatusView,
    SubmitStatus,
    Trade,
    WithdrawalProofView,
)


class ErrorBody(Struct, frozen=True, omit_defaults=True):
    """What went wrong: `code` for machines, `message` for people."""

    code: str
    message: str


class ErrorAnswer(Struct, frozen=True):
    """The body of every answer whose status is 400 or more."""

    error: ErrorBody


class SubmitOne(Struct, frozen=True, forbid_unknown_fields=True):
    """One command: its encoded envelope in base64."""

    body: bytes


class SubmitMany(Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 50 commands, each its encoded envelope in base64."""

    commands: list[bytes]


class CommandResult(Struct, frozen=True, omit_defaults=True):
    """What became of one submitted command.

    `id` is empty when the bytes were not a command at all. `error` stands with every status but
    "seen"; `retry_after_ms` with "busy".
    """

    id: str
    status: SubmitStatus
    error: ErrorBody | None = None
    retry_after_ms: int = 0


class SubmitAnswer(Struct, frozen=True):
    """One result per command, in the order of the request."""

    results: list[CommandResult]


class ReceiptsRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 100 command ids."""

    ids: list[str]


class SeenAnswer(Struct, frozen=True):
    log: int
    seq: int


class OrderedAnswer(Struct, frozen=True):
    height: int
    position: int
    block_time_ms: int


class ExecutedAnswer(Struct, frozen=True):
    sequence: int
    status: str
    reason: str
    details: dict[str, Any]
    executed_at_ms: int


class SettledAnswer(Struct, frozen=True):
    checkpoint: int


class ReceiptAnswer(Struct, frozen=True):
    """How far a command came. `state` is the last stage, or "void", or "unknown"."""

    id: str
    state: str
    seen: SeenAnswer | UnsetType = UNSET
    ordered: OrderedAnswer | UnsetType = UNSET
    executed: ExecutedAnswer | UnsetType = UNSET
    settled: SettledAnswer | UnsetType = UNSET


class ReceiptsAnswer(Struct, frozen=True):
    """One receipt per id asked for, in order; `block_time_ms` is the newest committed block's."""

    block_time_ms: int
    receipts: list[ReceiptAnswer]


class OutcomeAnswer(Struct, frozen=True):
    sequence: int
    id: str
    status: str
    reason: str
    height: int
    executed_at_ms: int
    details: dict[str, Any]


class OutcomesAnswer(Struct, frozen=True):
    """A page of outcomes; ask again with `after` = `next`."""

    outcomes: list[OutcomeAnswer]
    next: int


class TradeAnswer(Struct, frozen=True):
    sequence: int
    instrument: int
    price: int
    lots: int
    taker_side: str
    taker_order: int
    maker_order: int
    height: int
    block_time_ms: int


class TradesAnswer(Struct, frozen=True):
    """A page of trades; ask again with `after` = `next`."""

    trades: list[TradeAnswer]
    next: int


class StatusAnswer(Struct, frozen=True):
    """See `port.StatusView`."""

    version: str
    network: str
    chain_id: int
    vault: str
    replica: int
    replicas: int
    faults: int
    epoch: int
    round: int
    height: int
    block_time_ms: int
    executed_height: int
    executed_digest: str
    recent_digests: list[tuple[int, str]]
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


class LevelAnswer(Struct, frozen=True):
    price: int
    lots: int


class BookAnswer(Struct, frozen=True):
    """See `port.BookView`."""

    instrument: int
    height: int
    block_time_ms: int
    bids: list[LevelAnswer]
    asks: list[LevelAnswer]


class PositionAnswer(Struct, frozen=True):
    instrument: int
    lots: int
    open_buys: int
    open_sells: int
    value: int


class OrderAnswer(Struct, frozen=True):
    order_id: int
    client_id: int
    instrument: int
    side: str
    price: int
    lots: int
    open: int


class SessionAnswer(Struct, frozen=True):
    address: str
    scope: str
    expires_ms: int


class AccountAnswer(Struct, frozen=True):
    """See `port.AccountView`; money is a string on the wire, an integer once decoded."""

    wallet: str
    subaccount: int
    index: int
    height: int
    cash: int
    equity: int
    initial_margin: int
    maintenance_margin: int
    in_liquidation: bool
    positions: list[PositionAnswer]
    orders: list[OrderAnswer]
    sessions: list[SessionAnswer]


class InstrumentAnswer(Struct, frozen=True):
    """See `port.InstrumentView`."""

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


class InstrumentsAnswer(Struct, frozen=True):
    instruments: list[InstrumentAnswer]


class ProofAnswer(Struct, frozen=True):
    """See `port.WithdrawalProofView`."""

    index: int
    recipient: str
    amount: int
    checkpoint: int
    withdrawals_root: str
    siblings: list[str]


def hexed(value: bytes) -> str:
    """Return bytes as the door writes them."""
    return "0x" + value.hex()


def unhexed(text: str, length: int) -> bytes | None:
    """Return the `length` bytes behind hex with or without 0x, or None.

    Stricter than `bytes.fromhex`, which skips white space.
    """
    digits = text[2:] if text[:2] == "0x" else text
    if len(digits) != 2 * length or not digits.isascii() or not digits.isalnum():
        return None
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return None


def parse_id(text: str) -> CommandId | None:
    """Return the command id behind hex, or None."""
    value = unhexed(text, COMMAND_ID_BYTES)
    return None if value is None else CommandId(value)


def receipt_answer(id_: CommandId, receipt: Receipt | None) -> ReceiptAnswer:
    """Return the JSON of one receipt; None is the state "unknown"."""
    if receipt is None:
        return ReceiptAnswer(hexed(id_), "unknown")
    seen, ordered = receipt.seen, receipt.ordered
    executed, settled = receipt.executed, receipt.settled
    state = "void" if receipt.void else "unknown"
    for name in ("seen", "ordered", "executed", "settled"):
        if not receipt.void and getattr(receipt, name) is not None:
            state = name
    return ReceiptAnswer(
        hexed(id_),
        state,
        UNSET if seen is None else SeenAnswer(seen.log, seen.seq),
        UNSET
        if ordered is None
        else OrderedAnswer(ordered.height, ordered.position, ordered.block_time_ms),
        UNSET
        if executed is None
        else ExecutedAnswer(
            executed.sequence,
            executed.status,
            executed.reason,
            executed.details,
            executed.executed_at_ms,
        ),
        UNSET if settled is None else SettledAnswer(settled.checkpoint),
    )


def outcome_answer(outcome: Outcome) -> OutcomeAnswer:
    """Return the JSON of one outcome."""
    return OutcomeAnswer(
        outcome.sequence,
        hexed(outcome.id),
        outcome.status,
        outcome.reason,
        outcome.height,
        outcome.executed_at_ms,
        outcome.details,
    )


def trade_answer(trade: Trade) -> TradeAnswer:
    """Return the JSON of one trade."""
    return TradeAnswer(
        trade.sequence,
        trade.instrument,
        trade.price,
        trade.lots,
        trade.taker_side,
        trade.taker_order,
        trade.maker_order,
        trade.height,
        trade.block_time_ms,
    )


def status_answer(view: StatusView) -> StatusAnswer:
    """Return the JSON of a node's status."""
    fields: dict[str, Any] = _plain(view)
    return StatusAnswer(**fields)


_MONEY = frozenset(
    (
        *("cash", "equity", "initial_margin", "maintenance_margin", "amount"),
        *("value", "index_price", "mark_price", "funding_rate"),
    )
)
"""The fields that `view_answer` writes as decimal strings."""


def view_answer(
    view: AccountView | BookView | InstrumentView | WithdrawalProofView,
) -> dict[str, Any]:
    """Return the JSON of a view: its fields by name, bytes in hex, money as strings.

    Decode with `strict=False`, which reads money back into integers.
    """
    answer: dict[str, Any] = _plain(view)
    return answer


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        fields = msgspec.structs.asdict(value)
        return {
            name: str(v) if name in _MONEY and v is not None else _plain(v)
            for name, v in fields.items()
        }
    if isinstance(value, bytes):
        return hexed(value)
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value
