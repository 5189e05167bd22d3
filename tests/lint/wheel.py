"""Check that a wheel holds the six packages and nothing else that could be imported.

Run as `python -m tests.lint.wheel dist/fairlane-*.whl`.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from tests.lint.sources import PACKAGES, ROOT, python_files

DATA_SUFFIXES = frozenset({".json", ".toml", ".yaml", ".yml", ".html", ".service", ".typed"})


def wheel_faults(names: Iterable[str], expected: Iterable[str]) -> list[str]:
    """Return what is wrong with a wheel that holds `names`, where `expected` must be in it."""
    names = {name for name in names if not name.endswith("/")}
    inside = {name for name in names if not name.partition("/")[0].endswith(".dist-info")}
    faults = [f"missing: {name}" for name in sorted(set(expected) - inside)]
    for name in sorted(inside):
        top = name.partition("/")[0]
        if top not in PACKAGES:
            faults.append(f"not one of the six packages: {name}")
        elif Path(name).suffix not in DATA_SUFFIXES | {".py"}:
            faults.append(f"neither code nor data: {name}")
    tops = {name.partition("/")[0] for name in inside}
    faults += [f"package not in it: {top}" for top in PACKAGES if top not in tops]
    return faults


def expected_files(root: Path) -> list[str]:
    """Return the modules and artifacts in the tree, as a wheel names them."""
    modules = [path.relative_to(root).as_posix() for path in python_files(root, PACKAGES)]
    artifacts = (root / "contracts" / "artifacts").glob("*.json")
    return modules + [path.relative_to(root).as_posix() for path in artifacts]


def main(arguments: list[str]) -> int:
    """Check each wheel named; print the faults and return the exit status."""
    status = 0
    for argument in arguments:
        with zipfile.ZipFile(argument) as wheel:
            names = wheel.namelist()
        faults = wheel_faults(names, expected_files(ROOT))
        for fault in faults:
            print(f"{argument}: {fault}")
        print(f"{argument}: {len(names)} files, {len(faults)} faults")
        status |= bool(faults)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
