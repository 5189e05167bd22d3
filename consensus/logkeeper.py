"""Order logs at work: own batches on their timer, peers' batches and bodies, echoes."""

from __future__ import annotations

from collections.abc import Iterable

from consensus.batches import SealedBatch
from consensus.codec import decode, encode
from consensus.command import Command, CommandId, command_id, decode_command, expires_ms
from consensus.context import (
    KEY_OWN_HEAD,
    TABLE_BATCHES,
    TABLE_LOG,
    TABLE_SAFETY,
    Context,
    batch_key,
    log_key,
)
from consensus.effects import L1Observed, PricesObserved, Submitted
from consensus.evidence import EvidenceBook
from consensus.fetch import Fetcher, WantBody
from consensus.messages import Head, LogBatch, batch_digest
from consensus.ownlog import RECEIPTS_MAX, OwnHead

TIMER = "batch"
REPEATED_MAX = 64
"""Own batches sent again to a peer that connects; what is older it asks for when it needs it."""
ECHO_PATIENCE_MS = 60
"""A body is usually on its way from who introduces it: it is asked for after this long."""
CLIENT_WAITING_MAX = RECEIPTS_MAX // 2
"""Receipts that wait before clients hear `busy`; the rest of the queue is for echoes."""


class LogKeeper:
    """Feeds the own log and holds the peers'."""

    def __init__(self, ctx: Context, fetcher: Fetcher, evidence: EvidenceBook) -> None:
        self._ctx = ctx
        self._fetcher = fetcher
        self._evidence = evidence
        self._unanswered: dict[CommandId, None] = {}
        self.behind = False
        """Far behind the committed chain: what peers log is mostly emitted there, so it is not
        echoed until we have caught up; then `relog` appends what is still pending."""

    def start(self) -> None:
        """Send the own uncommitted batches again, and begin the batch timer."""
        ctx = self._ctx
        if not ctx.is_member:
            return
        base = ctx.logs.bases[ctx.me]
        path = ctx.logs.path(ctx.me, base, ctx.own.head)
        known = ctx.own.head.seq >= base.seq
        assert isinstance(path, list) or not known, "own batches are on disk before they are sent"
        for sealed in path if isinstance(path, list) else ():
            ctx.broadcast(sealed.batch)
        self.relog()

    def begin_signing(self) -> None:
        """Begin the batch timer: what this key signed before is known."""
        self._ctx.timer(TIMER, self._ctx.now_ms)

    def repeat_to(self, peer: int) -> None:
        """Send our last uncommitted batches to a peer whose link was down when they went out."""
        ctx = self._ctx
        if not ctx.is_member:
            return
        path = ctx.logs.path(ctx.me, ctx.logs.bases[ctx.me], ctx.own.head)
        for sealed in path[-REPEATED_MAX:] if isinstance(path, list) else ():
            ctx.send(peer, sealed.batch)

    def is_over(self, id_: CommandId) -> bool:
        """Say whether `id_` was emitted or is void: it is never logged again, and needs no body."""
        sequencer = self._ctx.sequencer
        return expires_ms(id_) <= sequencer.time_ms or sequencer.fair.is_done(id_)

    def on_submitted(self, command: Submitted) -> None:
        """A client's command: into the log with it, unless it is over or the log is full."""
        ctx, id_ = self._ctx, command.id
        if not ctx.is_member:
            ctx.reply(id_, "busy", ctx.parameters.round_timer_ms)
            return
        if self.is_over(id_):
            ctx.reply(id_, "duplicate" if ctx.sequencer.fair.is_done(id_) else "expired")
            return
        if ctx.own.is_persisted(id_) or self._committed(id_):
            ctx.reply(id_, "duplicate")
            return
        room = ctx.own.has_room(ctx.logs.bases[ctx.me])
        if not room or ctx.silent or ctx.own.waiting >= CLIENT_WAITING_MAX:
            ctx.count("busy")
            ctx.reply(id_, "busy", ctx.parameters.round_timer_ms)
            return
        self._hold_body(id_, command.body)
        ctx.own.receive(id_, introduced=True)
        self._unanswered[id_] = None
        self._arm()

    def _committed(self, id_: CommandId) -> bool:
        """Say whether our committed log holds the pending `id_`."""
        fair = self._ctx.sequencer.fair
        return fair.is_pending(id_) and fair.holds(self._ctx.me, id_)

    def _hold_body(self, id_: CommandId, body: bytes) -> None:
        ctx = self._ctx
        if ctx.logs.body(id_) is None:
            ctx.logs.add_body(id_, body)
            ctx.write_body(id_, body)

    def on_prices(self, observed: PricesObserved) -> None:
        if self._ctx.is_member:
            self._ctx.own.observe_prices(observed.observations)

    def on_inbox(self, observed: L1Observed) -> None:
        """Claim the contract's inbox in the next batches, if it continues what we claimed."""
        if not self._ctx.is_member:
            return
        if self._ctx.silent:
            # Nobody will ask for these messages, and the watcher must not wait for room.
            self._ctx.own.follow_inbox(observed.since + len(observed.messages), observed.hash)
            return
        if not self._ctx.own.observe_inbox(observed.since, observed.messages, observed.hash):
            self._ctx.count("inbox_out_of_step")
            return
        self._arm()

    def _arm(self) -> None:
        self._ctx.timer(TIMER, max(self._ctx.now_ms, self._ctx.own.due_ms()))

    def on_timer(self) -> None:
        """Sign a batch when one is due and the window has room."""
        ctx, own = self._ctx, self._ctx.own
        if not ctx.may_sign:
            for id_ in self._unanswered if ctx.silent else ():
                ctx.reply(id_, "busy", ctx.parameters.round_timer_ms)
            if ctx.silent:
                self._unanswered.clear()
            return
        if ctx.now_ms < own.due_ms():
            self._arm()
            return
        if not own.has_room(ctx.logs.bases[ctx.me]):
            ctx.count("log_window_full")
            ctx.timer(TIMER, ctx.now_ms + ctx.parameters.batch_interval_ms)
            return
        sealed = own.make_batch(ctx.now_ms, self._body)
        self.hold(sealed)
        for entry in sealed.batch.entries:
            body = ctx.logs.body(CommandId(entry))
            if body is not None:
                ctx.write_body(CommandId(entry), body)
        own_head = OwnHead(ctx.committee.epoch, sealed.head)
        ctx.write(TABLE_SAFETY, KEY_OWN_HEAD, encode(own_head))
        ctx.promise()
        ctx.broadcast(sealed.batch)
        ctx.count("batches_signed")
        for entry in sealed.batch.entries:
            if self._unanswered.pop(CommandId(entry), 0) is None:
                ctx.reply(CommandId(entry), "seen", seq=sealed.batch.seq)
        self._arm()

    def _body(self, id_: CommandId) -> bytes:
        body = self._ctx.logs.body(id_)
        assert body is not None, "a logged command's body is held until it is over"
        return body

    def on_batch(self, peer: int, batch: LogBatch, asked: bool, named: bool = False) -> bool:
        """Hold a batch if there is room, and echo what it logs; say if it was new.

        It is `asked` for when its log is, and `named` when it lies on a path that we asked for.
        """
        ctx = self._ctx
        own = batch.author == ctx.me
        if own and not ctx.silent:
            # Ours come back in answers; one that we did not make the guard has heard of.
            return False
        digest = batch_digest(batch)
        if ctx.logs.batch(batch.author, digest) is not None:
            return False
        rival = None if own else self._rival(batch)
        if rival is not None:
            self._evidence.found("log_fork", batch.author, batch.seq, rival, batch)
        if not ctx.logs.has_room(batch, digest, peer if asked else None, named):
            ctx.count("batches_unwanted")
            return False
        ids = [command_id(ctx.committee.network, decode_command(body)) for body in batch.bodies]
        sealed = SealedBatch(batch, tuple(ids))
        self.hold(sealed)
        for id_, body in zip(ids, batch.bodies, strict=True):
            ctx.write_body(id_, body)
        ctx.count("entries_received", len(batch.entries))
        self._echo(sealed)
        return True

    def _rival(self, batch: LogBatch) -> LogBatch | None:
        """Return a different batch at the same position of a log, held or committed long ago."""
        ctx, digest = self._ctx, batch_digest(batch)
        if batch.seq > ctx.logs.bases[batch.author].seq:
            held = ctx.logs.rival(batch, digest)
            return None if held is None else held.batch
        epoch = ctx.committee.epoch
        committed = ctx.reader.get(TABLE_LOG, log_key(epoch, batch.author, batch.seq))
        if committed is None or committed == digest:
            return None
        key = batch_key(epoch, batch.author, Head(batch.seq, committed))
        raw = ctx.reader.get(TABLE_BATCHES, key)
        return None if raw is None else decode(LogBatch, raw)

    def hold(self, sealed: SealedBatch) -> None:
        """Keep a batch in memory, and on disk with the next Persist."""
        ctx = self._ctx
        over = [CommandId(e) for e in sealed.batch.entries if self.is_over(CommandId(e))]
        ctx.logs.add(sealed, over)
        key = batch_key(ctx.committee.epoch, sealed.batch.author, sealed.head)
        ctx.write(TABLE_BATCHES, key, encode(sealed.batch))

    def _echo(self, sealed: SealedBatch) -> None:
        """Append to our log what a peer's log holds, or ask for the bodies that we lack."""
        if not self._ctx.is_member:
            return
        for entry in sealed.batch.entries:
            id_ = CommandId(entry)
            if id_ in sealed.missing:
                author = sealed.batch.author
                self._fetcher.want(WantBody(id_), [author], ECHO_PATIENCE_MS, echo_of=author)
        self._log_all(sealed.batch.entries)

    def _log_all(self, ids: Iterable[bytes]) -> None:
        ctx = self._ctx
        for each in () if self.behind or ctx.silent else ids:
            id_ = CommandId(each)
            if ctx.logs.body(id_) is None or ctx.own.holds(id_) or self.is_over(id_):
                continue
            if not ctx.sequencer.fair.holds(ctx.me, id_):
                ctx.own.receive(id_, introduced=False)
        if ctx.own.waiting:
            self._arm()

    def after_commit(self, emitted: Iterable[CommandId], void: Iterable[CommandId]) -> None:
        """Answer clients whose commands are over before our log held them; log what it lacks."""
        for ids, status in ((emitted, "seen"), (void, "expired")):
            for id_ in ids:
                if self._unanswered.pop(id_, 0) is None:
                    self._ctx.reply(id_, status)
        self.relog()

    def relog(self) -> None:
        """Append every pending id that our log lacks: echoes that a crash or a full queue lost."""
        ctx = self._ctx
        if not ctx.is_member:
            return
        self._log_all(ctx.sequencer.fair.missing_for(ctx.me))

    @property
    def unanswered(self) -> tuple[CommandId, ...]:
        """Commands whose clients still wait for their receipt."""
        return tuple(self._unanswered)

    def log_anew(self, ids: Iterable[CommandId], unanswered: Iterable[CommandId] = ()) -> None:
        """Log what the epoch before left pending, in this order, bodies included.

        Every replica that holds a command introduces it: nobody can say who else has it.
        """
        ctx = self._ctx
        self._unanswered.update(dict.fromkeys(unanswered))
        for id_ in ids if ctx.is_member else ():
            if not self.is_over(id_) and not self._committed(id_):
                ctx.own.receive(id_, introduced=True)

    def on_bodies(self, bodies: Iterable[bytes]) -> None:
        """Take the commands that we wait for; their signatures were verified at the edge."""
        ctx = self._ctx
        for body in bodies:
            command: Command = decode_command(body)
            id_ = command_id(ctx.committee.network, command)
            if ctx.logs.is_waited_for(id_):
                self._hold_body(id_, body)
                if ctx.is_member:
                    self._log_all([id_])

    def next_inbox(self) -> int:
        """Return how many inbox messages our log has claimed: the watcher goes on from there."""
        return self._ctx.own.claimed_inbox
