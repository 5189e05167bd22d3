"""The scenario files' grammar: a title, then sections that are each a table of known columns.

A line is blank, a comment (`#`), a heading or a table row; whatever else it is, or names, is an
error that says where.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

FILE_BYTES_MAX: Final = 1 << 16

HEADING: Final = re.compile(r"(given|when|then) ([a-z][a-z ]*)")
STAGES: Final = ("given", "when", "then")

Columns = tuple[tuple[str, ...], tuple[str, ...]]
"""Required and optional columns."""

_ACTIONS: Final[Columns] = (
    ("order", "who", "does"),
    ("instrument", "qty", "price", "how", "of", "signer", "client id"),
)

VOCABULARY: Final[dict[str, Columns]] = {
    "given settings": (("name", "value"), ()),
    "given instruments": (
        ("name", "index", "tick", "lot"),
        (
            *("initial", "maintenance", "price band", "size base", "open interest low"),
            *("open interest high", "impact notional", "smallest last trade", "mark clamp"),
            *("basis average", "largest order"),
        ),
    ),
    "given prices": (("index", "price"), ()),
    "given accounts": (("who", "cash"), ()),
    "given positions": (("long", "short", "instrument", "qty", "price"), ()),
    "when orders": _ACTIONS,
    "when batch": _ACTIONS,
    "when keys": (("order", "who", "does", "key"), ("scope", "for", "signer")),
    "when deposits": (("who", "amount"), ("after",)),
    "when withdrawals": (("order", "who", "amount"), ("signer", "client id")),
    "when prices move": (("index", "price"), ("after",)),
    "when replicas report": (("index", "replica", "price"), ("after",)),
    "when time passes": (("for",), ("in blocks of",)),
    "then results": (("order", "status"), ("reason", "filled", "open", "count")),
    "then fills": (
        ("taker", "side", "maker", "instrument", "qty", "price"),
        ("taker fee", "maker fee"),
    ),
    "then resting": (("who", "side", "instrument", "qty", "price"), ("order",)),
    "then cancelled": (("order", "reason"), ("qty",)),
    "then positions": (("who", "instrument", "qty"), ()),
    "then accounts": (
        ("who",),
        ("cash", "equity", "initial margin", "maintenance margin", "liquidating"),
    ),
    "then prices": (
        ("instrument",),
        (
            *("mark", "index price", "band low", "band high", "trading", "open interest"),
            *("funding rate", "initial rate"),
        ),
    ),
    "then funding paid": (("who", "instrument", "paid"), ()),
    "then liquidations": (("who", "stage"), ("instrument", "qty", "fee")),
    "then insurance payments": (("who", "paid", "uncovered"), ()),
    "then deposits": (("who", "amount"), ("reason",)),
    "then withdrawals": (("who", "amount"), ()),
}
"""Every heading, and the columns its table must and may have."""


class ScenarioError(Exception):
    """A scenario file that says something unknown; the message begins with file:line."""

    def __init__(self, path: str, line: int, message: str) -> None:
        super().__init__(f"{path}:{line}: {message}")


@dataclass(frozen=True)
class Row:
    """One row of a table: its line, its text, its cells by column (empty ones left out)."""

    line: int
    text: str
    cells: dict[str, str]


@dataclass
class Section:
    """One heading with its table; `deviation` is why it is expected to fail, if it is."""

    line: int
    heading: str
    deviation: str | None = None
    columns: tuple[str, ...] = ()
    rows: list[Row] = field(default_factory=list)


@dataclass
class Scenario:
    """A parsed file."""

    path: str
    title: str
    sections: list[Section]


def load(path: Path) -> Scenario:
    """Read a scenario file. Errors: ScenarioError."""
    data = path.read_bytes()
    if len(data) > FILE_BYTES_MAX:
        raise ScenarioError(path.name, 1, f"more than {FILE_BYTES_MAX} bytes")
    return parse(path.name, data.decode("utf-8"))


def parse(path: str, text: str) -> Scenario:
    """Return the scenario that `text` spells. Errors: ScenarioError."""
    scenario = Scenario(path, "", [])
    deviation: str | None = None
    for line, raw in enumerate(text.splitlines(), 1):
        words = raw.strip()
        if not words or words.startswith("#"):
            continue
        if not scenario.title:
            title = words.removeprefix("scenario:").strip()
            if not words.startswith("scenario:") or not title:
                raise ScenarioError(path, line, "a file begins with `scenario: <title>`")
            scenario.title = title
        elif words.startswith("|"):
            if not scenario.sections or deviation is not None:
                raise ScenarioError(path, line, "a table row without a heading above it")
            _row(path, line, words, scenario.sections[-1])
        elif words.startswith("expected failure:"):
            deviation = words.removeprefix("expected failure:").strip()
            if not deviation:
                raise ScenarioError(path, line, "an expected failure needs its reason")
        else:
            section = _heading(path, line, words, scenario.sections, deviation)
            scenario.sections.append(section)
            deviation = None
    if not scenario.title:
        raise ScenarioError(path, 1, "a file begins with `scenario: <title>`")
    if deviation is not None:
        raise ScenarioError(path, line, "an expected failure without a `then` below it")
    _complete(scenario)
    return scenario


def _heading(
    path: str, line: int, words: str, before: list[Section], deviation: str | None
) -> Section:
    if HEADING.fullmatch(words) is None or words not in VOCABULARY:
        known = ", ".join(f"`{name}`" for name in VOCABULARY)
        raise ScenarioError(path, line, f"unknown heading or line `{words}`; known are {known}")
    stage = words.split()[0]
    if stage == "given":
        if any(section.heading == words for section in before):
            raise ScenarioError(path, line, f"`{words}` is there already")
        if any(not section.heading.startswith("given") for section in before):
            raise ScenarioError(path, line, "what is given comes before the first `when`")
    if deviation is not None and stage != "then":
        raise ScenarioError(path, line, "only a `then` can be an expected failure")
    return Section(line, words, deviation)


def _row(path: str, line: int, words: str, section: Section) -> None:
    if len(words) < 2 or not words.endswith("|"):
        raise ScenarioError(path, line, "a table row ends with `|`")
    cells = [cell.strip() for cell in words[1:-1].split("|")]
    required, optional = VOCABULARY[section.heading]
    if not section.columns:
        unknown = [name for name in cells if name not in required + optional]
        if unknown:
            known = ", ".join(required + optional)
            message = f"`{section.heading}` has no column `{unknown[0]}`; it has {known}"
            raise ScenarioError(path, line, message)
        if len(set(cells)) != len(cells):
            raise ScenarioError(path, line, "a column is there twice")
        missing = [name for name in required if name not in cells]
        if missing:
            message = f"`{section.heading}` needs the column `{missing[0]}`"
            raise ScenarioError(path, line, message)
        section.columns = tuple(cells)
        return
    if len(cells) != len(section.columns):
        message = f"{len(cells)} cells under {len(section.columns)} columns"
        raise ScenarioError(path, line, message)
    named = {name: cell for name, cell in zip(section.columns, cells, strict=True) if cell}
    missing = [name for name in required if name not in named]
    if missing:
        raise ScenarioError(path, line, f"the cell under `{missing[0]}` is empty")
    section.rows.append(Row(line, words, named))


def _complete(scenario: Scenario) -> None:
    """Check what only the whole file shows."""
    path = scenario.path
    for section in scenario.sections:
        if not section.columns:
            raise ScenarioError(path, section.line, f"`{section.heading}` has no table")
        if not section.rows and not section.heading.startswith("then"):
            raise ScenarioError(path, section.line, f"the table of `{section.heading}` is empty")
    if not any(section.heading.startswith("then") for section in scenario.sections):
        raise ScenarioError(path, 1, "nothing is checked: there is no `then`")
