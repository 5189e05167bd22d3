"""What befalls a devnet's nodes: one killed, a quorum lost, crash loops, the long hunt."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

import trio

from consensus.committee import faults as faults_of
from ops.devnet.processes import Child, ProcessFailed
from ops.devnet.watch import Watch

KILL_AFTER_S = 5.0
DOWN_S = 4.0
DRAIN_S = 2.0
"""After which no status that was asked for before a kill can arrive any more."""
RESUME_S = 30.0
POLL_S = 0.1
UP_S = (0.5, 3.0)
"""How long a node in a crash loop may run."""
PAUSE_S = (0.05, 1.5)
"""Between two kills of a hunt."""
HUNT_DOWN_S = (0.1, 2.0)
STORM_EVERY = 12
"""One kill in so many of a hunt takes more than f nodes at once."""
HIT_STARTING = 4
"""A node that is not up yet is hit in one of so many cases, and once each time it comes back: it
must be up before the hunt takes it again, however long starting takes on a busy machine."""
SETTLE_S = 60.0


class Trouble:
    """Kills nodes of one devnet, and brings them back."""

    def __init__(
        self,
        nodes: Sequence[Child],
        watch: Watch,
        say: Callable[[str], None],
        faults: list[str],
        seed: int,
    ) -> None:
        """What does not hold is appended to `faults`."""
        self._nodes = nodes
        self._watch = watch
        self._say = say
        self.faults = faults
        self.seed = seed
        self._killed = Counter[str]()
        self._hit_starting: dict[int, None] = {}
        self.kills = 0
        self.storms = 0
        """Moments of a hunt at which more than f nodes were down."""
        self.down_max = 0

    async def kill_one(self) -> None:
        """Kill a node in the middle of trading, and start it again a little later."""
        await trio.sleep(KILL_AFTER_S)
        victim = self._nodes[-1]
        self._say(f"kill -9 {victim.name}")
        victim.kill()
        victim.prepare()
        await trio.sleep(DOWN_S)
        await victim.start()
        self._say(f"{victim.name} is up again")
        self.kills += 1

    async def stall(self, count: int) -> None:
        """Kill more nodes than the network can miss: it stops; as they return, it goes on."""
        await trio.sleep(KILL_AFTER_S)
        victims = self._nodes[-count:]
        self._say(f"kill -9 {', '.join(victim.name for victim in victims)}: no quorum is left")
        for victim in victims:
            victim.kill()
        await trio.sleep(DRAIN_S)
        stopped = self._watch.height()
        await trio.sleep(DOWN_S)
        if self._watch.height() != stopped:
            self.faults.append("blocks were committed without a quorum")
        self._say(f"the network stands still at height {stopped}")
        for victim in victims:
            await victim.start()
            self.kills += 1
            self._say(f"{victim.name} is up again")
            resumed = trio.current_time()
            with trio.move_on_after(RESUME_S):
                await until(lambda: self._watch.height() > stopped)
                self._say(f"blocks again after {trio.current_time() - resumed:.1f} s")
                continue
            self.faults.append("the network did not go on when a node returned")

    async def crash_loop(self, victim: Child) -> None:
        """Kill one node again and again until cancelled; it is left running then."""
        rng = random.Random(f"crash loop {self.seed} {victim.name}")
        while True:
            await trio.sleep(rng.uniform(*UP_S))
            victim.kill()
            victim.prepare()
            self.kills += 1
            with trio.CancelScope(shield=True):
                await trio.sleep(rng.uniform(*HUNT_DOWN_S))
                await victim.start()

    async def hunt(self, count: int) -> None:
        """Kill `count` times: random nodes at random moments, while they start too, mostly up to
        f at a time and sometimes more. Returns when all are up again. Errors: ProcessFailed."""
        rng = random.Random(f"hunt {self.seed}")
        f = faults_of(len(self._nodes))
        async with trio.open_nursery() as nursery:
            while self.kills < count and not self.faults:
                await trio.sleep(rng.uniform(*PAUSE_S))
                storm = rng.randrange(STORM_EVERY) == 0
                victims = self._victims(rng, f, storm)[: count - self.kills]
                for victim in victims:
                    self._kill(victim)
                    nursery.start_soon(self._revive, victim, rng.uniform(*HUNT_DOWN_S))
                down = sum(not node.ready for node in self._nodes)
                self.down_max = max(self.down_max, down)
                self.storms += bool(victims) and down > f
        with trio.move_on_after(SETTLE_S):
            await until(lambda: all(node.ready for node in self._nodes))

    def _victims(self, rng: random.Random, f: int, storm: bool) -> list[Child]:
        """Choose whom to kill now: of those that are up, as many as may be down together; and
        seldom one that is just starting or catching up, which counts as down already."""
        down_max = f + 1 if storm else f
        together = down_max if storm else rng.randint(1, max(f, 1))
        down = sum(not self._is_up(place) for place in range(len(self._nodes)))
        victims: list[Child] = []
        for place in rng.sample(range(len(self._nodes)), len(self._nodes)):
            node, up = self._nodes[place], self._is_up(place)
            if len(victims) == together or not node.running:
                continue
            if up:
                self._hit_starting.pop(place, None)
                if down >= down_max:
                    continue
            elif place in self._hit_starting or rng.randrange(HIT_STARTING):
                continue
            else:
                self._hit_starting[place] = None
            down += up
            victims.append(node)
        return victims

    def _is_up(self, place: int) -> bool:
        """Say whether a node takes part: its door is open, and it is not behind the others."""
        status = self._watch.nodes[place].status
        return self._nodes[place].ready and status is not None and not status.syncing

    def _kill(self, victim: Child) -> None:
        victim.kill()
        victim.prepare()
        self.kills += 1
        self._killed[victim.name] += 1
        agreed = self._watch.agreed()
        if agreed is not None and agreed[1] == "":
            self.faults.append(
                f"the state digests differ at height {agreed[0]}, by kill {self.kills} "
                f"({victim.name}) of --seed {self.seed}"
            )
        if self.kills % 10 == 0:
            self._say(f"kill {self.kills}: {victim.name}, at height {self._watch.height()}")

    async def _revive(self, victim: Child, after_s: float) -> None:
        """Start a killed node; when the hunt kills it as it starts, the hunt starts it again."""
        kills, times = self.kills, self._killed[victim.name]
        await trio.sleep(after_s)
        try:
            await victim.start()
        except ProcessFailed as failed:
            if self._killed[victim.name] > times:
                return
            self.faults.append(f"after kill {kills} of --seed {self.seed}: {failed}")


async def until(holds: Callable[[], bool]) -> None:
    """Return once `holds` does; it looks at what other processes said, so there is no event."""
    while not holds():  # noqa: ASYNC110
        await trio.sleep(POLL_S)
