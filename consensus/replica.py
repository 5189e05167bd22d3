"""The replica: one input in, effects out. Everything else in this package is a part of it.

`step` never raises for what a peer or a client did. Each step's records form one Persist, first
in the list, so nothing that must not be forgotten leaves before it is on disk.
"""

from __future__ import annotations

from typing import assert_never

from consensus.chainsync import TIMER as CHAIN_TIMER
from consensus.chainsync import ChainSync
from consensus.codec import encode
from consensus.command import CommandId
from consensus.committee import Committee, Parameters
from consensus.context import Executor, Reader
from consensus.courtesy import Courtesy
from consensus.crypto import ReplicaSigner
from consensus.digest import Digest
from consensus.effects import (
    Connected,
    Effect,
    Input,
    Installed,
    L1Observed,
    PricesObserved,
    Received,
    Start,
    StateAccepted,
    Submitted,
    TimerFired,
)
from consensus.evidence import EvidenceBook
from consensus.fetch import TIMER as FETCH_TIMER
from consensus.fetch import WantChain
from consensus.guard import TIMER as GUARD_TIMER
from consensus.guard import Guard
from consensus.handover import Handing
from consensus.logkeeper import TIMER as BATCH_TIMER
from consensus.logkeeper import LogKeeper
from consensus.messages import (
    Batches,
    Block,
    Blocks,
    Bodies,
    Chain,
    CommitVote,
    EpochEnded,
    GetBatches,
    GetBlock,
    GetBodies,
    GetChain,
    GetHandover,
    GetLast,
    GetState,
    Handover,
    HandoverVote,
    Last,
    LogBatch,
    Message,
    Proposal,
    Pruned,
    RoundInfo,
    RoundTC,
    StateObjects,
    Timeout,
    Vote,
    block_digest,
)
from consensus.prune import Pruner
from consensus.recovery import Opened, open_context
from consensus.rounds import TIMER as ROUND_TIMER
from consensus.rounds import Rounds
from consensus.serve import Library
from consensus.statesync import OPEN_TIMER as STATE_OPEN
from consensus.statesync import READ_TIMER as STATE_READ
from consensus.statesync import TIMER as STATE_TIMER
from consensus.statesync import StateSync
from consensus.voting import Voting

SYNC_GAP = 8
"""A replica this many blocks behind a peer asks for the committed chain, not block by block."""
OBSERVE_MS = 100
"""A node that is in no committee asks for new blocks this long after the last ones came."""
WAKES_MAX = 256
"""Times that a step may go round its own consequences; more is a fault of ours."""


Question = GetBatches | GetBodies | GetBlock | GetChain | GetHandover | GetState


