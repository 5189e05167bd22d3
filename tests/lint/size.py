"""Find files and functions that have grown too long to be read in one go.

Run as `python -m tests.lint.size`; prints `file:line: rule`.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from tests.lint.sources import PACKAGES, ROOT, Finding, python_files

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
GENERATED = ("tests/vectors/",)


def check_source(path: str, source: str) -> list[Finding]:
    """Return what is too long in `source`, by line."""
    found = []
    lines = source.count("\n")
    if lines > FILE_LINES_MAX:
        found.append(Finding(path, 1, f"{lines} lines, more than {FILE_LINES_MAX}"))
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                rule = f"{node.name} has {length} lines, more than {FUNCTION_LINES_MAX}"
                found.append(Finding(path, node.lineno, rule))
    return found


def main() -> int:
    """Check every file that a person writes; print what was found, return the exit status."""
    findings: list[Finding] = []
    count = 0
    for path in python_files(ROOT, (*PACKAGES, "tests")):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(GENERATED):
            count += 1
            findings += check_source(name, Path(path).read_text("utf-8"))
    for finding in findings:
        print(finding)
    print(f"size: {len(findings)} findings in {count} files")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
