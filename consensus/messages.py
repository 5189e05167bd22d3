"""What replicas say to each other, field by field; field order is wire order.

Each signed message names its epoch; its signature covers network id, epoch, a tag and the digest
that its docstring names (`crypto.signable`). Sources: Jolteon (arXiv 2106.10362), Aptos AIP-89,
ARCHITECTURE.md.
"""

from __future__ import annotations

from functools import cached_property

from msgspec import Struct

from consensus.codec import Shape, encode
from consensus.digest import Digest, tagged

OBSERVATIONS_MAX = 64
INBOX_MESSAGES_MAX = 64
INBOX_MESSAGE_BYTES_MAX = 512
FETCH_IDS_MAX = 256
FETCH_BATCHES_MAX = 64
FETCH_BLOCKS_MAX = 32
STATE_NAMES_MAX = 256


class Observation(Struct, frozen=True, array_like=True):
    """One price seen by one replica. Units: `value` as its feed says, `time_ms` when observed."""

    feed: int
    value: int
    time_ms: int


class InboxClaim(Struct, frozen=True, array_like=True):
    """How much of the contract's inbox a replica has seen final.

    `hash` is the inbox's chained hash at `count`; `messages` are those between the author's
    previous claim and this one, so that they can be checked against the chain and delivered.
    """

    count: int
    hash: bytes
    messages: tuple[bytes, ...]


class LogBatch(Struct, frozen=True, array_like=True, tag="batch", dict=True):
    """A run of one replica's order log; the signature covers `batch_digest`.

    `entries` are command ids in receipt order, `bodies` the commands that the author introduces.
    """

    epoch: int
    author: int
    seq: int
    prev: bytes
    time_ms: int
    entries: tuple[bytes, ...]
    bodies: tuple[bytes, ...]
    oracle: tuple[Observation, ...]
    inbox: InboxClaim
    signature: bytes

    @cached_property
    def digest(self) -> Digest:
        """The digest of all of it but its signature; a batch never changes, so it is kept."""
        said = (self.epoch, self.author, self.seq, self.prev, self.time_ms)
        return tagged(
            TAG_BATCH, encode((*said, self.entries, self.bodies, self.oracle, self.inbox))
        )


class SignedSeen(Struct, frozen=True, array_like=True):
    """One voter's part of a quorum certificate: what it had on disk, and its signature."""

    voter: int
    seen: tuple[int, ...]
    signature: bytes


class QC(Struct, frozen=True, array_like=True):
    """A quorum certificate: q votes for `block` in `round`; the genesis' (round 0) has none."""

    round: int
    block: bytes
    votes: tuple[SignedSeen, ...]


class SignedTimeout(Struct, frozen=True, array_like=True):
    """One voter's part of a timeout certificate; the signature covers (round, lock_round)."""

    voter: int
    lock_round: int
    signature: bytes


class TC(Struct, frozen=True, array_like=True):
    """A timeout certificate: q timeouts of `round`, with the highest QC that they name."""

    round: int
    timeouts: tuple[SignedTimeout, ...]
    high_qc: QC

    @property
    def high_round(self) -> int:
        """The highest QC round that the timeouts name."""
        return max(timeout.lock_round for timeout in self.timeouts)


class Head(Struct, frozen=True, array_like=True):
    """A point of one order log: the batch `seq` with `digest`; seq 0 is the log's start."""

    seq: int
    digest: bytes


class Block(Struct, frozen=True, array_like=True, dict=True):
    """A cut through all logs. `qc.block` is the parent; `executed` an earlier block's state."""

    epoch: int
    round: int
    height: int
    qc: QC
    tc: TC | None
    heads: tuple[Head, ...]
    executed_height: int
    executed_digest: bytes

    @cached_property
    def digest(self) -> Digest:
        """The digest of all of it; a block never changes, so it is kept."""
        return tagged(TAG_BLOCK, encode(self))


