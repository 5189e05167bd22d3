"""The execution behind a bundle, once more: where do this node and the quorum part?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from consensus.codec import CodecError, decode
from consensus.committee import Committee
from consensus.committer import DIGEST_INTERVAL, Committer
from consensus.context import TABLE_BLOCKS, TABLE_CHAIN, Context, height_key
from consensus.crypto import signable, verify_ed25519
from consensus.messages import TAG_VOTE, Block, block_digest, vote_digest
from consensus.recovery import CorruptState, open_context, replay, snapshot_height
from consensus.snapshot import TABLE_STATE, state_digest
from matcher.engine import CheckpointState
from matcher.snapshot import SnapshotError
from ops.bundle.collect import NoSigner
from ops.bundle.file import Bundle, BundleError, Difference
from ops.bundle.parts import differing, grouped, parts_of
from ops.config import ConfigError, Genesis, parse_genesis
from ops.replica import Exchange, ReplicaConfig
from ops.wiring import replica_config
from settlement.checkpoint import Checkpoint, checkpoint_digest

AGREES = "agrees with the quorum"
REPRODUCES = "reproduces the divergence"
NEITHER = "differs from both"

PARTS_SHOWN_MAX = 64


class HeightReport(Struct, frozen=True, kw_only=True):
    """The replay at one height, its digests in hex; None where the bundle does not say.

    `parts` are the replay's, by group; `own_parts_differ` names those of the two halves of the
    state ("sequencer", "executor") that the node itself had otherwise.
    """

    height: int
    digest: str
    quorum: str | None
    own: str | None
    own_parts_differ: list[str]
    parts: dict[str, str]


class Report(Struct, frozen=True, kw_only=True):
    """What a replay showed. Heights are of state digests, which are taken every 8 blocks.

    A node that differed in a checkpoint knows no quorum's state digest: then `others_checkpoint`
    is the checkpoint's digest as others have it, `replays_checkpoint` as the replay forms it.

    `differs_from_quorum_at`, `differs_from_own_at`: the first such height, or None; the cause
    lies after the digest before it. `live_parts_differ`: the parts of the node's memory, when it
    stopped at `tip`, that the replay has otherwise.
    """

    verdict: str
    replica: int
    network: str
    program: str
    height: int
    own: str
    quorum: str | None
    others_checkpoint: str | None
    replays_checkpoint: str | None
    certified_by: list[int]
    start_height: int
    tip: int
    differs_from_quorum_at: int | None
    differs_from_own_at: int | None
    starts_wrong: bool
    live_parts_differ: list[str]
    live_parts_differ_count: int
    heights: list[HeightReport]


class _Disk:
    """A bundle's records as a disk whose chain ends where we say."""

    def __init__(self, bundle: Bundle) -> None:
        self._records = {(each.table, each.key): each.value for each in bundle.records}
        self.end = 0
        for height in range(bundle.tip + 1):
            digest = self._records.get((TABLE_CHAIN, height_key(height)))
            if digest is None:
                continue
            raw = self._records.get((TABLE_BLOCKS, digest))
            if raw is None or block_digest(decode(Block, raw)) != digest:
                raise BundleError(f"block {height} is missing, or is another")

    def get(self, table: str, key: bytes) -> bytes | None:
        if table == TABLE_CHAIN and key > height_key(self.end):
            return None
        return self._records.get((table, key))

    def scan(self, table: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        # Of snapshots only: batches above the committed heads are not loaded, but committed.
        keys = [key for name, key in self._records if name == table == TABLE_STATE]
        found = sorted(key for key in keys if start <= key < end)
        return ((key, self._records[table, key]) for key in found)

    def block(self, height: int) -> Block | None:
        """Return the committed block at `height`, wherever the chain is made to end."""
        digest = self._records.get((TABLE_CHAIN, height_key(height)))
        raw = self._records.get((TABLE_BLOCKS, digest)) if digest is not None else None
        return decode(Block, raw) if raw is not None else None


class Replay:
    """One bundle, executed again."""

    def __init__(
        self, bundle: Bundle, make_exchange: Callable[[ReplicaConfig], Exchange] | None = None
    ) -> None:
        """`make_exchange`: another engine than this program's. Errors: BundleError."""
        self._bundle = bundle
        self._genesis = _genesis(bundle)
        self._config = replica_config(self._genesis, bundle.replica)
        self._exchange = (make_exchange or Exchange)(self._config)
        self._difference = bundle.difference
        self._certified_by = _certified_by(self._difference, self._config.committee)
        self._disk = _Disk(bundle)
        self._quorums = self._quorum_digests()
        self._own = {each.height: each for each in self._difference.own}
        self._checkpoint: bytes | None = None
        self._heights: list[HeightReport] = []

    def _quorum_digests(self) -> dict[int, bytes]:
        """Return what quorums executed, by height: a committed block names it, and so was voted
        for by q replicas that had executed the same."""
        named: dict[int, bytes] = {}
        if self._difference.quorum is not None:
            named[self._difference.height] = self._difference.quorum
        for height in range(1, self._bundle.tip + 1):
            block = self._disk.block(height)
            if block is not None:
                named.setdefault(block.executed_height, block.executed_digest)
        return named

    def run(self) -> Report:
        """Execute to the end of the bundle and compare. Errors: BundleError."""
        try:
            ctx, committer = self._open()
            start = ctx.tree.tip.height
            if start:
                self._look(ctx)
            for height in range(start + 1, self._bundle.tip + 1):
                self._disk.end = height
                replay(ctx, committer)
                if ctx.tree.tip.height != height:
                    raise BundleError(f"block {height} is missing")
                if height % DIGEST_INTERVAL == 0 or height == self._difference.height:
                    self._look(ctx)
        except CorruptState as error:
            raise BundleError(f"not whole: {error}") from None
        except (CodecError, SnapshotError) as error:
            raise BundleError(f"a record that cannot be read: {error}") from None
        return self._report(ctx, start)

    def _open(self) -> tuple[Context, Committer]:
        self._disk.end = snapshot_height(self._disk)
        opened = open_context(
            self._config.committee,
            self._config.parameters,
            self._config.me,
            NoSigner(),
            self._disk,
            self._exchange,
            self._config.genesis_time_ms,
        )
        return opened.ctx, opened.committer

    def _look(self, ctx: Context) -> None:
        """Take note of the state's digests at the height that was just executed."""
        height = ctx.tree.tip.height
        halves = {"sequencer": ctx.sequencer.digest(), "executor": self._exchange.digest()}
        digest = state_digest(halves["sequencer"], halves["executor"])
        own = self._own.get(height)
        mine = None
        others: list[str] = []
        if own is not None:
            mine = state_digest(own.sequencer, own.executor)
            others = [name for name, value in halves.items() if getattr(own, name) != value]
        groups = grouped(parts_of(ctx.sequencer.export(), self._exchange.export()))
        quorum = self._quorums.get(height)
        if height == self._difference.height and self._difference.checkpoint is not None:
            self._checkpoint = self._form(self._difference.checkpoint.mine, ctx, digest)
        self._heights.append(
            HeightReport(
                height=height,
                digest=digest.hex(),
                quorum=_hex(quorum),
                own=_hex(mine),
                own_parts_differ=others,
                parts={name: value.hex() for name, value in groups.items()},
            )
        )

    def _form(self, mine: Checkpoint, ctx: Context, root: bytes) -> bytes:
        """Return the digest of the checkpoint that the replay would form in the place of `mine`."""
        time_ms, state = ctx.sequencer.time_ms, self._exchange.engine.checkpoint_state()
        formed = replace(
            mine,
            number=time_ms // self._config.checkpoint_interval_ms,
            block_time_ms=time_ms,
            snapshot_root=root,
            **{name: getattr(state, name) for name in CheckpointState.__slots__},
        )
        return checkpoint_digest(self._config.checkpoints_separator, formed)

    def _verdict(self, at: HeightReport, agreed_before: bool) -> str:
        difference = self._difference
        if difference.checkpoint is None:
            agrees = difference.quorum is not None and at.digest == difference.quorum.hex()
        else:
            agrees = self._checkpoint == difference.checkpoint.others
        if agrees and agreed_before:
            return AGREES
        return REPRODUCES if at.digest == difference.mine.hex() else NEITHER

    def _live_differs(self, ctx: Context) -> list[str]:
        live = self._bundle.live
        if live is None or live.height != ctx.tree.tip.height:
            return []
        mine = parts_of(ctx.sequencer.export(), self._exchange.export())
        return differing(mine, parts_of(live.sequencer, live.executor))

    def _report(self, ctx: Context, start: int) -> Report:
        bundle, difference = self._bundle, self._difference
        at = next((h for h in self._heights if h.height == difference.height), None)
        if at is None:
            raise BundleError(f"does not reach height {difference.height}")
        from_quorum = [h.height for h in self._heights if h.quorum not in (None, h.digest)]
        from_own = [h.height for h in self._heights if h.own not in (None, h.digest)]
        others = difference.checkpoint.others if difference.checkpoint is not None else None
        parts = self._live_differs(ctx)
        return Report(
            verdict=self._verdict(at, not from_quorum),
            replica=bundle.replica,
            network=bundle.network.hex(),
            program=bundle.program,
            height=difference.height,
            own=difference.mine.hex(),
            quorum=_hex(difference.quorum),
            others_checkpoint=_hex(others),
            replays_checkpoint=_hex(self._checkpoint),
            certified_by=self._certified_by,
            start_height=start,
            tip=bundle.tip,
            differs_from_quorum_at=from_quorum[0] if from_quorum else None,
            differs_from_own_at=from_own[0] if from_own else None,
            starts_wrong=bool(from_quorum) and from_quorum[0] == start,
            live_parts_differ=parts[:PARTS_SHOWN_MAX],
            live_parts_differ_count=len(parts),
            heights=self._heights,
        )


def _genesis(bundle: Bundle) -> Genesis:
    try:
        genesis = parse_genesis(bundle.genesis, "the bundle's genesis")
    except ConfigError as error:
        raise BundleError(str(error)) from None
    if genesis.network_id() != bundle.network:
        raise BundleError("its genesis is another network's")
    if not 0 <= bundle.replica < genesis.n:
        raise BundleError(f"replica {bundle.replica} of {genesis.n}")
    return genesis


def _hex(digest: bytes | None) -> str | None:
    return digest.hex() if digest is not None else None


def _certified_by(difference: Difference, committee: Committee) -> list[int]:
    """Return whose votes certify the quorum's digest; empty when the proof is of another kind.

    Errors: BundleError for a certificate that does not prove it.
    """
    block, qc = difference.block, difference.qc
    if block is None or qc is None:
        return []
    named = (block.executed_height, block.executed_digest)
    if qc.block != block_digest(block) or qc.round != block.round:
        raise BundleError("the certificate is another block's")
    if named != (difference.height, difference.quorum):
        raise BundleError("the certified block names another digest")
    voters = []
    for vote in qc.votes:
        covered = vote_digest(qc.round, qc.block, vote.seen)
        message = signable(committee.network, committee.epoch, TAG_VOTE, covered)
        if not 0 <= vote.voter < committee.n or not verify_ed25519(
            committee.keys[vote.voter], message, vote.signature
        ):
            raise BundleError(f"the certificate's vote of replica {vote.voter} is not signed")
        voters.append(vote.voter)
    if len(dict.fromkeys(voters)) < committee.quorum:
        raise BundleError("the certificate has no quorum")
    return voters
