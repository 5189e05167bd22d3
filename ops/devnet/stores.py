"""What the honest nodes' disks say after a run: one chain, one order, and was it fair?

The devnet reads the stores of nodes that have ended. A node's own order log is, by definition, the
true order in which it received; the chain of blocks is ordered again here, from the first block
on, and each pair of commands is held against those logs by the simulator's check of fairness,
which knows nothing of how the order is computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from msgspec import Struct

from consensus.codec import CodecError, decode
from consensus.command import CommandId, expires_ms
from consensus.context import (
    TABLE_BATCHES,
    TABLE_CHAIN,
    TABLE_EVIDENCE,
    TABLE_SAFETY,
    log_key,
)
from consensus.evidence import Evidence
from consensus.messages import LogBatch
from consensus.recovery import CorruptState, open_context
from consensus.sequencer import OrderedBlock, Sequencer
from ops.bundle.collect import NoSigner
from ops.config import Genesis
from ops.replica import Exchange, ReplicaConfig
from ops.sim.audit.fairness import at_least, unfair_pairs
from ops.store import Store, StoreError
from ops.wiring import replica_config

SHOWN_MAX = 5
EVIDENCE_BYTES_MAX = 64 << 20


class LogReport(Struct, frozen=True, kw_only=True):
    """How a liar's own log stands beside the honest ones'.

    `missing`: commands of the order that it never logged. `inverted`: pairs of neighbours that it
    has in one order, and every honest log that has both in the other.
    """

    entries: int
    missing: int
    inverted: int


class StoreReport(Struct, frozen=True, kw_only=True):
    """What the disks of the nodes `read` showed.

    `height`: up to which all of them have the same blocks. `ordered`: commands in the order,
    `void`: those that expired unordered. `pairs`: ordered pairs of commands for which the promise
    holds, that is which enough nodes had received in one order. `unfair`: those of them that were
    ordered the other way. `evidence`: proofs of misbehaviour that honest nodes keep, by
    "kind of node i". `liars_logs`: by node, for those whose disk can be read. `faults`: what did
    not hold.
    """

    read: list[int]
    height: int
    ordered: int
    void: int
    received: dict[str, int]
    pairs: int
    unfair: int
    evidence: dict[str, int]
    liars_logs: dict[str, LogReport]
    faults: list[str]


class _Tape(Exchange):
    """Takes the order down and executes nothing."""

    def __init__(self, config: ReplicaConfig) -> None:
        super().__init__(config)
        self.blocks: list[OrderedBlock] = []

    def execute(self, block: OrderedBlock, bodies: list[tuple[CommandId, bytes]]) -> None:
        self.blocks.append(block)


class _FromGenesis:
    """A disk without snapshots and without what its node alone has signed."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, table: str, key: bytes) -> bytes | None:
        return None if table == TABLE_SAFETY else self._store.get(table, key)

    def scan(self, table: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(())


class Disks:
    """The stores of one network's nodes, all at rest."""

    def __init__(self, genesis: Genesis, homes: Sequence[Path], liars: Sequence[int]) -> None:
        """`homes` are all nodes'; those of `liars` prove nothing, and only their logs are read."""
        self._genesis = genesis
        self._homes = homes
        self._liars = liars
        self._chains: dict[int, dict[int, bytes]] = {}
        """By node and height; a node that took over a state has no blocks before it."""
        self._receipts: dict[int, list[bytes]] = {}
        self._evidence: Counter[str] = Counter()
        self.faults: list[str] = []
        self.blocks: list[OrderedBlock] = []
        self.ordered: dict[bytes, int] = {}
        """Command -> height of the block that ordered it."""
        self.void: dict[bytes, None] = {}
        self._open: dict[bytes, int] = {}
        self._end_ms = 0

    def read(self) -> StoreReport:
        """Read all stores and judge; blocking. Errors: none; a store that fails is a fault."""
        for node, home in enumerate(self._homes):
            if node in self._liars:
                continue
            try:
                store = Store.open(home / "data", self._genesis.network_id())
            except StoreError as error:
                self.faults.append(f"node {node}: its store cannot be read: {error}")
                continue
            try:
                self._read(node, store)
            except (StoreError, CorruptState) as error:
                self.faults.append(f"node {node}: {error}")
            finally:
                store.close()
        height = self._compare()
        self._judge_order()
        pairs, unfair = self._judge_fairness(len(self._liars))
        self._judge_evidence()
        return StoreReport(
            read=sorted(self._chains),
            height=height,
            ordered=len(self.ordered),
            void=len(self.void),
            received={str(node): len(log) for node, log in sorted(self._receipts.items())},
            pairs=pairs,
            unfair=unfair,
            evidence=dict(sorted(self._evidence.items())),
            liars_logs=self._read_liars(),
            faults=self.faults,
        )

    def _read(self, node: int, store: Store) -> None:
        records = store.scan(TABLE_CHAIN)
        chain = {int.from_bytes(key, "big"): digest for key, digest in records}
        self._chains[node] = chain
        self._receipts[node] = self._own_log(node, store)
        for _, raw in store.scan(TABLE_EVIDENCE):
            evidence = decode(Evidence, raw, EVIDENCE_BYTES_MAX)
            self._evidence[f"{evidence.kind} of node {evidence.offender}"] += 1
        if 1 in chain and len(chain) > len(self.blocks):
            self._order(store)

    def _own_log(self, node: int, store: Store) -> list[bytes]:
        epoch = self._genesis.epoch
        first, end = log_key(epoch, node, 0), log_key(epoch, node + 1, 0)
        log: dict[bytes, None] = {}
        for _, raw in store.scan(TABLE_BATCHES, first, end):
            log.update(dict.fromkeys(decode(LogBatch, raw).entries))
        return list(log)

    def _read_liars(self) -> dict[str, LogReport]:
        reports: dict[str, LogReport] = {}
        for node in self._liars:
            try:
                store = Store.open(self._homes[node] / "data", self._genesis.network_id())
            except StoreError:
                continue
            try:
                log = self._own_log(node, store)
            except (StoreError, CodecError):
                continue
            finally:
                store.close()
            reports[str(node)] = compare_log(log, list(self._receipts.values()), self.ordered)
        return reports

    def _order(self, store: Store) -> None:
        """Order the chain of this store again, from the first block on."""
        config = replica_config(self._genesis, 0)
        tape = _Tape(config)
        opened = open_context(
            config.committee,
            config.parameters,
            config.me,
            NoSigner(),
            _FromGenesis(store),
            tape,
            config.genesis_time_ms,
        )
        self.blocks = tape.blocks
        sequencer: Sequencer = opened.ctx.sequencer
        fair = sequencer.fair
        self._open = {id_: n for id_ in fair.pending() if (n := fair.open_number(id_))}
        self._end_ms = sequencer.time_ms

    def _compare(self) -> int:
        """Compare the chains height by height; return up to where all have them."""
        if not self.blocks:
            self.faults.append("no disk has the first block: the order cannot be computed again")
        common = min((max(chain, default=0) for chain in self._chains.values()), default=0)
        for height in range(1, common + 1):
            if len({chain[height] for chain in self._chains.values() if height in chain}) > 1:
                self.faults.append(f"fork: the nodes have different blocks at height {height}")
                return height - 1
        return common

    def _judge_order(self) -> None:
        for block in self.blocks:
            for id_ in block.ids:
                if id_ in self.ordered:
                    self.faults.append(f"command {id_.hex()[:24]} was ordered twice")
                self.ordered[id_] = block.height
        for entry in (entry for log in self._receipts.values() for entry in log):
            if entry not in self.ordered and expires_ms(CommandId(entry)) <= self._end_ms:
                self.void[entry] = None

    def _judge_fairness(self, liars: int) -> tuple[int, int]:
        """Return for how many pairs the promise holds, and how many of them it was broken for."""
        parameters, n = self._genesis.parameters, self._genesis.n
        wanted = -(-parameters.gamma_numerator * n // parameters.gamma_denominator)
        emission = [
            (batch.number, id_)
            for block in self.blocks
            for batch in block.batches
            for id_ in (*batch.ids, *batch.refused)
        ]
        at_ms: dict[bytes, int] = {
            id_: b.time_ms for b in self.blocks for id_ in (*b.ids, *b.refused)
        }
        receipts = list(self._receipts.values())

        def is_void_for(a: bytes, b: bytes) -> bool:
            return expires_ms(CommandId(a)) <= at_ms[b]

        unfair = unfair_pairs(receipts, liars, wanted, emission, self._open, is_void_for)
        for a, b in unfair[:SHOWN_MAX]:
            self.faults.append(f"unfair: {b.hex()[:24]} went before {a.hex()[:24]}")
        return pairs_owed(receipts, wanted - liars), len(unfair)

    def _judge_evidence(self) -> None:
        for name in self._evidence:
            if int(name.rpartition(" ")[2]) not in self._liars:
                self.faults.append(f"evidence against an honest node: {name}")


def compare_log(
    log: Sequence[bytes], honest: Sequence[Sequence[bytes]], ordered: Mapping[bytes, int]
) -> LogReport:
    """Hold one log against the honest ones."""
    places = [{id_: place for place, id_ in enumerate(each)} for each in honest]
    inverted = 0
    for a, b in pairwise(log):
        both = [place[a] > place[b] for place in places if a in place and b in place]
        inverted += bool(both) and all(both)
    held = dict.fromkeys(log)
    missing = sum(id_ not in held for id_ in ordered)
    return LogReport(entries=len(log), missing=missing, inverted=inverted)


def pairs_owed(receipts: Sequence[Sequence[bytes]], received_min: int) -> int:
    """Return how many ordered pairs at least `received_min` of the logs hold in that order."""
    ids = list(dict.fromkeys(id_ for log in receipts for id_ in log))
    bit = {id_: 1 << k for k, id_ in enumerate(ids)}
    before: list[dict[bytes, int]] = []
    for log in receipts:
        mask, masks = 0, dict[bytes, int]()
        for id_ in log:
            masks[id_] = mask
            mask |= bit[id_]
        before.append(masks)
    everywhere = (1 << len(ids)) - 1
    return sum(
        at_least([masks.get(id_, 0) for masks in before], received_min, everywhere).bit_count()
        for id_ in ids
    )