class Proposal(Struct, frozen=True, array_like=True, tag="proposal"):
    """The leader's block of a round; the signature covers `block_digest`."""

    block: Block
    signature: bytes


class Vote(Struct, frozen=True, array_like=True, tag="vote"):
    """A vote for `block` in `round`; the signature covers `vote_digest`.

    `seen[i]` is the highest seq up to which the voter holds log i, bodies included, durably.
    """

    epoch: int
    round: int
    block: bytes
    seen: tuple[int, ...]
    voter: int
    signature: bytes


class CommitVote(Struct, frozen=True, array_like=True, tag="commit_vote"):
    """The voter saw a QC for `block` before timing out of `round`; signed over both."""

    epoch: int
    round: int
    block: bytes
    voter: int
    signature: bytes


class Timeout(Struct, frozen=True, array_like=True, tag="timeout"):
    """The voter gave up `round`; signed over (round, lock.round).

    `tc` is the TC of `round - 1` when the lock is older than that.
    """

    epoch: int
    round: int
    lock: QC
    tc: TC | None
    voter: int
    signature: bytes


class GaveUp(Struct, frozen=True, array_like=True, tag="gave_up"):
    """What a timeout's signature covers, without its certificates: also TCs hold no more of it."""

    epoch: int
    round: int
    lock_round: int
    voter: int
    signature: bytes


class RoundTC(Struct, frozen=True, array_like=True, tag="tc"):
    """A TC that the sender formed, so that everybody enters the next round."""

    epoch: int
    tc: TC


class RoundInfo(Struct, frozen=True, array_like=True, tag="round_info"):
    """The answer to a message of an older round, and a greeting."""

    epoch: int
    lock: QC
    tc: TC | None
    committed_height: int


class GetBatches(Struct, frozen=True, array_like=True, tag="get_batches"):
    """Asks for log `author` after `after` (exclusive), with `until` the branch that ends there."""

    epoch: int
    author: int
    after: Head
    until: Head | None


class Batches(Struct, frozen=True, array_like=True, tag="batches"):
    """Batches asked for, in seq order, each as its author signed it."""

    batches: tuple[LogBatch, ...]


class GetBodies(Struct, frozen=True, array_like=True, tag="get_bodies"):
    """Asks for the commands with these ids."""

    ids: tuple[bytes, ...]


class Bodies(Struct, frozen=True, array_like=True, tag="bodies"):
    """Commands asked for."""

    bodies: tuple[bytes, ...]


class GetBlock(Struct, frozen=True, array_like=True, tag="get_block"):
    """Asks for the block with this digest and its ancestors above `above_height`."""

    block: bytes
    above_height: int


class Blocks(Struct, frozen=True, array_like=True, tag="blocks"):
    """A run of parent-linked blocks, lowest first."""

    blocks: tuple[Block, ...]


class GetChain(Struct, frozen=True, array_like=True, tag="get_chain"):
    """Asks for committed blocks from `from_height` upward, with a proof for the last."""

    from_height: int


class CommitProof(Struct, frozen=True, array_like=True):
    """q commit votes for one block: (voter, signature) pairs."""

    round: int
    block: bytes
    votes: tuple[tuple[int, bytes], ...]


class Chain(Struct, frozen=True, array_like=True, tag="chain"):
    """Committed blocks, lowest first.

    The last is proved by `proof`, or by `child`: a block of the next round on it and `child_qc`.
    """

    blocks: tuple[Block, ...]
    proof: CommitProof | None
    child: Block | None
    child_qc: QC | None


class GetState(Struct, frozen=True, array_like=True, tag="get_state"):
    """Asks for the objects of state with these names; `nonce` tells answers apart."""

    nonce: int
    names: tuple[bytes, ...]


class StateObjects(Struct, frozen=True, array_like=True, tag="state_objects"):
    """What stands for the first so many names of a question, in their order.

    An empty one is not here: the sender keeps no snapshot that holds it.
    """

    nonce: int
    objects: tuple[bytes, ...]


