"""The edge: a frame's bytes become a verified message, or a fault with a reason.

Pure and without shared state but a bounded cache, so that worker threads may run it. The core
behind it sees only messages whose structure, bounds and signatures were checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256

from consensus.batches import BodyCheck, batch_fault
from consensus.codec import CodecError
from consensus.command import COMMAND_ID_BYTES
from consensus.committee import REPLICAS_MAX, Committee, Parameters
from consensus.crypto import signable, verify_ed25519
from consensus.digest import Digest
from consensus.messages import (
    FETCH_BATCHES_MAX,
    FETCH_BLOCKS_MAX,
    FETCH_IDS_MAX,
    QC,
    STATE_NAMES_MAX,
    TAG_BATCH,
    TAG_BLOCK,
    TAG_COMMIT,
    TAG_HANDOVER,
    TAG_TIMEOUT,
    TAG_VOTE,
    TC,
    Batches,
    Block,
    Blocks,
    Bodies,
    Chain,
    CommitProof,
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
    Head,
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
    batch_digest,
    block_digest,
    commit_digest,
    decode_message,
    handover_digest,
    timeout_digest,
    vote_digest,
)
from consensus.snapshot import NAME_BYTES, OBJECT_BYTES_MAX

ROUND_MAX = 1 << 62
EPOCH_MAX = 1 << 32
"""Store keys have four bytes for an epoch."""
VERIFIED_MAX = 65_536
"""Signatures remembered as good: a certificate mostly holds votes that came one by one before."""

Verify = Callable[[bytes, bytes, bytes], bool]
"""verify(public key, message, signature)."""


class Refused(ValueError):
    """The frame breaks a rule; the text says which. Its sender is to blame."""


class OtherEpoch(Refused):
    """The frame belongs to another epoch: its sender is behind or ahead, which is no fault."""

    def __init__(self, epoch: int) -> None:
        super().__init__("another epoch")
        self.epoch = epoch


class Admission:
    """Checks frames for one committee."""

    def __init__(
        self,
        committee: Committee,
        parameters: Parameters,
        genesis_digest: Digest,
        check_body: BodyCheck,
        verify: Verify = verify_ed25519,
    ) -> None:
        self._committee = committee
        self._parameters = parameters
        self._genesis_digest = genesis_digest
        self._check_body = check_body
        self._verify = verify
        self._verified: dict[bytes, None] = {}

    def admit(self, peer: int, frame: bytes) -> Message:
        """Return the verified message behind a frame from replica `peer`. Errors: Refused."""
        try:
            message = decode_message(frame)
        except CodecError as error:
            raise Refused(f"malformed: {error}") from None
        self._check(peer, message)
        return message

    def _check(self, peer: int, message: Message) -> None:
        match message:
            case LogBatch():
                self._epoch(message.epoch)
                if message.author != peer:
                    raise Refused("batch pushed by another than its author")
                self._batch(message)
            case Proposal():
                self._statement(message)
            case Vote() | CommitVote():
                self._epoch(message.epoch)
                if message.voter != peer:
                    raise Refused("vote sent by another than its voter")
                self._statement(message)
            case Timeout():
                self._timeout(peer, message)
            case RoundTC(epoch, tc):
                self._epoch(epoch)
                self._tc(tc)
            case RoundInfo():
                self._epoch(message.epoch)
                self._qc(message.lock)
                if message.tc is not None:
                    self._tc(message.tc)
                self._number(message.committed_height)
            case Batches(batches):
                self._at_most(len(batches), FETCH_BATCHES_MAX)
                for batch in batches:
                    self._batch(batch)
            case Bodies(bodies):
                self._at_most(len(bodies), FETCH_IDS_MAX)
                if any(self._check_body(body) is None for body in bodies):
                    raise Refused("body without a good signature")
            case Blocks(blocks):
                self._blocks(blocks)
            case Chain():
                self._chain(message)
            case HandoverVote():
                self._handover_vote(peer, message)
            case EpochEnded(handover):
                self._handover(handover)
            case GetLast(epoch, nonce):
                self._epoch(epoch)
                self._number(nonce)
            case Last():
                self._last(message)
            case GetState() | StateObjects() | Pruned():
                self._state(message)
            case GetBatches() | GetBodies() | GetBlock() | GetChain() | GetHandover():
                self._question(message)

    def _last(self, last: Last) -> None:
        """Whose words they are the asking replica sees; here each must be its signer's."""
        self._epoch(last.epoch)
        self._number(last.nonce)
        for said in (last.vote, last.commit_vote, last.proposal):
            if said is not None:
                self._statement(said)
        gave_up = last.gave_up
        if gave_up is not None:
            self._own(gave_up.voter, gave_up.voter, gave_up.epoch, gave_up.round)
            covered = timeout_digest(gave_up.round, gave_up.lock_round)
            self._number(gave_up.lock_round)
            self._signature(gave_up.voter, TAG_TIMEOUT, covered, gave_up.signature)
        if last.batch is not None:
            self._batch(last.batch)

    def _statement(self, said: Vote | CommitVote | Proposal) -> None:
        match said:
            case Proposal(block, signature):
                self._block(block)
                leader = self._committee.leader(block.round)
                self._signature(leader, TAG_BLOCK, block_digest(block), signature)
            case Vote():
                self._own(said.voter, said.voter, said.epoch, said.round)
                self._digest(said.block)
                self._seen(said.seen)
                covered = vote_digest(said.round, said.block, said.seen)
                self._signature(said.voter, TAG_VOTE, covered, said.signature)
            case CommitVote():
                self._own(said.voter, said.voter, said.epoch, said.round)
                self._digest(said.block)
                covered = commit_digest(said.round, said.block)
                self._signature(said.voter, TAG_COMMIT, covered, said.signature)

    def _state(self, message: GetState | StateObjects | Pruned) -> None:
        match message:
            case GetState(nonce, names):
                self._number(nonce)
                self._at_most(len(names), STATE_NAMES_MAX)
                if any(len(name) != NAME_BYTES for name in names):
                    raise Refused("name of another length")
            case StateObjects(nonce, objects):
                self._number(nonce)
                self._at_most(len(objects), STATE_NAMES_MAX)
                if any(len(object_) > OBJECT_BYTES_MAX for object_ in objects):
                    raise Refused("object too large")
            case Pruned(from_height):
                self._number(from_height)

    def _question(
        self, question: GetBatches | GetBodies | GetBlock | GetChain | GetHandover
    ) -> None:
        match question:
            case GetHandover(epoch):
                self._any_epoch(epoch)
            case GetBatches(epoch, author, after, until):
                self._any_epoch(epoch)
                if not 0 <= author < REPLICAS_MAX:
                    raise Refused("no such replica")
                self._heads((after,) if until is None else (after, until))
            case GetBodies(ids):
                self._at_most(len(ids), FETCH_IDS_MAX)
                if any(len(id_) != COMMAND_ID_BYTES for id_ in ids):
                    raise Refused("id of another length")
            case GetBlock(block, above_height):
                self._digest(block)
                self._number(above_height)
            case GetChain(from_height):
                self._number(from_height)

    def _number(self, value: int) -> None:
        if not 0 <= value < ROUND_MAX:
            raise Refused("number out of range")

    def _digest(self, value: bytes) -> None:
        """What is kept by its digest must not be larger than one: a vote may be kept for long."""
        if len(value) != 32:
            raise Refused("digest of another length")

    def _any_epoch(self, epoch: int) -> None:
        if not 0 <= epoch < EPOCH_MAX:
            raise Refused("epoch out of range")

    def _at_most(self, count: int, most: int) -> None:
        if count > most:
            raise Refused(f"{count} items, at most {most}")

    def _replica(self, index: int) -> None:
        if not 0 <= index < self._committee.n:
            raise Refused("no such replica")

    def _heads(self, heads: Iterable[Head]) -> None:
        for head in heads:
            self._number(head.seq)
            self._digest(head.digest)

    def _seen(self, seen: tuple[int, ...]) -> None:
        if len(seen) != self._committee.n:
            raise Refused("seen has another length than the committee")
        for seq in seen:
            self._number(seq)

    def _own(self, peer: int, voter: int, epoch: int, round_: int) -> None:
        """Votes and timeouts come from their voter itself, in this epoch."""
        self._epoch(epoch)  # First: in another epoch the same peer has another index.
        if voter != peer:
            raise Refused("vote sent by another than its voter")
        self._number(round_)
        if round_ == 0:
            raise Refused("vote in the genesis' round")

    def _epoch(self, epoch: int) -> None:
        if epoch != self._committee.epoch:
            raise OtherEpoch(epoch)

    def _signature(self, signer: int, tag: bytes, digest: bytes, signature: bytes) -> None:
        self._replica(signer)
        committee = self._committee
        message = signable(committee.network, committee.epoch, tag, digest)
        name = sha256(bytes((signer,)) + message + signature).digest()
        if name in self._verified:
            return
        if not self._verify(committee.keys[signer], message, signature):
            raise Refused("bad signature")
        if len(self._verified) >= VERIFIED_MAX:
            self._verified.clear()
        self._verified[name] = None

    def _batch(self, batch: LogBatch) -> None:
        self._epoch(batch.epoch)
        fault = batch_fault(batch, self._committee, self._parameters, self._check_body)
        if fault is not None:
            raise Refused(fault)
        self._signature(batch.author, TAG_BATCH, batch_digest(batch), batch.signature)

    def _quorum(self, voters: list[int]) -> None:
        if len(dict.fromkeys(voters)) != len(voters):
            raise Refused("voter twice in a certificate")
        if not self._committee.quorum <= len(voters) <= self._committee.n:
            raise Refused("certificate without a quorum")

    def _qc(self, qc: QC) -> None:
        self._number(qc.round)
        if qc.round == 0:
            if qc.block != self._genesis_digest or qc.votes:
                raise Refused("not the genesis' certificate")
            return
        self._digest(qc.block)
        self._quorum([vote.voter for vote in qc.votes])
        for vote in qc.votes:
            self._seen(vote.seen)
            covered = vote_digest(qc.round, qc.block, vote.seen)
            self._signature(vote.voter, TAG_VOTE, covered, vote.signature)

    def _tc(self, tc: TC) -> None:
        self._number(tc.round)
        self._quorum([timeout.voter for timeout in tc.timeouts])
        for timeout in tc.timeouts:
            self._number(timeout.lock_round)
            covered = timeout_digest(tc.round, timeout.lock_round)
            self._signature(timeout.voter, TAG_TIMEOUT, covered, timeout.signature)
        if tc.high_qc.round != tc.high_round or tc.high_round >= tc.round:
            raise Refused("TC without the highest QC that it names")
        self._qc(tc.high_qc)

    def _timeout(self, peer: int, timeout: Timeout) -> None:
        self._own(peer, timeout.voter, timeout.epoch, timeout.round)
        covered = timeout_digest(timeout.round, timeout.lock.round)
        self._signature(peer, TAG_TIMEOUT, covered, timeout.signature)
        self._qc(timeout.lock)
        by_tc = timeout.tc is not None and timeout.tc.round == timeout.round - 1
        if timeout.lock.round >= timeout.round:
            raise Refused("timeout below its own lock")
        if timeout.lock.round != timeout.round - 1 and not by_tc:
            raise Refused("timeout of a round that no certificate opens")
        if timeout.tc is not None:
            self._tc(timeout.tc)

    def _block(self, block: Block, is_proved: bool = False) -> None:
        """Check a block; of a proved one the quorum has checked the certificates before it voted,
        and its digest covers them."""
        self._epoch(block.epoch)
        for number in (block.round, block.height, block.executed_height):
            self._number(number)
        if not block.qc.round < block.round or block.height == 0:
            raise Refused("block not above its parent")
        if block.executed_height >= block.height:
            raise Refused("executed state not below the block")
        self._digest(block.executed_digest)
        if len(block.heads) != self._committee.n:
            raise Refused("heads have another length than the committee")
        self._heads(block.heads)
        if is_proved:
            return
        self._qc(block.qc)
        if block.tc is not None:
            self._tc(block.tc)

    def _blocks(self, blocks: tuple[Block, ...], is_proved: bool = False) -> None:
        self._at_most(len(blocks), FETCH_BLOCKS_MAX)
        parent: Block | None = None
        for block in blocks:
            self._block(block, is_proved)
            if parent is not None and (
                block.qc.block != block_digest(parent) or block.height != parent.height + 1
            ):
                raise Refused("blocks are not linked")
            parent = block

    def _chain(self, chain: Chain) -> None:
        if not chain.blocks:
            raise Refused("empty chain")
        self._blocks(chain.blocks, is_proved=True)
        last = block_digest(chain.blocks[-1])
        if chain.proof is not None:
            self._proof(chain.proof)
            if chain.proof.block != last or chain.proof.round != chain.blocks[-1].round:
                raise Refused("proof of another block")
            return
        child, qc = chain.child, chain.child_qc
        if child is None or qc is None:
            raise Refused("chain without a proof")
        self._block(child)
        self._qc(qc)
        if child.qc.block != last or child.round != chain.blocks[-1].round + 1:
            raise Refused("child does not prove the chain")
        if qc.block != block_digest(child) or qc.round != child.round:
            raise Refused("child is not certified")

    def _proof(self, proof: CommitProof) -> None:
        self._number(proof.round)
        self._quorum([voter for voter, _ in proof.votes])
        covered = commit_digest(proof.round, proof.block)
        for voter, signature in proof.votes:
            self._signature(voter, TAG_COMMIT, covered, signature)

    def _handover_vote(self, peer: int, vote: HandoverVote) -> None:
        self._own(peer, vote.voter, vote.epoch, vote.height)
        self._digest(vote.block)
        self._digest(vote.state)
        self._next_keys(vote.keys)
        covered = handover_digest(vote.height, vote.block, vote.state, vote.keys)
        self._signature(peer, TAG_HANDOVER, covered, vote.signature)

    def _handover(self, handover: Handover) -> None:
        self._epoch(handover.epoch)
        self._number(handover.height)
        self._digest(handover.block)
        self._digest(handover.state)
        self._next_keys(handover.keys)
        self._quorum([voter for voter, _ in handover.votes])
        covered = handover_digest(handover.height, handover.block, handover.state, handover.keys)
        for voter, signature in handover.votes:
            self._signature(voter, TAG_HANDOVER, covered, signature)

    def _next_keys(self, keys: tuple[bytes, ...]) -> None:
        self._at_most(len(keys), REPLICAS_MAX)
        if not keys or len(dict.fromkeys(keys)) != len(keys) or any(len(k) != 32 for k in keys):
            raise Refused("next committee's keys")
