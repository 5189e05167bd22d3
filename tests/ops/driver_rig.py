"""A driver with fakes around it: a disk that may fail, a mesh that keeps frames, a core."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import trio
from prometheus_client import CollectorRegistry

from consensus import effects as core
from consensus.admission import Admission
from consensus.batches import log_start
from consensus.blocktree import genesis_block
from consensus.codec import decode, encode
from consensus.committee import Committee
from consensus.context import (
    KEY_SAFETY,
    TABLE_BATCHES,
    TABLE_BODIES,
    TABLE_SAFETY,
    batch_key,
)
from consensus.crypto import Ed25519Signer
from consensus.effects import Write
from consensus.messages import (
    CommitVote,
    Head,
    LogBatch,
    Proposal,
    Vote,
    batch_digest,
    decode_message,
)
from consensus.safety import SafetyRecord
from matcher.actions import CancelAll
from ops.client_keys import SignedCommand, TraderKey
from ops.clock import Clock
from ops.driver import Driver
from ops.metrics import Metrics
from ops.replica import ExchangeReplica, Executed
from ops.store import MemoryStore, StoreError
from p2p.framing import SETTLEMENT, channel_of, payload_of
from p2p.transport import Transport
from settlement.checkpoint import KEY_SHARE, ShareRecord
from settlement.checkpoint import TABLE as TABLE_CHECKPOINT
from settlement.shares import Share
from tests.ops.solo import DOMAIN, NETWORK, PARAMETERS, boot

KEY = TraderKey(b"\x01" * 32)
SIGNERS = [Ed25519Signer(NETWORK, bytes([i + 1]) * 32) for i in range(4)]
COMMITTEE = Committee(NETWORK, 1, tuple(signer.public for signer in SIGNERS))


class Disk(MemoryStore):
    """A disk that can be asked what would survive, and that can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.applied = 0
        self.synced = 0
        self.fails: Callable[[str], bool] = lambda call: False

    def apply(self, writes: Sequence[Write], sync: bool) -> None:
        self.applied += 1
        if self.fails("apply"):
            raise StoreError("the disk is full")
        super().apply(writes, sync)

    def sync(self) -> None:
        self.synced += 1
        if self.fails("sync"):
            raise StoreError("the disk is full")
        super().sync()

    def durable(self, table: str, key: bytes) -> bytes | None:
        """Return the record that a power loss now would leave."""
        left = MemoryStore()
        left._durable = self._durable
        left.crash()
        return left.get(table, key)


class Mesh:
    """A transport that keeps what it is given; `check` sees each frame as it leaves."""

    def __init__(self, peers: int = 3) -> None:
        self.frames: list[bytes] = []
        self.sent: list[tuple[int, bytes]] = []
        self.dropped: list[int] = []
        self.check: Callable[[bytes], None] = lambda data: None
        self._peers = peers

    def send(self, peer: int, data: bytes) -> bool:
        self.check(data)
        self.sent.append((peer, data))
        return True

    def broadcast(self, data: bytes) -> int:
        self.check(data)
        self.frames.append(data)
        return self._peers

    def drop(self, peer: int, why: str) -> None:
        self.dropped.append(peer)


class Script:
    """A core that answers each input with the next effects of a script."""

    def __init__(self, *answers: list[Any]) -> None:
        self.answers = list(answers)
        self.inputs: list[Any] = []
        self.config = type("Config", (), {"committee": COMMITTEE})

    def step(self, now_ms: int, event: Any) -> list[Any]:
        self.inputs.append(event)
        if isinstance(event, core.Start) or not self.answers:
            return []
        return self.answers.pop(0)


class Rig:
    """A driver with fakes around it, and what came out of it, in order."""

    def __init__(self, replica: Any, disk: Disk) -> None:
        self.disk, self.mesh, self.clock = disk, Mesh(), Clock()
        n = replica.config.committee.n
        self.metrics = Metrics(replica=0, replicas=n, version="test", process=False)
        self.out: list[Any] = []
        self.recorded: list[Any] = []
        starts = tuple(log_start(NETWORK, 1, i) for i in range(4))
        digest = genesis_block(NETWORK, 1, starts)[1]
        self.driver = Driver(
            cast(ExchangeReplica, replica),
            Admission(COMMITTEE, PARAMETERS, digest, lambda body: None),
            disk,
            self.clock,
            self.metrics,
            on_record=self._on_record,
            on_logged=self.out.append,
            on_executed=self.out.append,
            on_reply=self.out.append,
            on_submit=self.out.append,
            on_halt=self.out.append,
        )
        self.driver.attach(cast(Transport, self.mesh))

    def _on_record(self, event: Executed | LogBatch, writes: list[Write]) -> None:
        self.recorded.append(event)

    @property
    def registry(self) -> CollectorRegistry:
        return self.metrics.registry

    async def until(self, holds: Callable[[], object]) -> None:
        with trio.fail_after(10):
            while not holds():  # noqa: ASYNC110  The driver has no event for a test's condition.
                await trio.sleep(0.002)


@asynccontextmanager
async def driving(rig: Rig) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.driver.run)
        yield
        nursery.cancel_scope.cancel()


def alone() -> Rig:
    """Return a rig around the real core of a committee of one."""
    disk = Disk()
    return Rig(boot(disk), disk)


def command(rig: Rig, n: int = 0) -> SignedCommand:
    action = CancelAll(KEY.address, n)
    return KEY.sign(DOMAIN, action, rig.clock.now_ms() + 60_000)


class Barrier:
    """Checks that what a frame claims about us would survive a power loss at that moment."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.seen: dict[str, int] = {}

    def __call__(self, data: bytes) -> None:
        if channel_of(data) == SETTLEMENT:
            share = decode(Share, payload_of(data))
            raw = self._disk.durable(TABLE_CHECKPOINT, KEY_SHARE)
            assert raw is not None and decode(ShareRecord, raw).share == share
            self._count("share")
            return
        message = decode_message(payload_of(data))
        self._count(type(message).__name__)
        match message:
            case LogBatch():
                head = Head(message.seq, batch_digest(message))
                key = batch_key(message.epoch, message.author, head)
                assert self._disk.durable(TABLE_BATCHES, key) == encode(message)
                for entry in message.entries:
                    assert self._disk.durable(TABLE_BODIES, entry) is not None
            case Proposal() | Vote() | CommitVote():
                raw = self._disk.durable(TABLE_SAFETY, KEY_SAFETY)
                assert raw is not None, "signed and sent without a record"
                assert self._covers(decode(SafetyRecord, raw), message)

    def _covers(self, record: SafetyRecord, message: Proposal | Vote | CommitVote) -> bool:
        """Say whether the record keeps us from signing another such message."""
        if isinstance(message, Vote):
            return record.last_voted >= message.round
        kept = record.proposal if isinstance(message, Proposal) else record.commit_vote
        if kept is None:
            return False
        newest = kept.block.round if isinstance(kept, Proposal) else kept.round
        asked = message.block.round if isinstance(message, Proposal) else message.round
        return bool(newest >= asked)

    def _count(self, kind: str) -> None:
        self.seen[kind] = self.seen.get(kind, 0) + 1
