"""How many commands a CPU-second of `Engine.apply` carries out: 1,000 accounts, one perpetual.

CPU time of this process alone, decoding, outcomes and events included; signatures are not the
engine's. The flow: limit orders around a walking price, three in ten of them taking, and as many
cancels of live orders; session-signed; blocks of 500 commands every 50 ms, with risk ticks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random

from pytest_benchmark.fixture import BenchmarkFixture

from matcher.actions import (
    IOC,
    AuthoriseSession,
    CancelOrder,
    PlaceOrder,
    encode_action,
)
from matcher.engine import BlockInput, Command, Engine
from matcher.outcome import CommandOutcome
from tests.matcher import naive_margin as naive
from tests.matcher.market import USDC, World, wallet

ACCOUNTS = 1_000
COMMANDS = 20_000
PER_BLOCK = 500
COMMANDS_PER_S_MIN = 30_000


@dataclass
class Flow:
    """A prepared world and the blocks to time."""

    world: World
    blocks: list[BlockInput]


def _key(number: int) -> bytes:
    return b"\xbb" + number.to_bytes(19, "big")


def prepare(seed: int, accounts: int = ACCOUNTS, commands: int = COMMANDS) -> Flow:
    """Fund and authorise everybody, and make the blocks."""
    rng = Random(seed)
    world = World()
    world.block()
    for number in range(accounts):
        world.deposit(wallet(number), 10_000 * USDC)
        world.run(AuthoriseSession(wallet(number), _key(number), 1, 1 << 60))
    live: list[tuple[int, int]] = []
    blocks: list[BlockInput] = []
    pending: list[Command] = []
    mid, now = 23_600, world.now
    for number in range(1, commands + 1):
        if live and rng.random() < 0.5:
            at = rng.randrange(len(live))
            live[at], live[-1] = live[-1], live[at]
            who, client = live.pop()
            payload = encode_action(CancelOrder(wallet(who), 0, 0, client))
        else:
            who, side = rng.randrange(accounts), rng.randrange(2)
            qty = min(100_000, int(rng.paretovariate(1.2) * 50))
            takes = rng.random() < 0.3
            away = (1 if takes else -1) * int(1 + rng.expovariate(0.2))
            price = mid + (away if side == 0 else -away)
            tif = IOC if takes else 0
            order = PlaceOrder(wallet(who), 0, 0, number, side, 0, price, qty, tif)
            payload = encode_action(order)
            if not takes:
                live.append((who, number))
        pending.append(Command(number.to_bytes(40, "big"), _key(who), payload))
        if len(pending) == PER_BLOCK:
            now += 50
            mid += rng.randint(-2, 2)
            seen = (((0, mid * 10_000, now), (1, 24 * USDC, now)),) * world.n
            height = world.height + len(blocks) + 1
            blocks.append(BlockInput(height, now, seen, (), world.inbox_hash, tuple(pending)))
            pending = []
    return Flow(world, blocks)


def run(engine: Engine, blocks: list[BlockInput]) -> tuple[float, float, dict[str, int]]:
    """Apply all; return CPU seconds of apply, of digests (every 8 blocks), and counts."""
    counts: dict[str, int] = {}
    applying = digesting = 0.0
    for block in blocks:
        start = time.process_time()
        events = engine.apply(block).events
        middle = time.process_time()
        if block.height % 8 == 0:
            engine.state_digest()
        digesting += time.process_time() - middle
        applying += middle - start
        for event in events:
            key = event.status if isinstance(event, CommandOutcome) else type(event).__name__
            counts[key] = counts.get(key, 0) + 1
    return applying, digesting, counts


def test_bench_engine_20k_commands(benchmark: BenchmarkFixture) -> None:
    """The best of three runs, each on a fresh engine; the same bytes come out of each."""
    rates: list[float] = []
    digests: list[bytes] = []
    shares: list[float] = []
    counts: dict[str, int] = {}

    def once(flow: Flow) -> None:
        applying, digesting, seen = run(flow.world.engine, flow.blocks)
        rates.append(COMMANDS / applying)
        shares.append(digesting / applying)
        counts.update(seen)
        naive.check_money(flow.world.state, flow.world.deposited)
        naive.check_books(flow.world.state)
        digests.append(flow.world.engine.state_digest())

    def setup() -> tuple[tuple[Flow], dict[str, object]]:
        return (prepare(seed=1),), {}

    benchmark.pedantic(once, setup=setup, rounds=3)  # type: ignore[no-untyped-call]
    benchmark.extra_info["commands_per_cpu_s"] = round(max(rates))
    benchmark.extra_info["digests_over_apply"] = round(min(shares), 3)
    print(f"\n{max(rates):,.0f} commands per CPU-second of apply, digests {min(shares):.0%} on top")
    print(counts)
    assert len(set(digests)) == 1
    assert counts.get("rejected", 0) < COMMANDS // 3, "mostly real work"
    assert max(rates) > COMMANDS_PER_S_MIN
