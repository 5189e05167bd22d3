"""Every place where bytes from outside are read, with good examples and what may be raised.

A target runs on any bytes and returns whether they were taken. It raises nothing, whatever they
are: the errors that a reader may raise are caught where it is called, here and in production alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import get_args

from consensus.admission import Admission, Refused
from consensus.codec import CodecError, Shape, decode, encode
from consensus.command import COMMAND_BYTES_MAX, decode_command, encode_command
from consensus.committee import Parameters
from consensus.crypto import verify_ed25519
from consensus.digest import (
    CHUNK_OBJECT,
    NAMES_OBJECT,
    ZERO_DIGEST,
    chunk_name,
    long_name,
    node_name,
)
from consensus.evidence import Statement
from consensus.messages import (
    QC,
    Batches,
    Block,
    Blocks,
    Bodies,
    Chain,
    CommitProof,
    EpochEnded,
    GaveUp,
    GetBatches,
    GetBlock,
    GetBodies,
    GetChain,
    GetHandover,
    GetLast,
    GetState,
    Handover,
    Head,
    InboxClaim,
    Last,
    LogBatch,
    Message,
    Observation,
    Pruned,
    RoundInfo,
    RoundTC,
    StateObjects,
    block_digest,
    decode_message,
)
from consensus.safety import Safety, SafetyRecord
from consensus.snapshot import (
    Manifest,
    Part,
    SnapshotError,
    manifest_root,
    read_chunk,
    read_manifest,
    read_node,
)
from matcher.actions import CancelAll, Withdraw, encode_action, parse
from ops.admission import signing_domain, verify_body
from ops.gateway.app import Refused as Declined
from ops.gateway.app import _bodies as bodies_of_request
from ops.gateway.app import _Query as Query
from ops.gateway.wire import parse_id
from p2p.framing import FRAME_MAX, LANES, FrameParser, MalformedFrame, frame, pack, piece
from settlement.shares import Share, well_formed
from tests.consensus.samples import EPOCH, NETWORK, Sample

SHARE_BYTES_MAX = 1_024
REASON_MAX = 300


@dataclass(frozen=True)
class Target:
    """One reader of foreign bytes."""

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes], bool]
    """Says whether the bytes were taken; raises for a fault of ours alone."""
    bytes_max: int
    """What the reader takes at most: no allocation may depend on anything longer."""
    prefix: int = 0
    """Bytes before the MessagePack."""


@cache
def sample() -> Sample:
    return Sample(4, Parameters())


@cache
def messages() -> tuple[Message, ...]:
    """Return a good message of every kind, most of them twice."""
    s = sample()
    id_, body = s.command(b"fuzz")
    claim = InboxClaim(1, bytes(32), (b"deposit",))
    batch = s.batch(1, None, (id_,), (body,), oracle=(Observation(3, 7_000_000, 990),))
    empty = s.batch(2, inbox=claim)
    block = s.block(1)
    digest = block_digest(block)
    qc = s.qc(1, digest)
    child = s.block(2, qc, 2)
    child_qc = s.qc(2, block_digest(child))
    tc = s.tc(3, qc)
    vote, commit = s.vote(0, 1, digest, (0,) * 4), s.commit_vote(0, 1, digest)
    timeout = s.timeout(1, 4, qc, tc)
    proof = CommitProof(
        1, digest, tuple((v, s.commit_vote(v, 1, digest).signature) for v in s.voters)
    )
    gave_up = GaveUp(EPOCH, 2, 1, 1, s.timeout(1, 2, qc).signature)
    object_ = bytes(40)
    return (
        batch, empty, s.proposal(block), s.proposal(child), vote, commit, timeout,
        s.timeout(2, 1), RoundTC(EPOCH, tc), RoundInfo(EPOCH, qc, tc, 3),
        GetBatches(EPOCH, 1, s.starts[1], Head(3, digest)), Batches((batch, empty)),
        GetBodies((id_,)), Bodies((body,)), GetBlock(digest, 0), Blocks((block, child)),
        GetChain(1), Chain((block,), proof, None, None), Chain((block,), None, child, child_qc),
        GetState(7, (bytes(32),)), StateObjects(7, (object_, b"")), Pruned(4), GetLast(EPOCH, 9),
        Last(EPOCH, 9, vote, commit, gave_up, s.proposal(block), batch),
        s.handover_vote(0, 64, digest), GetHandover(EPOCH), EpochEnded(s.handover(64, digest)),
    )  # fmt: skip


def message_kinds() -> list[str]:
    return [kind.__name__ for kind in get_args(Message)]


def _message(data: bytes) -> bool:
    try:
        message = decode_message(data)
    except CodecError:
        return False
    assert encode(message) == data, "one value, one encoding"
    return True


@cache
def _admission(kind: int) -> Admission:
    """Check signatures as a node does, as the simulator does, or let all of them pass: then what
    lies behind the first signature is tried too."""
    s = sample()
    verify = verify_ed25519 if kind == 0 else s.keys.verify if kind < 4 else _any_signature
    return Admission(s.committee, s.parameters, s.genesis_digest, s.check, verify)


def _any_signature(public: bytes, message: bytes, signature: bytes) -> bool:
    return len(public) == 32 and len(message) == 32 and len(signature) < 1 << 16


def _admit(data: bytes) -> bool:
    """The first byte says who sends the rest, and how signatures are checked."""
    if not data:
        return False
    why = ""
    try:
        message = _admission(data[0] >> 2 & 7).admit(data[0] & 3, data[1:])
    except Refused as refused:
        why = str(refused)
    if why:
        assert len(why) < REASON_MAX, "a reason fit for a log line"
        return False
    assert encode(message) == data[1:]
    return True


def _command(data: bytes) -> bool:
    try:
        command = decode_command(data)
    except CodecError:
        return False
    assert encode_command(command) == data
    verify_body(data, _DOMAIN)
    return True


_DOMAIN = signing_domain(NETWORK, 1, bytes(20))


def _payload(data: bytes) -> bool:
    return not isinstance(parse(data), str)


def _record(data: bytes) -> bool:
    """Records come from the own disk; a damaged one must be an error as a foreign frame is."""
    taken = False
    for shape in _RECORDS:
        try:
            value = shape.decode(data)
        except CodecError:
            continue
        assert encode(value) == data
        taken = True
    return taken


_RECORDS: tuple[Shape[object], ...] = tuple(
    Shape(type_) for type_ in (SafetyRecord, LogBatch, Block, Handover, CommitProof, Statement, QC)
)


def _share(data: bytes) -> bool:
    try:
        share = decode(Share, data, SHARE_BYTES_MAX)
    except CodecError:
        return False
    return well_formed(share)


def _state(data: bytes) -> bool:
    taken = False
    name, object_ = data[:32], data[32:]
    for read in (
        lambda: read_manifest(name, object_),
        lambda: read_node(name, 1, max(1, len(object_) // 32), object_),
        lambda: read_chunk(name, object_),
    ):
        try:
            read()
        except SnapshotError:
            continue
        taken = True
    return taken


def _objects() -> tuple[bytes, ...]:
    """Return good objects of state, each after its name."""
    manifest = Manifest(Part(3, sha256(b"a").digest()), (Part(0, ZERO_DIGEST),))
    names = sha256(b"b").digest() * 3
    return (
        manifest_root(manifest) + CHUNK_OBJECT + encode(manifest),
        node_name(1, names) + NAMES_OBJECT + names,
        chunk_name(b"chunk") + CHUNK_OBJECT + b"chunk",
        long_name(names) + NAMES_OBJECT + names,
    )


def _stream(data: bytes) -> bool:
    """The first byte says how the rest arrives: in parts of that many bytes."""
    parser = FrameParser()
    part = data[0] + 1 if data else 1
    frames = 0
    try:
        for at in range(1, len(data), part):
            for found in parser.feed(data[at : at + part]):
                frames += 1
                assert 0 < len(found) <= FRAME_MAX
            assert parser.held <= len(data) and len(parser.unfinished()) == LANES + 1
    except MalformedFrame:
        try:
            list(parser.feed(b"x"))
        except MalformedFrame:
            return False
        raise AssertionError("a broken stream is read on") from None
    return frames > 0


def _request(data: bytes) -> bool:
    parse_id(data.decode("latin-1"))
    try:
        bodies_of_request(data)
    except Declined:
        return False
    return True


def _parameters(data: bytes) -> bool:
    try:
        query = Query(data.decode("latin-1"), ("wallet", "subaccount", "depth"))
        query.integer("depth", 5, 1, 200)
        query.integer("subaccount", None, 0, 1 << 16)
        query.address("wallet")
    except Declined:
        return False
    return True


def targets() -> tuple[Target, ...]:
    """Return every target with its seeds."""
    s = sample()
    frames = tuple(encode(message) for message in messages())
    doors = (4, 5, 6, 7, 16, 17, 18, 19)
    by_peer = tuple(bytes((door,)) + data for data in frames for door in doors)
    _, body = s.command(b"command")
    qc = s.qc(1, s.genesis_digest)
    fresh = Safety.fresh(EPOCH, s.genesis_digest)
    records = (encode(fresh), encode(s.block(1)), encode(qc), frames[0], encode(s.tc(3)))
    share = encode(Share(1, 9, bytes(32), 2, bytes(48), bytes(65)))
    payloads = tuple(
        encode_action(a)
        for a in (CancelAll(bytes(20), 1), Withdraw(bytes(20), 0, 5, bytes(20), bytes(32)))
    )
    query = b"wallet=0x" + b"0a" * 20 + b"&subaccount=1"
    pieces = pack(frame(0, b"payload")) + piece(1, b"\0ab", True) + piece(1, b"cd", False)
    return (
        Target("message", frames, _message, 4 << 20),
        Target("admission", by_peer, _admit, 4 << 20, 1),
        Target("command", (body,), _command, COMMAND_BYTES_MAX),
        Target("payload", payloads, _payload, COMMAND_BYTES_MAX),
        Target("records", records, _record, 4 << 20),
        Target("share", (share,), _share, SHARE_BYTES_MAX),
        Target("state", _objects(), _state, 4 << 20, 33),
        Target("stream", (b"\x03" + pieces, b"\xff" + pieces * 3), _stream, FRAME_MAX, 1),
        Target("request", (b'{"body":"AA=="}', b'{"commands":["AA==","AQ=="]}'), _request, 1 << 20),
        Target("query", (query, query + b"&depth=7"), _parameters, 16_384),
    )  # fmt: skip


def _wide(count: int, item: bytes) -> bytes:
    """Return an array of `count` equal items."""
    return b"\xdd" + count.to_bytes(4, "big") + item * count


def largest(name: str) -> tuple[bytes, ...]:
    """Return frames near FRAME_BYTES_MAX that hold as many small things as fit, for `message`."""
    size = (4 << 20) - 200
    part, empty = b"\x93\x00\x90\xc4\x00", b"\xc4\x00"
    qc = b"\x93\x01\xc4\x00"
    frames = (
        b"\x97\xa4vote\x01\x01\xc4\x00" + _wide(size, b"\x00") + b"\x00\xc4\x00",
        b"\x92\xaaget_bodies" + _wide(size // 2, empty),
        b"\x92\xa6bodies" + _wide(size // 2, empty),
        b"\x95\xaaround_info\x01" + qc + _wide(size // 5, part) + b"\xc0\x00",
        b"\x92\xa7batches" + _wide(size, b"\x90"),
        b"\x92\xa4" + b"x" * 4,
        b"\x92\xdb" + (size).to_bytes(4, "big") + b"x" * size + b"\x00",
        b"\xdd" + size.to_bytes(4, "big") + b"\x00" * size,
        b"\x91" * size,
        b"\x81\xa1a" * (size // 3),
        _wide(size // 4, b"\x93\xc0\xc0\xc0"),
    )
    return tuple(b"\x04" + frame_ for frame_ in frames) if name == "admission" else frames
