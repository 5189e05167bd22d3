"""`fairlane margin`: a portfolio's margin, scenario by scenario."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import click

from ops.fields import ConfigError, read_bounded
from ops.marginfile import (
    FILE_MAX,
    OBJECT_MAX,
    OBJECTS_MAX,
    Answer,
    MarginFileError,
    evaluate,
    parse,
)


class BadInput(click.ClickException):
    exit_code = 2


def portfolios(text: str) -> Iterator[tuple[str, str]]:
    """Yield (where, JSON text) for one object, or for one object a line. Errors: BadInput."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise BadInput("no portfolio in it")
    if len(lines) > 1 and not _ends_object(lines[0][1]):
        lines = [(1, text)]
    if len(lines) > OBJECTS_MAX:
        raise BadInput(f"more than {OBJECTS_MAX} portfolios")
    for number, line in lines:
        if len(line) > OBJECT_MAX:
            raise BadInput(f"line {number}: a portfolio longer than {OBJECT_MAX} bytes")
        yield (f"line {number}: " if len(lines) > 1 else ""), line


def _ends_object(line: str) -> bool:
    """Say whether the line is a whole object: otherwise the object spans all lines."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return line.rstrip().endswith("}") and line.count("{") == line.count("}")
    return True


@click.command("margin", short_help="Compute portfolios' margin, scenario by scenario.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a portfolio.")
def command(file: Path, as_json: bool) -> None:
    """Compute the margin of the portfolio in FILE, or of each, one JSON object a line.

    Prints a table of the scenarios, or with --json one object a portfolio: mtm, equity,
    initial_margin, maintenance_margin, worst_scenario, scenarios and the parts. All numbers are
    decimal strings in USDC. A margin below zero is a shortfall. The fields of FILE are listed in
    docs/protocol/markets.md.
    """
    try:
        text = read_bounded(file, FILE_MAX).decode("utf-8")
    except ConfigError as error:
        raise BadInput(str(error)) from None
    except UnicodeDecodeError:
        raise BadInput(f"{file}: not UTF-8") from None
    first = True
    try:
        for where, source in portfolios(text):
            try:
                answer = evaluate(parse(source))
            except MarginFileError as error:
                raise BadInput(f"{where}{error}") from None
            if as_json:
                click.echo(json.dumps(answer))
            else:
                click.echo(("" if first else "\n") + "\n".join(table(answer)))
            first = False
    except BadInput as error:
        raise BadInput(f"{file}: {error.message}") from None


def table(answer: Answer) -> list[str]:
    """Return the answer as lines of text."""
    lines = _scenario_lines(answer) if answer["mode"] == "portfolio" else _expiry_lines(answer)
    totals = [("mark to market", "mtm"), ("equity", "equity")]
    if answer["mode"] == "portfolio":
        totals += [
            ("basis contingency", "basis"),
            ("initial contingencies", "initial_contingencies"),
            ("maintenance contingencies", "maintenance_contingencies"),
        ]
    else:
        totals += [
            ("perpetual, initial", "perp_initial"),
            ("perpetual, maintenance", "perp_maintenance"),
        ]
    totals += [("initial margin", "initial_margin"), ("maintenance margin", "maintenance_margin")]
    lines.append("")
    return lines + [f"{label:<26}{_short(answer[name]):>24}" for label, name in totals]


def _scenario_lines(answer: Answer) -> list[str]:
    lines = [f"{'':2}{'spot':>8}  {'volatility':<10}  {'dampening':>9}  {'PnL':>24}"]
    worst = answer["worst_scenario"]["index"]
    for i, row in enumerate(answer["scenarios"]):
        lines.append(
            f"{'*' if i == worst else '':<2}{row['spot']:>8}  {row['volatility']:<10}"
            f"  {row['dampening'][:8]:>9}  {_short(row['pnl']):>24}"
        )
    return lines


def _expiry_lines(answer: Answer) -> list[str]:
    lines = [
        f"{'expiry':<8}{'':<13}{'isolated':>18}{'loss':>18}{'unpaired':>18}{'doubt':>14}{'total':>18}"
    ]
    for row in answer["requirements"]:
        for name in ("initial", "maintenance"):
            parts = [_short(row[f"{name}_{part}"]) for part in ("isolated", "loss", "unpaired")]
            doubt, total = (_short(row[f"{name}_{part}"]) for part in ("doubt", "total"))
            cells = "".join(f"{part:>18}" for part in parts)
            lines.append(f"{row['expiry']:<8}{name:<13}{cells}{doubt:>14}{total:>18}")
    return lines


def _short(text: str) -> str:
    """Return a decimal rounded to six digits after the point."""
    return f"{Decimal(text):.6f}"
