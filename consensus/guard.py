"""Keeps one key from signing two things: after a start with an older record, and beside a double.

Before its first signature after a start a replica asks its peers for the newest that they hold of
its key, and waits for n - 1 - f answers. One that its own record does not know means that the
record is lost or older: the replica is silent until the next epoch. Once it signs, any signature
by its key that it did not make means that another node has the key: it stops.

Why the answers suffice: let v be our vote in a certificate that q replicas commit-voted. With us
at most f replicas are faulty, so at least q - 1 - f commit voters among the others answer, and at
most f - 1 of those lie; q - 2f >= 1 of them show v.
Source: ARCHITECTURE.md, "A lost or older record".
"""

from __future__ import annotations

from msgspec import Struct

from consensus.codec import decode, encode
from consensus.context import (
    KEY_SILENCE,
    TABLE_BATCHES,
    TABLE_PROOFS,
    TABLE_SAFETY,
    Context,
    batch_key,
    height_key,
    log_key,
)
from consensus.evidence import EvidenceBook
from consensus.messages import (
    Batches,
    Blocks,
    Chain,
    CommitProof,
    CommitVote,
    GaveUp,
    GetLast,
    Head,
    Last,
    LogBatch,
    Message,
    Proposal,
    RoundInfo,
    RoundTC,
    Timeout,
    Vote,
)
from consensus.words import Statement, Words, gave_up_of

TIMER = "guard"
ASK_AGAIN_MS = 250
"""Peers that have not answered are asked again after this long."""
ANSWER_INTERVAL_MS = 200
"""A peer that asks is answered at most this often."""
OWN_KEPT = 512
"""Own statements of one kind remembered since the start; of rounds before them nothing is said."""


class Silence(Struct, frozen=True, array_like=True):
    """Why this replica signs nothing in `epoch`; `statement` is what its record did not know."""

    epoch: int
    why: str
    statement: bytes


class Double(Struct, frozen=True, array_like=True):
    """The dump of a halt: what this replica signed last of the kind, and what it did not sign."""

    why: str
    ours: bytes
    theirs: bytes


