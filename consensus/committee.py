"""Who takes part: the committee, its fault bound and quorum, and the protocol's parameters."""

from __future__ import annotations

from msgspec import Struct

REPLICAS_MAX = 100
INTRODUCE_MAX = 256
"""Commands that a batch may introduce at any n: their largest bodies fit into one frame."""


def faults(n: int) -> int:
    """Return f, the number of replicas that may be Byzantine: floor((n - 1) / 3)."""
    return (n - 1) // 3


def quorum(n: int) -> int:
    """Return q = floor((n + f) / 2) + 1: two quorums share an honest replica at every n.

    2f + 1 is the same only at n = 3f + 1; at n = 5 it lets two quorums of 3 differ, and forks.
    """
    return (n + faults(n)) // 2 + 1


class Parameters(Struct, frozen=True, kw_only=True):
    """The protocol's dials, fixed by the genesis and the same at every replica.

    Units: milliseconds where the name says so, batches for `log_window` and `head_cap`, ids for
    `entries_max`. Source: ARCHITECTURE.md, "Parameters".
    """

    batch_interval_ms: int = 10
    idle_batch_ms: int = 250
    block_interval_ms: int = 50
    empty_block_ms: int = 400
    round_timer_ms: int = 1_000
    round_timer_max_ms: int = 10_000
    entries_max: int = 640
    log_window: int = 256
    head_cap: int = 64
    gamma_numerator: int = 1
    gamma_denominator: int = 1
    order_deadline_ms: int = 2_000
    censorship_alarm_ms: int = 5_000

    def introduce_max(self, n: int) -> int:
        """Return I, the commands a batch may introduce: I x n entries fit into one batch."""
        return min(self.entries_max // n, INTRODUCE_MAX)


class Member(Struct, frozen=True, array_like=True):
    """One replica's public identity in an epoch.

    `network_key` and `consensus_key` are Ed25519 (32 bytes), `share_key` is BLS in G2 (96 bytes),
    `operator` the 20-byte address that submits checkpoints, `endpoint` host:port.
    """

    network_key: bytes
    consensus_key: bytes
    share_key: bytes
    operator: bytes
    endpoint: str


class Committee:
    """The replicas of one epoch, in index order, and their arithmetic."""

    def __init__(self, network: bytes, epoch: int, keys: tuple[bytes, ...]) -> None:
        """`network` is the 32-byte network id; `keys[i]` replica i's consensus public key."""
        assert 1 <= len(keys) <= REPLICAS_MAX
        self.network = network
        self.epoch = epoch
        self.keys = keys
        self.n = len(keys)
        self.f = faults(self.n)
        self.quorum = quorum(self.n)

    def leader(self, round_: int) -> int:
        """Return the replica that proposes in `round_`: strict rotation."""
        return round_ % self.n
