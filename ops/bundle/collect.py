"""From a node that has just stopped to its bundle.

What a restart reads is what a replay needs. So the collection *is* a restart over the node's
store that executes nothing and writes down every record that it was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from consensus.codec import decode
from consensus.command import CommandId
from consensus.context import (
    TABLE_CHAIN,
    TABLE_SAFETY,
    Reader,
    height_key,
)
from consensus.crypto import Signature
from consensus.divergence import Divergence
from consensus.effects import Halt
from consensus.recovery import open_context
from consensus.sequencer import OrderedBlock
from consensus.snapshot import RECORD_KEY, TABLE_STATE, record_key
from ops.bundle.file import Bundle, Difference, LiveState, Record
from ops.genesis import Genesis
from ops.replica import Exchange, ExchangeReplica
from settlement.checkpoint import OtherCheckpoint

DUMP_BYTES_MAX = 64 << 20
KINDS = ("diverged", "checkpoint")
"""The halts that leave a bundle."""


class NoSigner:
    """A replay says nothing, so it signs nothing."""

    def sign(self, epoch: int, tag: bytes, digest: bytes) -> Signature:
        raise AssertionError("a replay signs nothing")


class _Idle(Exchange):
    """Takes up a snapshot, and then takes the order and does nothing with it."""

    def execute(self, block: OrderedBlock, bodies: list[tuple[CommandId, bytes]]) -> None:
        pass


class Recorder:
    """A disk without what only a live replica needs; keeps what it gave.

    Its chain ends at `tip`, and it has no snapshot of `wrong_height` or above: that is where the
    state is known to be wrong.
    """

    def __init__(self, disk: Reader, tip: int, wrong_height: int) -> None:
        self._disk = disk
        self._chain_end = height_key(tip + 1)
        self._snapshots_end = record_key(wrong_height)
        self.records: dict[tuple[str, bytes], bytes] = {}

    def get(self, table: str, key: bytes) -> bytes | None:
        if table == TABLE_SAFETY or (table == TABLE_CHAIN and key >= self._chain_end):
            return None
        value = self._disk.get(table, key)
        if value is not None:
            self.records[table, key] = value
        return value

    def scan(self, table: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        if table != TABLE_STATE or start[:1] != RECORD_KEY:
            return
        for key, value in self._disk.scan(table, start, min(end, self._snapshots_end)):
            self.records[table, key] = value
            yield key, value


def collect(
    genesis: Genesis, genesis_file: bytes, replica: ExchangeReplica, disk: Reader, halt: Halt
) -> Bundle:
    """Return the bundle of a replica that has stopped with `halt`, one of KINDS.

    Errors: CorruptState when the disk lacks a record; CodecError for a dump of another kind.
    """
    difference = _difference(replica, halt)
    config, tip = replica.config, replica.consensus.height
    recorder = Recorder(disk, tip, difference.height)
    open_context(
        config.committee,
        config.parameters,
        config.me,
        NoSigner(),
        recorder,
        _Idle(config),
        config.genesis_time_ms,
    )
    return Bundle(
        program=version("fairlane"),
        network=genesis.network_id(),
        replica=config.me,
        genesis=genesis_file,
        difference=difference,
        tip=tip,
        live=_live(replica),
        records=tuple(Record(*name, value) for name, value in sorted(recorder.records.items())),
    )


def _difference(replica: ExchangeReplica, halt: Halt) -> Difference:
    if halt.kind == "checkpoint":
        other = decode(OtherCheckpoint, halt.dump, DUMP_BYTES_MAX)
        parts = replica.consensus.ctx.executed_parts
        own = tuple(parts[height] for height in sorted(parts))
        mine = other.mine
        return Difference(mine.height, mine.snapshot_root, None, None, None, other, own)
    seen = decode(Divergence, halt.dump, DUMP_BYTES_MAX)
    return Difference(seen.height, seen.mine, seen.quorum, seen.block, seen.qc, None, seen.own)


def _live(replica: ExchangeReplica) -> LiveState | None:
    consensus = replica.consensus
    try:
        return LiveState(
            consensus.height, consensus.ctx.sequencer.export(), replica.exchange.export()
        )
    except Exception:  # noqa: BLE001  It may be memory that failed: nothing about it is sure.
        return None
