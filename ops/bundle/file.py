"""The bundle's file: one struct, compressed, under a checksum.

Shape: `fairlane bundle N\\n`, 32 bytes of SHA-256 over what follows, then a zlib stream of one
canonical `Bundle`.
"""

from __future__ import annotations

import zlib
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from consensus.codec import CodecError, decode, encode
from consensus.divergence import PartDigests
from consensus.messages import QC, Block
from ops.fields import write_whole
from settlement.checkpoint import OtherCheckpoint

FORMAT = 1
MAGIC = b"fairlane bundle %d\n" % FORMAT
_MAGIC_START = b"fairlane bundle "
BUNDLE_BYTES_MAX = 1 << 30
"""Of the struct; a replica whose inputs since its snapshot are larger says so instead."""


class BundleError(Exception):
    """The file is no bundle, is damaged, or lacks what a replay needs; the text says which."""


class Record(Struct, frozen=True, array_like=True):
    """One record of the node's store."""

    table: str
    key: bytes
    value: bytes


class LiveState(Struct, frozen=True, array_like=True):
    """The replica's state in memory when it stopped, as it exports it, after block `height`."""

    height: int
    sequencer: bytes
    executor: bytes


class Difference(Struct, frozen=True, array_like=True):
    """What was seen to differ at `height`, whose state digest was `mine`.

    Either `quorum` is a quorum's digest of it, proved by `qc`, which certifies the `block` that
    names it; or `checkpoint` says which checkpoint of that state others have. `own` are the
    node's newest digests.
    """

    height: int
    mine: bytes
    quorum: bytes | None
    block: Block | None
    qc: QC | None
    checkpoint: OtherCheckpoint | None
    own: tuple[PartDigests, ...]


class Bundle(Struct, frozen=True, array_like=True, tag="bundle"):
    """All that a replay needs. It holds no secret: no key, no safety record.

    `genesis` is the file's bytes. `records` are what a restart reads: the starting snapshot (none
    when it starts from the genesis) and every block, batch and body after it, up to `tip`.
    `live` is None when the state in memory could not even be exported.
    """

    program: str
    network: bytes
    replica: int
    genesis: bytes
    difference: Difference
    tip: int
    live: LiveState | None
    records: tuple[Record, ...]


def save_bundle(path: Path, bundle: Bundle) -> int:
    """Write the file whole and return its size. Errors: BundleError when too large, ConfigError."""
    data = encode(bundle)
    if len(data) > BUNDLE_BYTES_MAX:
        raise BundleError(f"{len(data)} bytes, a bundle holds {BUNDLE_BYTES_MAX} at most")
    packed = zlib.compress(data, 1)
    whole = MAGIC + sha256(packed).digest() + packed
    write_whole(path, whole)
    return len(whole)


def load_bundle(path: Path) -> Bundle:
    """Return the bundle in a file. Errors: BundleError, OSError."""
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        if data.startswith(_MAGIC_START):
            named = data[: data.find(b"\n")].decode(errors="replace")
            raise BundleError(f"format `{named}`; this program reads {FORMAT}")
        raise BundleError("not a fairlane bundle")
    head = len(MAGIC) + 32
    if sha256(data[head:]).digest() != data[len(MAGIC) : head]:
        raise BundleError("damaged: the checksum differs")
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(data[head:], BUNDLE_BYTES_MAX)
    except zlib.error as error:
        raise BundleError(f"damaged: {error}") from None
    if not inflater.eof:
        raise BundleError(f"cut off, or over {BUNDLE_BYTES_MAX} bytes")
    try:
        return decode(Bundle, plain, BUNDLE_BYTES_MAX)
    except CodecError as error:
        raise BundleError(f"not a bundle of this format: {error}") from None
