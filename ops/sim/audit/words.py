"""Held against what an honest replica says: never two things, and nothing that it could forget."""

from __future__ import annotations

from collections.abc import Sequence

from consensus.admission import Verify
from consensus.batches import log_start
from consensus.codec import encode
from consensus.command import CommandId, expires_ms
from consensus.committee import Committee
from consensus.context import (
    KEY_SAFETY,
    TABLE_BATCHES,
    TABLE_BLOCKS,
    TABLE_BODIES,
    TABLE_SAFETY,
    batch_key,
    log_key,
)
from consensus.crypto import signable
from consensus.messages import (
    QC,
    TAG_COMMIT,
    TAG_TIMEOUT,
    TAG_VOTE,
    TC,
    Batches,
    CommitProof,
    CommitVote,
    Head,
    LogBatch,
    Message,
    Proposal,
    Timeout,
    Vote,
    batch_digest,
    block_digest,
    commit_digest,
    timeout_digest,
    vote_digest,
)
from ops.sim.audit.chain import ChainAudit
from ops.sim.audit.ledger import Ledger
from ops.sim.audit.records import Shelf, Voting
from ops.sim.host import Host

RECENT_STATEMENTS = 64


class WordsAudit:
    """Remembers what each honest replica signed, over all its crashes."""

    def __init__(
        self, ledger: Ledger, committee: Committee, chain: ChainAudit, shelf: Shelf
    ) -> None:
        self._ledger = ledger
        self._committee = committee
        self._chain = chain
        self._shelf = shelf
        self._said: dict[tuple[str, int, int], object] = {}
        self._timeouts: dict[int, list[tuple[int, int]]] = {}
        self._commits: dict[int, list[int]] = {}
        self._given_up: dict[int, int] = {}
        self._voted: dict[int, int] = {}
        self._whole: list[dict[tuple[int, bytes], None]] = [{} for _ in range(committee.n)]
        """Per node: the batches known to be durable with all before them and their bodies."""

    def spoken(self, host: Host, message: Message) -> None:
        """An honest replica is about to send `message`."""
        me = host.me
        match message:
            case Vote(voter=voter) if voter == me:
                self._on_vote(host, message)
            case CommitVote(voter=voter) if voter == me:
                self._on_commit_vote(host, message)
            case Timeout(voter=voter) if voter == me:
                self._on_timeout(host, message)
            case Proposal(block) if self._committee.leader(block.round) == me:
                digest = block_digest(block)
                self._once("proposal", me, block.round, digest)
                if host.disk.durable(TABLE_BLOCKS, digest) is None:
                    self._undurable(host, f"proposal of round {block.round} without its block")
                record = self._record(host)
                if record is None or not _keeps(record, "proposal", message, block.round):
                    self._undurable(host, f"proposal of round {block.round}")
            case LogBatch(author=author) if author == me:
                self._on_batch(host, message)
            case Batches(batches):
                for batch in batches:
                    if batch.author == me:
                        self._on_batch(host, batch)
            case _:
                pass

    def installed(self, host: Host) -> None:
        """A replica took a state over: what lies before its heads is none of its own."""
        assert host.core is not None
        for author, head in enumerate(host.core.ctx.sequencer.heads):
            self._whole[host.me][author, head.digest] = None

    def _once(self, kind: str, me: int, position: int, statement: object) -> bool:
        """Say whether the statement is new; a different one at the position is a violation."""
        known = self._said.setdefault((kind, me, position), statement)
        if known != statement:
            self._ledger.found("two-statements", me, f"two of {kind} at {position}")
        return known is statement

    def _undurable(self, host: Host, what: str) -> None:
        self._ledger.found("durability", host.me, f"{what} left before it was durable")

    def _record(self, host: Host) -> Voting | None:
        raw = host.disk.durable(TABLE_SAFETY, KEY_SAFETY)
        return Voting(raw) if raw is not None else None

    def _on_vote(self, host: Host, vote: Vote) -> None:
        me = host.me
        if not self._once("vote", me, vote.round, (vote.block, vote.seen)):
            return
        if vote.round <= max(self._given_up.get(me, 0), self._voted.get(me, 0)):
            self._ledger.found("two-statements", me, f"vote in round {vote.round}, too late")
        self._voted[me] = vote.round
        record = self._record(host)
        if (
            record is None
            or record.last_voted < vote.round
            or not _keeps(record, "vote", vote, vote.round)
        ):
            self._undurable(host, f"vote of round {vote.round}")
        raw = host.disk.durable(TABLE_BLOCKS, vote.block)
        if raw is None:
            self._undurable(host, f"vote of round {vote.round} without its block")
            return
        block = self._shelf.blocks.read(raw)
        if record is not None and record.lock_round < block.qc.round:
            self._undurable(host, f"vote of round {vote.round} without its lock")
        for author, (head, seen) in enumerate(zip(block.heads, vote.seen, strict=True)):
            if not self._is_whole(host, author, head):
                self._undurable(host, f"vote of round {vote.round} without log {author}")
            elif not self._reaches(host, author, head, seen):
                self._undurable(host, f"claim of {seen} in log {author}")

    def _on_commit_vote(self, host: Host, vote: CommitVote) -> None:
        me = host.me
        if not self._once("commit vote", me, vote.round, vote.block):
            return
        recent = self._commits.setdefault(me, [])
        recent.append(vote.round)
        del recent[:-RECENT_STATEMENTS]
        self._check_order(me)
        record = self._record(host)
        if record is None or not _keeps(record, "commit_vote", vote, vote.round):
            self._undurable(host, f"commit vote of round {vote.round}")
        elif record.lock_round < vote.round:
            self._undurable(host, f"commit vote of round {vote.round} without its lock")

    def _on_timeout(self, host: Host, timeout: Timeout) -> None:
        me = host.me
        recent = self._timeouts.setdefault(me, [])
        if (timeout.round, timeout.lock.round) not in recent:
            recent.append((timeout.round, timeout.lock.round))
            del recent[:-RECENT_STATEMENTS]
            self._check_order(me)
        self._given_up[me] = max(self._given_up.get(me, 0), timeout.round)
        record = self._record(host)
        if record is None or min(record.hi_timeout, record.last_voted) < timeout.round:
            self._undurable(host, f"timeout of round {timeout.round}")

    def _check_order(self, me: int) -> None:
        """A commit vote for r and a timeout at r' >= r on an older QC contradict each other."""
        for given_up, lock in self._timeouts.get(me, ()):
            for committed in self._commits.get(me, ()):
                if given_up >= committed > lock:
                    text = f"commit vote of {committed}, timeout of {given_up} on {lock}"
                    self._ledger.found("two-statements", me, text)

    def _on_batch(self, host: Host, batch: LogBatch) -> None:
        digest = batch_digest(batch)
        if self._once("batch", host.me, batch.seq, digest):
            if (
                host.disk.durable(
                    TABLE_BATCHES,
                    batch_key(self._committee.epoch, host.me, Head(batch.seq, digest)),
                )
                is None
            ):
                self._undurable(host, f"batch {batch.seq}")
            elif self._lacks_body(host, batch):
                self._undurable(host, f"batch {batch.seq} without its bodies")

    def _lacks_body(self, host: Host, batch: LogBatch) -> bool:
        return any(
            host.disk.durable(TABLE_BODIES, entry) is None and not self._is_over(host, entry)
            for entry in batch.entries
        )

    def _is_over(self, host: Host, entry: bytes) -> bool:
        assert host.core is not None
        expired = expires_ms(CommandId(entry)) <= host.core.ctx.sequencer.time_ms
        return expired or entry in self._chain.place

    def _is_whole(self, host: Host, author: int, head: Head) -> bool:
        """Say whether log `author` is durable up to `head`, with all bodies."""
        whole = self._whole[host.me]
        if (author, head.digest) in whole:
            return True
        walked: list[tuple[int, bytes]] = []
        at = head
        while at.seq > 0 and (author, at.digest) not in whole:
            raw = host.disk.durable(TABLE_BATCHES, batch_key(self._committee.epoch, author, at))
            if raw is None:
                return False
            batch = self._shelf.batches.read(raw)
            if self._lacks_body(host, batch):
                return False
            walked.append((author, at.digest))
            at = Head(at.seq - 1, batch.prev)
        start = log_start(self._committee.network, self._committee.epoch, author)
        if at.seq == 0 and at != start:
            return False
        whole.update(dict.fromkeys(walked))
        return True

    def _reaches(self, host: Host, author: int, head: Head, seen: int) -> bool:
        """Say whether some durable branch extends `head` up to `seen`."""
        if seen <= head.seq:
            return seen == head.seq
        assert host.core is not None
        run = host.core.ctx.logs.deepest(author, head, seen - head.seq)
        if len(run) == seen - head.seq:
            # Where it may lie; that it does lie on disk is checked as for any other.
            tips = [run[-1].head]
        else:
            prefix = log_key(self._committee.epoch, author, seen)
            keys = host.disk.durable_keys_from(TABLE_BATCHES, prefix)
            tips = [Head(seen, key[len(prefix) :]) for key in keys]
        return any(
            self._is_whole(host, author, tip) and self._extends(host, author, tip, head)
            for tip in tips
        )

    def _extends(self, host: Host, author: int, tip: Head, head: Head) -> bool:
        at = tip
        while at.seq > head.seq:
            raw = host.disk.durable(TABLE_BATCHES, batch_key(self._committee.epoch, author, at))
            if raw is None:
                return False
            at = Head(at.seq - 1, self._shelf.batches.read(raw).prev)
        return at == head


