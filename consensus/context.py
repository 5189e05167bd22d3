"""What the parts of a replica share: its collaborators and the effects of the step in progress."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from consensus.blocktree import BlockTree
from consensus.codec import encode
from consensus.command import EXPIRY_ORDER_MAX_MS, CommandId, expires_ms
from consensus.committee import Committee, Parameters
from consensus.crypto import ReplicaSigner
from consensus.digest import Digest
from consensus.divergence import PartDigests
from consensus.effects import (
    Blame,
    Broadcast,
    Effect,
    Halt,
    Persist,
    Reply,
    Send,
    SetTimer,
    Write,
)
from consensus.logstore import LogStore
from consensus.messages import Block, Head, InboxClaim, Message
from consensus.ownlog import OwnLog
from consensus.safety import Safety
from consensus.sequencer import OrderedBlock, Sequencer
from consensus.shelf import Shelf
from consensus.snapshot import TABLE_STATE, Tree

TABLE_SAFETY = "safety"
TABLE_BLOCKS = "blocks"
TABLE_CHAIN = "chain"
TABLE_BATCHES = "batches"
TABLE_LOG = "log"
TABLE_BODIES = "bodies"
TABLE_PROOFS = "proofs"
TABLE_EVIDENCE = "evidence"
TABLE_EPOCHS = "epochs"

KEY_SAFETY = b"record"
KEY_OWN_HEAD = b"own-head"
KEY_FLOOR = b"floor"
KEY_SILENCE = b"silence"

EPOCH_TAIL = 64
"""An epoch ends so many heights after the block that executed the registry's message: every voter
there has executed that block, since a block may move heads at most 32 above what it executed."""
LAZY_WRITES_MAX = 4_096
"""Records that may wait for the next synced write; more are written without waiting for one."""


class Reader(Protocol):
    """Reads what this replica has persisted: its own disk, or the simulator's."""

    def get(self, table: str, key: bytes) -> bytes | None: ...

    def scan(self, table: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]: ...


@dataclass(frozen=True, slots=True)
class Successor:
    """The next committee's consensus keys, by index, and the height whose block named them."""

    height: int
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EpochStart:
    """How an epoch after the first begins: what its predecessor's handover says, and the claim
    of the contract's inbox that all its logs go on from."""

    height: int
    block: bytes
    state: bytes
    claim: InboxClaim


class Executor(Protocol):
    """The replicated state machine behind the order.

    Its whole state stands in `trees`, brought up to date when they are asked for; `digest` is
    `parts_digest` over them, and `load` becomes the state of their chunks, tree by tree.
    `is_milestone`: peers may ask for the state after the last block, since a checkpoint names it.
    `successor` is part of its state: once a block has named the next committee it stays, until
    `begin_epoch`. It names none that fair order refuses (`fairorder.thresholds`).
    """

    def execute(self, block: OrderedBlock, bodies: list[tuple[CommandId, bytes]]) -> None: ...

    @property
    def is_milestone(self) -> bool: ...

    def digest(self) -> bytes: ...

    def trees(self) -> Sequence[Tree]: ...

    def load(self, parts: Sequence[Sequence[bytes]]) -> None: ...

    def successor(self) -> Successor | None: ...

    def begin_epoch(self, n: int, f: int) -> None: ...


def chain_floor(reader: Reader) -> int:
    """Return the lowest height from which on the committed blocks are on disk without a gap."""
    raw = reader.get(TABLE_STATE, KEY_FLOOR)
    return int.from_bytes(raw, "big") if raw is not None else 1


def height_key(height: int) -> bytes:
    """Return the store key of a height: big-endian, so that a scan is in order."""
    return height.to_bytes(8, "big")


def epoch_key(epoch: int) -> bytes:
    """Return the store key of how an epoch ended."""
    return epoch.to_bytes(4, "big")


def block_index_key(height: int, digest: bytes) -> bytes:
    """Return the key, in the table of states, that finds a block by its height: one that may
    never be committed is deleted by it."""
    return b"b" + height_key(height) + digest


def far_body_key(height: int, id_: bytes) -> bytes:
    """Return the key, in the table of states, that finds by the height of its coming a command
    whose expiry lies so far ahead that it says nothing about when it can go."""
    return b"x" + height_key(height) + id_


def log_key(epoch: int, author: int, seq: int) -> bytes:
    """Return the store key of a position in a log, whose value is the committed digest there.

    Logs start anew with each epoch, so the epoch comes first: an epoch's records are one range.
    """
    return epoch.to_bytes(4, "big") + author.to_bytes(2, "big") + seq.to_bytes(8, "big")


def batch_key(epoch: int, author: int, head: Head) -> bytes:
    """Return the store key of one batch: its position, then its digest, since logs may branch."""
    return log_key(epoch, author, head.seq) + head.digest


