"""Files stay short, the wheel holds the six packages, and what is declared is what is used."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.lint import size, wheel
from tests.lint.sources import PACKAGES, ROOT, python_files

LOCKS = ("build", "dev", "node", "runtime")


def test_a_long_file_and_a_long_function_are_seen() -> None:
    body = "    x = 1\n" * size.FUNCTION_LINES_MAX
    assert size.check_source("a.py", "x = 1\n" * size.FILE_LINES_MAX) == []
    assert len(size.check_source("a.py", "x = 1\n" * (size.FILE_LINES_MAX + 1))) == 1
    longest = "def f() -> None:\n" + body.removesuffix("    x = 1\n")
    assert size.check_source("a.py", longest) == []
    found = size.check_source("a.py", "y = 1\n\n" + longest + "    x = 1\n")
    assert [(finding.line, "f has 71 lines" in finding.rule) for finding in found] == [(3, True)]
    inner = "class A:\n    async def f() -> None:\n" + "        x = 1\n" * 70
    assert len(size.check_source("a.py", inner)) == 1


def test_the_size_command_fails_on_a_planted_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size, "ROOT", tmp_path)
    (tmp_path / "ops").mkdir()
    (tmp_path / "tests" / "vectors").mkdir(parents=True)
    (tmp_path / "tests" / "vectors" / "long.py").write_text("x = 1\n" * 600)
    assert size.main() == 0
    (tmp_path / "ops" / "long.py").write_text("x = 1\n" * 501)
    assert size.main() == 1


SOUND_WHEEL = [f"{name}/__init__.py" for name in PACKAGES] + [
    "contracts/artifacts/Vault.json",
    "fairlane-0.1.0.dist-info/METADATA",
]


@pytest.mark.parametrize(
    ("added", "removed", "told"),
    [
        ("tests/__init__.py", "", "not one of the six packages: tests/__init__.py"),
        ("setup.py", "", "not one of the six packages: setup.py"),
        ("contracts/node_modules/x.js", "", "neither code nor data"),
        ("", "contracts/artifacts/Vault.json", "missing: contracts/artifacts/Vault.json"),
        ("", "p2p/__init__.py", "package not in it: p2p"),
    ],
)
def test_a_wrong_wheel_is_seen(added: str, removed: str, told: str) -> None:
    assert wheel.wheel_faults(SOUND_WHEEL, SOUND_WHEEL[:-1]) == []
    names = [name for name in [*SOUND_WHEEL, added] if name and name != removed]
    faults = wheel.wheel_faults(names, SOUND_WHEEL[:-1])
    assert any(told in fault for fault in faults), faults


def project() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def locked(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_every_line_by_hash_and_names_no_host(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert re.search(r"https?:|--(extra-)?index-url|--find-links|@ ", text) is None
    blocks = re.split(r"^(?=[A-Za-z])", text, flags=re.MULTILINE)[1:]
    assert blocks
    for block in blocks:
        assert re.match(r"[A-Za-z0-9._-]+==\S+", block), block
        assert "--hash=sha256:" in block, block


def test_the_locks_agree_with_each_other_and_with_the_project() -> None:
    runtime, dev, build = locked("runtime"), locked("dev"), locked("build")
    assert {name: version for name, version in dev.items() if name in runtime} == {
        name: version for name, version in runtime.items() if name in dev
    }
    requires = project()["build-system"]["requires"]  # type: ignore[index]
    assert requires == [f"setuptools=={build['setuptools']}"]
    for line in project()["project"]["dependencies"]:  # type: ignore[index]
        name = re.match(r"[A-Za-z0-9._-]+", line)
        assert name is not None
        assert name[0] in runtime, f"{line}: run `make lock`"


def imported(source: str) -> set[str]:
    """Return the top-level names that `source` imports, those of functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {*PACKAGES, "__future__"}


def undeclared(sources: dict[str, str], declared: set[str]) -> list[str]:
    """Return who imports a library that no declared distribution installs."""
    providers = packages_distributions()
    return [
        f"{name}: {top} of {sorted(providers.get(top, ()))}"
        for name, source in sources.items()
        for top in sorted(imported(source))
        if not {canonical(owner) for owner in providers.get(top, ())} & declared
    ]


def canonical(name: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", name)[0].lower().replace("_", "-")


def test_the_libraries_that_are_imported_are_declared() -> None:
    """A transitive dependency may go away; what our code imports must be asked for by name."""
    declared = {canonical(line) for line in project()["project"]["dependencies"]}  # type: ignore[index]
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for path in python_files(ROOT, PACKAGES)
    }
    assert undeclared(sources, declared) == []
    planted = {"x.py": "def f():\n    import click, hypothesis\n"}
    assert undeclared(planted, declared) == ["x.py: hypothesis of ['hypothesis']"]


@pytest.mark.slow
def test_the_wheel_of_this_tree_holds_the_six_packages(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    unwanted = shutil.ignore_patterns("node_modules", "__pycache__", "out", "cache")
    for package in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / package, tree / package, ignore=unwanted)
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    (tree / "README.md").write_text("# Fairlane\n")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", "dist", "."],
        cwd=tree, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    (built,) = (tree / "dist").glob("fairlane-*.whl")
    with zipfile.ZipFile(built) as archive:
        assert wheel.wheel_faults(archive.namelist(), wheel.expected_files(tree)) == []
        (points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert b"fairlane = ops.cli:main" in archive.read(points)
