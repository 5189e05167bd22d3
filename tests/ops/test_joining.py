"""Joining as the node's driver does it: many inputs a turn, one write after them, then the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from consensus import effects as core
from consensus import statesync
from consensus.codec import encode
from consensus.committee import Committee
from consensus.messages import GetChain, GetState
from ops.sim.keys import real_keys
from tests.bench.test_bench_statesync import NETWORK, START_MS, STEP_MS, Node, answer_outsider


class TurnNode(Node):
    """What a step writes is there only at the end of the turn."""

    def step(self, now_ms: int, event: core.Input) -> None:
        self.turn(now_ms, [event])

    def turn(self, now_ms: int, events: list[core.Input]) -> None:
        effects = [each for event in events for each in self.replica.step(now_ms, event)]
        self.exchange.executed.clear()
        self.exchange.due.clear()
        for effect in effects:
            if isinstance(effect, core.Persist):
                self.store.apply(effect.writes, effect.sync)
        for effect in effects:
            match effect:
                case core.Send(_, message) | core.Broadcast(message):
                    self.sent.append(encode(message))
                case core.SetTimer(name, at_ms):
                    self.timers[name] = at_ms
                case core.Halt(why):
                    raise AssertionError(why)
                case _:
                    pass

    def hear_all(self, now_ms: int, frames: list[bytes]) -> None:
        self.turn(now_ms, [core.Received(0, self.admission.admit(0, each)) for each in frames])


@pytest.mark.parametrize("accounts", [0, 300])
def test_a_node_takes_a_state_over_whatever_comes_in_the_same_turn(
    accounts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every answer comes with a proven run of blocks: nothing is read before it is written."""
    monkeypatch.setattr(statesync, "SNAPSHOT_GAP", 0)
    committee = Committee(NETWORK, 1, real_keys(NETWORK, 1).publics)
    server = TurnNode(committee, 0, tmp_path / "server", accounts)
    now_ms = START_MS
    server.step(now_ms, core.Start())
    shelf = server.replica.ctx.shelf
    while len([r for r in shelf.kept if r.is_milestone]) < 2 or shelf.backlog:
        now_ms += STEP_MS
        server.tick(now_ms)
        server.sent.clear()
    accepted = [r for r in shelf.kept if r.is_milestone][-2]
    joining = TurnNode(committee, 1, tmp_path / "joining", 0)
    joining.step(now_ms, core.Start())
    joining.step(now_ms, core.StateAccepted(accepted.height, accepted.root))
    counters = joining.replica.ctx.counters
    began_ms = now_ms
    while joining.replica.height < server.replica.height - 2:
        now_ms += 5
        assert now_ms < began_ms + 20_000, joining.replica.ctx.counters
        server.tick(now_ms)
        joining.tick(now_ms)
        while joining.sent:
            questions, joining.sent = joining.sent, []
            server.sent.clear()
            for frame in questions:
                answer_outsider(server, frame)
                if isinstance(server.admission.admit(1, frame), GetState):
                    answer_outsider(server, encode(GetChain(accepted.height)))
            joining.hear_all(now_ms, server.sent)
    counters = joining.replica.ctx.counters
    assert counters["snapshots_installed"] == 1 and "state_of_another_committee" not in counters
    assert joining.replica.ctx.shelf.kept[0].height == accepted.height
    assert joining.exchange.outcomes == server.exchange.outcomes
    height = joining.replica.height - joining.replica.height % 8
    assert joining.replica.executed_digest(height) == server.replica.executed_digest(height)
    server.store.close()
    joining.store.close()
