"""Signed nonsense harms nobody: the honest agree, go on, keep little and answer soon.

Beside each world with a liar runs its twin, where the fourth replica is silent.
"""

from __future__ import annotations

import pytest

from tests.fuzz.steps import World

RUN_MS = 5_000
CALM_MS = 4_000
LIES = 3
"""For each event of the honest: tens of times what they say themselves."""
HELD_MAX = 6 << 20
"""More than what the twin holds: of a log may be 32 MiB, but nonsense is rarely a log."""
STEP_CPU_MAX_S = 0.25


def play(seed: int, lies: int) -> World:
    world = World(seed, lies > 0)
    end = world.now_ms + RUN_MS
    world.submit(end)
    world.run(end, lies)
    world.run(end + CALM_MS)
    return world


@pytest.mark.parametrize("seed", range(3))
def test_signed_nonsense_breaks_no_honest_replica(seed: int) -> None:
    """No step raises (it would end the test), none halts; chains agree, and orders come through."""
    world, twin = play(seed, LIES), play(seed, 0)
    print(
        f"seed {seed}: {world.injected} lies of {world.octets} bytes let in, {world.refused} "
        f"refused; heights {world.heights()} and {twin.heights()}, ordered {world.ordered()} and "
        f"{twin.ordered()}, held {world.held()} and {twin.held()} bytes, "
        f"longest step {world.cpu_max_s:.3f} s"
    )
    assert world.injected > 2_000
    assert not world.halts and not twin.halts
    chains = world.chains()
    assert chains[0] == chains[1] == chains[2] and None not in chains[0]
    assert min(world.heights()) > 0.7 * min(twin.heights())
    assert min(twin.ordered()) > 0
    assert world.ordered() == twin.ordered(), "every client's command, in both worlds"
    assert max(world.held()) < max(twin.held()) + HELD_MAX
    assert world.cpu_max_s < STEP_CPU_MAX_S


def test_what_is_kept_of_nonsense_levels_off() -> None:
    """The second ten thousand lies add less than the bytes that they bring by far."""
    world = World(9, True)
    end = world.now_ms + 4_000
    world.submit(end)
    world.run(world.now_ms + 2_000, 6)
    held, brought = max(world.held()), world.octets
    world.run(end, 6)
    print(f"{brought} bytes of lies: {held} held; {world.octets}: {max(world.held())}")
    assert max(world.held()) - held < (world.octets - brought) / 10
