"""Every offered liar around a real node's core: honest until told, and then it works."""

from __future__ import annotations

from typing import get_args

import pytest

from consensus import effects as core
from ops.config import load_genesis
from ops.devnet.behaviours import BEHAVIOURS, CRASH_LOOP
from ops.devnet.liar import VICTIM, LiarNode
from ops.node import open_node
from ops.replica import Effect
from ops.sim.liars import Frame
from tests.e2e.one_node import Home, make_home
from tests.ops.test_node import commands

LIES = sorted(set(BEHAVIOURS) - {CRASH_LOOP})
EFFECTS = (*get_args(Effect), Frame)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_home(tmp_path_factory.mktemp("liars"), 4)


@pytest.fixture
def node(home: Home, monkeypatch: pytest.MonkeyPatch) -> type[LiarNode]:
    monkeypatch.setattr(LiarNode, "liars", (0,))
    return LiarNode


@pytest.mark.parametrize("behaviour", LIES)
def test_a_real_node_lies_when_told_and_not_before(
    behaviour: str, home: Home, node: type[LiarNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiarNode, "behaviour", behaviour)
    liar = open_node(home.first, node)
    assert isinstance(liar, LiarNode)
    try:
        replica = liar.driver.replica
        now_ms = load_genesis(home.first / "genesis.json").time_ms + 1_000
        command = commands(home, 0, 1)[0]
        assert not liar._lies
        told: list[object] = list(replica.step(now_ms, core.Start()))
        liar._begin()
        assert liar._lies
        events = [
            core.Connected(1),
            core.Submitted(command.id, command.body),
            *(core.TimerFired(name) for name in ("guard", "batch", "round", "propose", "fetch")),
        ]
        for event in events:
            now_ms += 2_000
            told += replica.step(now_ms, event)
        assert all(isinstance(each, EFFECTS) for each in told)
        if behaviour == "mute":
            return  # It hears nothing either.
        assert len(told) > len(events), "it does take part"
        assert liar._sender_of(replica, command.id) not in (None, VICTIM)
        monkeypatch.setattr(LiarNode, "victim", liar._sender_of(replica, command.id))
        assert liar._sender_of(replica, command.id) == VICTIM
    finally:
        liar._close()
