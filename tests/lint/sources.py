"""Which files the checks of this folder read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("consensus", "p2p", "matcher", "settlement", "contracts", "ops")
PURE_FOLDERS = ("consensus", "matcher")
PURE_FILES = ("settlement/checkpoint.py", "ops/replica.py")
SKIPPED_PARTS = frozenset({"node_modules", ".node", "__pycache__", "out", "cache", "artifacts"})


class Finding(NamedTuple):
    """One place where a rule is broken."""

    path: str
    line: int
    rule: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}"


def python_files(root: Path, folders: tuple[str, ...]) -> Iterator[Path]:
    """Yield the Python files below `folders` of `root`, sorted, without what tools generate."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            if SKIPPED_PARTS.isdisjoint(path.relative_to(root).parts):
                yield path


def pure_files(root: Path) -> Iterator[Path]:
    """Yield the files that must compute the same everywhere. Source: ARCHITECTURE.md."""
    yield from python_files(root, PURE_FOLDERS)
    for name in PURE_FILES:
        if (root / name).exists():
            yield root / name
