"""Who may lie in a devnet, and that a production node cannot."""

from __future__ import annotations

import inspect
import subprocess
import sys
from itertools import permutations

import pytest
from click.testing import CliRunner

from ops.commands.devnet import command
from ops.devnet.behaviours import (
    BEHAVIOURS,
    CRASH_LOOP,
    UNSUITABLE,
    BadBehaviour,
    parse_behaviours,
)
from ops.devnet.stores import compare_log, pairs_owed
from ops.sim.liars import LIARS

TRADING = ("sign_command(", "other_signature(", "desk.submit(")
LIAR_MODULES = [module for module in sys.modules if module.startswith("ops.sim.liars")]


def test_behaviours_are_the_simulators_and_a_crash_loop() -> None:
    assert set(BEHAVIOURS) | set(UNSUITABLE) == {*LIARS, CRASH_LOOP}
    for needed in ("equivocate", "censor", "reverse", "shuffle", "omit", "silent", CRASH_LOOP):
        assert needed in BEHAVIOURS
    listed = CliRunner().invoke(command, ["--list-behaviours"])
    assert listed.exit_code == 0
    assert all(name in listed.output for name in BEHAVIOURS)


def test_liars_that_trade_with_made_up_keys_are_left_to_the_simulator() -> None:
    """A real door would refuse their commands, and they would only seem to lie."""
    for name, kind in LIARS.items():
        sources = [inspect.getsource(c) for c in kind.__mro__ if c.__module__ in LIAR_MODULES]
        trades = any(word in "".join(sources) for word in TRADING)
        assert trades == (name in UNSUITABLE), name


def test_up_to_f_nodes_may_lie() -> None:
    assert parse_behaviours(("5:reverse", "6:censor"), 7, False) == {5: "reverse", 6: "censor"}
    assert parse_behaviours(("0:mute", "1:mute"), 5, True) == {0: "mute", 1: "mute"}


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (("0:mute", "1:mute"), "--beyond"),
        (("5:mute",), "the nodes are 0 to 4"),
        (("1:honest",), "no such behaviour"),
        (("1:stuff",), "simulator's keys"),
        (("reverse",), "is not NODE:BEHAVIOUR"),
        (("-1:reverse",), "is not NODE:BEHAVIOUR"),
        (("1:mute", "1:reverse"), "has a behaviour already"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: tuple[str, ...], text: str) -> None:
    with pytest.raises(BadBehaviour, match=text):
        parse_behaviours(asked, 5, False)
    options = [f"--byzantine={each}" for each in asked]
    result = CliRunner().invoke(command, options)
    assert result.exit_code == 2
    assert text in " ".join(result.output.split())


def test_a_production_node_does_not_know_how_to_lie() -> None:
    """Nothing that `fairlane node` imports contains a liar."""
    program = "import sys, ops.commands.node; print([m for m in sys.modules if 'liar' in m])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_pairs_are_counted_as_by_hand() -> None:
    """Against every pair looked at alone."""
    logs = [b"abcd", b"bacd", b"abdc", b"acb"]
    receipts = [[bytes((c,)) for c in log] for log in logs]
    for least in (2, 3, 4):
        by_hand = sum(
            sum(a in log and b in log and log.index(a) < log.index(b) for log in receipts) >= least
            for a, b in permutations((b"a", b"b", b"c", b"d"), 2)
        )
        assert pairs_owed(receipts, least) == by_hand


def test_a_log_is_held_against_the_honest_ones() -> None:
    honest = [[b"a", b"b", b"c", b"d"], [b"a", b"b", b"d", b"c"]]
    report = compare_log([b"b", b"a", b"d", b"c"], honest, dict.fromkeys((b"a", b"b", b"e"), 1))
    assert (report.entries, report.missing, report.inverted) == (4, 1, 1)
