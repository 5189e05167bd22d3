"""Inputs and effects of every machine here: `step(now_ms, input) -> list[Effect]`.

Effects are carried out in the order given, and `Persist` is a barrier: it is on disk before any
later effect of the same list leaves the node. A driver may join the effects of several steps, if
every joined Persist still comes before the sends that followed it.

They are msgspec structs because a step makes dozens, and those are made five times as fast as
frozen dataclasses; none is ever encoded.
"""

from __future__ import annotations

from msgspec import Struct

from consensus.command import CommandId
from consensus.messages import Message, Observation


class Start(Struct, frozen=True, gc=False):
    """The node is up: resume from durable state. Always the first input."""


class Received(Struct, frozen=True, gc=False):
    """A message from the replica with index `peer`, its signatures verified at the edge."""

    peer: int
    message: Message
    epoch: int = 0
    """The epoch whose committee it was verified against; 0 where there is but one."""


class Strayed(Struct, frozen=True, gc=False):
    """A frame of another epoch came from `peer`, which is behind or ahead."""

    peer: int
    epoch: int


class Connected(Struct, frozen=True, gc=False):
    """A link to `peer` came up (again)."""

    peer: int


class Submitted(Struct, frozen=True, gc=False):
    """A client's command, its bounds and signature verified at the edge."""

    id: CommandId
    body: bytes


class TimerFired(Struct, frozen=True, gc=False):
    """The timer that `SetTimer` named is due."""

    name: str


class PricesObserved(Struct, frozen=True, gc=False):
    """What this replica's own price sources say now."""

    observations: tuple[Observation, ...]


class L1Observed(Struct, frozen=True, gc=False):
    """The contract's inbox as of a final Ethereum block.

    `messages` are those after the `since` first ones; `hash` is the chained hash after the last.
    """

    since: int
    messages: tuple[bytes, ...]
    hash: bytes


class StateAccepted(Struct, frozen=True, gc=False):
    """The chain accepted, in a final block, a checkpoint of block `height` whose state is `root`.

    This comes from the contract, never from peers alone: a replica far behind starts from it.
    """

    height: int
    root: bytes


Input = (
    Start
    | Received
    | Connected
    | Submitted
    | TimerFired
    | PricesObserved
    | L1Observed
    | StateAccepted
)


class Write(Struct, frozen=True, gc=False):
    """One record: `value` None deletes it."""

    table: str
    key: bytes
    value: bytes | None


class Persist(Struct, frozen=True, gc=False):
    """Write all records atomically; with `sync`, durable before any later effect."""

    writes: tuple[Write, ...]
    sync: bool


class Send(Struct, frozen=True, gc=False):
    """Send `message` to the replica with index `peer`; it may get lost."""

    peer: int
    message: Message


class Broadcast(Struct, frozen=True, gc=False):
    """Send `message` to every other replica; each copy may get lost."""

    message: Message


class SetTimer(Struct, frozen=True, gc=False):
    """Fire `name` at `at_ms`; an earlier setting of the same name is replaced."""

    name: str
    at_ms: int


class Reply(Struct, frozen=True, gc=False):
    """Tell the client of command `id` how far it came.

    `status`: "seen" (in the own persisted batch `seq`), "duplicate", "expired", or "busy" with
    `retry_after_ms`.
    """

    id: CommandId
    status: str
    retry_after_ms: int = 0
    seq: int = 0


class Blame(Struct, frozen=True, gc=False):
    """`peer` broke a rule; the driver counts it and, for a malformed frame, drops the link."""

    peer: int
    why: str


class EpochBegan(Struct, frozen=True, gc=False):
    """From now on frames are verified against these keys, and broadcasts go to `members`.

    `keys` are the committee's by index; `genesis` is the digest of the epoch's block of round 0.
    """

    epoch: int
    keys: tuple[bytes, ...]
    genesis: bytes
    members: tuple[int, ...]


class Halt(Struct, frozen=True, gc=False):
    """Stop at once: going on would be unsafe. `dump` is for the operator.

    `kind` names the reason for a program: "diverged" (from a quorum's state), "checkpoint" (from
    others' checkpoint), "forked", "key_in_use" (elsewhere), or "unsafe" for any other.
    """

    why: str
    dump: bytes
    kind: str = "unsafe"


class Installed(Struct, frozen=True, gc=False):
    """The replicated state is now that of block `height`, taken over from peers: what was
    executed before it was not executed here."""

    height: int


Effect = Persist | Send | Broadcast | SetTimer | Reply | Blame | Halt | Installed | EpochBegan
