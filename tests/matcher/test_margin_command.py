"""`fairlane margin`: its table, its JSON, and status 2 with clear words on a file it cannot use."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ops import marginfile
from ops.commands.margin import command
from ops.marginfile import MarginFileError, evaluate, parse
from tests.matcher.portfolios import portfolio

CASE = (Path(__file__).parents[1] / "vectors/margin/portfolio.json").read_text()


def run(path: Path, text: str | bytes, *options: str) -> Result:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return CliRunner().invoke(command, [str(path), *options])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "portfolio.json"


def test_the_table_names_every_scenario_and_marks_the_worst(file: Path) -> None:
    done = run(file, CASE)
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert sum(line[:1] == "*" for line in lines) == 1
    assert lines[1].split() == ["*", "1.18", "up", "1", "-50.844525"]
    assert lines[-2].split() == ["initial", "margin", "39.634541"]
    assert lines[-1].split() == ["maintenance", "margin", "60.529858"]
    assert len([line for line in lines if " up " in line or "none" in line]) == 15 + 7


def test_json_has_one_object_a_portfolio(file: Path) -> None:
    one = json.dumps(json.loads(CASE))
    done = run(file, f"{one}\n\n{one}\n", "--json")
    assert done.exit_code == 0
    first, second = (json.loads(line) for line in done.output.splitlines())
    assert first == second
    assert len(first["scenarios"]) == 31
    assert first["scenarios"][first["worst_scenario"]["index"]]["pnl"].startswith("-50.844525")


def test_standard_mode_shows_each_expiry(file: Path) -> None:
    made = json.loads(CASE) | {"mode": "standard"}
    done = run(file, json.dumps(made))
    assert done.exit_code == 0
    assert done.output.splitlines()[0].split()[:3] == ["expiry", "isolated", "loss"]
    answer = json.loads(run(file, json.dumps(made), "--json").output)
    assert answer["scenarios"] == [] and len(answer["requirements"]) == 1


def changed(path: str, value: Any) -> str:
    made: Any = json.loads(CASE)
    *way, last = path.split(".")
    at = made
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at[step]
    at[int(last) if isinstance(at, list) else last] = value
    return json.dumps(made)


FAULTS = {
    "empty": ("", "no portfolio"),
    "not JSON": ("{", "not JSON"),
    "not an object": ("[1]", "not a JSON object"),
    "not UTF-8": (b"\xff\xfe", "not UTF-8"),
    "too deep": ("[" * 200_000, "nested too deeply"),
    "long names": (json.dumps({"x" * 9_999: 1}), "no such field"),
    "long doubles": ('{"' + "x" * 9_999 + '":1,"' + "x" * 9_999 + '":1}', "the field"),
    "double field": ('{"mode":"portfolio","mode":"standard"}', "stands twice"),
    "no mode": (changed("mode", "cross"), "mode: neither"),
    "unknown field": (changed("spott", "1"), "spott: no such field"),
    "no spot": (changed("spot", None), "spot: missing"),
    "zero spot": (changed("spot", "0"), "spot: has to be above 0"),
    "words": (changed("spot", "many"), "spot: not a decimal"),
    "NaN": (changed("spot", float("nan")), "spot: not a decimal"),
    "huge": (changed("spot", "1e300"), "spot: 1e300 is not within"),
    "bool": (changed("spot", True), "spot: not a decimal"),
    "negative time": (changed("expiries.0.seconds", -1), "expiries[0].seconds"),
    "no such expiry": (changed("options.1.expiry", 1), "options[1].expiry"),
    "zero strike": (changed("options.2.strike", "0"), "options[2].strike"),
    "no right": (changed("options.2.call", 1), "options[2].call: neither true nor false"),
    "wild vol": (changed("options.0.mark_vol", "101"), "options[0].mark_vol"),
    "trust over 1": (changed("spot_confidence", "1.1"), "spot_confidence"),
    "parameter": (changed("parameters", {"vol_upp": "1"}), "parameters.vol_upp: no such"),
    "power": (changed("parameters", {"vol_power_long": "3"}), "parameters.vol_power_long"),
    "no width": (changed("parameters", {"skew_min_k": "0"}), "skew_min_k: has to be above 0"),
    "no scenario": (changed("parameters", {"scenarios": []}), "parameters.scenarios"),
    "kind": (changed("parameters", {"scenarios": [["1", "side", "1"]]}), "scenarios[0]"),
    "too many options": (changed("options", [{}] * 1_025), "options: more than 1024"),
    "options is text": (changed("options", "all"), "options: not a list"),
    "second line": (json.dumps(json.loads(CASE)) + '\n{"mode":1}', "line 2: mode"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_file_ends_with_status_2_and_names_the_fault(name: str, file: Path) -> None:
    text, words = FAULTS[name]
    done = run(file, text)
    assert done.exit_code == 2, done.output
    assert words in done.output
    assert len(done.output[done.output.index("Error: ") :]) < 1_000


def test_a_file_too_long_is_not_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.commands.margin.FILE_MAX", 100)
    assert run(file, CASE).exit_code == 2
    monkeypatch.setattr("ops.commands.margin.FILE_MAX", 10_000)
    monkeypatch.setattr("ops.commands.margin.OBJECT_MAX", 100)
    assert run(file, CASE).exit_code == 2


JUNK = (None, True, 0, -1, 10**40, "", "0", "-1", "1e-18", "1e15", "x", "." * 9, [], {}, [[]], 0.1)


def vandalise(random: Random, value: Any) -> Any:
    """Replace something somewhere in a portfolio by junk."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        name = random.choice(sorted(value))
        return value | {name: vandalise(random, value[name])}
    if isinstance(value, list) and value and random.random() < 0.8:
        i = random.randrange(len(value))
        return [*value[:i], vandalise(random, value[i]), *value[i + 1 :]]
    return random.choice(JUNK)


def test_junk_in_any_place_is_refused_or_answered() -> None:
    random, refused = Random(11), 0
    for _ in range(600):
        made = portfolio(random, random.choice(("portfolio", "standard")))
        try:
            answer = evaluate(parse(json.dumps(vandalise(random, made))))
        except MarginFileError:
            refused += 1
        else:
            assert answer["initial_margin"]
    assert 100 < refused < 600


def test_extreme_parameters_are_answered() -> None:
    """Every parameter at either end of its range gives numbers, never an error of ours."""
    for mode in ("portfolio", "standard"):
        made = json.loads(CASE) | {"mode": mode}
        known = (
            marginfile.PortfolioParameters() if mode == "portfolio" else
            marginfile.StandardParameters()
        )  # fmt: skip
        for seconds in (0, 1_000, 600_000_000):
            made["expiries"][0]["seconds"] = seconds
            for field in marginfile.fields(known):
                high = marginfile._high(field.name)
                low = "1e-18" if field.name == "skew_min_k" else "0"
                for value in (low, str(high)):
                    if field.name != "scenarios":
                        assert evaluate(made | {"parameters": {field.name: value}})["mtm"]
