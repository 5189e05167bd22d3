"""What a replica knows when its state is not a quorum's: the dump of that halt."""

from __future__ import annotations

from msgspec import Struct

from consensus.messages import QC, Block


class PartDigests(Struct, frozen=True, array_like=True):
    """The two digests that the state digest of `height` was made of."""

    height: int
    sequencer: bytes
    executor: bytes


class Divergence(Struct, frozen=True, array_like=True, tag="divergence"):
    """Our digest at `height`, a quorum's, and what proves the quorum's.

    `block` says that `height` was executed to `quorum`; `qc` certifies it, so at least q - f
    honest replicas did. Both are None when the proof is of another kind. `own` are our newest
    digests, by height.
    """

    height: int
    mine: bytes
    quorum: bytes
    block: Block | None
    qc: QC | None
    own: tuple[PartDigests, ...]
