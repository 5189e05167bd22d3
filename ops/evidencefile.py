"""Evidence as a file that stands alone: whose network, which keys, and the signed statements.

Format: JSON, `{"format": "fairlane-evidence-1", "network", "committees": [{"epoch", "keys"}],
"records": [{"kind", "offender", "epoch", "position", "first", "second"}], "left_out"}`; bytes in
hex. A statement is the canonical encoding of the message as it was signed (docs/protocol).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from consensus.codec import CodecError, decode
from consensus.committee import REPLICAS_MAX
from consensus.context import TABLE_EPOCHS, TABLE_EVIDENCE
from consensus.crypto import verify_ed25519
from consensus.evidence import KINDS, Evidence, evidence_fault
from consensus.handover import EpochRecord
from ops.config import Genesis
from ops.store import Storage

FILE_BYTES_MAX: Final = 256 << 20
RECORDS_MAX: Final = 20_000
EPOCHS_MAX: Final = 100_000
SHOWN_BYTES_MAX: Final = 2 << 20
"""Statements that a node's door shows at one time; `--home` exports all."""
FIRST_EPOCH: Final = 1

_Hex = Annotated[str, Meta(pattern="^([0-9a-f]{2})*$")]
_Hex32 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class EvidenceFileError(Exception):
    """The file cannot be read as evidence; the text says why."""


class CommitteeKeys(Struct, frozen=True, forbid_unknown_fields=True):
    """The consensus keys of one epoch's replicas, by index."""

    epoch: int
    keys: Annotated[tuple[_Hex32, ...], Meta(min_length=1, max_length=REPLICAS_MAX)]


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """One record: `consensus.evidence.Evidence` with its statements in hex."""

    kind: str
    offender: Annotated[int, Meta(ge=0, lt=REPLICAS_MAX)]
    epoch: Annotated[int, Meta(ge=0, lt=1 << 32)]
    position: Annotated[int, Meta(ge=0, lt=1 << 62)]
    first: _Hex
    second: _Hex

    def evidence(self) -> Evidence:
        """Return the record as consensus keeps it."""
        first, second = bytes.fromhex(self.first), bytes.fromhex(self.second)
        return Evidence(self.kind, self.offender, self.epoch, self.position, first, second)


class EvidenceFile(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that a check of evidence needs. `left_out` records did not fit."""

    format: Literal["fairlane-evidence-1"]
    network: _Hex32
    committees: Annotated[tuple[CommitteeKeys, ...], Meta(max_length=EPOCHS_MAX)]
    records: Annotated[tuple[Record, ...], Meta(max_length=RECORDS_MAX)]
    left_out: Annotated[int, Meta(ge=0)] = 0

    def to_json(self) -> bytes:
        """Return the file's bytes."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    def keys_of(self, epoch: int) -> tuple[bytes, ...]:
        """Return the keys of an epoch's replicas, none if the file does not have them."""
        for committee in self.committees:
            if committee.epoch == epoch:
                return tuple(bytes.fromhex(key) for key in committee.keys)
        return ()

    def fault(self, record: Record) -> str | None:
        """Say why a record of this file proves nothing, or None when it does."""
        keys = self.keys_of(record.epoch)
        if not keys:
            return f"the file has no keys for epoch {record.epoch}"
        network = bytes.fromhex(self.network)
        return evidence_fault(record.evidence(), network, keys, verify_ed25519)


def read_evidence(data: bytes) -> EvidenceFile:
    """Return the file behind these bytes. Errors: EvidenceFileError."""
    if len(data) > FILE_BYTES_MAX:
        raise EvidenceFileError(f"{len(data)} bytes, at most {FILE_BYTES_MAX}")
    try:
        return msgspec.json.decode(data, type=EvidenceFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EvidenceFileError(str(error)) from None


def load_evidence(path: Path) -> EvidenceFile:
    """Return the evidence in a file. Errors: EvidenceFileError."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise EvidenceFileError(f"{path} is longer than {FILE_BYTES_MAX} bytes")
        return read_evidence(path.read_bytes())
    except OSError as error:
        raise EvidenceFileError(f"{path}: {error.strerror}") from None
    except EvidenceFileError as error:
        raise EvidenceFileError(f"{path} is no evidence file: {error}") from None


def stored_evidence(
    store: Storage, network: bytes, first_keys: Sequence[bytes], bytes_max: int = FILE_BYTES_MAX
) -> EvidenceFile:
    """Return what a store holds, the records of each kind by offender and position.

    `first_keys` are those of the first epoch; the later ones' stand in the store. `bytes_max`
    bounds the statements. Errors: StoreError.
    """
    records: list[Record] = []
    left_out = size = 0
    for kind in KINDS:
        prefix = kind.encode()
        for _, raw in store.scan(TABLE_EVIDENCE, prefix + b"/", prefix + b"0"):
            try:
                found = decode(Evidence, raw, bytes_max=len(raw))
            except CodecError:
                left_out += 1
                continue
            size += len(raw)
            if size > bytes_max or len(records) >= RECORDS_MAX:
                left_out += 1
                continue
            statements = (found.first.hex(), found.second.hex())
            records.append(
                Record(found.kind, found.offender, found.epoch, found.position, *statements)
            )
    return EvidenceFile(
        format="fairlane-evidence-1",
        network=network.hex(),
        committees=tuple(_committees(store, first_keys, {r.epoch for r in records})),
        records=tuple(records),
        left_out=left_out,
    )


def _committees(
    store: Storage, first_keys: Sequence[bytes], wanted: set[int]
) -> list[CommitteeKeys]:
    committees = [CommitteeKeys(FIRST_EPOCH, tuple(key.hex() for key in first_keys))]
    for _, raw in store.scan(TABLE_EPOCHS):
        handover = decode(EpochRecord, raw).handover
        if handover.epoch + 1 in wanted:
            keys = tuple(key.hex() for key in handover.keys)
            committees.append(CommitteeKeys(handover.epoch + 1, keys))
    return committees


def genesis_fault(evidence: EvidenceFile, genesis: Genesis) -> str | None:
    """Say how a file differs from a genesis that one trusts, or None.

    Keys of later epochs are not in the genesis: their handovers prove them.
    """
    if evidence.network != genesis.network_id().hex():
        return "the file is of another network than the genesis"
    if evidence.keys_of(FIRST_EPOCH) != genesis.committee().keys:
        return "the keys of the first epoch are not those of the genesis"
    return None
