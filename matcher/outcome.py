"""What a block did: events, in the order in which they happened.

Every command has exactly one `CommandOutcome`. Accounts are named by index, wallets by address.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct

from matcher.units import Wide

REJECTED = "rejected"
DONE = "done"
RESTING = "resting"
PARTIALLY_FILLED = "partially_filled"
FILLED = "filled"
CANCELLED = "cancelled"
"""The statuses. An order that rests after trading is partially filled; one whose remainder was
taken away is cancelled, with `filled` saying what it traded; `done` is for all that is no order.
"""


class ActionResult(Struct, frozen=True, array_like=True):
    """What became of one action.

    `order_id` is the order placed or cancelled, else 0 (a withdrawal's index for a withdrawal);
    `filled` what it traded at once, `remaining` what now rests, both in lots; of a cancel,
    `remaining` is what was taken away; of a cancel-all `order_id` counts the orders.
    """

    status: str
    reason: str | None = None
    order_id: int = 0
    filled: int = 0
    remaining: int = 0


class CommandOutcome(Struct, frozen=True, array_like=True, tag="command"):
    """The one outcome of the command `id`; `results` has one entry per action of a batch."""

    id: bytes
    status: str
    reason: str | None = None
    order_id: int = 0
    filled: int = 0
    remaining: int = 0
    results: tuple[ActionResult, ...] = ()


class Fill(Struct, frozen=True, array_like=True, tag="fill"):
    """One trade, at the maker's price; `trade` numbers them all. Fees may be negative."""

    trade: int
    instrument: int
    price: int
    qty: int
    taker_side: int
    taker_account: int
    maker_account: int
    taker_order: int
    maker_order: int
    taker_fee: int
    maker_fee: int


class OrderUpdate(Struct, frozen=True, array_like=True, tag="order"):
    """A resting order changed: `partially_filled`, `filled`, or `cancelled` with its reason.

    `open` is what still rests; of a cancelled one, what was taken away.
    """

    order_id: int
    account: int
    instrument: int
    client_id: int
    state: str
    reason: str | None
    open: int


class MarkMoved(Struct, frozen=True, array_like=True, tag="mark"):
    """A risk tick of one instrument.

    Units: `mark`, `index` micro-USDC per whole unit, `value` micro-USDC per lot, `funding` the
    cumulative funding per lot, `rate` WAD per 8 hours.
    """

    instrument: int
    mark: int
    index: int
    value: int
    funding: int
    rate: int


class FeedChanged(Struct, frozen=True, array_like=True, tag="feed"):
    """An underlying became fresh, or stale: cancel only until it is fresh again."""

    feed: int
    fresh: bool


class Deposited(Struct, frozen=True, array_like=True, tag="deposit"):
    """Inbox message `count` credited `amount` to `account`.

    With a reason, the subaccount named is one of suspense or the insurance fund. An amount
    beyond 64 bits is in big-endian bytes (`units.Wide`).
    """

    count: int
    wallet: bytes
    subaccount: int
    account: int
    amount: Wide
    reason: str | None = None


class InboxRefused(Struct, frozen=True, array_like=True, tag="inbox_refused"):
    """Inbox message `count` was consumed and moved no money."""

    count: int
    reason: str


class Moved(Struct, frozen=True, array_like=True, tag="moved"):
    """Money left suspense for the wallet's own subaccount."""

    wallet: bytes
    account: int
    amount: int


class Withdrawn(Struct, frozen=True, array_like=True, tag="withdrawal"):
    """A withdrawal leaf was appended at `index`: claimable once a checkpoint has it."""

    index: int
    wallet: bytes
    subaccount: int
    recipient: bytes
    amount: int


class SessionChanged(Struct, frozen=True, array_like=True, tag="session"):
    """A session key got, or with scope 0 lost, authority."""

    wallet: bytes
    session: bytes
    scope: int
    expires_ms: int


class Liquidation(Struct, frozen=True, array_like=True, tag="liquidation"):
    """An account's liquidation moved: `started`, `reduced`, `ended`.

    `qty` lots of `instrument` were closed, for a fee to the insurance fund.
    """

    account: int
    stage: str
    instrument: int
    qty: int
    fee: int


class InsurancePaid(Struct, frozen=True, array_like=True, tag="insurance"):
    """The insurance fund covered `amount` of a deficit; `uncovered` of it remains."""

    account: int
    amount: int
    uncovered: int


Event = (
    CommandOutcome
    | Fill
    | OrderUpdate
    | MarkMoved
    | FeedChanged
    | Deposited
    | InboxRefused
    | Moved
    | Withdrawn
    | SessionChanged
    | Liquidation
    | InsurancePaid
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that one block did."""

    events: tuple[Event, ...]
