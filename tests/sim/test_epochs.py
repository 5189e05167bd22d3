"""The committee changes while the network trades: nothing is lost, nothing happens twice.

Each claim is also tried on a weaker core, which the same runs must catch.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from consensus import epochs as epochs_module
from consensus.effects import EpochBegan, Halt, Received, Start, Strayed
from consensus.epochs import Participant
from consensus.fairorder import FairOrder
from consensus.handover import Handing
from consensus.idmemory import IdMemory
from consensus.messages import EpochEnded, GetHandover, RoundTC
from ops.commands.epochs import command
from ops.sim.disk import SimDisk
from ops.sim.epochs import NETWORK_ID, EpochPlan, EpochWorld, Registry, growing, turbulent
from ops.sim.keys import hashed_keys
from ops.sim.plan import DIALS
from tests.consensus.samples import Sample


def violations(plan: EpochPlan) -> list[str]:
    world = EpochWorld(plan)
    world.run()
    print(
        f"seed {plan.seed}: {world.steps} steps, heights "
        f"{[node.core.replica.height if node.core else None for node in world.nodes]}, "
        f"{len(world.emitted)} of {len(world.orders)} commands"
    )
    return [str(each) for each in world.ledger.violations]


@pytest.mark.parametrize("seed", [1])
def test_five_seven_and_back_to_five_on_a_good_network(seed: int) -> None:
    world = EpochWorld(growing(seed))
    world.run()
    assert not world.ledger.violations, world.ledger.violations
    assert len(world.epochs) == 4
    assert len(world.emitted) > 350


@pytest.mark.parametrize("seed", [1, 2, 17])
def test_crashes_loss_and_old_frames_do_not_stop_a_change(seed: int) -> None:
    """Crashes fall between any two effects of a step, those of the switch included."""
    assert not violations(turbulent(seed))


def test_the_same_seed_gives_the_same_bytes() -> None:
    traces = []
    for _ in range(2):
        world = EpochWorld(turbulent(4))
        world.run()
        traces.append(world.trace.hexdigest())
    assert traces[0] == traces[1]


def test_the_command_says_what_a_run_came_to() -> None:
    result = CliRunner().invoke(command, ["--seed", "1", "--quiet-network", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.output)
    assert figures["held"] and figures["epochs"] == 4 and not figures["violations"]
    assert figures["executed"] > 350


def nothing_is_logged_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs_module, "_to_log_anew", lambda ctx: [])


def emitted_ids_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = FairOrder.next_epoch

    def forgetful(self: FairOrder, n: int, f: int) -> FairOrder:
        fresh = kept(self, n, f)
        fresh._done = IdMemory()
        return fresh

    monkeypatch.setattr(FairOrder, "next_epoch", forgetful)


def nobody_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handing, "repeat", lambda self, peers: None)
    monkeypatch.setattr(Participant, "_on_stray", lambda self, now_ms, peer, epoch: [])


@pytest.mark.parametrize(
    ("mutation", "kind"),
    [
        (nothing_is_logged_anew, "liveness"),
        (emitted_ids_are_forgotten, "twice"),
        (nobody_hands_over, "epochs"),
    ],
)
def test_a_weaker_change_of_epochs_is_caught(
    mutation: Callable[[pytest.MonkeyPatch], None], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    for runs in range(1, 9):
        found = violations(turbulent(runs))
        if found:
            print(f"{mutation.__name__}: found in run {runs}: {found[0]}")
            assert any(f"[{kind}]" in each for each in found), found
            return
    raise AssertionError("not found in 8 runs")


def participant(me: int, first: tuple[int, ...]) -> Participant:
    keys = hashed_keys(NETWORK_ID, 7)
    publics = tuple(keys.publics[i] for i in first)
    return Participant(
        NETWORK_ID, DIALS, keys.publics[me], keys.signers[me], SimDisk(), Registry(), publics
    )


def test_a_message_verified_for_another_epoch_is_not_taken() -> None:
    """A frame that waited for its verification may come out after the epoch has changed."""
    node = participant(0, (0, 1, 2, 3))
    node.step(0, Start())
    safety = node.replica.ctx.safety
    before = safety.record()
    assert node.step(1, Received(1, RoundTC(2, safety.hi_tc or None), epoch=2)) == []  # type: ignore[arg-type]
    assert safety.record() == before


def test_a_peer_in_a_later_epoch_is_asked_how_ours_ended_but_not_again_and_again() -> None:
    node = participant(0, (0, 1, 2, 3))
    node.step(0, Start())
    asked = node.step(10, Strayed(1, 2))
    assert [effect.message for effect in asked] == [GetHandover(1)]  # type: ignore[union-attr]
    assert node.step(20, Strayed(1, 2)) == []
    assert node.step(70, Strayed(1, 2)) != []
    assert node.step(80, Strayed(99, 2)) == []


def test_who_is_in_no_committee_signs_nothing() -> None:
    node = participant(6, (0, 1, 2, 3))
    began, *effects = node.step(0, Start())
    assert isinstance(began, EpochBegan) and began.members == (0, 1, 2, 3)
    assert not node.replica.ctx.may_sign
    for now_ms in range(0, 5_000, 50):
        effects += node.step(now_ms, Received(1, GetHandover(1), epoch=1))
    assert not [e for e in effects if type(e).__name__ == "Broadcast"]


def test_an_end_that_a_quorum_signed_and_we_do_not_know_of_is_a_divergence() -> None:
    sample = Sample()
    node = sample.core(0)
    node.step(0, Start())
    handover = sample.handover(0, sample.genesis_digest)
    effects = node.step(1, Received(1, EpochEnded(handover)))
    assert [e.kind for e in effects if isinstance(e, Halt)] == ["diverged"]
    assert node.core.halted and node.core.ended is None
