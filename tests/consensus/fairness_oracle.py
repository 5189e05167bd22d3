"""Two oracles for fair order: a slow second implementation, and a check of the promise itself.

Neither shares code with `consensus/fairorder.py`. `SlowOrder` follows the rule's text word by
word: it counts w pair by pair and finds components with Tarjan's algorithm. `inversions` knows
nothing of the rule: it compares what was emitted with the true order of receipt.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import combinations

from consensus.fairorder import FairOrder

HORIZON_MS = 240_000


def expiring(name: bytes, expires_ms: int) -> bytes:
    """Return an id as commands have it: eight bytes of expiry, then something unique."""
    return expires_ms.to_bytes(8, "big") + name


def expiry(id_: bytes) -> int:
    return int.from_bytes(id_[:8], "big")


def tarjan(nodes: Sequence[bytes], successors: dict[bytes, list[bytes]]) -> list[list[bytes]]:
    """Return the strongly connected components, predecessors first."""
    number: dict[bytes, int] = {}
    low: dict[bytes, int] = {}
    stack: list[bytes] = []
    components: list[list[bytes]] = []

    def visit(v: bytes) -> None:
        number[v] = low[v] = len(number)
        stack.append(v)
        for x in successors[v]:
            if x not in number:
                visit(x)
                low[v] = min(low[v], low[x])
            elif x in stack:
                low[v] = min(low[v], number[x])
        if low[v] == number[v]:
            cut = stack.index(v)
            components.append(stack[cut:])
            del stack[cut:]

    for node in nodes:
        if node not in number:
            visit(node)
    return components[::-1]


@dataclass
class SlowOrder:
    """The rule of fair order as its text reads, at quadratic cost and with nothing kept."""

    n: int
    f: int
    numerator: int = 1
    denominator: int = 1
    deadline_ms: int = 2_000
    expires: Callable[[bytes], int] = expiry
    logs: list[list[bytes]] = field(default_factory=list)
    entered: dict[bytes, int] = field(default_factory=dict)
    solid_at: dict[bytes, int] = field(default_factory=dict)
    kept_until: dict[bytes, int] = field(default_factory=dict)
    open: dict[bytes, int] = field(default_factory=dict)
    numbers: int = 0

    def __post_init__(self) -> None:
        rounded_up = -(-self.numerator * self.n // self.denominator)
        self.t = (self.n - rounded_up) + self.f + 1
        self.s = 2 * self.t - 1
        self.logs = [[] for _ in range(self.n)]

    def pending(self) -> set[bytes]:
        return {id_ for log in self.logs for id_ in log}

    def support(self, id_: bytes) -> int:
        return sum(id_ in log for log in self.logs)

    def w(self, a: bytes, b: bytes) -> int:
        return sum(a in log and (b not in log or log.index(a) < log.index(b)) for log in self.logs)

    def edges(self, ids: Sequence[bytes]) -> dict[bytes, list[bytes]]:
        after: dict[bytes, list[bytes]] = {a: [] for a in ids}
        for a, b in combinations(ids, 2):
            w_ab, w_ba = self.w(a, b), self.w(b, a)
            ab, ba = w_ba < self.t, w_ab < self.t
            if not ab and not ba:
                earlier = (self.entered[a], a) < (self.entered[b], b)
                ab = w_ab > w_ba if w_ab != w_ba else earlier
                ba = not ab
            if ab:
                after[a].append(b)
            if ba:
                after[b].append(a)
        return after

    def inner(self, members: list[bytes], block_digest: bytes) -> list[bytes]:
        forced: dict[bytes, list[bytes]] = {a: [] for a in members}
        for a in members:
            for b in members:
                if a != b and self.w(b, a) < self.t <= self.w(a, b):
                    forced[a].append(b)
        copeland = {a: sum(self.w(a, b) > self.w(b, a) for b in members) for a in members}

        def rank(a: bytes) -> tuple[int, bytes]:
            return -copeland[a], sha256(block_digest + a).digest()

        waiting = tarjan(members, forced)
        line: list[bytes] = []
        while waiting:
            free = [
                component
                for component in waiting
                if not any(
                    b in forced[a]
                    for other in waiting
                    if other is not component
                    for a in other
                    for b in component
                )
            ]
            chosen = min(free, key=lambda component: min(map(rank, component)))
            waiting.remove(chosen)
            line += sorted(chosen, key=rank)
        return line

    def drop(self, ids: Iterable[bytes]) -> None:
        for id_ in ids:
            for log in self.logs:
                if id_ in log:
                    log.remove(id_)
            self.open.pop(id_, None)

    def commit(
        self, height: int, time_ms: int, digest: bytes, suffixes: Sequence[Sequence[bytes]]
    ) -> list[tuple[int, tuple[bytes, ...], tuple[bytes, ...]]]:
        """Return (number, ids, refused) of each batch."""
        # Forgetting is by whole seconds.
        self.kept_until = {
            id_: until
            for id_, until in self.kept_until.items()
            if -(-until // 1_000) * 1_000 > time_ms
        }
        for log, ids in zip(self.logs, suffixes, strict=True):
            for id_ in ids:
                if id_ not in log and id_ not in self.kept_until and self.expires(id_) > time_ms:
                    log.append(id_)
        self.drop(id_ for id_ in self.pending() if self.expires(id_) <= time_ms)
        for gone in (self.entered, self.solid_at):
            for id_ in set(gone) - self.pending():
                del gone[id_]
        v = sorted(id_ for id_ in self.pending() if self.support(id_) >= self.t)
        for id_ in v:
            self.entered.setdefault(id_, height)
        solid = {id_ for id_ in v if self.support(id_) >= self.s}
        for id_ in sorted(solid):
            self.solid_at.setdefault(id_, time_ms)
        return self.emit(time_ms, digest, v, solid)

    def emit(
        self, time_ms: int, digest: bytes, v: list[bytes], solid: set[bytes]
    ) -> list[tuple[int, tuple[bytes, ...], tuple[bytes, ...]]]:
        after = self.edges(v)
        todo: list[tuple[list[bytes], list[bytes]]] = []
        for component in tarjan(v, after):
            if not solid.issuperset(component):
                break
            todo.append((component, component))
        emitted = {id_ for members, _ in todo for id_ in members}
        left = [id_ for id_ in v if id_ in solid and id_ not in emitted]
        for component in tarjan(left, {a: [b for b in after[a] if b in left] for a in left}):
            part = [
                y
                for y in component
                if time_ms - self.solid_at[y] > self.deadline_ms
                and all(
                    a in component
                    for a in v
                    if a != y and a not in emitted and self.w(y, a) < self.t
                )
            ]
            if part:
                todo.append((part, component))
                emitted |= set(part)
            if len(part) < len(component):
                break
        result = []
        for members, component in todo:
            number = max(self.open.get(id_, 0) for id_ in component)
            rest = [id_ for id_ in component if id_ not in members]
            if rest and not number:
                unemitted = [id_ for id_ in v if id_ not in emitted]
                number = max(self.open.get(id_, 0) for id_ in unemitted)
            if not number:
                self.numbers += 1
                number = self.numbers
            for id_ in rest:
                self.open[id_] = number
            line = self.inner(members, digest)
            fine = tuple(id_ for id_ in line if self.expires(id_) <= time_ms + HORIZON_MS)
            refused = tuple(id_ for id_ in line if self.expires(id_) > time_ms + HORIZON_MS)
            result.append((number, fine, refused))
        for id_ in emitted:
            self.kept_until[id_] = min(self.expires(id_), time_ms + HORIZON_MS)
        self.drop(emitted)
        return result


Emission = list[tuple[int, bytes]]
"""Everything that was emitted, in order, as (batch number, id)."""


def inversions(
    receipts: Sequence[Sequence[bytes]],
    liars: int,
    received_min: int,
    emission: Emission,
    still_open: Mapping[bytes, int] | None = None,
    within_batches: bool = False,
) -> list[tuple[bytes, bytes]]:
    """Return the pairs (a, b) where `received_min` replicas had a before b, and b went first.

    `receipts` are the true orders of persisted receipt at the honest replicas; each of the
    `liars` counts as having received a first. Two ids of one batch are never a violation, unless
    `within_batches` asks for just those; `still_open` names the batch of ids yet to come.
    """
    rank = [{id_: k for k, id_ in enumerate(receipt)} for receipt in receipts]
    place = {id_: (position, number) for position, (number, id_) in enumerate(emission)}
    known = sorted({id_ for receipt in receipts for id_ in receipt})
    bad = []
    for b, (position, number) in place.items():
        for a in known:
            if a == b:
                continue
            if a in place:
                first, same = place[a][0] < position, place[a][1] == number
            else:
                first, same = False, (still_open or {}).get(a) == number
            if first or same != within_batches:
                continue
            votes = sum(a in r and (b not in r or r[a] < r[b]) for r in rank)
            if votes + liars >= received_min:
                bad.append((a, b))
    return bad


Lie = Callable[[random.Random, list[bytes], list[list[bytes]]], list[bytes]]


def _reverse(_: random.Random, log: list[bytes], __: list[list[bytes]]) -> list[bytes]:
    return log[::-1]


def _shuffle(rng: random.Random, log: list[bytes], _: list[list[bytes]]) -> list[bytes]:
    return rng.sample(log, len(log))


def _omit(rng: random.Random, log: list[bytes], _: list[list[bytes]]) -> list[bytes]:
    return [id_ for id_ in log if rng.random() < 0.5]


def _silent(_: random.Random, __: list[bytes], ___: list[list[bytes]]) -> list[bytes]:
    return []


def _stuff(rng: random.Random, log: list[bytes], _: list[list[bytes]]) -> list[bytes]:
    """Lists everything early, in an order of its own, some of it again and again."""
    return [id_ for id_ in rng.sample(log, len(log)) for _ in range(rng.randint(1, 3))]


def _swap(rng: random.Random, log: list[bytes], __: list[list[bytes]]) -> list[bytes]:
    """Turns a few neighbours around: close to honest, which moves the thresholds most."""
    log = list(log)
    for _ in range(rng.randint(1, 3)):
        if len(log) > 1:
            k = rng.randrange(len(log) - 1)
            log[k], log[k + 1] = log[k + 1], log[k]
    return log


def _adaptive(rng: random.Random, log: list[bytes], honest: list[list[bytes]]) -> list[bytes]:
    """Knows all honest logs, and turns around the pairs on which they agree least."""

    def position(id_: bytes) -> int:
        return -sum(order.index(id_) if id_ in order else len(order) for order in honest)

    majority = sorted(log, key=position)
    return [id_ for id_ in majority if rng.random() < 0.9]


def _rotate(rng: random.Random, log: list[bytes], _: list[list[bytes]]) -> list[bytes]:
    """Moves the head to the tail, which with honest jitter makes cycles of preferences."""
    k = rng.randint(0, len(log))
    return log[k:] + log[:k]


LIES: tuple[Lie, ...] = (
    _reverse,
    _shuffle,
    _omit,
    _silent,
    _stuff,
    _swap,
    _adaptive,
    _rotate,
)


@dataclass
class Trial:
    """One history: what honest replicas truly received, and what every log shows, cut by cut."""

    n: int
    f: int
    gamma: tuple[int, int]
    honest: list[list[bytes]]
    logs: list[list[bytes]]
    cuts: list[tuple[int, list[list[bytes]]]]
    """(block time, suffixes) of each block."""

    @property
    def received_min(self) -> int:
        return -(-self.gamma[0] * self.n // self.gamma[1])


SIZES: tuple[tuple[int, int, tuple[int, int]], ...] = (
    (4, 1, (1, 1)),
    (5, 1, (1, 1)),
    (7, 2, (1, 1)),
    (7, 1, (6, 7)),
    (9, 2, (1, 1)),
    (9, 2, (8, 9)),
    (11, 2, (9, 11)),
)


def honest_receipts(rng: random.Random, replicas: int, ids: list[bytes]) -> list[list[bytes]]:
    """Return orders of receipt: one line of arrivals, jittered, or made by clients into cycles."""
    shape = rng.choice(("jitter", "jitter", "cycle", "clusters", "rolling"))
    jitter = rng.choice((0.5, 1.5, 3.0, 8.0)) if shape == "jitter" else rng.choice((0.0, 1.0))
    orders = []
    for replica in range(replicas):
        turn = rng.randrange(3)

        def key(k: int, replica: int = replica, turn: int = turn) -> float:
            match shape:
                case "cycle":
                    return (k + replica * len(ids) // replicas) % len(ids)
                case "clusters":
                    return 3 * (k // 3) + (k + turn) % 3
                case "rolling":
                    return k + 1.4 * ((k + replica) % 3)
                case _:
                    return k

        keys = {id_: key(k) + rng.uniform(0, jitter) for k, id_ in enumerate(ids)}
        orders.append(sorted(ids, key=lambda id_: keys[id_]))
    return orders


def random_cuts(rng: random.Random, lengths: Sequence[int]) -> list[list[int]]:
    """Return rising cuts through logs of these lengths: marks[block][log]."""
    blocks = rng.randint(1, 12)
    if rng.random() < 0.5:
        # All logs advance alike, each a little ahead or behind.
        marks = [
            [rng.randint(-2, 2) + end * (k + 1) // blocks for k in range(blocks)] for end in lengths
        ]
    else:
        marks = [[rng.randint(0, end) for _ in range(blocks)] for end in lengths]
    if rng.random() < 0.5:
        # Some logs fall silent, until the last block at least.
        for i in rng.sample(range(len(lengths)), rng.randint(1, len(lengths) // 2)):
            silent_at = rng.randint(0, lengths[i])
            marks[i] = [min(mark, silent_at) for mark in marks[i]]
    if rng.random() < 0.5:
        for i, end in enumerate(lengths):
            marks[i][-1] = end
    for i, end in enumerate(lengths):
        marks[i] = sorted(min(max(mark, 0), end) for mark in marks[i])
    return [list(cut) for cut in zip(*marks, strict=True)]


def random_trial(rng: random.Random, ids_max: int = 9) -> Trial:
    """Return a history with f lying logs; some honest receipts may stay uncommitted."""
    n, f, gamma = rng.choice(SIZES)
    ids = [expiring(b"%d" % k, 200_000) for k in rng.sample(range(1000), rng.randint(2, ids_max))]
    honest = honest_receipts(rng, n - f, ids)
    logs = [list(order) for order in honest]
    logs += [rng.choice(LIES)(rng, rng.choice(honest), honest) for _ in range(f)]
    rng.shuffle(logs)
    cuts: list[tuple[int, list[list[bytes]]]] = []
    time_ms, heads = 1_000, [0] * n
    steps_ms = rng.choice(((50,), (0, 50, 50, 2_000, 5_000), (400, 800, 1_600)))
    for cut in random_cuts(rng, [len(log) for log in logs]):
        time_ms += rng.choice(steps_ms)
        suffixes = [log[heads[i] : cut[i]] for i, log in enumerate(logs)]
        cuts.append((time_ms, suffixes))
        heads = cut
    return Trial(n, f, gamma, honest, logs, cuts)


def still_open(order: FairOrder) -> dict[bytes, int]:
    """Return the batch numbers of the pending ids that are the rest of a batch."""
    return {id_: order.open_number(id_) for id_ in order.pending() if order.open_number(id_)}


def run_trial(trial: Trial, order: FairOrder) -> Emission:
    """Commit all cuts of `trial`; return what came out."""
    emission: Emission = []
    for height, (time_ms, suffixes) in enumerate(trial.cuts, 1):
        for batch in order.commit(height, time_ms, b"block %d" % height, suffixes):
            emission += [(batch.number, id_) for id_ in batch.ids + batch.refused]
    return emission
