"""Signed nonsense: what a replica with a good key can say that no honest one would.

Three honest replicas, production code, in a small world with a fixed delay; the fourth sends
what its key lets it sign and the door lets through: rounds and positions far ahead, certificates
for blocks that nobody has, answers that nobody asked for. A twin of this world has a silent fourth.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections import deque
from collections.abc import Callable
from itertools import count
from time import process_time

from msgspec.structs import replace

from consensus.admission import Refused
from consensus.batches import NO_CLAIM
from consensus.codec import encode
from consensus.committee import Parameters
from consensus.context import TABLE_CHAIN, height_key
from consensus.effects import (
    Broadcast,
    Halt,
    Input,
    Received,
    Send,
    SetTimer,
    Start,
    Submitted,
    TimerFired,
)
from consensus.messages import (
    QC,
    TC,
    Batches,
    Block,
    Blocks,
    Bodies,
    Chain,
    GetBatches,
    GetBlock,
    GetBodies,
    GetChain,
    GetHandover,
    GetLast,
    GetState,
    Head,
    InboxClaim,
    Last,
    LogBatch,
    Message,
    Observation,
    Proposal,
    Pruned,
    RoundInfo,
    RoundTC,
    StateObjects,
    Timeout,
    Vote,
    block_digest,
)
from tests.consensus.samples import EPOCH, Sample

LIAR = 3
DELAY_MS = 8
SUBMIT_MS = 60
EXPIRY_MS = 60_000
HEARD_MAX = 256


class Liar:
    """Makes messages of every kind out of what it hears and what it invents."""

    def __init__(self, sample: Sample, seed: int) -> None:
        self._sample = sample
        self.rng = random.Random(f"liar {seed}")
        self._qcs: deque[QC] = deque([sample.qc(0, b"")], HEARD_MAX)
        self._tcs: deque[TC] = deque(maxlen=HEARD_MAX)
        self._blocks: deque[Block] = deque(maxlen=HEARD_MAX)
        self._batches: deque[LogBatch] = deque(maxlen=HEARD_MAX)
        self._round = 1
        self._makers: tuple[Callable[[], Message], ...] = (
            self._vote, self._vote, self._commit_vote, self._commit_vote, self._timeout,
            self._proposal, self._proposal, self._proposal, self._batch, self._batch, self._batch,
            self._round_info, self._tc, self._batches_answer, self._bodies, self._blocks_answer,
            self._chain, self._objects, self._question, self._question, self._last, self._handover,
            lambda: Pruned(self._number()),
        )  # fmt: skip

    def hears(self, message: Message) -> None:
        match message:
            case Proposal(block, _):
                self._blocks.append(block)
                self._qcs.append(block.qc)
                self._round = max(self._round, block.round)
            case Timeout(lock=lock, tc=tc):
                self._qcs.append(lock)
                if tc is not None:
                    self._tcs.append(tc)
            case RoundTC(_, tc):
                self._tcs.append(tc)
                self._round = max(self._round, tc.round + 1)
            case LogBatch():
                self._batches.append(message)

    def message(self) -> Message:
        return self.rng.choice(self._makers)()

    def _number(self) -> int:
        r = self.rng
        near = max(0, self._round + r.randrange(-4, 30))
        return r.choice((0, 1, r.randrange(200), near, r.randrange(1 << 62), (1 << 62) - 1))

    def _at(self) -> int:
        """A round near the present one mostly: what is far ahead is easily dropped."""
        near = max(1, self._round + self.rng.randrange(-4, 20))
        return near if self.rng.random() < 0.8 else max(1, self._number())

    def _digest(self) -> bytes:
        if self._blocks and self.rng.random() < 0.3:
            return block_digest(self.rng.choice(self._blocks))
        return self.rng.randbytes(self.rng.choice((32, 32, 32, 0, 31, 5_000)))

    def _head(self) -> Head:
        if self._batches and self.rng.random() < 0.3:
            batch = self.rng.choice(self._batches)
            return Head(batch.seq, batch.prev)
        return Head(self._number(), self._digest())

    def _seen(self) -> tuple[int, ...]:
        return tuple(self._number() for _ in range(4))

    def _qc(self) -> QC:
        return self.rng.choice(self._qcs)

    def _vote(self) -> Vote:
        return self._sample.vote(LIAR, self._at(), self._digest(), self._seen())

    def _commit_vote(self) -> Message:
        return self._sample.commit_vote(LIAR, self._at(), self._digest())

    def _timeout(self) -> Message:
        qc = self._qc()
        tc = self.rng.choice(self._tcs) if self._tcs and self.rng.random() < 0.6 else None
        at = tc.round + 1 if tc is not None else qc.round + 1
        return self._sample.timeout(LIAR, at if self.rng.random() < 0.9 else self._at(), qc, tc)

    def _tc(self) -> Message:
        return RoundTC(EPOCH, self.rng.choice(self._tcs)) if self._tcs else self._question()

    def _round_info(self) -> Message:
        tc = self.rng.choice(self._tcs) if self._tcs else None
        return RoundInfo(EPOCH, self._qc(), tc, self._number())

    def _block(self) -> Block:
        r, qc = self.rng, self._qc()
        round_ = qc.round + 1 if r.random() < 0.5 else self._at()
        round_ += (LIAR - round_) % 4  # it has no other key to sign with
        tc = r.choice(self._tcs) if self._tcs and r.random() < 0.5 else None
        if self._blocks and r.random() < 0.6:
            block = r.choice(self._blocks)
            heads = tuple(self._head() if r.random() < 0.2 else head for head in block.heads)
            return replace(block, round=round_, qc=qc, tc=tc, heads=heads,
                           height=block.height + r.randrange(3))  # fmt: skip
        heads = tuple(self._head() for _ in range(4))
        return Block(EPOCH, round_, self._number(), qc, tc, heads, self._number(), self._digest())

    def _proposal(self) -> Message:
        return self._sample.proposal(self._block())

    def _batch(self) -> LogBatch:
        r, s = self.rng, self._sample
        known = [s.command(b"%d" % r.randrange(1 << 40)) for _ in range(r.choice((0, 1, 1, 8)))]
        ghosts = [r.randbytes(40) for _ in range(r.choice((0, 0, 3, 200)))]
        own = [b for b in self._batches if b.author == LIAR]
        prev = self._head()
        if own and r.random() < 0.5:
            prev = Head(own[-1].seq, r.choice(own).prev)
        elif r.random() < 0.3:
            prev = s.starts[LIAR]
        batch = s.batch(
            LIAR, prev, tuple(id_ for id_, _ in known) + tuple(ghosts),
            tuple(body for _, body in known), self._number(),
            tuple(Observation(r.randrange(64), 1 + self._number() // 2, self._number())
                  for _ in range(r.choice((0, 1, 64)))),
            r.choice((NO_CLAIM, NO_CLAIM, InboxClaim(self._number(), r.randbytes(32), (b"x",)))),
        )  # fmt: skip
        if r.random() < 0.5:
            self._batches.append(batch)
        return batch

    def _batches_answer(self) -> Message:
        of = [self._batch() for _ in range(self.rng.choice((1, 3, 30)))]
        some = self.rng.choices(self._batches, k=8) if self._batches else []
        return Batches((*of, *some))

    def _bodies(self) -> Message:
        some = (self._sample.command(b"b%d" % self.rng.randrange(1 << 40))[1] for _ in range(20))
        return Bodies(tuple(some))

    def _blocks_answer(self) -> Message:
        return Blocks((self.rng.choice(self._blocks) if self._blocks else self._block(),))

    def _chain(self) -> Message:
        qcs = {qc.block: qc for qc in self._qcs}
        for child in self.rng.sample(list(self._blocks), len(self._blocks)):
            parent = next((b for b in self._blocks if block_digest(b) == child.qc.block), None)
            qc = qcs.get(block_digest(child))
            if parent is not None and qc is not None:
                return Chain((parent,), None, child, qc)
        return self._question()

    def _objects(self) -> Message:
        objects = tuple(self.rng.randbytes(self.rng.choice((0, 40, 4_000))) for _ in range(9))
        return StateObjects(self._number(), objects)

    def _question(self) -> Message:
        r = self.rng
        return r.choice((
            GetBatches(EPOCH, r.randrange(4), self._head(), r.choice((None, self._head()))),
            GetBodies(tuple(r.randbytes(40) for _ in range(r.randrange(200)))),
            GetBlock(self._digest(), self._number()), GetChain(self._number()),
            GetState(self._number(), tuple(r.randbytes(32) for _ in range(r.randrange(9)))),
            GetLast(EPOCH, self._number()), GetHandover(self._number()),
        ))  # fmt: skip

    def _last(self) -> Message:
        s = self._sample
        return Last(EPOCH, self._number(), self._vote(), s.commit_vote(LIAR, self._at(), bytes(32)),
                    None, None, self._batch())  # fmt: skip

    def _handover(self) -> Message:
        return self._sample.handover_vote(LIAR, self._at(), self._digest())


class World:
    """Three honest replicas, messages that take DELAY_MS, and perhaps a liar."""

    def __init__(self, seed: int, liar: bool) -> None:
        self.sample = Sample(4, Parameters(batch_interval_ms=25))
        self.nodes = [self.sample.core(i) for i in range(LIAR)]
        self.liar = Liar(self.sample, seed) if liar else None
        self.door = self.sample.admission()
        self.refused = self.injected = self.octets = self.steps = 0
        self.cpu_max_s = 0.0
        self.halts: list[str] = []
        self._queue: list[tuple[int, int, int, Input]] = []
        self._number = count()
        self._timers: dict[tuple[int, str], int] = {}
        self.now_ms = 1_000
        for i in range(LIAR):
            self._push(self.now_ms, i, Start())

    def _push(self, at_ms: int, node: int, event: Input) -> None:
        heapq.heappush(self._queue, (at_ms, next(self._number), node, event))

    def submit(self, until_ms: int) -> None:
        """Let clients send commands until then."""
        for k, at in enumerate(range(self.now_ms, until_ms, SUBMIT_MS)):
            id_, body = self.sample.command(b"client %d" % k, at + EXPIRY_MS)
            self._push(at, k % LIAR, Submitted(id_, body))

    def lie(self, messages: int) -> None:
        """Send so many messages of the liar's to somebody, now."""
        assert self.liar is not None
        for _ in range(messages):
            frame = encode(self.liar.message())
            try:
                message = self.door.admit(LIAR, frame)
            except Refused:
                self.refused += 1
                continue
            self.injected += 1
            self.octets += len(frame)
            self._step(self.liar.rng.randrange(LIAR), Received(LIAR, message))

    def run(self, until_ms: int, lies: int = 0) -> None:
        """Go on until then, with so many lies for each event of the honest."""
        while self._queue and self._queue[0][0] <= until_ms:
            at, _, node, event = heapq.heappop(self._queue)
            self.now_ms = max(self.now_ms, at)
            if isinstance(event, TimerFired):
                if self._timers.get((node, event.name)) != at:
                    continue
                del self._timers[node, event.name]
            self._step(node, event)
            if lies:
                self.lie(lies)
        self.now_ms = until_ms

    def _step(self, node: int, event: Input) -> None:
        began = process_time()
        effects = self.nodes[node].step(self.now_ms, event)
        self.cpu_max_s = max(self.cpu_max_s, process_time() - began)
        self.steps += 1
        for effect in effects:
            match effect:
                case Send(peer, message):
                    self._deliver(node, peer, message)
                case Broadcast(message):
                    for peer in range(4):
                        if peer != node:
                            self._deliver(node, peer, message)
                case SetTimer(name, at_ms):
                    due = max(at_ms, self.now_ms + 1)
                    self._timers[node, name] = due
                    self._push(due, node, TimerFired(name))
                case Halt():
                    self.halts.append(effect.why)
                case _:
                    pass

    def _deliver(self, sender: int, peer: int, message: Message) -> None:
        if peer == LIAR:
            if self.liar is not None:
                self.liar.hears(message)
        else:
            self._push(self.now_ms + DELAY_MS, peer, Received(sender, message))

    def heights(self) -> list[int]:
        return [node.core.height for node in self.nodes]

    def ordered(self) -> list[int]:
        """Return how many commands each replica has executed."""
        return [node.core.ctx.counters.get("commands_ordered", 0) for node in self.nodes]

    def chains(self) -> list[list[bytes | None]]:
        """Return each replica's committed digests, as far as all have them."""
        top = min(self.heights())
        return [
            [node.disk.get(TABLE_CHAIN, height_key(h)) for h in range(1, top + 1)]
            for node in self.nodes
        ]

    def held(self) -> list[int]:
        """Return how many bytes each replica's state takes, its disk apart."""
        return [deep_size(node.core, (node.disk, node.executor)) for node in self.nodes]


def deep_size(root: object, without: tuple[object, ...] = ()) -> int:
    """Return the bytes of all that can be reached from `root`, each object once."""
    seen = {id(each) for each in without}
    waiting, size = [root], 0
    while waiting:
        at = waiting.pop()
        if id(at) in seen or isinstance(at, type) or callable(at):
            continue
        seen.add(id(at))
        size += sys.getsizeof(at)
        if isinstance(at, dict):
            waiting += [*at.keys(), *at.values()]
        elif isinstance(at, list | tuple | set | frozenset | deque):
            waiting += at
        else:
            waiting += _fields(at)
    return size


def _fields(at: object) -> list[object]:
    names = [*getattr(at, "__struct_fields__", ())]
    for kind in type(at).__mro__:
        slots = getattr(kind, "__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    found = [getattr(at, name) for name in names if hasattr(at, name)]
    return [*found, getattr(at, "__dict__", None)]
