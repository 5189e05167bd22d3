"""The guide says what the format is: its example plays, and no heading or column is missing."""

from __future__ import annotations

from pathlib import Path

from tests.matcher.scenarios.runner import run_scenario
from tests.matcher.scenarios.text import VOCABULARY, parse

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "market-scenarios.md"


def test_the_guides_example_plays() -> None:
    text = GUIDE.read_text("utf-8").split("```")[1].lstrip("\n")
    assert run_scenario(parse("market-scenarios.md", text)) is None


def test_the_guide_names_every_heading_and_column() -> None:
    lines = GUIDE.read_text("utf-8").splitlines()
    tables: dict[str, str] = {}
    stage = ""
    for line in lines:
        if line.startswith("### "):
            stage = line.removeprefix("### ")
        elif line.startswith("| ") and stage in ("given", "when", "then"):
            cells = line.split("|")
            tables[f"{stage} {cells[1].strip()}"] = cells[2].replace("*", "")
    for heading, (required, optional) in VOCABULARY.items():
        if heading == "when batch":
            assert "the same" in tables[heading]
            continue
        told = [name.strip() for name in tables[heading].split(",")]
        assert told == [*required, *optional], heading
