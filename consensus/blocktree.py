"""Blocks above the committed tip, by digest, and what follows from how they are linked."""

from __future__ import annotations

from typing import Protocol

from consensus.digest import Digest
from consensus.messages import QC, Block, Head, block_digest

BLOCKS_MAX = 2_048
"""Uncommitted blocks kept; beyond that the highest are dropped and fetched again if needed."""
RECENT_MAX = 64
"""Committed blocks kept in memory below the tip; older ones are read from disk."""


class Beginning(Protocol):
    """The end of the epoch before: its last block, and the state after it."""

    @property
    def height(self) -> int: ...

    @property
    def block(self) -> bytes: ...

    @property
    def state(self) -> bytes: ...


def genesis_block(
    network: bytes, epoch: int, heads: tuple[Head, ...], start: Beginning | None = None
) -> tuple[Block, Digest]:
    """Return the block of round 0 that every replica of the epoch holds.

    The first epoch's has height 0; a later one's stands in for its predecessor's last block,
    names the state after it, and begins the logs anew.
    """
    block = Block(
        epoch=epoch,
        round=0,
        height=start.height if start is not None else 0,
        qc=QC(round=0, block=start.block if start is not None else network, votes=()),
        tc=None,
        heads=heads,
        executed_height=start.height if start is not None else 0,
        executed_digest=start.state if start is not None else network,
    )
    return block, block_digest(block)


class BlockTree:
    """Held blocks and their certificates; the committed tip is the root that all must extend."""

    def __init__(self, recent: list[Block]) -> None:
        """`recent` are committed blocks, lowest first, the last the tip; at least the genesis'.

        After a restart give some RECENT_MAX of them, so that the two-chain rule finds its pair.
        """
        digests = [block_digest(block) for block in recent]
        self.tip, self.tip_digest = recent[-1], digests[-1]
        self._blocks: dict[Digest, Block] = dict(zip(digests, recent, strict=True))
        self._certain: dict[Digest, int] = {digests[0]: recent[0].executed_height}
        self._certified: dict[Digest, QC] = {}
        self._recent: list[Digest] = digests
        self._children: dict[Digest, list[Digest]] = {}
        self._above: dict[Digest, Block] = {}
        """Those of the blocks that are not committed."""

    def __len__(self) -> int:
        return len(self._blocks)

    def block(self, digest: bytes) -> Block | None:
        return self._blocks.get(Digest(digest))

    def qc(self, digest: bytes) -> QC | None:
        """Return a certificate of the block with this digest, when one was taken in."""
        return self._certified.get(Digest(digest))

    def children(self, digest: Digest) -> list[Digest]:
        """Return the digests of held blocks that stand on the block with this digest."""
        return [d for d in self._children.get(digest, ()) if d in self._blocks]

    def parent(self, block: Block) -> Block | None:
        return self._blocks.get(Digest(block.qc.block))

    def add(self, block: Block) -> Digest:
        """Hold `block`; say its digest."""
        digest = block_digest(block)
        if digest not in self._blocks:
            if len(self._blocks) >= BLOCKS_MAX:
                self._evict()
            self._blocks[digest] = self._above[digest] = block
            self._children.setdefault(Digest(block.qc.block), []).append(digest)
        return digest

    def _evict(self) -> None:
        spare = list(self._above)
        spare.sort(key=lambda d: (-self._blocks[d].height, d))
        for digest in spare[: BLOCKS_MAX // 4]:
            self._drop(digest)

    def _drop(self, digest: Digest) -> None:
        block = self._blocks.pop(digest, None)
        self._above.pop(digest, None)
        self._certain.pop(digest, None)
        self._certified.pop(digest, None)
        if block is not None:
            siblings = self._children.get(Digest(block.qc.block), [])
            if digest in siblings:
                siblings.remove(digest)
            if not siblings:
                self._children.pop(Digest(block.qc.block), None)

    def certify(self, qc: QC) -> bool:
        """Note that `qc` certifies its block; say whether that is new."""
        if qc.block in self._certified:
            return False
        if len(self._certified) >= BLOCKS_MAX:
            self._forget_old_certificates()
        self._certified[Digest(qc.block)] = qc
        return True

    def _forget_old_certificates(self) -> None:
        oldest = sorted(self._certified, key=lambda d: (self._certified[d].round, d))
        for digest in oldest[: BLOCKS_MAX // 4]:
            del self._certified[digest]

    def certain_height(self, block: Block) -> int | None:
        """Return the height that the two-chain rule commits once `block` is certified.

        That is the highest ancestor (of consecutive rounds with its child, child certified) on
        the way down from `block`. None when an ancestor above the tip is not held.
        """
        at, chain = block, []
        known: int | None = None
        while known is None:
            digest = block_digest(at)
            known = self._certain.get(digest)
            if known is not None:
                break
            parent = self.parent(at)
            if parent is None:
                return None
            if parent.round + 1 == at.round:
                known = self._certain[digest] = parent.height
                break
            chain.append(digest)
            at = parent
        for digest in chain:
            self._certain[digest] = known
        return known

    def uncommitted_to(self, block: Block) -> list[Block] | Digest | None:
        """Return the blocks above the tip up to `block`, lowest first.

        Returns the digest of the first ancestor that is not held, or None when `block` does not
        extend the tip.
        """
        run: list[Block] = []
        at = block
        while at.height > self.tip.height:
            run.append(at)
            if at.height == self.tip.height + 1:
                break
            parent = self.parent(at)
            if parent is None:
                return Digest(at.qc.block)
            if parent.height != at.height - 1:
                return None
            at = parent
        if not run or run[-1].qc.block != self.tip_digest:
            return None
        run.reverse()
        return run

    def commit(self, block: Block, digest: Digest) -> None:
        """Make `block`, a child of the tip, the new tip; blocks it rules out are dropped."""
        assert block.qc.block == self.tip_digest
        self.add(block)
        assert self.certain_height(block) is not None
        self.tip, self.tip_digest = block, digest
        self._recent.append(digest)
        if len(self._recent) > RECENT_MAX:
            self._drop(self._recent.pop(0))
        del self._above[digest]
        for other in [d for d, b in self._above.items() if b.height <= block.height]:
            self._drop(other)
        if block.height % RECENT_MAX == 0:
            for other in [d for d in self._certified if d not in self._blocks]:
                if self._certified[other].round <= block.round:
                    del self._certified[other]
