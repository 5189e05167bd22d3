"""Each rule of the purity check sees a planted fault, and stays silent on the sound twin of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lint import purity
from tests.lint.sources import ROOT, pure_files

FAULTS = [
    "x = 1.5",
    "x = 1e3",
    "x = 2j",
    "x = a / b",
    "x /= 2",
    "x = 10 ** -6",
    "x = float(a)",
    "def f(x: float) -> int: ...",
    "def f(x: 'list[float]') -> int: ...",
    "def f() -> float: ...",
    "x: float | None = None",
    "import math",
    "import decimal",
    "import numpy as np",
    "from math import sqrt",
    "from math import isqrt, floor",
    "from decimal import Decimal",
    "x = hash(a)",
    "x = a.__hash__()",
    "x = id(a)",
    "x = sorted(a, key=id)",
    "x = sorted(a, key=hash)",
    "x = list(map(id, a))",
    "x = eval(a)",
    "with open(a) as f: pass",
    "for x in {1, 2}: pass",
    "for x in set(a): pass",
    "for x in frozenset(a): pass",
    "for x in set(a) | b: pass",
    "for x in a.keys() & b: pass",
    "for x in a.keys() - b.keys(): pass",
    "for x in {y for y in a}: pass",
    "for x in set(a).union(b): pass",
    "for i, x in enumerate(set(a)): pass",
    "x = [y for y in set(a)]",
    "x = {y: 1 for y in set(a)}",
    "x = f(y for y in set(a))",
    "x = list({1, 2})",
    "x = tuple(set(a))",
    "x = next(iter(set(a)))",
    "x = [*set(a)]",
    "f(*set(a))",
    "x, y = {1, 2}",
    "x = b''.join(set(a))",
    "x.extend(set(a))",
    "x = dict.fromkeys(set(a))",
    "x = f'{set(a)}'",
    "x = str(set(a))",
    "x = set(a).pop()",
    "x = min(set(a), key=f)",
    "x = sorted(set(a), key=f)",
    "s = set(a)\nfor x in s: pass",
    "s = a\nt = {1}\nif c: s = t\nfor x in s: pass",
    "if (s := set(a)): x = list(s)",
    "s: set[int] = f()\nx = list(s)",
    "s: 'frozenset[int]' = f()\nx = list(s)",
    "s: Final[set[int]] = f()\nx = list(s)",
    "s: set[int] | None = f()\nx = list(s)",
    "def f(s: set[int]) -> None:\n    for x in s: pass",
    "def f(s: AbstractSet[int]) -> None:\n    for x in s: pass",
    "async def f(s: set[int]) -> None:\n    for x in s: pass",
    "def f(s: set[int]) -> None:\n    def g() -> None:\n        for x in s: pass",
    "def f() -> set[int]: ...\nfor x in f(): pass",
    "class A:\n    def f(self) -> set[int]: ...\n    def g(self) -> None:\n"
    "        for x in self.f(): pass",
    "class A:\n    s: set[int]\n    def f(self) -> None:\n        for x in self.s: pass",
    "class A:\n    def g(self) -> None:\n        for x in self.s: pass\n"
    "    def __init__(self) -> None:\n        self.s = set()",
    "class A:\n    s: frozenset[int]\ndef f(a: A) -> None:\n    for x in a.s: pass",
    "class A:\n    d: dict[int, set[int]]\n    def f(self) -> None:\n"
    "        for x in self.d[1]: pass",
    "d: dict[int, set[int]] = {}\nfor x in d.get(1, ()): pass",
    "f = lambda a: [x for x in set(a)]",
]

SOUND = [
    "x = 1_000_000",
    "x = a // b",
    "x = 10 ** 6",
    "x = pow(a, -1, p)",
    "from math import isqrt, gcd, comb",
    "x = a.hash(b)",
    "x = a.id",
    "x = a.set(b)",
    "def f(id: int) -> int: return id",
    "x = 1 in {1, 2}",
    "x = {y for y in set(a)}",
    "x = sorted(set(a))",
    "x = sorted(sorted(set(a)), key=f)",
    "x = sorted(y for y in set(a))",
    "x = sorted([f(y) for y in set(a)])",
    "x = len(set(a)) + sum(set(a)) + max(set(a))",
    "x = sum(y for y in set(a))",
    "x = any(f(y) for y in set(a))",
    "x = {*set(a), 1}",
    "x = set(set(a))",
    "for x in sorted({1, 2}): pass",
    "for x in a.keys(): pass",
    "for x in a.items(): pass",
    "for x in a | b: pass",
    "s = set()\ns.add(1)\ns.discard(1)\ns |= {2}\nx = s <= {1}",
    "def f(s: set[int]) -> None: ...\ndef g(s: list[int]) -> None:\n    for x in s: pass",
    "s = set(a)\ndef g(s: list[int]) -> None:\n    for x in s: pass",
    "s = set(a)\ndef g() -> None:\n    s = [1]\n    for x in s: pass",
    "class A:\n    s: dict[int, int]\n    def f(self) -> None:\n        for x in self.s: pass",
    "d: dict[int, set[int]] = {}\nfor x in d: pass",
    "x = f'{len(set(a))}'",
    "# 1.5 / 2 float(x) hash(y)",
    "x = '1.5 / 2'",
]


@pytest.mark.parametrize("source", FAULTS)
def test_a_planted_fault_is_seen(source: str) -> None:
    assert purity.check_source("planted.py", source) != []


@pytest.mark.parametrize("source", SOUND)
def test_sound_code_is_left_alone(source: str) -> None:
    assert purity.check_source("sound.py", source) == []


def test_a_finding_names_file_line_and_rule() -> None:
    found = purity.check_source("matcher/x.py", "a = 1\nb = a / 2\n")
    assert [str(finding) for finding in found] == [f"matcher/x.py:2: {purity.DIVISION}"]


def test_the_pure_files_are_those_of_the_design(tmp_path: Path) -> None:
    names = [
        "consensus/a.py",
        "consensus/deep/b.py",
        "matcher/c.py",
        "settlement/checkpoint.py",
        "ops/replica.py",
    ]
    for name in [*names, "settlement/ethereum.py", "ops/node.py", "p2p/host.py", "tests/x.py"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = [path.relative_to(tmp_path).as_posix() for path in pure_files(tmp_path)]
    assert sorted(found) == sorted(names)


def test_the_command_fails_on_a_planted_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "matcher").mkdir()
    planted = tmp_path / "matcher" / "fee.py"
    planted.write_text("fee = 0.0005\n")
    monkeypatch.setattr(purity, "ROOT", tmp_path)
    assert purity.main() == 1
    assert "matcher/fee.py:1: a float rounds" in capsys.readouterr().out
    planted.write_text("fee_q6 = 500\n")
    assert purity.main() == 0


def test_a_set_of_another_file_is_known() -> None:
    owner = "class State:\n    seen: set[int]\n    def late(self) -> set[int]: ...\n"
    user = "def f(s):\n    for x in s.seen: pass\n    return list(s.late())\n"
    found = purity.check_sources({"owner.py": owner, "user.py": user})
    assert [(finding.path, finding.line) for finding in found] == [("user.py", 2), ("user.py", 3)]
    third = "class Batch:\n    seen: tuple[int, ...]\n    late: int\n"
    assert purity.check_sources({"owner.py": owner, "user.py": user, "third.py": third}) == []


def test_the_tree_is_pure() -> None:
    assert purity.check_sources(purity.pure_sources(ROOT)) == []