class Replica:
    """One member of the committee: order logs, consensus, fair order and execution."""

    def __init__(
        self,
        committee: Committee,
        parameters: Parameters,
        me: int,
        signer: ReplicaSigner,
        reader: Reader,
        executor: Executor,
        genesis_time_ms: int = 0,
        retain_blocks: int | None = None,
    ) -> None:
        """With `retain_blocks` None nothing is ever pruned.

        Errors: CorruptState when the disk behind `reader` lacks what it names.
        """
        self._assemble(
            open_context(committee, parameters, me, signer, reader, executor, genesis_time_ms)
        )
        self.ctx.retain_blocks = retain_blocks

    @classmethod
    def of(cls, opened: Opened) -> Replica:
        """Return the replica that these parts make."""
        replica = cls.__new__(cls)
        replica._assemble(opened)
        return replica

    def _assemble(self, opened: Opened) -> None:
        self.ctx, self._fetcher = opened.ctx, opened.fetcher
        self._committer = opened.committer
        committee, me = self.ctx.committee, self.ctx.me
        self._evidence = EvidenceBook(self.ctx)
        self.guard = Guard(self.ctx, self._evidence)
        self.rounds = Rounds(self.ctx, self._fetcher, self._committer)
        self.voting = Voting(self.ctx, self._fetcher, self._committer, self.rounds)
        self.keeper = LogKeeper(self.ctx, self._fetcher, self._evidence)
        self.handing = Handing(self.ctx, self._committer)
        self.states = StateSync(self.ctx)
        self.pruner = Pruner(self.ctx)
        self.chains = ChainSync(self.ctx)
        self._committer.covered = self.chains.covers
        self._library = Library(self.ctx)
        self._courtesy = Courtesy(committee.n)
        self._peer_heights = [0] * committee.n
        self._others = tuple(i for i in range(committee.n) if i != me)

    @property
    def height(self) -> int:
        """The committed and executed height."""
        return self.ctx.tree.tip.height

    @property
    def tip(self) -> tuple[Block, Digest]:
        """The newest committed block."""
        return self.ctx.tree.tip, self.ctx.tree.tip_digest

    @property
    def halted(self) -> bool:
        """Whether going on would be unsafe: every further input is ignored."""
        return self._committer.halted or self.guard.halted

    @property
    def ended(self) -> Handover | None:
        """How the epoch ended: from then on every further input is ignored."""
        return self.handing.done

    def executed_digest(self, height: int) -> Digest | None:
        """Return the state digest at a recent height that is a multiple of 8."""
        return self.ctx.executed_digests.get(height)

    def body(self, id_: CommandId) -> bytes | None:
        """Return a command that this replica holds, in memory or on disk."""
        return self._library.body(id_)

    def step(self, now_ms: int, event: Input) -> list[Effect]:
        """Take one input at `now_ms` (wall clock, milliseconds) and return what to do, in order."""
        if self.halted or self.ended is not None:
            return []
        if self.states.installed is not None and event != TimerFired(STATE_OPEN):
            # The disk holds another state than the memory now.
            return []
        ctx = self.ctx
        ctx.now_ms = max(ctx.now_ms, now_ms)
        match event:
            case Start():
                self._on_start()
            case Received(peer, message):
                self._on_message(peer, message)
            case Connected(peer):
                self.rounds.greet(peer)
                self.guard.on_connected(peer)
                self.rounds.repeat_to(peer)
                self.keeper.repeat_to(peer)
                self.handing.repeat((peer,))
            case Submitted():
                self.keeper.on_submitted(event)
            case TimerFired(name):
                self._on_timer(name)
            case PricesObserved():
                self.keeper.on_prices(event)
            case L1Observed():
                self.keeper.on_inbox(event)
            case StateAccepted(height, root):
                self.states.on_accepted(height, root)
            case _:
                assert_never(event)
        self._wake()
        self.ctx.shelf.work(self.ctx)
        self.pruner.work()
        return self.ctx.effects()

    def _reopen(self) -> None:
        """Go on from the state that was put on disk, as after a restart."""
        old, heights = self.ctx, self._peer_heights
        opened = open_context(
            old.committee,
            old.parameters,
            old.me,
            old.signer,
            old.reader,
            old.executor,
            old.sequencer.time_ms,
            old.start,
        )
        self._assemble(opened)
        self._peer_heights = heights
        self.ctx.counters, self.ctx.now_ms = old.counters, old.now_ms
        self.ctx.retain_blocks = old.retain_blocks
        self.ctx.count("snapshots_installed")
        self.ctx.say(Installed(self.height))
        self._on_start()

    def _on_start(self) -> None:
        self.states.resume()
        free = self.guard.start()
        self.keeper.start()
        self.rounds.start()
        if free:
            self._begin_signing()

    def _begin_signing(self) -> None:
        """Nothing was signed since the start; from now on all of it may be."""
        self.keeper.begin_signing()
        self.rounds.begin_signing()

    def _on_timer(self, name: str) -> None:
        if name == BATCH_TIMER:
            self.keeper.on_timer()
        elif name == ROUND_TIMER:
            self.rounds.on_timer()
            self.handing.repeat(self._others)
            self._sync()
        elif name == FETCH_TIMER:
            self._fetcher.tick()
        elif name == GUARD_TIMER:
            self.guard.on_timer()
        elif name == CHAIN_TIMER:
            self._sync()
            self.chains.work()
        elif name == STATE_TIMER:
            self.states.on_timer()
        elif name == STATE_READ:
            self.states.on_stored()
        elif name == STATE_OPEN and self.states.installed is not None:
            self._reopen()
        # The propose and vote timers only wake the replica, which every input does.

    def _wake(self) -> None:
        """Follow the consequences: own messages, commits, a proposal, a vote, until none is new."""
        ctx = self.ctx
        for _ in range(WAKES_MAX):
            while ctx.loopback:
                self._on_message(ctx.me, ctx.loopback.popleft())
            if self.states.replaces_chain:
                return
            moved = self._committer.try_commit()
            if moved:
                self._after_commit()
            self.handing.advance()
            if self.ended is not None:
                return
            moved |= self.voting.try_propose()
            # Proved commits far above leave nothing to vote for; what peers claim proves nothing.
            if self._committer.proved_height <= self.height + SYNC_GAP:
                moved |= self.voting.try_vote()
            if not moved and not ctx.loopback:
                return
        ctx.count("wakes_exhausted")
        ctx.timer("wake", ctx.now_ms)

    def _after_commit(self) -> None:
        committer = self._committer
        self.keeper.after_commit(committer.emitted, committer.void)
        committer.emitted.clear()
        committer.void.clear()
        self.states.leave()
        self._sync()

    def _on_message(self, peer: int, message: Message) -> None:
        self.guard.listen(peer, message)
        if self.guard.halted:
            return
        match message:
            case LogBatch():
                self.keeper.on_batch(peer, message, asked=False)
            case Proposal():
                self._note_height(peer, message.block.height - 2)
                self.voting.on_proposal(peer, message)
            case Vote():
                self.rounds.on_vote(peer, message)
            case CommitVote():
                self.rounds.on_commit_vote(peer, message)
            case Timeout():
                self.rounds.on_timeout(peer, message)
            case RoundTC(_, tc):
                self.rounds.take_tc(tc)
            case RoundInfo():
                self._on_round_info(peer, message)
            case GetLast():
                self._say_last(peer, message)
            case Last():
                if self.guard.on_last(peer, message):
                    self._begin_signing()
            case HandoverVote():
                self.handing.on_vote(message)
            case EpochEnded(handover):
                self.handing.on_certificate(handover)
            case GetBatches() | GetBodies() | GetBlock() | GetChain() | GetHandover() | GetState():
                self._on_question(peer, message)
            case StateObjects():
                self.states.on_objects(peer, message)
            case Pruned():
                self.states.on_pruned(peer, message)
            case Batches(batches):
                self._on_batches(peer, batches)
            case Bodies(bodies):
                self.states.on_bodies(bodies)
                self.keeper.on_bodies(bodies)
            case Blocks(blocks):
                self._on_blocks(blocks)
            case Chain():
                if not self.states.on_chain(message):
                    self._on_runs(peer, message)
            case _:
                assert_never(message)

    def _say_last(self, peer: int, question: GetLast) -> None:
        answer = self.guard.answer(peer, question)
        if answer is not None and self._courtesy.allows(peer, self.ctx.now_ms):
            self._courtesy.charge(peer, len(encode(answer)))
            self.ctx.send(peer, answer)

    def _on_question(self, peer: int, question: Question) -> None:
        if not self._courtesy.allows(peer, self.ctx.now_ms):
            self.ctx.count("answers_withheld")
            return
        answer = self.answer(question)
        self._courtesy.charge(peer, len(encode(answer)) if answer is not None else 0)
        if answer is not None:
            self.ctx.send(peer, answer)

    def answer(self, question: Question) -> Message | None:
        """Return what this replica can say to a question, from memory or its disk."""
        match question:
            case GetHandover():
                return self._library.handover(question)
            case GetBatches():
                return self._library.batches(question)
            case GetBodies():
                return self._library.bodies(question)
            case GetBlock():
                return self._library.blocks(question)
            case GetChain():
                return self._library.chain(question)
            case GetState():
                return self._library.state(question)
            case _:
                assert_never(question)

    def _on_round_info(self, peer: int, info: RoundInfo) -> None:
        self.rounds.take_qc(info.lock)
        if info.tc is not None:
            self.rounds.take_tc(info.tc)
        if info.lock.round < self.rounds.round - 1:
            self.rounds.answer_laggard(peer, info.lock.round)
        self._note_height(peer, info.committed_height)

    def _note_height(self, peer: int, height: int) -> None:
        if peer != self.ctx.me and height > self._peer_heights[peer]:
            self._peer_heights[peer] = height
            self._sync()

    def _sync(self) -> None:
        """Ask for committed blocks when peers are far ahead."""
        if self.states.replaces_chain:
            self.keeper.behind = True
            return
        height = self.height
        ahead = [p for p, h in enumerate(self._peer_heights) if h > height + SYNC_GAP]
        self.keeper.behind = len(ahead) > self.ctx.committee.f
        if self.chains.active or self.chains.top(self._peer_heights) > height + SYNC_GAP:
            self.chains.follow(self._peer_heights)
        elif ahead and not self._fetcher.asked_for_chain():
            ahead.sort(key=lambda p: (-self._peer_heights[p], p))
            self._fetcher.want(WantChain(height), ahead, after_ms=0)
        elif not self.ctx.is_member and not self._fetcher.asked_for_chain():
            # Nobody sends an observer what is new: it asks whoever is next.
            others = range(self.ctx.committee.n)
            first = height % len(others)
            self._fetcher.want(WantChain(height), others[first:], after_ms=OBSERVE_MS)

    def _on_batches(self, peer: int, batches: tuple[LogBatch, ...]) -> None:
        """Take an answer; what is new in it lets us ask for the rest at once. The f+1 answers to
        one question hold the same, so only one of them does, and questions do not multiply."""
        grown: dict[int, None] = {}
        named = self._fetcher.named(batches)
        for batch, is_named in zip(batches, named, strict=True):
            asked = self._fetcher.asked_for_log(batch.author)
            if self.keeper.on_batch(peer, batch, asked, is_named):
                grown[batch.author] = None
        for author in grown:
            self._fetcher.progress(author, peer)
        if self.chains.active or len(self.chains):
            self.chains.work()

    def _take_block(self, block: Block) -> None:
        if block.height > self.height:
            digest = self.ctx.tree.add(block)
            self._committer.on_block(digest, block)

    def _on_blocks(self, blocks: tuple[Block, ...]) -> None:
        """Take an asked-for block and its ancestors: a run that ends with one that we want."""
        parent: bytes | None = None
        for block in reversed(blocks):
            digest = block_digest(block)
            if digest != parent and not self._fetcher.asked_for_block(digest):
                self.ctx.count("blocks_unasked")
                return
            self._take_block(block)
            self.rounds.take_qc(block.qc)
            parent = block.qc.block

    def _on_runs(self, peer: int, chain: Chain) -> None:
        """Take a run of committed blocks, and what waited for it."""
        runs = self.chains.on_chain(peer, chain)
        if runs is None:
            if not self._fetcher.asked_for_chain():
                self.ctx.count("chain_unasked")
                return
            runs = [chain]
        for run in runs:
            self._on_chain(run)

    def _on_chain(self, chain: Chain) -> None:
        """Take committed blocks whose last is proved; each names its parent by digest."""
        for block in chain.blocks:
            self._take_block(block)
            self.rounds.take_qc(block.qc)
        if chain.proof is not None:
            self._committer.prove(chain.proof)
        elif chain.child is not None and chain.child_qc is not None:
            self._take_block(chain.child)
            self.rounds.take_qc(chain.child.qc)
            self.rounds.take_qc(chain.child_qc)