class Context:
    """One replica's state and the output of its current step."""

    def __init__(
        self,
        committee: Committee,
        parameters: Parameters,
        me: int,
        signer: ReplicaSigner,
        reader: Reader,
        executor: Executor,
        safety: Safety,
        logs: LogStore,
        own: OwnLog,
        tree: BlockTree,
        sequencer: Sequencer,
        shelf: Shelf,
        start: EpochStart | None = None,
    ) -> None:
        self.start = start
        self.shelf = shelf
        self.committee = committee
        self.parameters = parameters
        self.me = me
        self.signer = signer
        self.reader = reader
        self.executor = executor
        self.safety = safety
        self.logs = logs
        self.own = own
        self.tree = tree
        self.sequencer = sequencer
        self.now_ms = 0
        self.held_back = False
        """Whether signatures wait until peers have said what this key signed."""
        self.silent = False
        """Whether this key signed what our record does not know: nothing is signed in this epoch,
        and the own log is learned from others like any other."""
        self.counters: dict[str, int] = {}
        self.executed_digests: dict[int, Digest] = {}
        self.chain_floor = chain_floor(reader)
        self.retain_blocks: int | None = None
        """Blocks below the tip that are kept, with all that belongs to them; None keeps all."""
        self.executed_parts: dict[int, PartDigests] = {}
        self.loopback: deque[Message] = deque()
        self._out: list[Effect] = []
        self._writes: list[Write] = []
        self._promised = False
        self._flush = False

    @property
    def is_member(self) -> bool:
        """Whether this node is in the epoch's committee; if not, it only follows."""
        return self.me < self.committee.n

    @property
    def may_sign(self) -> bool:
        """Whether this node is a member of the epoch's committee, and knows what it signed."""
        return self.is_member and not self.held_back and not self.silent

    def last_height(self) -> int | None:
        """Return the height at which this epoch ends, when that is known."""
        successor = self.executor.successor()
        return None if successor is None else successor.height + EPOCH_TAIL

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter that the driver shows as a metric."""
        self.counters[name] = self.counters.get(name, 0) + by

    def write(self, table: str, key: bytes, value: bytes | None) -> None:
        """Write a record with the next Persist."""
        self._writes.append(Write(table, key, value))

    def write_block(self, block: Block, digest: bytes) -> None:
        """Write a block that may never be committed."""
        self.write(TABLE_BLOCKS, digest, encode(block))
        self.write(TABLE_STATE, block_index_key(block.height, digest), b"")

    def write_body(self, id_: CommandId, body: bytes) -> None:
        """Write a command."""
        self.write(TABLE_BODIES, id_, body)
        if expires_ms(id_) > self.sequencer.time_ms + EXPIRY_ORDER_MAX_MS:
            self.write(TABLE_STATE, far_body_key(self.tree.tip.height, id_), b"")

    def promise(self) -> None:
        """Ask that all records so far are durable before this step's messages leave."""
        self._promised = True

    def flush(self) -> None:
        """Ask that waiting records are written at the end of this step, not necessarily synced."""
        self._flush = True

    def persist_safety(self) -> None:
        """Make the voting state durable before this step's messages leave."""
        self.write(TABLE_SAFETY, KEY_SAFETY, encode(self.safety.record()))
        self.promise()

    def send(self, peer: int, message: Message) -> None:
        if peer == self.me:
            self.loopback.append(message)
        else:
            self._out.append(Send(peer, message))

    def broadcast(self, message: Message) -> None:
        """Send to every other replica, and take it in here in this same step."""
        self._out.append(Broadcast(message))
        self.loopback.append(message)

    def timer(self, name: str, at_ms: int) -> None:
        self._out.append(SetTimer(name, at_ms))

    def reply(self, id_: CommandId, status: str, retry_after_ms: int = 0, seq: int = 0) -> None:
        self._out.append(Reply(id_, status, retry_after_ms, seq))

    def blame(self, peer: int, why: str) -> None:
        if peer != self.me:
            self.count("blame")
            self._out.append(Blame(peer, why))

    def say(self, effect: Effect) -> None:
        """Tell the driver something that no other method here does."""
        self._out.append(effect)

    def halt(self, why: str, dump: bytes, kind: str = "unsafe") -> None:
        self._out.append(Halt(why, dump, kind))

    def effects(self) -> list[Effect]:
        """Return the step's effects, its records first, and begin the next step's."""
        out = self._out
        write_now = self._promised or self._flush or len(self._writes) > LAZY_WRITES_MAX
        if write_now and self._writes:
            out = [Persist(tuple(self._writes), self._promised), *out]
            self._writes = []
        self._out = []
        self._promised = self._flush = False
        return out
