"""What is held against every run, step by step and at its end."""

from __future__ import annotations

from collections.abc import Callable

from consensus import committer
from consensus.admission import Verify
from consensus.blocktree import RECENT_MAX
from consensus.committee import Committee, Parameters
from consensus.context import TABLE_CHAIN
from consensus.messages import Block
from consensus.prune import PRUNE_EVERY
from ops.sim.audit.chain import ChainAudit
from ops.sim.audit.fairness import unfair_pairs
from ops.sim.audit.ledger import Ledger, Violation
from ops.sim.audit.memory import oversized
from ops.sim.audit.receipts import ReceiptAudit
from ops.sim.audit.records import Shelf
from ops.sim.audit.words import CertificateAudit, WordsAudit
from ops.sim.host import Host

MEMORY_CHECK_STEPS = 2_048
"""A replica's containers are measured once in so many of its steps, and at the end."""
SNAPSHOTS = 4
"""Intervals between snapshots that a pruned disk may reach back."""


class Audits:
    """All that looks on while a network runs."""

    def __init__(
        self,
        ledger: Ledger,
        committee: Committee,
        parameters: Parameters,
        genesis: Block,
        verify: Verify,
        honest: tuple[int, ...],
        now_us: Callable[[], int],
        retain_blocks: int = 0,
    ) -> None:
        shelf = Shelf()
        self._retain_blocks = retain_blocks
        self.ledger = ledger
        self.chain = ChainAudit(ledger, committee, parameters, genesis)
        self.words = WordsAudit(ledger, committee, self.chain, shelf)
        self.certificates = CertificateAudit(ledger, committee, verify)
        self.receipts = ReceiptAudit(committee.n, committee.f, honest, now_us, shelf)
        self._until_memory = dict.fromkeys(honest, MEMORY_CHECK_STEPS)

    def after_step(self, host: Host) -> None:
        """Look at an honest machine whose step was carried out to its end."""
        core, me = host.core, host.me
        assert core is not None
        safety = core.ctx.safety
        lock, tc = safety.lock, safety.hi_tc
        checked = host.checked
        if checked[0] is not lock or checked[1] is not tc:
            self.certificates.held(me, lock)
            if tc is not None:
                self.certificates.held(me, tc)
            host.checked = (lock, tc)
        tip = core.ctx.tree.tip
        if host.checked_tip is not tip:
            host.checked_tip = tip
            self.chain.stepped(me, core)
            silence = core.guard.silence
            if silence is not None:
                self.ledger.found("silent", me, silence.why)
        self._until_memory[me] -= 1
        if self._until_memory[me] <= 0:
            self._until_memory[me] = MEMORY_CHECK_STEPS
            self.measure(host)

    def measure(self, host: Host) -> None:
        """Hold a machine's memory against its bounds, and if it prunes its disk."""
        if host.core is None:
            return
        for what in oversized(host.core):
            self.ledger.found("memory", host.me, what)
        if self._retain_blocks:
            kept = host.disk.records(TABLE_CHAIN)
            # Below the oldest snapshot that is needed nothing is, and the floor rises by steps.
            most = self._retain_blocks + SNAPSHOTS * committer.SNAPSHOT_INTERVAL
            most += RECENT_MAX + 2 * PRUNE_EVERY
            if kept > most:
                self.ledger.found("disk", host.me, f"{kept} blocks, at most {most}")


__all__ = [
    "Audits",
    "CertificateAudit",
    "ChainAudit",
    "Ledger",
    "ReceiptAudit",
    "Shelf",
    "Violation",
    "WordsAudit",
    "unfair_pairs",
]
