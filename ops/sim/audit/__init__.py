"""What is held against every run, step by step and at its end."""

from __future__ import annotations

from ops.sim.audit.chain import ChainAudit
from ops.sim.audit.fairness import unfair_pairs
from ops.sim.audit.ledger import Ledger, Violation
from ops.sim.audit.words import CertificateAudit, WordsAudit

__all__ = [
    "CertificateAudit",
    "ChainAudit",
    "Ledger",
    "Violation",
    "WordsAudit",
    "unfair_pairs",
]
