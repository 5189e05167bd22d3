"""The tree of blocks: runs to the tip, certainty by the two-chain rule, and its bounds."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from consensus.blocktree import BLOCKS_MAX, RECENT_MAX, BlockTree
from consensus.digest import Digest
from consensus.messages import QC, Block, block_digest
from tests.consensus.samples import Sample

SAMPLE = Sample()


def on(parent: Block, digest: bytes, round_: int, mark: int = 0) -> Block:
    """Return a child of `parent` without votes, which the tree does not look at."""
    return replace(
        SAMPLE.genesis,
        round=round_,
        height=parent.height + 1,
        qc=QC(parent.round, digest, ()),
        executed_digest=mark.to_bytes(32, "big"),
    )


def chain(rounds: list[int]) -> list[Block]:
    blocks = [SAMPLE.genesis]
    for round_ in rounds:
        blocks.append(on(blocks[-1], block_digest(blocks[-1]), round_))
    return blocks


def naive_certain(blocks: list[Block]) -> int:
    """Return the highest height whose child is of the next round, by looking at every pair."""
    pairs = pairwise(blocks)
    return max((a.height for a, b in pairs if a.round + 1 == b.round), default=0)


@given(st.randoms(use_true_random=False), st.integers(1, 30))
@settings(deadline=None)
def test_certainty_is_that_of_the_newest_pair_of_consecutive_rounds(
    rng: random.Random, length: int
) -> None:
    """In whatever order blocks come, and however many are committed meanwhile."""
    rounds = [0]
    for _ in range(length):
        rounds.append(rounds[-1] + rng.choice((1, 2, 3)))
    blocks = chain(rounds[1:])
    tree = BlockTree([SAMPLE.genesis])
    for block in rng.sample(blocks[1:], length):
        tree.add(block)
    committed = rng.randint(0, length)
    for block in blocks[1 : committed + 1]:
        tree.commit(block, block_digest(block))
    for k in range(committed, length + 1):
        assert tree.certain_height(blocks[k]) == naive_certain(blocks[: k + 1])


def test_certainty_is_unknown_while_an_ancestor_is_missing() -> None:
    blocks = chain([1, 3, 5])
    tree = BlockTree([SAMPLE.genesis])
    tree.add(blocks[3])
    assert tree.certain_height(blocks[3]) is None
    tree.add(blocks[2])
    tree.add(blocks[1])
    assert tree.certain_height(blocks[3]) == 0


def test_the_run_to_a_block_names_what_is_missing_or_that_it_forks() -> None:
    blocks = chain([1, 2, 3])
    fork = on(SAMPLE.genesis, block_digest(SAMPLE.genesis), 9, mark=1)
    tree = BlockTree([SAMPLE.genesis])
    tree.add(blocks[3])
    assert tree.uncommitted_to(blocks[3]) == block_digest(blocks[2])
    tree.add(blocks[2])
    assert tree.uncommitted_to(blocks[3]) == block_digest(blocks[1])
    tree.add(blocks[1])
    tree.add(fork)
    assert tree.uncommitted_to(blocks[3]) == blocks[1:]
    tree.commit(blocks[1], block_digest(blocks[1]))
    assert tree.uncommitted_to(blocks[3]) == blocks[2:]
    assert tree.uncommitted_to(fork) is None
    assert tree.uncommitted_to(blocks[1]) is None
    assert tree.block(block_digest(fork)) is None, "what the commit rules out is dropped"


def test_a_block_of_the_wrong_height_extends_nothing() -> None:
    blocks = chain([1, 2])
    tree = BlockTree([SAMPLE.genesis])
    tree.add(blocks[1])
    wrong = replace(blocks[2], height=5)
    assert tree.uncommitted_to(wrong) is None


def test_committed_blocks_leave_memory_and_certificates_with_them() -> None:
    blocks = chain(list(range(1, 3 * RECENT_MAX)))
    tree = BlockTree([SAMPLE.genesis])
    for block in blocks[1:]:
        digest = tree.add(block)
        tree.certify(QC(block.round, digest, ()))
        tree.commit(block, digest)
    assert len(tree) <= RECENT_MAX
    assert tree.qc(tree.tip_digest) is not None
    assert tree.qc(block_digest(blocks[1])) is None


def test_more_blocks_than_fit_push_out_the_highest() -> None:
    tree = BlockTree([SAMPLE.genesis])
    genesis = block_digest(SAMPLE.genesis)
    near = on(SAMPLE.genesis, genesis, 1)
    tree.add(near)
    for mark in range(BLOCKS_MAX + 10):
        tree.add(replace(on(SAMPLE.genesis, genesis, 7, mark), height=100))
    assert len(tree) <= BLOCKS_MAX
    assert tree.block(block_digest(near)) is not None


def test_a_tree_over_the_recent_blocks_answers_as_the_one_that_committed_them() -> None:
    blocks = chain(list(range(1, RECENT_MAX + 20)))
    tree = BlockTree([SAMPLE.genesis])
    for block in blocks[1:]:
        tree.commit(block, block_digest(block))
    again = BlockTree(blocks[-RECENT_MAX:])
    assert (again.tip, again.tip_digest) == (tree.tip, tree.tip_digest)
    child = on(tree.tip, tree.tip_digest, tree.tip.round + 4)
    for each in (tree, again):
        each.add(child)
    assert again.certain_height(child) == tree.certain_height(child) == tree.tip.height - 1
    assert again.children(Digest(tree.tip_digest)) == [block_digest(child)]