def _keeps(record: Voting, kind: str, said: Message, round_: int) -> bool:
    """Say whether a record holds what is said, or what was said in a later round."""
    if record.holds(kind, said):
        return True
    kept = getattr(record.whole, kind)
    if kept is None:
        return False
    kept_round: int = kept.block.round if kind == "proposal" else kept.round
    return kept_round > round_


class CertificateAudit:
    """Verifies every certificate that an honest replica holds, by its own arithmetic."""

    def __init__(self, ledger: Ledger, committee: Committee, verify: Verify) -> None:
        self._ledger = ledger
        self._committee = committee
        self._verify = verify
        self._good: dict[bytes, None] = {}
        n, f = committee.n, (committee.n - 1) // 3
        # The least q for which any two quorums share more than f replicas.
        self._quorum = next(q for q in range(1, n + 1) if 2 * q - n > f)

    def held(self, node: int, certificate: QC | TC | CommitProof) -> None:
        """Check a certificate that node `node` holds, once."""
        name = encode(certificate)
        if name in self._good:
            return
        self._good[name] = None
        if isinstance(certificate, QC):
            self._check_qc(node, certificate)
        elif isinstance(certificate, TC):
            self._check_tc(node, certificate)
        else:
            covered = commit_digest(certificate.round, certificate.block)
            signed = [(voter, covered, signature) for voter, signature in certificate.votes]
            self._check(node, "commit proof", TAG_COMMIT, certificate.round, signed)

    def _check_qc(self, node: int, qc: QC) -> None:
        if qc.round:
            signed = [
                (v.voter, vote_digest(qc.round, qc.block, v.seen), v.signature) for v in qc.votes
            ]
            self._check(node, "QC", TAG_VOTE, qc.round, signed)

    def _check_tc(self, node: int, tc: TC) -> None:
        signed = [
            (t.voter, timeout_digest(tc.round, t.lock_round), t.signature) for t in tc.timeouts
        ]
        self._check(node, "TC", TAG_TIMEOUT, tc.round, signed)
        if tc.high_qc.round != max(t.lock_round for t in tc.timeouts):
            self._ledger.found("certificate", node, f"TC of round {tc.round} hides its highest QC")
        self.held(node, tc.high_qc)

    def _check(
        self,
        node: int,
        what: str,
        tag: bytes,
        round_: int,
        signed: Sequence[tuple[int, bytes, bytes]],
    ) -> None:
        committee = self._committee
        voters = {voter for voter, _, _ in signed}
        if len(voters) < self._quorum or len(voters) != len(signed):
            text = f"{what} of round {round_} by {sorted(voters)}"
            self._ledger.found("certificate", node, text)
        for voter, covered, signature in signed:
            message = signable(committee.network, committee.epoch, tag, covered)
            if not self._verify(committee.keys[voter], message, signature):
                text = f"{what} of round {round_}: bad signature of {voter}"
                self._ledger.found("certificate", node, text)
