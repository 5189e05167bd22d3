"""What is older than the retention leaves the disk, a few records in each step.

Nothing goes that a restart, a peer's snapshot sync or a peer a little behind may need: the floor
lies below every kept snapshot and so many blocks below the tip. It is written before anything is
deleted, so that a question for older blocks has a clear answer. Source: ADR-0018.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from consensus.blocktree import RECENT_MAX
from consensus.codec import decode
from consensus.command import CommandId
from consensus.context import (
    KEY_FLOOR,
    TABLE_BATCHES,
    TABLE_BLOCKS,
    TABLE_BODIES,
    TABLE_CHAIN,
    TABLE_LOG,
    TABLE_PROOFS,
    Context,
    batch_key,
    block_index_key,
    far_body_key,
    height_key,
    log_key,
)
from consensus.messages import Block, Head, LogBatch
from consensus.sequencer import block_time_ms
from consensus.snapshot import TABLE_STATE

PRUNE_EVERY = 64
"""Blocks by which the floor rises at once: shorter ranges are not worth a search."""
RECORDS_PER_STEP_MAX = 256


@dataclass(frozen=True, slots=True)
class _Below:
    """What goes, until another floor is aimed at: records below these places."""

    height: int
    epoch: int
    seqs: tuple[int, ...]
    time_ms: int


@dataclass(slots=True)
class _Range:
    """Records of a table from `at` to `end`, not yet looked at."""

    table: str
    at: bytes
    end: bytes


class Pruner:
    """Deletes old records, range by range."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._done: _Below | None = None
        """What this life has deleted already: there is no need to look there again."""
        self._aim: _Below | None = None
        self._ranges: list[_Range] = []

    @property
    def busy(self) -> bool:
        """Whether something is left to delete."""
        return bool(self._ranges)

    def work(self) -> None:
        """Delete a little, or raise the floor when it is due."""
        if self._ctx.retain_blocks is None:
            return
        if self._ranges:
            self._delete()
        elif self._aim is not None:
            self._done, self._aim = self._aim, None
        else:
            self._raise_floor(self._ctx.retain_blocks)

    def _raise_floor(self, retain_blocks: int) -> None:
        ctx = self._ctx
        kept = ctx.shelf.floor()
        if kept is None:
            return
        floor = min(ctx.tree.tip.height - retain_blocks, kept - RECENT_MAX)
        if floor < ctx.chain_floor + PRUNE_EVERY:
            return
        below = self._below(floor)
        if below is None:
            return
        ctx.chain_floor = floor
        ctx.write(TABLE_STATE, KEY_FLOOR, height_key(floor))
        ctx.flush()
        self._aim = below
        self._ranges = list(self._plan(below))

    def _below(self, floor: int) -> _Below | None:
        """Return what lies below the committed block of height `floor`."""
        reader, own = self._ctx.reader, self._ctx.own
        digest = reader.get(TABLE_CHAIN, height_key(floor))
        raw = reader.get(TABLE_BLOCKS, digest) if digest is not None else None
        if raw is None:
            return None
        block = decode(Block, raw)
        times = [self._time_at(block.epoch, author, h) for author, h in enumerate(block.heads)]
        seqs = [head.seq for head in block.heads]
        if block.epoch == self._ctx.committee.epoch and self._ctx.is_member:
            # The newest own batch says where to go on, however old it is.
            seqs[self._ctx.me] = min(seqs[self._ctx.me], own.head.seq)
        return _Below(floor, block.epoch, tuple(seqs), block_time_ms(0, times))

    def _time_at(self, epoch: int, author: int, head: Head) -> int:
        raw = self._ctx.reader.get(TABLE_BATCHES, batch_key(epoch, author, head))
        return decode(LogBatch, raw).time_ms if raw is not None else 0

    def _plan(self, below: _Below) -> Iterator[_Range]:
        """Yield the ranges of records that go, from where the last time ended."""
        done = self._done
        low = done.height if done is not None else 0
        for table in (TABLE_CHAIN, TABLE_PROOFS):
            yield _Range(table, height_key(low), height_key(below.height))
        for key in (block_index_key, far_body_key):
            yield _Range(TABLE_STATE, key(low, b""), key(below.height, b""))
        same = done is not None and done.epoch == below.epoch
        for table in (TABLE_BATCHES, TABLE_LOG):
            start = log_key(done.epoch, 0, 0) if done is not None else b""
            if not same:
                yield _Range(table, start, log_key(below.epoch, 0, 0))
            for author, seq in enumerate(below.seqs):
                first = done.seqs[author] if done is not None and same else 0
                first_key = log_key(below.epoch, author, first)
                yield _Range(table, first_key, log_key(below.epoch, author, seq))
        since_ms = done.time_ms if done is not None else 0
        first_id, last_id = since_ms.to_bytes(8, "big"), below.time_ms.to_bytes(8, "big")
        yield _Range(TABLE_BODIES, first_id, last_id)

    def _delete(self) -> None:
        ctx = self._ctx
        left = RECORDS_PER_STEP_MAX
        while self._ranges and left > 0:
            each = self._ranges[0]
            records = list(islice(ctx.reader.scan(each.table, each.at, each.end), left))
            for key, value in records:
                self._forget(each.table, key, value)
            if len(records) < left:
                self._ranges.pop(0)
            else:
                each.at = records[-1][0] + b"\x00"
            left -= len(records)
            ctx.count("records_pruned", len(records))
        ctx.flush()

    def _forget(self, table: str, key: bytes, value: bytes) -> None:
        """Delete one record, and what it is the index of."""
        ctx = self._ctx
        ctx.write(table, key, None)
        if table == TABLE_CHAIN:
            ctx.write(TABLE_BLOCKS, value, None)
        elif table == TABLE_STATE:
            height_end = 1 + 8
            if key[:1] == block_index_key(0, b"")[:1]:
                ctx.write(TABLE_BLOCKS, key[height_end:], None)
                return
            id_ = CommandId(key[height_end:])
            if ctx.logs.body(id_) is not None or ctx.sequencer.fair.is_pending(id_):
                # Not over yet: it is looked at again later.
                ctx.write(TABLE_STATE, far_body_key(ctx.tree.tip.height, id_), b"")
            else:
                ctx.write(TABLE_BODIES, id_, None)
