"""Lying nodes as real processes, through the command of a researcher, and the judging itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consensus.codec import encode
from consensus.context import TABLE_CHAIN, TABLE_EVIDENCE, height_key
from consensus.effects import Write
from consensus.evidence import Evidence
from ops.config import load_genesis
from ops.devnet.stores import Disks
from ops.store import Store
from tests.e2e.test_devnet import devnet

pytestmark = pytest.mark.e2e

NODES = 4
LIAR = 3


@pytest.fixture(scope="module")
def lied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The home and the summary of a network in which one of four lies about its receipts."""
    home = tmp_path_factory.mktemp("lied") / "net"
    network = ("--nodes", str(NODES), "--seconds", "9", "--rate", "60", "--seed", "5")
    summary = devnet(*network, "--byzantine", f"{LIAR}:reverse", "--home", str(home))
    return home, summary


def test_the_order_stays_fair_while_a_log_lies(lied: tuple[Path, dict[str, Any]]) -> None:
    _, summary = lied
    told = summary["byzantine"]
    disks = told["disks"]
    assert (summary["faults"], summary["agree"]) == ([], True)
    assert summary["submitted"] == summary["executed"] > 300
    assert told["behaviours"] == {str(LIAR): "reverse"} and told["honest"] == [0, 1, 2]
    assert told["commands_lying"] > told["commands_before"] > 0
    assert set(told["latency_lying_ms"]) == {"p50", "p90", "p99", "max"}
    assert (disks["read"], disks["unfair"], disks["void"]) == ([0, 1, 2], 0, 0)
    assert disks["pairs"] > summary["submitted"], "the promise held for many pairs"
    liar = disks["liars_logs"][str(LIAR)]
    assert liar["inverted"] > 5, "it did lie"


def tampered(
    lied: tuple[Path, dict[str, Any]], tmp_path: Path, change: Callable[[Store], Write]
) -> list[str]:
    """Return what the judge finds when one honest disk says something else."""
    homes = []
    for i in range(NODES):
        homes.append(tmp_path / str(i))
        shutil.copytree(lied[0] / f"node{i}" / "data", homes[i] / "data")
    genesis = load_genesis(lied[0] / "node0" / "genesis.json")
    store = Store.open(homes[1] / "data", genesis.network_id())
    store.apply([change(store)], sync=True)
    store.close()
    return Disks(genesis, homes, (LIAR,)).read().faults


def test_a_fork_on_disk_is_found(lied: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    faults = tampered(lied, tmp_path, lambda _: Write(TABLE_CHAIN, height_key(40), bytes(32)))
    assert "fork: the nodes have different blocks at height 40" in faults


def test_evidence_against_an_honest_node_is_a_fault(
    lied: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    evidence = encode(Evidence("vote", 2, 1, 7, b"a", b"b"))
    faults = tampered(lied, tmp_path, lambda _: Write(TABLE_EVIDENCE, b"x", evidence))
    assert faults == ["evidence against an honest node: vote of node 2"]


def test_an_order_against_the_receipts_is_found(lied: tuple[Path, dict[str, Any]]) -> None:
    """Turn all honest logs round: the same order is then unfair for very many pairs."""

    class Turned(Disks):
        def _own_log(self, node: int, store: Store) -> list[bytes]:
            return super()._own_log(node, store)[::-1]

    genesis = load_genesis(lied[0] / "node0" / "genesis.json")
    report = Turned(genesis, [lied[0] / f"node{i}" for i in range(NODES)], (LIAR,)).read()
    assert report.unfair > 1_000
    assert any(fault.startswith("unfair: ") for fault in report.faults)


def test_censors_mutes_and_crash_loops_hold_nobody_up() -> None:
    """Seven nodes, of which one leaves a trader out and one is killed again and again."""
    network = ("--nodes", "7", "--seconds", "9", "--rate", "30")
    summary = devnet(*network, "--byzantine", "2:censor", "--byzantine", "6:crash-loop")
    told = summary["byzantine"]
    assert summary["faults"] == [] and summary["kills"] > 0
    assert told["commands_trader_0"] > 0 and told["latency_trader_0_ms"]
    assert told["disks"]["liars_logs"]["2"]["missing"] >= told["commands_trader_0"], "it censored"
    assert told["disks"]["unfair"] == 0


def test_two_votes_leave_evidence_and_an_equivocating_leader_no_fork() -> None:
    network = ("--nodes", "7", "--seconds", "9", "--rate", "30")
    summary = devnet(*network, "--byzantine", "1:two-votes", "--byzantine", "4:equivocate")
    assert summary["faults"] == []
    evidence = summary["byzantine"]["disks"]["evidence"]
    assert evidence["vote of node 1"] > 0
    assert all(name.rpartition(" ")[2] in ("1", "4") for name in evidence)


def test_kills_at_random_moments_lose_nothing() -> None:
    """The short form of `fairlane devnet --kills 200`."""
    summary = devnet("--nodes", "4", "--rate", "20", "--kills", "10", "--seed", "3")
    hunt = summary["hunt"]
    assert summary["faults"] == []
    assert hunt["kills"] == summary["kills"] == 10
    assert hunt["seen"] > 0 and hunt["seen_lost"] == 0
    assert hunt["disks"]["read"] == [0, 1, 2, 3]
    assert summary["executed"] == summary["submitted"]