class Guard:
    """Says whether this replica may sign, and listens for its own key."""

    def __init__(self, ctx: Context, evidence: EvidenceBook) -> None:
        """Signing is held back from here on until `start` or the peers' answers clear it."""
        self._ctx = ctx
        self._evidence = evidence
        self.words = Words(ctx.committee)
        self.halted = False
        self.silence: Silence | None = None
        self._answered: dict[int, None] = {}
        self._answers_sent_ms: dict[int, int] = {}
        self._nonce = 0
        ctx.held_back = ctx.is_member
        self._trusted = False
        self._own: dict[type, dict[int, Vote | CommitVote | Proposal]] = {
            Vote: {},
            CommitVote: {},
            Proposal: {},
        }
        self._own_floor: dict[type, int] = {Vote: 0, CommitVote: 0, Proposal: 0}
        self._own_gave_ups: dict[tuple[int, int], GaveUp] = {}
        self._gave_up_floor = (0, -1)
        self._load()

    @property
    def is_asking(self) -> bool:
        """Whether peers are still asked what this key has signed."""
        return self._ctx.held_back and self.silence is None and not self.halted

    @property
    def answers_missing(self) -> int:
        """How many more peers must answer before this replica signs."""
        committee = self._ctx.committee
        return max(0, committee.n - 1 - committee.f - len(self._answered)) if self.is_asking else 0

    def _load(self) -> None:
        """Take what the own disk proves: our last words, and those of others in certificates."""
        ctx, safety = self._ctx, self._ctx.safety
        for own in (safety.vote, safety.commit_vote, safety.proposal, safety.timeout):
            if own is not None:
                self._note(own)
        for kind, said in self._own.items():
            self._own_floor[kind] = max(said, default=0)
        self._gave_up_floor = max(self._own_gave_ups, default=self._gave_up_floor)
        self.words.enter(safety.round)
        epoch, tip = ctx.committee.epoch, ctx.tree.tip
        held: list[Message] = [m for m in (safety.proposal, safety.timeout) if m is not None]
        certified = [self.words.of_qc(epoch, safety.lock), self.words.of_qc(epoch, tip.qc)]
        if safety.hi_tc is not None:
            certified.append(self.words.of_tc(epoch, safety.hi_tc))
        raw = ctx.reader.get(TABLE_PROOFS, height_key(tip.height))
        if raw is not None and tip.round:  # Else it is the epoch before's, by another committee.
            certified.append(self.words.of_proof(epoch, decode(CommitProof, raw)))
        for statements in (*certified, *map(self.words.statements, held)):
            for statement in statements:
                self.words.hear(statement)
        raw = ctx.reader.get(TABLE_SAFETY, KEY_SILENCE)
        if raw is not None:
            silence = decode(Silence, raw)
            self.silence = silence if silence.epoch == epoch else None
            ctx.silent = self.silence is not None

    # -- asking, and answering

    def trust(self) -> None:
        """Sign without asking: the epoch began in this run, so nothing was signed in it before."""
        self._trusted = self.silence is None

    def start(self) -> bool:
        """Begin to ask; say whether signing is free at once."""
        ctx = self._ctx
        if self._trusted:
            ctx.held_back = False
            return ctx.is_member
        if not ctx.held_back:
            return False
        if self.silence is not None:
            ctx.count("silent")
            return False
        committed = ctx.logs.bases[ctx.me].seq
        if committed > ctx.own.head.seq:
            last = ctx.logs.base_batches[ctx.me]
            text = f"batch {committed} of our log is committed, our record ends at "
            self._fall_silent(f"{text}{ctx.own.head.seq}", encode(last))
            return False
        self._nonce = ctx.now_ms
        for peer in range(ctx.committee.n):
            self._ask(peer)
        ctx.timer(TIMER, ctx.now_ms + ASK_AGAIN_MS)
        return self._enough()

    def _ask(self, peer: int) -> None:
        ctx = self._ctx
        if peer != ctx.me and peer not in self._answered:
            ctx.send(peer, GetLast(ctx.committee.epoch, self._nonce))

    def _enough(self) -> bool:
        """Clear signing when enough peers have answered; say whether that is so now."""
        if not self.is_asking or self.answers_missing:
            return False
        self._ctx.held_back = False
        return True

    def on_connected(self, peer: int) -> None:
        """A link came up: the question before it reached nobody."""
        if self.is_asking:
            self._ask(peer)

    def on_timer(self) -> None:
        """Ask again whoever has not answered."""
        if self.is_asking:
            for peer in range(self._ctx.committee.n):
                self._ask(peer)
            self._ctx.timer(TIMER, self._ctx.now_ms + ASK_AGAIN_MS)

    def on_last(self, peer: int, last: Last) -> bool:
        """Take an answer, whose statements were listened to; say whether signing is free now."""
        if not self.is_asking or last.nonce != self._nonce:
            return False
        if any(who != self._ctx.me for who in self._signers(last)):
            self._ctx.blame(peer, "last words of another key")
            return False
        self._answered[peer] = None
        return self._enough()

    def _signers(self, last: Last) -> list[int]:
        leader = self._ctx.committee.leader
        said = [s.voter for s in (last.vote, last.commit_vote, last.gave_up) if s is not None]
        said += [leader(last.proposal.block.round)] if last.proposal is not None else []
        return said + ([last.batch.author] if last.batch is not None else [])

    def answer(self, peer: int, question: GetLast) -> Last | None:
        """Return the newest that we hold of the asking key, also while we ask ourselves."""
        ctx = self._ctx
        since = ctx.now_ms - self._answers_sent_ms.get(peer, -ANSWER_INTERVAL_MS)
        if peer == ctx.me or since < ANSWER_INTERVAL_MS:
            return None
        self._answers_sent_ms[peer] = ctx.now_ms
        spoken = self.words.of(peer)
        return Last(
            epoch=ctx.committee.epoch,
            nonce=question.nonce,
            vote=spoken.vote,
            commit_vote=spoken.commit_vote,
            gave_up=spoken.gave_up,
            proposal=spoken.proposal,
            batch=self._newest_batch(peer),
        )

    def _newest_batch(self, author: int) -> LogBatch | None:
        """Return the highest batch of a log that is known here, as its author signed it."""
        ctx = self._ctx
        batch = ctx.logs.newest(author)
        if batch is None or batch.signature:
            return batch
        # Since a restart, only what the next one must follow is known: the batch itself is on
        # disk, or it is pruned, and then its author's record is too old for other reasons.
        key = batch_key(ctx.committee.epoch, author, ctx.logs.bases[author])
        raw = ctx.reader.get(TABLE_BATCHES, key)
        return decode(LogBatch, raw) if raw is not None else None

    # -- listening

    def listen(self, peer: int, message: Message) -> None:
        """Take note of all that a message shows to be signed, by us or by others."""
        me = self._ctx.me
        if peer == me:
            if isinstance(message, Vote | CommitVote | Timeout | Proposal):
                self._note(message)
            return
        kind = type(message)
        if kind in _BATCHES:
            self._listen_batches(message)
        if kind not in _WORDS:
            return
        self.words.enter(self._ctx.safety.round)
        leader = self._ctx.committee.leader
        for statement in self.words.statements(message):
            if isinstance(statement, Proposal):
                author = leader(statement.block.round)
            else:
                author = statement.voter
            if author == me:
                self._check(statement)
                continue
            found = self.words.hear(statement)
            if found is not None:
                self._evidence.contradiction(found)

    def _listen_batches(self, message: Message) -> None:
        """Take note of batches of our own log that a peer has."""
        match message:
            case LogBatch():
                batches: tuple[LogBatch, ...] = (message,)
            case Batches():
                batches = message.batches
            case Last():
                batches = () if message.batch is None else (message.batch,)
            case _:
                return
        for batch in batches:
            if batch.author == self._ctx.me and not self._is_own_batch(batch):
                self._unknown(f"batch {batch.seq} of our log", encode(batch), self._own_batch())

    def _own_batch(self) -> bytes:
        ctx = self._ctx
        key = batch_key(ctx.committee.epoch, ctx.me, ctx.own.head)
        return ctx.reader.get(TABLE_BATCHES, key) or b""

    def _is_own_batch(self, batch: LogBatch) -> bool:
        """Say whether we made `batch`, or cannot tell since our batches of then are pruned."""
        ctx, head = self._ctx, Head(batch.seq, batch.digest)
        if batch.seq > ctx.own.head.seq:
            return False
        epoch = ctx.committee.epoch
        if ctx.logs.batch(ctx.me, head.digest) is not None:
            return True
        if ctx.reader.get(TABLE_BATCHES, batch_key(epoch, ctx.me, head)) is not None:
            return True
        start, end = log_key(epoch, ctx.me, batch.seq), log_key(epoch, ctx.me, batch.seq + 1)
        return next(iter(ctx.reader.scan(TABLE_BATCHES, start, end)), None) is None

    def _note(self, own: Vote | CommitVote | Timeout | Proposal) -> None:
        """Remember what we signed."""
        if isinstance(own, Timeout):
            gave_up = gave_up_of(own)
            said = self._own_gave_ups
            said[gave_up.round, gave_up.lock_round] = gave_up
            if len(said) > OWN_KEPT:
                oldest = next(iter(said))
                self._gave_up_floor = max(self._gave_up_floor, oldest)
                del said[oldest]
            return
        kept = self._own[type(own)]
        kept[_round(own)] = own
        if len(kept) > OWN_KEPT:
            oldest_round = next(iter(kept))
            self._own_floor[type(own)] = max(self._own_floor[type(own)], oldest_round)
            del kept[oldest_round]

    def _check(self, said: Statement) -> None:
        """Compare a statement under our key with what we signed."""
        if isinstance(said, GaveUp):
            position = (said.round, said.lock_round)
            if position not in self._own_gave_ups and position > self._gave_up_floor:
                ours = self._own_gave_ups.get(max(self._own_gave_ups, default=(0, 0)))
                what = f"timeout of round {said.round} on a lock of {said.lock_round}"
                self._unknown(what, encode(said), encode(ours) if ours else b"")
            return
        kept, round_ = self._own[type(said)], _round(said)
        own = kept.get(round_)
        if own is None and round_ <= self._own_floor[type(said)]:
            return
        if own is None or not _same(own, said):
            ours_newest = own or kept.get(max(kept, default=0))
            what = f"{_NAMES[type(said)]} of round {round_}"
            self._unknown(what, encode(said), encode(ours_newest) if ours_newest else b"")

    def _unknown(self, what: str, theirs: bytes, ours: bytes) -> None:
        """A statement bears our signature, and our record does not know it."""
        ctx = self._ctx
        if self.halted or self.silence is not None:
            return
        if ctx.held_back:
            self._fall_silent(f"a {what} bears our signature and is not in our record", theirs)
            return
        self.halted = True
        why = (
            f"a {what} bears our signature, and this node did not make it: another node has our "
            "key, or this one ran with an older copy of its data"
        )
        ctx.count("own_key_elsewhere")
        ctx.halt(why, encode(Double(why, ours, theirs)), "key_in_use")

    def _fall_silent(self, why: str, statement: bytes) -> None:
        ctx = self._ctx
        self.silence = Silence(ctx.committee.epoch, why, statement)
        ctx.silent = True
        ctx.count("silent")
        ctx.write(TABLE_SAFETY, KEY_SILENCE, encode(self.silence))
        ctx.promise()


_BATCHES = (LogBatch, Batches, Last)
_WORDS = (Vote, CommitVote, Proposal, Timeout, RoundTC, RoundInfo, Blocks, Chain, Last)
"""Messages that show a signature over a batch, and over anything else."""
_NAMES: dict[type, str] = {Vote: "vote", CommitVote: "commit vote", Proposal: "proposal"}


def _round(said: Vote | CommitVote | Proposal) -> int:
    return said.block.round if isinstance(said, Proposal) else said.round


def _same(own: Vote | CommitVote | Proposal, said: Statement) -> bool:
    """Say whether two statements of one round say the same."""
    match own, said:
        case Vote(), Vote():
            return own.block == said.block and own.seen == said.seen
        case CommitVote(), CommitVote():
            return own.block == said.block
        case Proposal(), Proposal():
            return own.block.digest == said.block.digest
    return False
