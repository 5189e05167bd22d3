"""Every import contract is broken by the import it forbids, and kept by those it allows."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lint.sources import PURE_FILES, ROOT

CONFIG = ROOT / ".importlinter"
CONTRACT = "importlinter:contract:"

# A small tree of the same shape: every import that is allowed stands in it.
TREE = {
    "consensus/__init__.py": "",
    "consensus/codec.py": "import msgspec\n",
    "consensus/digest.py": "from hashlib import sha256\n",
    "consensus/crypto.py": "from consensus.digest import sha256\nfrom consensus import codec\n",
    "consensus/replica.py": "from dataclasses import dataclass\nfrom consensus import crypto\n",
    "matcher/__init__.py": "",
    "matcher/engine.py": (
        "from math import isqrt\nfrom consensus.codec import msgspec\n"
        "from consensus import digest, crypto\nfrom matcher.deep import book\n"
    ),
    "matcher/deep/__init__.py": "",
    "matcher/deep/book.py": "from consensus.digest import sha256\n",
    "contracts/__init__.py": "import json, pathlib\n",
    "p2p/__init__.py": "",
    "p2p/host.py": "import trio, libp2p, time\nfrom consensus import replica\n",
    "p2p/link.py": "import trio\nfrom p2p import host\n",
    "settlement/__init__.py": "",
    "settlement/checkpoint.py": "from consensus import crypto\nfrom matcher import engine\n",
    "settlement/ethereum.py": "import trio, web3, contracts\nfrom settlement import checkpoint\n",
    "ops/__init__.py": "",
    "ops/replica.py": "from settlement import checkpoint\nfrom consensus import replica\n",
    "ops/node.py": (
        "import trio, time, os, random\nimport contracts\nfrom p2p import host\n"
        "from settlement import ethereum\nfrom matcher import engine\nfrom ops import replica\n"
    ),
}

# contract, file, line added to it
PLANTED = [
    ("consensus", "consensus/replica.py", "from matcher import engine"),
    ("consensus", "consensus/replica.py", "from p2p import host"),
    ("consensus", "consensus/codec.py", "import ops.node"),
    ("consensus", "consensus/codec.py", "import tests"),
    ("contracts", "contracts/__init__.py", "from consensus import digest"),
    ("matcher", "matcher/engine.py", "import contracts"),
    ("matcher", "matcher/deep/book.py", "from settlement import checkpoint"),
    ("matcher-leaves", "matcher/engine.py", "from consensus import replica"),
    ("matcher-leaves", "matcher/deep/book.py", "from consensus.replica import crypto"),
    ("leaves", "consensus/codec.py", "from consensus import replica"),
    ("p2p", "p2p/host.py", "from matcher import engine"),
    ("p2p", "p2p/host.py", "from ops import node"),
    ("settlement", "settlement/ethereum.py", "from p2p import host"),
    ("settlement", "settlement/checkpoint.py", "from ops import node"),
    ("ops", "ops/node.py", "import tests.sim"),
    ("libp2p", "ops/node.py", "import libp2p"),
    ("libp2p", "settlement/ethereum.py", "from libp2p import new_host"),
    ("libp2p-host", "p2p/link.py", "from libp2p.peer.id import ID"),
    ("pure", "consensus/replica.py", "def f():\n    import time"),
    ("pure", "matcher/engine.py", "from datetime import date"),
    ("pure", "matcher/deep/book.py", "from random import Random"),
    ("pure", "consensus/crypto.py", "import secrets"),
    ("pure", "consensus/crypto.py", "import os.path"),
    ("pure", "consensus/codec.py", "import socket"),
    ("pure", "consensus/replica.py", "from threading import Lock"),
    ("pure", "matcher/engine.py", "import logging"),
    ("pure", "consensus/replica.py", "import trio"),
    ("pure", "settlement/checkpoint.py", "import time"),
    ("pure", "settlement/checkpoint.py", "from settlement import ethereum"),
    ("pure", "ops/replica.py", "import os"),
    ("pure", "ops/replica.py", "from ops import node"),
]


def contracts_of(config: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(config)
    return parser


PURE_SOURCES = contracts_of(CONFIG)[CONTRACT + "pure"]["source_modules"].split()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The small sound tree, beside the project's own contracts."""
    for name, source in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    shutil.copy(CONFIG, tmp_path / ".importlinter")
    return tmp_path


def lint(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports_command as c; c()"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache", "--no-logo", *arguments],
        cwd=tree, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_sound_tree_keeps_every_contract(tree: Path) -> None:
    done = lint(tree)
    assert done.returncode == 0, done.stdout + done.stderr
    count = sum(name.startswith(CONTRACT) for name in contracts_of(CONFIG).sections())
    assert f"Contracts: {count} kept, 0 broken." in done.stdout


@pytest.mark.parametrize(("contract", "file", "line"), PLANTED)
def test_a_planted_import_breaks_its_contract(
    tree: Path, contract: str, file: str, line: str
) -> None:
    path = tree / file
    path.write_text(path.read_text() + line + "\n")
    done = lint(tree, "--contract", contract)
    name = contracts_of(CONFIG)[CONTRACT + contract]["name"]
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{name} BROKEN" in done.stdout


def test_every_contract_has_a_planted_violation() -> None:
    names = {name for name in contracts_of(CONFIG).sections() if name.startswith(CONTRACT)}
    assert {CONTRACT + contract for contract, _, _ in PLANTED} == names


def test_the_pure_contract_covers_every_pure_file() -> None:
    """A pure file that is new to the tree must be added to the contract `pure`."""
    files = [file for file in PURE_FILES if (ROOT / file).exists()]
    modules = [file.removesuffix(".py").replace("/", ".") for file in files]
    assert ["consensus", "matcher", *modules] == PURE_SOURCES
