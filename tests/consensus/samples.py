"""Small signed worlds for tests of single consensus modules: keys, batches, certificates."""

from __future__ import annotations

from hashlib import sha256

from msgspec.structs import replace

from consensus.admission import Admission
from consensus.batches import NO_CLAIM, SealedBatch, log_start
from consensus.blocktree import genesis_block
from consensus.command import Command, CommandId, command_id, decode_command, encode_command
from consensus.committee import Committee, Parameters
from consensus.digest import Digest
from consensus.effects import Effect, Input, Persist
from consensus.messages import (
    QC,
    TAG_BATCH,
    TAG_BLOCK,
    TAG_COMMIT,
    TAG_HANDOVER,
    TAG_TIMEOUT,
    TAG_VOTE,
    TC,
    Block,
    CommitVote,
    Handover,
    HandoverVote,
    Head,
    InboxClaim,
    LogBatch,
    Observation,
    Proposal,
    SignedSeen,
    SignedTimeout,
    Timeout,
    Vote,
    batch_digest,
    block_digest,
    commit_digest,
    handover_digest,
    timeout_digest,
    vote_digest,
)
from consensus.replica import Replica
from ops.sim.disk import SimDisk
from ops.sim.executor import HashChain
from ops.sim.keys import check_body, hashed_keys, sign_command

NETWORK = sha256(b"tests").digest()
EPOCH = 1
FAR_MS = 10_000_000


class Sample:
    """A committee with its keys, and everything that its members could sign."""

    def __init__(self, n: int = 4, parameters: Parameters | None = None) -> None:
        self.n = n
        self.parameters = parameters or Parameters()
        self.keys = hashed_keys(NETWORK, n)
        self.committee = Committee(NETWORK, EPOCH, self.keys.publics)
        self.starts = tuple(log_start(NETWORK, EPOCH, i) for i in range(n))
        self.genesis, self.genesis_digest = genesis_block(NETWORK, EPOCH, self.starts)
        self.voters = tuple(range(self.committee.quorum))

    def admission(self) -> Admission:
        return Admission(
            self.committee, self.parameters, self.genesis_digest, self.check, self.keys.verify
        )

    def check(self, body: bytes) -> CommandId | None:
        return check_body(NETWORK, body)

    def command(self, name: bytes, expires_ms: int = FAR_MS) -> tuple[CommandId, bytes]:
        command: Command = sign_command(NETWORK, expires_ms, bytes(20), name)
        return command_id(NETWORK, command), encode_command(command)

    def sign_batch(self, batch: LogBatch) -> LogBatch:
        signer = self.keys.signers[batch.author]
        return replace(batch, signature=signer.sign(EPOCH, TAG_BATCH, batch_digest(batch)))

    def batch(
        self,
        author: int,
        prev: Head | None = None,
        entries: tuple[bytes, ...] = (),
        bodies: tuple[bytes, ...] = (),
        time_ms: int = 1_000,
        oracle: tuple[Observation, ...] = (),
        inbox: InboxClaim = NO_CLAIM,
    ) -> LogBatch:
        at = prev if prev is not None else self.starts[author]
        unsigned = LogBatch(
            EPOCH, author, at.seq + 1, at.digest, time_ms, entries, bodies, oracle, inbox, b""
        )
        return self.sign_batch(unsigned)

    def log(self, author: int, length: int, salt: bytes = b"") -> list[SealedBatch]:
        """Return a log of batches with one command each; logs of another salt are its forks."""
        run: list[SealedBatch] = []
        for k in range(length):
            id_, body = self.command(b"%d %d %s" % (author, k, salt))
            prev = run[-1].head if run else None
            run.append(seal(self.batch(author, prev, (id_,), (body,), 1_000 + k)))
        return run

    def qc(self, round_: int, block: bytes, seen: tuple[int, ...] | None = None) -> QC:
        if round_ == 0:
            return QC(0, self.genesis_digest, ())
        claims = seen if seen is not None else (0,) * self.n
        votes = tuple(
            SignedSeen(v, claims, self.vote(v, round_, block, claims).signature)
            for v in self.voters
        )
        return QC(round_, block, votes)

    def block(self, round_: int, qc: QC | None = None, height: int = 1) -> Block:
        return Block(EPOCH, round_, height, qc or self.qc(0, b""), None, self.starts, 0, NETWORK)

    def proposal(self, block: Block) -> Proposal:
        signer = self.keys.signers[self.committee.leader(block.round)]
        return Proposal(block, signer.sign(EPOCH, TAG_BLOCK, block_digest(block)))

    def vote(self, voter: int, round_: int, block: bytes, seen: tuple[int, ...]) -> Vote:
        covered = vote_digest(round_, block, seen)
        signature = self.keys.signers[voter].sign(EPOCH, TAG_VOTE, covered)
        return Vote(EPOCH, round_, block, seen, voter, signature)

    def commit_vote(self, voter: int, round_: int, block: bytes) -> CommitVote:
        covered = commit_digest(round_, block)
        signature = self.keys.signers[voter].sign(EPOCH, TAG_COMMIT, covered)
        return CommitVote(EPOCH, round_, block, voter, signature)

    def timeout(
        self, voter: int, round_: int, lock: QC | None = None, tc: TC | None = None
    ) -> Timeout:
        held = lock or self.qc(0, b"")
        covered = timeout_digest(round_, held.round)
        signature = self.keys.signers[voter].sign(EPOCH, TAG_TIMEOUT, covered)
        return Timeout(EPOCH, round_, held, tc, voter, signature)

    def tc(self, round_: int, lock: QC | None = None) -> TC:
        held = lock or self.qc(0, b"")
        parts = tuple(
            SignedTimeout(v, held.round, self.timeout(v, round_, held).signature)
            for v in self.voters
        )
        return TC(round_, parts, held)

    def handover_vote(self, voter: int, height: int, block: bytes) -> HandoverVote:
        state, keys = digest_of(b"state"), self.keys.publics
        covered = handover_digest(height, block, state, keys)
        signature = self.keys.signers[voter].sign(EPOCH, TAG_HANDOVER, covered)
        return HandoverVote(EPOCH, height, block, state, keys, voter, signature)

    def handover(self, height: int, block: bytes) -> Handover:
        votes = [self.handover_vote(v, height, block) for v in self.voters]
        signatures = tuple((v.voter, v.signature) for v in votes)
        return Handover(EPOCH, height, block, votes[0].state, votes[0].keys, signatures)

    def core(self, me: int, disk: SimDisk | None = None) -> Node:
        return Node(self, me, disk or SimDisk())


class Node:
    """A replica on a simulated disk, whose effects the test looks at."""

    def __init__(self, sample: Sample, me: int, disk: SimDisk) -> None:
        self.me = me
        self.disk = disk
        self.executor = HashChain()
        self.core = Replica(
            sample.committee,
            sample.parameters,
            me,
            sample.keys.signers[me],
            disk,
            self.executor,
            0,
        )

    def step(self, now_ms: int, event: Input) -> list[Effect]:
        """Put one input in, carry out its Persist, return the effects."""
        effects = self.core.step(now_ms, event)
        for effect in effects:
            if isinstance(effect, Persist):
                self.disk.persist(effect)
        return effects


def seal(batch: LogBatch) -> SealedBatch:
    ids = tuple(command_id(NETWORK, decode_command(body)) for body in batch.bodies)
    return SealedBatch(batch, ids)


def digest_of(name: bytes) -> Digest:
    return Digest(sha256(name).digest())