class Pruned(Struct, frozen=True, array_like=True, tag="pruned"):
    """The answer to a question for what is too old: the sender's blocks begin at `from_height`."""

    from_height: int


class GetLast(Struct, frozen=True, array_like=True, tag="get_last"):
    """Asks, before the first signature after a start, what the sender's key signed last.

    `nonce` is the same for all questions of one start, so that an answer to an earlier one is told.
    """

    epoch: int
    nonce: int


class Last(Struct, frozen=True, array_like=True, tag="last"):
    """The newest statements of the asking key that the sender holds, each as it was signed."""

    epoch: int
    nonce: int
    vote: Vote | None
    commit_vote: CommitVote | None
    gave_up: GaveUp | None
    proposal: Proposal | None
    batch: LogBatch | None


class HandoverVote(Struct, frozen=True, array_like=True, tag="handover_vote"):
    """The voter committed and executed its epoch's last block; signed over `handover_digest`.

    `state` is the state digest after that block, `keys` the next epoch's consensus keys by index.
    """

    epoch: int
    height: int
    block: bytes
    state: bytes
    keys: tuple[bytes, ...]
    voter: int
    signature: bytes


class Handover(Struct, frozen=True, array_like=True):
    """q handover votes that say the same: the end of `epoch`, and the next epoch's beginning.

    It proves that block `block` of `height` is committed. `votes` are (voter, signature) pairs.
    """

    epoch: int
    height: int
    block: bytes
    state: bytes
    keys: tuple[bytes, ...]
    votes: tuple[tuple[int, bytes], ...]


class GetHandover(Struct, frozen=True, array_like=True, tag="get_handover"):
    """Asks how `epoch` ended, if it did."""

    epoch: int


class EpochEnded(Struct, frozen=True, array_like=True, tag="epoch_ended"):
    """The answer to `GetHandover`, and to whatever comes of an epoch that is over."""

    handover: Handover


Message = (
    LogBatch
    | Proposal
    | Vote
    | CommitVote
    | Timeout
    | RoundTC
    | RoundInfo
    | GetBatches
    | Batches
    | GetBodies
    | Bodies
    | GetBlock
    | Blocks
    | GetChain
    | Chain
    | GetState
    | StateObjects
    | Pruned
    | GetLast
    | Last
    | HandoverVote
    | GetHandover
    | EpochEnded
)


_MESSAGE: Shape[Message] = Shape(Message)


def decode_message(data: bytes) -> Message:
    """Return the message behind one frame. Errors: CodecError."""
    return _MESSAGE.decode(data)


TAG_BATCH = b"fairlane/batch"
TAG_BLOCK = b"fairlane/block"
TAG_VOTE = b"fairlane/vote"
TAG_COMMIT = b"fairlane/commit"
TAG_TIMEOUT = b"fairlane/timeout"
TAG_HANDOVER = b"fairlane/handover"


def batch_digest(batch: LogBatch) -> Digest:
    """Return the digest of a batch: all of it but its signature."""
    return batch.digest


def block_digest(block: Block) -> Digest:
    """Return the digest of a block: all of it."""
    return block.digest


def vote_digest(round_: int, block: bytes, seen: tuple[int, ...]) -> Digest:
    """Return what a vote's signature covers."""
    return tagged(TAG_VOTE, encode((round_, block, seen)))


def commit_digest(round_: int, block: bytes) -> Digest:
    """Return what a commit vote's signature covers."""
    return tagged(TAG_COMMIT, encode((round_, block)))


def timeout_digest(round_: int, lock_round: int) -> Digest:
    """Return what a timeout's signature covers."""
    return tagged(TAG_TIMEOUT, encode((round_, lock_round)))


def handover_digest(height: int, block: bytes, state: bytes, keys: tuple[bytes, ...]) -> Digest:
    """Return what a handover vote's signature covers."""
    return tagged(TAG_HANDOVER, encode((height, block, state, keys)))
