"""One node through the epochs: a replica of the present committee, or an observer of it.

Peers are known here by their place in the roster: all consensus keys that any committee had, in
the order of their first appearance, so every node that followed the chain counts alike. In the
first epoch that is the index in the committee. Source: ARCHITECTURE.md, "Epochs".
"""

from __future__ import annotations

from consensus.batches import log_starts
from consensus.blocktree import genesis_block
from consensus.codec import decode
from consensus.command import CommandId
from consensus.committee import Committee, Parameters
from consensus.context import TABLE_BODIES, TABLE_EPOCHS, Context, EpochStart, Executor, Reader
from consensus.crypto import ReplicaSigner
from consensus.effects import (
    Blame,
    Connected,
    Effect,
    EpochBegan,
    Input,
    Received,
    Send,
    Start,
    Strayed,
)
from consensus.handover import EpochRecord
from consensus.messages import (
    Batches,
    Blocks,
    Bodies,
    Chain,
    EpochEnded,
    GetBatches,
    GetBlock,
    GetBodies,
    GetChain,
    GetHandover,
    GetState,
    Message,
    Pruned,
    StateObjects,
)
from consensus.recovery import Base, Opened, open_context, open_epoch, snapshot_height
from consensus.replica import Replica

STRAY_INTERVAL_MS = 50
"""A peer in another epoch is answered at most this often."""

Question = GetBatches | GetBlock | GetBodies | GetChain | GetHandover | GetState
Answer = Batches | Blocks | Bodies | Chain | EpochEnded | StateObjects | Pruned


def begin_epoch(old: Context, record: EpochRecord, key: bytes) -> tuple[Opened, list[CommandId]]:
    """Return the parts for the epoch after `old`'s, and the ids to log anew, in their order.

    The replicated state behind `old` moves on with it: `old` must not be stepped any more.
    """
    handover = record.handover
    assert old.tree.tip_digest == handover.block, "the epoch's last block is the tip"
    network = old.committee.network
    again = _to_log_anew(old)
    committee = Committee(network, handover.epoch + 1, handover.keys)
    starts = log_starts(committee)
    start = record.start()
    old.sequencer.begin_epoch(committee, starts)
    old.executor.begin_epoch(committee.n, committee.f)
    base = Base(
        committee=committee,
        parameters=old.parameters,
        me=place_of(key, handover.keys),
        signer=old.signer,
        reader=old.reader,
        executor=old.executor,
        sequencer=old.sequencer,
        shelf=old.shelf,
    )
    genesis, _ = genesis_block(network, committee.epoch, starts, start)
    opened = open_epoch(base, [genesis], start)
    opened.ctx.retain_blocks = old.retain_blocks
    fresh: list[CommandId] = []
    for id_ in again:
        body = old.logs.body(id_) or old.reader.get(TABLE_BODIES, id_)
        if body is not None and not opened.ctx.sequencer.fair.is_done(id_):
            opened.ctx.logs.add_body(id_, body)
            fresh.append(id_)
    return opened, fresh


def place_of(key: bytes, keys: tuple[bytes, ...]) -> int:
    """Return the index of `key` in a committee, or for an observer one past the last."""
    return keys.index(key) if key in keys else len(keys)


def _to_log_anew(ctx: Context) -> list[CommandId]:
    """Return the commands that the ending epoch leaves pending here, first those of our own log
    in receipt order: what it has committed, what not, what waits, then what only others hold."""
    fair = ctx.sequencer.fair
    ids: dict[bytes, None] = {}
    if ctx.is_member:
        ids.update(dict.fromkeys(fair.order_of(ctx.me)))
        window = 2 * ctx.parameters.log_window
        for sealed in ctx.logs.deepest(ctx.me, ctx.logs.bases[ctx.me], window):
            ids.update(dict.fromkeys(sealed.batch.entries))
        ids.update(dict.fromkeys(ctx.own.waiting_ids()))
    ids.update(dict.fromkeys(fair.pending()))
    return [CommandId(id_) for id_ in ids]


