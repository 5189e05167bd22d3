"""A replica that was down catches up from all peers at once; a bad one costs only its ranges."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consensus import chainsync, statesync
from consensus.effects import Effect, Input, Received, Send
from consensus.messages import Batches, Chain, GetBatches, GetChain
from consensus.replica import Replica
from consensus.serve import Library
from ops.sim.plan import DIALS, Crash, NetworkDials, Plan
from ops.sim.world import World

LATE, BAD = 3, 0
DOWN_MS = 12_000


@pytest.fixture(autouse=True)
def by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statesync, "SNAPSHOT_GAP", 1 << 40)


class Watched(World):
    """Counts what the late replica asks for, and when it has caught up."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.asked: dict[int, int] = {}
        self.batches: dict[tuple[int, int], int] = {}
        self.caught_up_ms = 0
        host, step = self.hosts[LATE], self.hosts[LATE].step

        def watched(now_us: int, event: Input) -> list[Effect]:
            if isinstance(event, Received) and isinstance(event.message, Batches):
                for batch in event.message.batches:
                    name = (batch.author, batch.seq)
                    self.batches[name] = self.batches.get(name, 0) + 1
            effects = step(now_us, event)
            for effect in effects:
                if isinstance(effect, Send) and isinstance(effect.message, GetChain | GetBatches):
                    self.asked[effect.peer] = self.asked.get(effect.peer, 0) + 1
            top = max(each.height for each in self.hosts)
            if not self.caught_up_ms and now_us > (DOWN_MS + 320) * 1_000 and top - host.height < 8:
                self.caught_up_ms = now_us // 1_000 - DOWN_MS - 300
            return effects  # type: ignore[return-value]

        host.step = watched  # type: ignore[method-assign,assignment]


def plan(seed: int, **more: object) -> Plan:
    base = Plan(
        nodes=4,
        seed=seed,
        duration_ms=DOWN_MS + 9_000,
        parameters=DIALS,
        network=NetworkDials(delay_min_ms=15, delay_max_ms=20),
        faults=(Crash(LATE, 300, DOWN_MS),),
        calm_ms=DOWN_MS + 400,
    )
    return replace(base, **more)  # type: ignore[arg-type]


def run(seed: int, **more: object) -> Watched:
    world = Watched(plan(seed, **more))
    world.run()
    assert not world.ledger.violations, f"seed {seed}: {world.ledger.violations}"
    return world


@pytest.mark.parametrize("seed", range(2))
def test_everybody_is_asked_and_little_comes_twice(seed: int) -> None:
    world = run(seed)
    assert 0 < world.caught_up_ms < 1_500, f"seed {seed}: {world.caught_up_ms} ms"
    assert set(world.asked) == {0, 1, 2}, "from several peers at once"
    assert min(world.asked.values()) * 4 > max(world.asked.values()), world.asked
    copies = sum(world.batches.values()) / len(world.batches)
    print(f"caught up in {world.caught_up_ms} ms, {copies:.2f} copies of a batch, {world.asked}")
    assert copies < 1.5


def test_a_peer_that_does_not_answer_costs_its_ranges_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It greets and votes as ever, and says nothing to questions: others are asked in its place."""
    honest_chain, honest_batches = Library.chain, Library.batches

    def chain(self: Library, question: GetChain) -> object:
        return None if self._ctx.me == BAD else honest_chain(self, question)

    def batches(self: Library, question: GetBatches) -> object:
        return None if self._ctx.me == BAD else honest_batches(self, question)

    monkeypatch.setattr(Library, "chain", chain)
    monkeypatch.setattr(Library, "batches", batches)
    world = run(3)
    patience_ms = chainsync.ANSWER_MS
    assert 0 < world.caught_up_ms < 1_500 + 2 * patience_ms, world.caught_up_ms
    assert world.asked[BAD] > 0, "it was asked like the others"


def test_a_peer_that_claims_what_nobody_has_is_not_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """f + 1 must claim a height: one alone sends nobody after blocks that do not exist."""
    note = Replica._note_height

    def boasting(self: Replica, peer: int, height: int) -> None:
        note(self, peer, height + 1_000_000 if peer == BAD else height)

    monkeypatch.setattr(Replica, "_note_height", boasting)
    world = run(4)
    assert 0 < world.caught_up_ms < 2_500, world.caught_up_ms


def test_a_run_that_ends_early_is_asked_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers that can prove only short runs: the rest of a range is a range of its own."""
    honest = Library.chain

    def short(self: Library, question: GetChain) -> object:
        answer = honest(self, question)
        if isinstance(answer, Chain) and len(answer.blocks) > 5 and answer.child is None:
            monkeypatch.setattr("consensus.serve.FETCH_BLOCKS_MAX", 5)
            answer = honest(self, question)
            monkeypatch.setattr("consensus.serve.FETCH_BLOCKS_MAX", 32)
        return answer

    monkeypatch.setattr(Library, "chain", short)
    world = run(5)
    assert 0 < world.caught_up_ms < 3_000, world.caught_up_ms
