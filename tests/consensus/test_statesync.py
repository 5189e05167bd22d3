"""A replica far behind takes over the state of an accepted checkpoint, whoever lies or dies."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from consensus import committer, statesync
from consensus.effects import StateAccepted
from consensus.messages import StateObjects
from consensus.replica import Replica
from consensus.serve import Library
from ops.sim.executor import HashChain
from ops.sim.plan import Crash, NetworkDials, Plan
from ops.sim.world import World
from tests.sim.runs import QUICK

MILESTONE_MS = 1_500
ACCEPTED_US = 20_000
LATE = 3


class ChainWorld(World):
    """A simulated network whose checkpoints are accepted on chain, seen by whoever runs."""

    def __init__(self, plan: Plan, ignored: frozenset[str] = frozenset()) -> None:
        super().__init__(plan, ignored)
        self.accepted: list[tuple[int, bytes]] = []

    def _executor(self, me: int) -> HashChain:
        chain = self.chain
        return HashChain(
            lambda before, block, ids: chain.executed(me, before, block, ids, self.loop.now_us),
            MILESTONE_MS,
        )

    def start(self) -> None:
        super().start()
        self.loop.after(ACCEPTED_US, self._look)

    def _look(self) -> None:
        """What the contract would accept: a milestone that a quorum has executed."""
        votes: dict[tuple[int, bytes], int] = {}
        for host in self.hosts:
            for record in host.core.ctx.shelf.kept if host.core is not None else ():
                if record.is_milestone:
                    name = (record.height, record.root)
                    votes[name] = votes.get(name, 0) + 1
        known = [name for name, count in votes.items() if count >= self.committee.quorum]
        for name in sorted(known):
            if not self.accepted or name[0] > self.accepted[-1][0]:
                self.accepted.append(name)
        for host in self.hosts:
            if host.is_up and self.accepted:
                self.step(host, StateAccepted(*self.accepted[-1]))
        self.loop.after(ACCEPTED_US, self._look)


def plan(seed: int, nodes: int = 4, **more: object) -> Plan:
    """One replica dies early, and is back when the others are far ahead."""
    down_ms = 9_000
    base = Plan(
        nodes=nodes,
        seed=seed,
        duration_ms=down_ms + 6_000,
        parameters=QUICK,
        faults=(Crash(LATE, 300, down_ms),),
        calm_ms=down_ms + 400,
    )
    return replace(base, **more)  # type: ignore[arg-type]


def late(world: World) -> Replica:
    core = world.hosts[LATE].core
    assert core is not None
    return core


@pytest.fixture(autouse=True)
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few blocks are far behind here, and the snapshots for restarts are as near."""
    monkeypatch.setattr(statesync, "SNAPSHOT_GAP", 40)
    monkeypatch.setattr(committer, "SNAPSHOT_INTERVAL", 32)


def check(world: ChainWorld) -> None:
    assert not world.ledger.violations, f"seed {world.plan.seed}: {world.ledger.violations}"
    heights = [host.height for host in world.hosts]
    assert max(heights) - min(heights) <= 8, f"seed {world.plan.seed}: {heights}"


@pytest.mark.parametrize("seed", range(2))
def test_a_replica_far_behind_takes_the_state_over_and_goes_on(seed: int) -> None:
    """It executes nothing of what the snapshot covers, and has every digest after it."""
    world = ChainWorld(plan(seed))
    world.run()
    check(world)
    core = late(world)
    assert core.ctx.counters["snapshots_installed"] == 1
    assert core.ctx.counters["blocks_committed"] < core.height - 40
    for height in range(core.ctx.shelf.kept[0].height, core.height, 8):
        digest = core.executed_digest(height)
        assert digest in (None, world.chain._states.get(height)), height
    voted = core.ctx.safety.vote
    assert voted is not None and voted.round > core.rounds.round - 20, "it votes again"


def test_it_survives_death_at_every_moment_of_the_transfer() -> None:
    """Killed again and again while it fetches: what was stored is not fetched again."""
    fetched = []
    for seed in range(3):
        rng = random.Random(seed)
        kills = tuple(Crash(LATE, 9_300 + 90 * k + rng.randrange(60), 25) for k in range(9))
        first = Crash(LATE, 300, 8_900)
        world = ChainWorld(plan(seed, faults=(first, *kills), calm_ms=10_600, duration_ms=17_000))
        world.run()
        check(world)
        fetched.append(late(world).ctx.counters.get("state_bytes_fetched", 0))
    print("fetched in the last life:", fetched)


def test_liars_and_losses_cost_questions_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """One peer flips a bit in everything, the network loses frames: blamed, asked elsewhere."""
    honest = Library.state

    def lying(self: Library, question: object) -> StateObjects:
        answer = honest(self, question)  # type: ignore[arg-type]
        if self._ctx.me != 0:
            return answer
        bad = tuple(o[:-1] + bytes((o[-1] ^ 1,)) if o else o for o in answer.objects)
        return StateObjects(answer.nonce, bad)

    monkeypatch.setattr(Library, "state", lying)
    blames = 0
    for seed in range(1):
        lossy = NetworkDials(loss=0.04)
        world = ChainWorld(plan(seed, nodes=7, network=lossy, liars={0: "reverse"}))
        world.run()
        check(world)
        assert late(world).ctx.counters["snapshots_installed"] == 1
        blames += late(world).ctx.counters.get("blame", 0)
    assert blames


def test_without_the_check_a_liars_state_is_caught_by_its_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check of chunks taken out: what is restored does not have the root, and is refused."""
    monkeypatch.setattr(statesync, "read_chunk", lambda name, object_: [])
    honest = Library.state

    def lying(self: Library, question: object) -> StateObjects:
        answer = honest(self, question)  # type: ignore[arg-type]
        objects = tuple(o[:-1] + b"\x77" if o[:1] == b"\0" else o for o in answer.objects)
        return StateObjects(answer.nonce, objects)

    monkeypatch.setattr(Library, "state", lying)
    world = ChainWorld(plan(1))
    world.run()
    assert world.ledger.violations
