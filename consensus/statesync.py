"""Snapshot sync: a replica far behind takes over the state of a checkpoint that is on chain.

Height and root come from the chain, never from peers. Every object is asked for by its name and
checked against it before anything of it is used, so a liar costs a question. Objects are stored as
they come: a restart goes on where it was, and a newer checkpoint shares most of them. At the end
the snapshot's record, its blocks and its pending commands are one write, and the replica opens
anew from its disk. Source: ADR-0018.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct

from consensus.codec import CodecError, decode, encode
from consensus.command import CommandId, command_id, decode_command
from consensus.context import (
    KEY_FLOOR,
    TABLE_BLOCKS,
    TABLE_BODIES,
    TABLE_CHAIN,
    Context,
    height_key,
)
from consensus.digest import STATE_FANOUT, ZERO_DIGEST, Digest
from consensus.messages import (
    FETCH_BLOCKS_MAX,
    FETCH_IDS_MAX,
    STATE_NAMES_MAX,
    Block,
    Chain,
    GetBodies,
    GetChain,
    GetState,
    Pruned,
    StateObjects,
    block_digest,
)
from consensus.sequencer import Sequencer
from consensus.snapshot import (
    TABLE_STATE,
    SnapshotError,
    SnapshotRecord,
    depth,
    object_key,
    read_chunk,
    read_manifest,
    read_node,
    read_piece,
    read_tree,
    record_key,
)

SNAPSHOT_GAP = 4_096
"""A replica so many blocks below an accepted checkpoint takes its state over instead of them."""
KEY_TARGET = b"fetching"
TIMER = "statesync"
READ_TIMER = "statesync/read"
OPEN_TIMER = "statesync/open"
"""These fire after the writes of the step that set them: what it stored can be read then, however
many inputs a driver puts through before it writes."""
QUESTIONS_PER_PEER_MAX = 2
ANSWER_MS = 3_000
"""A question unanswered for so long is asked of another peer."""
PAUSE_MS = 50
LOOKED_UP_PER_STEP_MAX = 256
"""Objects that an earlier life may have stored already, looked up in one step."""
STALLED_MS = 10_000
"""Without any object for so long, the chain is asked for too: whichever comes first will do."""


class Target(Struct, frozen=True, array_like=True):
    """The checkpoint whose state is being fetched; on disk, so that a restart goes on."""

    height: int
    root: bytes


@dataclass(frozen=True, slots=True)
class _Wish:
    """One object: the manifest (level -1), a node, a chunk (level 0) or its piece (salt set).

    `below` is how many chunks stand below a node.
    """

    name: Digest
    level: int
    below: int = 0
    salt: bytes = b""
    place: int = 0


@dataclass(slots=True)
class _Question:
    wishes: list[_Wish]
    asked_ms: int


class StateSync:
    """Fetches one state at a time."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.target: Target | None = None
        self.installed: Target | None = None
        """Set when the state is on its way to disk: the replica opens anew when it is there."""
        self._newest: Target | None = None
        self._stack: list[_Wish] = []
        self._asked: list[dict[int, _Question]] = [{} for _ in range(ctx.committee.n)]
        self._avoid_ms = [0] * ctx.committee.n
        """Until when a peer is not asked: it lied, lacked something, or was slow."""
        self._nonce = 0
        self._finish: _Finish | None = None
        self._turn = 0
        self._progress_ms = 0
        self._pruned: dict[int, int] = {}
        """Peers that have no blocks as old as we need, and where theirs begin."""

    @property
    def active(self) -> bool:
        """Whether a state is being fetched."""
        return self.target is not None

    @property
    def replaces_chain(self) -> bool:
        """Whether a state is coming in: the blocks below it are of no use meanwhile."""
        return self.active and self._ctx.now_ms - self._progress_ms < STALLED_MS

    def resume(self) -> None:
        """After a start: go on with what an earlier life was fetching, if it still helps."""
        raw = self._ctx.reader.get(TABLE_STATE, KEY_TARGET)
        if raw is not None:
            target = decode(Target, raw)
            self._newest = target
            if target.height > self._ctx.tree.tip.height:
                self._begin(target)

    def on_accepted(self, height: int, root: bytes) -> None:
        """The chain accepted, finally, a checkpoint of block `height` with this state."""
        ctx = self._ctx
        ctx.shelf.accepted_height = max(ctx.shelf.accepted_height, height)
        if self._newest is not None and height <= self._newest.height:
            return
        self._newest = Target(height, root)
        if self.active:
            if self._finish is None:
                self._begin(self._newest)
        elif height > ctx.tree.tip.height + SNAPSHOT_GAP:
            self._begin(self._newest)

    def on_pruned(self, peer: int, pruned: Pruned) -> None:
        """A peer has no blocks as old as we need: then only a state helps, if one is on chain."""
        tip = self._ctx.tree.tip.height
        if self._finish is not None:
            height = self._finish.target.height
            self._finish.first = max(self._finish.first, min(height, pruned.from_height))
        elif not self.active and pruned.from_height > tip + 1:
            self._ctx.count("peers_pruned")
            self._pruned[peer] = pruned.from_height
            gone = [p for p, lowest in self._pruned.items() if lowest > tip + 1]
            # One of f + 1 is honest.
            newest = self._newest if len(gone) > self._ctx.committee.f else None
            if newest is not None and newest.height > tip:
                self._begin(newest)

    def _begin(self, target: Target) -> None:
        ctx = self._ctx
        ctx.count("snapshot_syncs")
        ctx.write(TABLE_STATE, KEY_TARGET, encode(target))
        ctx.flush()
        ctx.shelf.pause()
        self.target = target
        self._finish = None
        self._progress_ms = ctx.now_ms
        self._stack = [_Wish(Digest(target.root), -1)]
        for questions in self._asked:
            questions.clear()
        self._avoid_ms = [0] * len(self._avoid_ms)
        self.work()

    def leave(self) -> None:
        """Forget the target when the chain itself brought us past it."""
        if self.target is not None and self.target.height <= self._ctx.tree.tip.height:
            self._drop()

    def _drop(self) -> None:
        self._ctx.write(TABLE_STATE, KEY_TARGET, None)
        self._ctx.shelf.go_on()
        self.target = self._finish = None
        self._stack.clear()

    def on_timer(self) -> None:
        """Ask again what was not answered, and go on."""
        now = self._ctx.now_ms
        for peer, questions in enumerate(self._asked):
            for nonce in [n for n, q in questions.items() if now - q.asked_ms >= ANSWER_MS]:
                self._stack += questions.pop(nonce).wishes
                self._avoid(peer, ANSWER_MS)
                self._ctx.count("state_questions_unanswered")
        self.work()

    def on_stored(self) -> None:
        """All objects are on disk."""
        if self._finish is not None:
            self._finish.may_read = True
            self.work()

    def work(self) -> None:
        """Look up what is stored, ask for what is not, and finish when all is there."""
        if self.target is None or self.installed is not None:
            return
        ctx = self._ctx
        if self._finish is None:
            missing = self._look_up()
            self._ask(missing)
            if not self._stack and not any(self._asked):
                self._finish = _Finish(ctx, self.target)
                ctx.timer(READ_TIMER, ctx.now_ms)
        elif self._finish.work():
            self._install(self._finish)
            return
        elif self._finish.is_foreign:
            ctx.count("state_of_another_committee")
            self._drop()
            return
        ctx.timer(TIMER, ctx.now_ms + PAUSE_MS)

    def _look_up(self) -> list[_Wish]:
        """Follow what is stored already; return what is not, as much as may be asked for."""
        room = sum(
            QUESTIONS_PER_PEER_MAX - len(self._asked[peer]) for peer in self._peers()
        )  # fmt: skip
        missing: list[_Wish] = []
        for _ in range(LOOKED_UP_PER_STEP_MAX + room * STATE_NAMES_MAX):
            if not self._stack or len(missing) >= room * STATE_NAMES_MAX:
                break
            wish = self._stack.pop()
            object_ = self._ctx.reader.get(TABLE_STATE, object_key(wish.name))
            if object_ is None:
                missing.append(wish)
                continue
            try:
                self._follow(wish, object_)
            except SnapshotError:
                missing.append(wish)
        return missing

    def _peers(self) -> list[int]:
        """Return whom to ask, the least asked first."""
        ctx = self._ctx
        peers = [
            p
            for p in range(ctx.committee.n)
            if p != ctx.me
            and self._avoid_ms[p] <= ctx.now_ms
            and len(self._asked[p]) < QUESTIONS_PER_PEER_MAX
        ]
        self._turn += 1
        return sorted(
            peers, key=lambda p: (len(self._asked[p]), (p + self._turn) % len(self._asked))
        )

    def _ask(self, missing: list[_Wish]) -> None:
        """Spread the wishes over the peers that may be asked."""
        ctx = self._ctx
        while missing:
            peers = self._peers()
            if not peers:
                break
            share = min(STATE_NAMES_MAX, max(1, -(-len(missing) // len(peers))))
            wishes, missing = missing[:share], missing[share:]
            self._nonce += 1
            self._asked[peers[0]][self._nonce] = _Question(wishes, ctx.now_ms)
            ctx.send(peers[0], GetState(self._nonce, tuple(wish.name for wish in wishes)))
        self._stack += reversed(missing)

    def _avoid(self, peer: int, for_ms: int) -> None:
        self._avoid_ms[peer] = self._ctx.now_ms + for_ms

    def on_objects(self, peer: int, answer: StateObjects) -> None:
        """Take what answers a question of ours, object by object; the rest is asked elsewhere."""
        ctx = self._ctx
        member = 0 <= peer < ctx.committee.n and self.target is not None
        question = self._asked[peer].pop(answer.nonce, None) if member else None
        if question is None:
            ctx.count("state_unasked")
            return
        left: list[_Wish] = question.wishes[len(answer.objects) :]
        for place, (wish, object_) in enumerate(zip(question.wishes, answer.objects, strict=False)):
            if not object_:
                left.append(wish)
                continue
            try:
                self._follow(wish, object_)
            except SnapshotError as error:
                ctx.blame(peer, f"state: {error}")
                self._avoid(peer, 20 * ANSWER_MS)
                left += question.wishes[place : len(answer.objects)]
                break
            ctx.write(TABLE_STATE, object_key(wish.name), object_)
            ctx.count("state_bytes_fetched", len(object_))
            self._progress_ms = ctx.now_ms
        if not answer.objects or any(not object_ for object_ in answer.objects):
            # It does not keep this state, or not all of it any more.
            self._avoid(peer, ANSWER_MS)
        self._stack += reversed(left)
        ctx.flush()
        self.work()

    def _follow(self, wish: _Wish, object_: bytes) -> None:
        """Check an object and wish for what it names. Errors: SnapshotError."""
        if wish.salt:
            read_piece(wish.name, wish.salt, wish.place, object_)
        elif wish.level < 0:
            for part in reversed(read_manifest(wish.name, object_).parts):
                if part.chunks:
                    self._stack.append(_Wish(Digest(part.root), depth(part.chunks), part.chunks))
        elif wish.level == 0:
            salt, *pieces = read_chunk(wish.name, object_) or [ZERO_DIGEST]
            for place, name in enumerate(pieces):
                self._stack.append(_Wish(Digest(name), 0, salt=salt, place=place))
        else:
            each = STATE_FANOUT ** (wish.level - 1)
            children = read_node(wish.name, wish.level, -(-wish.below // each), object_)
            for place in range(len(children) - 1, -1, -1):
                below = min(each, wish.below - place * each)
                level = wish.level - 1
                self._stack.append(_Wish(children[place], level, below))

    def on_chain(self, chain: Chain) -> bool:
        """Say whether a proven run of blocks was for us."""
        if self._finish is None:
            return False
        self._finish.on_chain(chain)
        self.work()
        return True

    def on_bodies(self, bodies: tuple[bytes, ...]) -> None:
        """Take those pending commands that we lack."""
        if self._finish is not None:
            self._finish.on_bodies(bodies)
            self.work()

    def _install(self, finish: _Finish) -> None:
        """Write what makes the state ours, all at once; the replica opens anew after it."""
        ctx, target = self._ctx, finish.target
        for block in finish.blocks.values():
            digest = block_digest(block)
            ctx.write(TABLE_BLOCKS, digest, encode(block))
            ctx.write(TABLE_CHAIN, height_key(block.height), digest)
        record = SnapshotRecord(target.height, target.root, True)
        ctx.write(TABLE_STATE, record_key(target.height), encode(record))
        ctx.write(TABLE_STATE, KEY_TARGET, None)
        ctx.write(TABLE_STATE, KEY_FLOOR, height_key(finish.first))
        ctx.promise()
        ctx.timer(OPEN_TIMER, ctx.now_ms)
        self.installed = target


class _Finish:
    """What a state needs beside its objects: its block, some before it, and pending commands."""

    def __init__(self, ctx: Context, target: Target) -> None:
        self._ctx = ctx
        self.target = target
        self.first = max(1, target.height - FETCH_BLOCKS_MAX + 1)
        """The lowest block wanted; with those before the target's the two-chain rule has pairs."""
        self.blocks: dict[int, Block] = {}
        self.may_read = False
        self.is_foreign = False
        """Whether the state is none of this epoch's committee."""
        self._sequencer: Sequencer | None = None
        self._missing: dict[CommandId, None] = {}
        self._asked_ms = -ANSWER_MS
        self._turn = 0

    def work(self) -> bool:
        """Ask for what is missing; say whether all is there."""
        ctx = self._ctx
        if self._sequencer is None and self.may_read:
            self._sequencer = self._load()
        if self._sequencer is None:
            return False
        if self._is_whole():
            return True
        if ctx.now_ms - self._asked_ms >= ANSWER_MS // 6:
            self._asked_ms = ctx.now_ms
            self._ask()
        return False

    def _load(self) -> Sequencer | None:
        """Read the sequencer's part: it names the heads and the pending commands."""
        ctx = self._ctx

        def get(name: bytes) -> bytes | None:
            return ctx.reader.get(TABLE_STATE, object_key(name))

        fresh = Sequencer(ctx.committee, ctx.parameters, ctx.sequencer.heads, 0)
        try:
            manifest = read_manifest(self.target.root, get(self.target.root) or b"")
            fresh.load(list(read_tree(get, manifest.sequencer, {})))
        except (SnapshotError, CodecError):
            self.is_foreign = True
            return None
        if fresh.height != self.target.height:
            self.is_foreign = True
            return None
        for each in fresh.fair.pending():
            id_ = CommandId(each)
            if ctx.reader.get(TABLE_BODIES, id_) is None:
                self._missing[id_] = None
        return fresh

    def _is_whole(self) -> bool:
        heights = range(self.first, self.target.height + 1)
        return not self._missing and all(height in self.blocks for height in heights)

    def _ask(self) -> None:
        ctx = self._ctx
        peers = [p for p in range(ctx.committee.n) if p != ctx.me]
        self._turn += 1
        heights = range(self.first, self.target.height + 1)
        wanted = [height for height in heights if height not in self.blocks]
        if wanted:
            ctx.send(peers[self._turn % len(peers)], GetChain(wanted[0]))
        ids = list(self._missing)
        for place, start in enumerate(range(0, len(ids), FETCH_IDS_MAX)):
            peer = peers[(self._turn + place) % len(peers)]
            ctx.send(peer, GetBodies(tuple(ids[start : start + FETCH_IDS_MAX])))
            if place >= 2 * len(peers):
                break

    def on_chain(self, chain: Chain) -> None:
        """Keep the blocks up to the target of a run whose last block is proved."""
        for block in chain.blocks:
            if block.height <= self.target.height:
                self.blocks[block.height] = block
                self._asked_ms = -ANSWER_MS
        last = self.blocks.get(self.target.height)
        if last is not None and self._sequencer is not None:
            assert list(last.heads) == self._sequencer.heads, "one committed chain, one state"

    def on_bodies(self, bodies: tuple[bytes, ...]) -> None:
        """Store the pending commands that are missing; the edge has checked them."""
        ctx = self._ctx
        for body in bodies:
            id_ = command_id(ctx.committee.network, decode_command(body))
            if id_ in self._missing:
                del self._missing[id_]
                ctx.write_body(id_, body)
                self._asked_ms = -ANSWER_MS
