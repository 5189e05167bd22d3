"""What a liar makes a replica keep stays bounded: places that the fuzzers' nonsense hardly fills.

The table "What a peer can make a node keep" of docs/protocol/consensus.md lists all of them.
"""

from __future__ import annotations

from msgspec.structs import replace

from consensus.effects import Received, Start
from consensus.logstore import LogStore
from consensus.messages import Head, RoundTC, block_digest
from tests.consensus.samples import EPOCH, Sample, digest_of, seal

LIAR = 3


def test_a_leader_of_a_past_round_fills_no_tree_with_proposals() -> None:
    """Nobody votes for them any more; one that was certified is asked of its voters by name."""
    sample = Sample()
    node = sample.core(1)
    node.step(1_000, Start())
    node.step(1_001, Received(2, RoundTC(EPOCH, sample.tc(2))))
    block = replace(sample.block(LIAR), tc=sample.tc(2))
    node.step(1_002, Received(LIAR, sample.proposal(block)))
    node.step(1_003, Received(0, sample.proposal(replace(sample.block(4), tc=sample.tc(3)))))
    held = len(node.core.ctx.tree)
    for k in range(300):
        other = replace(block, executed_digest=digest_of(b"%d" % k))
        node.step(1_004 + k, Received(LIAR, sample.proposal(other)))
    assert len(node.core.ctx.tree) == held
    assert node.core.ctx.counters["proposals_late"] == 300


def test_a_late_proposal_of_a_certified_block_is_taken() -> None:
    """Votes may come before the proposal they are for."""
    sample = Sample()
    node = sample.core(0)
    node.step(1_000, Start())
    node.step(1_001, Received(1, RoundTC(EPOCH, sample.tc(2))))
    block = replace(sample.block(LIAR), tc=sample.tc(2))
    digest = block_digest(block)
    for voter in (1, 2, 3):
        node.step(1_002, Received(voter, sample.vote(voter, LIAR, digest, (0,) * 4)))
    assert node.core.rounds.round == LIAR + 1
    node.step(1_003, Received(LIAR, sample.proposal(block)))
    assert node.core.ctx.tree.block(digest) is not None


def test_branches_that_proposals_name_do_not_pile_up() -> None:
    """A liar that leads again and again may name another branch of its log each time; what is
    dropped of them is asked for again when a block needs it."""
    sample = Sample()
    logs = LogStore(sample.committee, sample.parameters, sample.starts)
    first = seal(sample.batch(LIAR))
    assert logs.has_room(first.batch, first.digest)
    logs.add(first, ())
    logs.named_bytes_max = 100_000
    for k in range(2_000):
        sealed = seal(
            sample.batch(LIAR, Head(0, digest_of(b"%d" % k)), (digest_of(b"e") + bytes(8),))
        )
        assert logs.has_room(sealed.batch, sealed.digest, 1, named=True), "what is named is taken"
        logs.add(sealed, ())
    assert logs.batches_held() * 296 < 110_000
    assert logs.batch(LIAR, first.digest) is not None, "the first at its place stays"
    assert sealed is logs.batch(LIAR, sealed.digest)
