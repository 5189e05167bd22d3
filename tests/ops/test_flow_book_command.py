"""Claims about `fairlane book`: one SHA-256 everywhere, and clear refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner

from matcher.book import Book, Trade
from ops.commands.book import command
from ops.flow import read
from ops.flow.plain import chunks
from tests.matcher.naive_book import replay as naive_replay

VECTORS = Path(__file__).parents[1] / "vectors/book"
FLOW = VECTORS / "flow.csv"
EXPECTED = json.loads((VECTORS / "flow.json").read_text())
REAL = Path(__file__).parents[3] / "shared/data/bitstamp-btcusd-2015-05-01.csv.xz"
REAL_SHA256 = "58e032d13a0826d6bb17a9b7a2a7121196a0df9a9db2aa0769068d6fa5acff93"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def text_of(trades: list[Trade]) -> str:
    return "".join(f"{taker},{maker},{price},{qty}\n" for taker, maker, price, qty in trades)


def test_the_naive_book_trades_the_vector_to_the_same_sha256() -> None:
    trades = naive_replay([event[:5] for event in read(FLOW)])
    assert len(trades) == EXPECTED["trades"]
    assert sha256(text_of(trades).encode()).hexdigest() == EXPECTED["trades_sha256"]


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_the_sha256_is_the_same_in_every_process(hash_seed: str, tmp_path: Path) -> None:
    out = tmp_path / "trades.csv"
    code = "from ops.commands.book import command; command()"
    done = subprocess.run(
        [sys.executable, "-c", code, str(FLOW), "--json", "--trades", str(out)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=True,
        text=True,
    )
    answer = json.loads(done.stdout)
    assert answer.pop("events_per_s") > 0
    assert answer == EXPECTED
    assert sha256(out.read_bytes()).hexdigest() == EXPECTED["trades_sha256"]


def test_the_summary_says_the_same(tmp_path: Path) -> None:
    code, output = run(FLOW)
    assert code == 0
    assert "3,000" in output and EXPECTED["trades_sha256"] in output


def test_the_header_is_optional_and_no_event(tmp_path: Path) -> None:
    bare = tmp_path / "bare.csv"
    bare.write_text(FLOW.read_text().split("\n", 1)[1])
    code, output = run(bare, "--json")
    answer = json.loads(output)
    assert (code, answer["events"]) == (0, 3000)
    assert answer["trades_sha256"] == EXPECTED["trades_sha256"]


def test_an_empty_file_has_no_trades(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    code, output = run(tmp_path / "empty.csv", "--json")
    assert (code, json.loads(output)["trades_sha256"]) == (0, sha256(b"").hexdigest())


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("0,3,0,100", "line 3: 5 fields"),
        ("0,3,0,1.5,5", "line 3: price is not an integer"),
        ("0,1,0,100,5", "line 3: order 1 of 5 lots"),
        ("0,3,0,100,0", "line 3: order 3 of 0 lots"),
        ("7,3,0,100,5", "line 3: op is"),
    ],
)
def test_a_malformed_line_exits_2_and_leaves_no_trades_file(
    tmp_path: Path, line: str, why: str
) -> None:
    path, out = tmp_path / "bad.csv", tmp_path / "trades.csv"
    path.write_text(f"0,1,0,100,5\n0,2,1,101,5\n{line}\n0,4,1,100,5\n")
    code, output = run(path, "--trades", out)
    assert code == 2
    assert f"{path}: {why}" in output
    assert "Traceback" not in output
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_missing_file_or_an_unwritable_one_exits_2(tmp_path: Path) -> None:
    assert run(tmp_path / "none.csv")[0] == 2
    assert run(tmp_path)[0] == 2
    assert run(FLOW, "--trades", tmp_path / "none" / "trades.csv")[0] == 2


def test_a_link_is_written_through_and_an_old_file_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    target.write_text("old\n")
    link.symlink_to(target)
    for path in (link, target):
        assert run(FLOW, "--trades", path)[0] == 0
        assert link.is_symlink()
        assert sha256(target.read_bytes()).hexdigest() == EXPECTED["trades_sha256"]


def test_the_help_names_the_format() -> None:
    code, output = run("--help")
    assert code == 0 and "op,id,side,price,qty" in output and "LOBSTER" not in output


def test_rows_one_by_one_through_the_public_calls_trade_the_same() -> None:
    """The hot loop against `match`, `place` and `cancel` of the same book."""
    book, trades = Book(), list[Trade]()
    for event in read(FLOW):
        if event.op == 1:
            book.cancel(event.id)
            continue
        fills = book.match(event.side, event.price if event.op == 0 else None, event.qty)
        trades += [(event.id, fill.order_id, fill.price, fill.qty) for fill in fills]
        left = event.qty - sum(fill.qty for fill in fills)
        if left and event.op == 0:
            book.place(event.id, 0, event.side, event.price, left)
    assert sha256(text_of(trades).encode()).hexdigest() == EXPECTED["trades_sha256"]
    fast = Book()
    with FLOW.open("rb") as stream:
        for chunk in chunks(stream):
            fast.replay(chunk, lambda _: None)
    assert fast.export() == book.export()


@pytest.mark.skipif(not REAL.exists(), reason=f"no real order flow at {REAL}")
def test_real_order_flow_trades_as_the_naive_book_trades_it() -> None:
    trades = naive_replay([event[:5] for event in read(REAL)])
    code, output = run(REAL, "--json")
    answer = json.loads(output)
    assert (code, answer["events"], answer["trades"]) == (0, 49_232, len(trades))
    assert answer["trades_sha256"] == sha256(text_of(trades).encode()).hexdigest() == REAL_SHA256
