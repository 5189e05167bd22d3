"""Inputs and effects of every machine here: `step(now_ms, input) -> list[Effect]`.

Effects are carried out in the order given, and `Persist` is a barrier: it is on disk before any
later effect of the same list leaves the node. A driver may join the effects of several steps, if
every joined Persist still comes before the sends that followed it.
"""

from __future__ import annotations

from dataclasses import dataclass

from consensus.command import CommandId
from consensus.messages import Message, Observation


@dataclass(frozen=True, slots=True)
class Start:
    """The node is up: resume from durable state. Always the first input."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message from the replica with index `peer`, its signatures verified at the edge."""

    peer: int
    message: Message
    epoch: int = 0
    """The epoch whose committee it was verified against; 0 where there is but one."""


@dataclass(frozen=True, slots=True)
class Strayed:
    """A frame of another epoch came from `peer`, which is behind or ahead."""

    peer: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Connected:
    """A link to `peer` came up (again)."""

    peer: int


@dataclass(frozen=True, slots=True)
class Submitted:
    """A client's command, its bounds and signature verified at the edge."""

    id: CommandId
    body: bytes


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The timer that `SetTimer` named is due."""

    name: str


@dataclass(frozen=True, slots=True)
class PricesObserved:
    """What this replica's own price sources say now."""

    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class L1Observed:
    """The contract's inbox as of a final Ethereum block.

    `messages` are those after the `since` first ones; `hash` is the chained hash after the last.
    """

    since: int
    messages: tuple[bytes, ...]
    hash: bytes


Input = Start | Received | Connected | Submitted | TimerFired | PricesObserved | L1Observed


@dataclass(frozen=True, slots=True)
class Write:
    """One record: `value` None deletes it."""

    table: str
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Persist:
    """Write all records atomically; with `sync`, durable before any later effect."""

    writes: tuple[Write, ...]
    sync: bool


@dataclass(frozen=True, slots=True)
class Send:
    """Send `message` to the replica with index `peer`; it may get lost."""

    peer: int
    message: Message


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send `message` to every other replica; each copy may get lost."""

    message: Message


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Fire `name` at `at_ms`; an earlier setting of the same name is replaced."""

    name: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Reply:
    """Tell the client of command `id` how far it came.

    `status`: "seen" (in the own persisted batch `seq`), "duplicate", "expired", or "busy" with
    `retry_after_ms`.
    """

    id: CommandId
    status: str
    retry_after_ms: int = 0
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Blame:
    """`peer` broke a rule; the driver counts it and, for a malformed frame, drops the link."""

    peer: int
    why: str


@dataclass(frozen=True, slots=True)
class EpochBegan:
    """From now on frames are verified against these keys, and broadcasts go to `members`.

    `keys` are the committee's by index; `genesis` is the digest of the epoch's block of round 0.
    """

    epoch: int
    keys: tuple[bytes, ...]
    genesis: bytes
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop at once: going on would be unsafe. `dump` is for the operator.

    `kind` names the reason for a program: "diverged" (from a quorum's state), "checkpoint" (from
    others' checkpoint), "forked", "key_in_use" (elsewhere), or "unsafe" for any other.
    """

    why: str
    dump: bytes
    kind: str = "unsafe"


Effect = Persist | Send | Broadcast | SetTimer | Reply | Blame | Halt | EpochBegan