class Participant:
    """Follows the chain of epochs; its replica is the one of the present."""

    def __init__(
        self,
        network: bytes,
        parameters: Parameters,
        key: bytes,
        signer: ReplicaSigner,
        reader: Reader,
        executor: Executor,
        first: tuple[bytes, ...],
        genesis_time_ms: int = 0,
    ) -> None:
        """`key` is this node's consensus public key, `first` are those of the first committee.

        Errors: CorruptState when the disk behind `reader` lacks what it names.
        """
        self._key = key
        self.roster: list[bytes] = list(first)
        records = [
            decode(EpochRecord, raw) for _, raw in reader.scan(TABLE_EPOCHS, b"", b"\xff" * 5)
        ]
        state_height = snapshot_height(reader)
        committee, start = Committee(network, 1, first), None
        k = 0
        while k < len(records) and records[k].handover.height < state_height:
            committee, start = self._next(network, records[k])
            k += 1
        me = place_of(key, committee.keys)
        opened = open_context(
            committee, parameters, me, signer, reader, executor, genesis_time_ms, start
        )
        again: list[CommandId] = []
        for record in records[k:]:
            self._next(network, record)
            opened, again = begin_epoch(opened.ctx, record, key)
        self._adopt(opened)
        self.replica.keeper.log_anew(again)
        self._answered_ms: dict[int, int] = {}

    def _next(self, network: bytes, record: EpochRecord) -> tuple[Committee, EpochStart]:
        handover = record.handover
        known = dict.fromkeys(self.roster)
        self.roster += [key for key in handover.keys if key not in known]
        return Committee(network, handover.epoch + 1, handover.keys), record.start()

    def _adopt(self, opened: Opened) -> None:
        self.replica = Replica.of(opened)
        committee = opened.ctx.committee
        places = {key: place for place, key in enumerate(self.roster)}
        self._places = tuple(places[key] for key in committee.keys)
        self._index = {place: index for index, place in enumerate(self._places)}

    @property
    def epoch(self) -> int:
        """The present epoch; they count from 1."""
        return self.replica.ctx.committee.epoch

    def step(self, now_ms: int, event: Input | Strayed) -> list[Effect]:
        """Take one input, as `Replica.step`; peers are places in the roster."""
        match event:
            case Strayed(peer, epoch):
                return self._on_stray(now_ms, peer, epoch)
            case Received(peer, message, epoch):
                if epoch not in (0, self.epoch):
                    # Verified before the epoch changed: its keys and indices mean nothing now.
                    return []
                index = self._index.get(peer)
                if index is None:
                    return self._on_outsider(now_ms, peer, message)
                return self._through(now_ms, Received(index, message))
            case Connected(peer):
                index = self._index.get(peer)
                return [] if index is None else self._through(now_ms, Connected(index))
            case Start():
                return [self._began(), *self._through(now_ms, event)]
            case _:
                return self._through(now_ms, event)

    def _through(self, now_ms: int, event: Input) -> list[Effect]:
        """Step the replica, and the next epoch's when that ends this one."""
        replica = self.replica
        effects = self._named(replica.step(now_ms, event))
        while self.replica.ended is not None:
            ctx = self.replica.ctx
            record = EpochRecord.of(self.replica.ended, ctx.sequencer.anchored)
            unanswered = self.replica.keeper.unanswered
            self._next(ctx.committee.network, record)
            opened, again = begin_epoch(ctx, record, self._key)
            self._adopt(opened)
            if ctx.may_sign or ctx.silent:
                # Peers answered it in the epoch before, so they were not in this one yet. Whoever
                # comes from an older copy of its data is told of this epoch unanswered, and asks.
                self.replica.guard.trust()
            effects.append(self._began())
            self.replica.keeper.log_anew(again, unanswered)
            effects += self._named(self.replica.step(now_ms, Start()))
        return effects

    def _began(self) -> EpochBegan:
        ctx = self.replica.ctx
        starts = log_starts(ctx.committee)
        _, genesis = genesis_block(ctx.committee.network, self.epoch, starts, ctx.start)
        others = tuple(p for p, i in self._index.items() if i != ctx.me)
        return EpochBegan(self.epoch, ctx.committee.keys, genesis, others)

    def _named(self, effects: list[Effect]) -> list[Effect]:
        """Name peers by their places in the roster."""
        places = self._places
        if places == tuple(range(len(places))):
            return effects
        named: list[Effect] = []
        for effect in effects:
            match effect:
                case Send(peer, message):
                    named.append(Send(places[peer], message))
                case Blame(peer, why):
                    named.append(Blame(places[peer], why))
                case _:
                    named.append(effect)
        return named

    def _on_outsider(self, now_ms: int, peer: int, message: Message) -> list[Effect]:
        """Answer a node that is not in the committee; what proves itself is taken from it too."""
        if isinstance(message, Question):
            answer = self.replica.answer(message)
            return [Send(peer, answer)] if answer is not None else []
        if isinstance(message, Answer):
            return self._through(now_ms, Received(self.replica.ctx.me, message))
        return []

    def _on_stray(self, now_ms: int, peer: int, epoch: int) -> list[Effect]:
        """Tell a peer that is behind how its epoch ended; ask one that is ahead about ours."""
        last_ms = self._answered_ms.get(peer, -STRAY_INTERVAL_MS)
        if now_ms - last_ms < STRAY_INTERVAL_MS or not 0 <= peer < len(self.roster):
            return []
        self._answered_ms[peer] = now_ms
        if epoch > self.epoch:
            return [Send(peer, GetHandover(self.epoch))]
        answer = self.replica.answer(GetHandover(epoch))
        return [Send(peer, answer)] if answer is not None else []
