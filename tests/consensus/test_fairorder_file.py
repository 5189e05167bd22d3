"""Claims about `fairlane order`: stable answers, and one clear error for each bad file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.commands.order import command
from tests.consensus.fairness_oracle import SlowOrder


def order(path: Path, text: str | bytes, *options: str) -> Result:
    file = path / "logs.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return CliRunner().invoke(command, [str(file), *options])


def question(logs: list[list[str]], n: int = 5, f: int = 1, gamma: str = "1") -> str:
    return json.dumps({"n": n, "f": f, "gamma": gamma, "logs": logs})


ANSWERS: list[tuple[list[list[str]], dict[str, Any]]] = [
    ([["a", "b"]] * 5, {"batches": [["a"], ["b"]], "pending": []}),
    ([["b", "a"]] * 5, {"batches": [["b"], ["a"]], "pending": []}),
    ([["a", "b"], ["a", "b"], ["a", "b"], ["b"], []], {"batches": [["a"], ["b"]], "pending": []}),
    # Two logs hold b: comparable, yet not solid; and c is in one log only.
    ([["a", "b"], ["a", "b"], ["a", "c"], [], []], {"batches": [["a"]], "pending": ["b", "c"]}),
    # b comes before a in two logs, and a before b in one: a has to wait for b.
    ([["b", "a"], ["b", "a"], ["a"], [], []], {"batches": [], "pending": ["a", "b"]}),
    ([[], [], [], [], []], {"batches": [], "pending": []}),
    # An id that a log repeats counts where it came first.
    ([["a", "b", "a"]] * 5, {"batches": [["a"], ["b"]], "pending": []}),
]  # fmt: skip


@pytest.mark.parametrize(("logs", "answer"), ANSWERS)
def test_known_answers(tmp_path: Path, logs: list[list[str]], answer: dict[str, Any]) -> None:
    result = order(tmp_path, question(logs))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == answer


def test_the_examples_of_the_documentation_are_true(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/protocol/fair-order.md").read_text()
    examples = [block.split("```")[0].strip().splitlines() for block in text.split("```json")[1:]]
    assert len(examples) == 3
    for asked, answered in examples:
        result = order(tmp_path, asked)
        assert json.loads(result.stdout) == json.loads(answered)


def test_a_cycle_is_one_batch_in_the_order_of_its_hashes(tmp_path: Path) -> None:
    """a -> b -> c -> a: equal Copeland scores, so SHA-256 of the id decides."""
    logs = [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]
    result = order(tmp_path, question(logs, n=3, f=0))
    assert json.loads(result.stdout) == {"batches": [["c", "b", "a"]], "pending": []}


def test_one_object_a_line_gives_one_answer_a_line(tmp_path: Path) -> None:
    text = "\n\n".join(question(logs) for logs, _ in ANSWERS) + "\n"
    result = order(tmp_path, text, "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [a for _, a in ANSWERS]


def test_an_object_may_spread_over_lines_and_leave_f_and_gamma_to_their_defaults(
    tmp_path: Path,
) -> None:
    text = json.dumps({"n": 5, "logs": [["ä", "b"]] * 5}, indent=2)
    result = order(tmp_path, text)
    assert json.loads(result.stdout) == {"batches": [["ä"], ["b"]], "pending": []}


GOOD = question([["a"]] * 5)
BAD: list[tuple[str | bytes, str]] = [
    ("", "no object"),
    ("\n \n", "no object"),
    ("{", "line 1: Input data was truncated"),
    ("[]", "Expected `object`"),
    ("[" * 100_000, "line 1"),
    (GOOD[:-1] + ', "x": 1}', "unknown field `x`"),
    ('{"f": 1, "gamma": "1", "logs": []}', "missing required field `n`"),
    ('{"n": 5, "f": 1, "gamma": "1"}', "missing required field `logs`"),
    (question([["a"]] * 4), "logs: 4 of them, but n is 5"),
    (question([], n=0), "n: 0 is not in 1..100"),
    (question([], n=101), "n: 101 is not in 1..100"),
    (question([["a"]] * 5, f=5), "f=5 must be at least 0 and below n=5"),
    (question([["a"]] * 5, f=-1), "f=-1"),
    (question([["a"]] * 5, gamma="0"), "gamma=0/1 must be above 0"),
    (question([["a"]] * 5, gamma="7/6"), "gamma=7/6 must be above 0 and at most 1"),
    (question([["a"]] * 5, gamma="1/0"), "gamma=1/0"),
    (question([["a"]] * 5, gamma="0.9"), "no fraction"),
    (question([["a"]] * 5, gamma="-1/-1"), "no fraction"),
    (question([["a"]] * 5, gamma="4/5"), "n=5, f=1, gamma=4/5: an id needs S=5 logs"),
    (question([["a"]] * 5).replace('"1"', "1"), "Expected `str`, got `int` - at `$.gamma`"),
    (question([["a"]] * 5).replace("5", "true"), "Expected `int`, got `bool` - at `$.n`"),
    ('{"n":1,"logs":[[1]]}', "at `$.logs[0][0]`"),
    (b'{"n":1,"logs":[["\xff"]]}', "not UTF-8"),
    (b"\xff", "line 1"),
    (GOOD + "\n\n" + GOOD[:-1], "line 3: Input data was truncated"),
    (GOOD + "\n" + question([["a"]] * 4), "line 2: logs: 4"),
    (question([[str(k) for k in range(25_000)]] * 5), "too many"),
]


@pytest.mark.parametrize(("text", "why"), BAD)
def test_a_bad_file_exits_with_2_and_says_why(tmp_path: Path, text: str | bytes, why: str) -> None:
    result = order(tmp_path, text)
    assert result.exit_code == 2
    assert why in result.stderr
    assert "logs.json" in result.stderr
    assert "Traceback" not in result.output


def test_a_missing_file_exits_with_2(tmp_path: Path) -> None:
    assert CliRunner().invoke(command, [str(tmp_path / "none.json")]).exit_code == 2


def test_answers_before_a_bad_line_are_printed(tmp_path: Path) -> None:
    result = order(tmp_path, GOOD + "\n{}\n" + GOOD)
    assert json.loads(result.stdout) == {"batches": [["a"]], "pending": []}
    assert result.exit_code == 2


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80))
def test_no_bytes_at_all_raise_through(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    result = order(tmp_path_factory.getbasetemp(), text)
    assert result.exit_code in (0, 2)
    assert result.exception is None or isinstance(result.exception, SystemExit)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=8), min_size=5, max_size=5))
def test_the_answer_is_what_the_text_of_the_rule_says(
    tmp_path_factory: pytest.TempPathFactory, logs: list[list[str]]
) -> None:
    result = order(tmp_path_factory.getbasetemp(), question(logs))
    slow = SlowOrder(5, 1, expires=lambda _: 1)
    batches = slow.commit(1, 0, b"", [[id_.encode() for id_ in log] for log in logs])
    assert json.loads(result.stdout) == {
        "batches": [[id_.decode() for id_ in ids] for _, ids, _ in batches],
        "pending": sorted(id_.decode() for id_ in slow.pending()),
    }
