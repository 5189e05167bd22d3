"""Random flows of everything that can happen to an engine, honest and hostile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from hypothesis import strategies as st

from consensus.digest import word
from matcher.actions import (
    AuthoriseSession,
    Batch,
    CancelAll,
    CancelOrder,
    PlaceOrder,
    RevokeSession,
    Withdraw,
)
from matcher.engine import Command
from matcher.inbox import deposit_message
from tests.matcher.market import SPOT, USDC, World, changed_instruments, free_genesis, wallet

WALLETS = 5
ALL_ONES = word(1) + word(wallet(9)) + b"\xff" * 64
"""A deposit of 2**256 - 1 into a subaccount as large."""


@dataclass(frozen=True)
class Step:
    """One thing that happens; `arguments` depend on the kind."""

    kind: str
    arguments: tuple[Any, ...] = ()


def volatile_genesis() -> Any:
    """A genesis in which few lots matter: wide bands, a small size base, low caps."""
    genesis = changed_instruments(
        free_genesis(deposit_min=10 * USDC, open_orders_max=6, liquidation_min=50 * USDC),
        price_band=2 * 10**17,
        size_base=20_000 * USDC,
        open_interest_low=5_000_000,
        open_interest_high=40_000_000,
        impact_notional=20 * USDC,
        last_qty_min=1,
    )
    return genesis


def _random_place(rng: Random, levered: bool) -> Step:
    """Mostly near the spot; `levered` flows trade as much as the accounts can carry."""
    offset = None if rng.random() < 0.1 else int(rng.gauss(0, 30 if levered else 200))
    small, large = rng.randint(1, 50), rng.randint(1_000, 400_000)
    who = rng.choice((0, 1, 2, 3, 3, 3, rng.randrange(WALLETS)))
    side = rng.randrange(2)
    if levered and who < 3:
        side = who % 2 if rng.random() < 0.9 else 1 - who % 2
        offset = None if offset is None else abs(offset) * (1 - 2 * side)
    elif levered and offset is not None:
        offset = abs(offset) * (2 * side - 1) // 2
    return Step(
        "place",
        (
            who,
            int(rng.random() < 0.02),
            int(rng.random() < 0.2),
            side,
            offset,
            large if levered else rng.choice((small, large)),
            rng.choice((0, 0, 0, 0, 0, 1, 2)),
            rng.random() < 0.05,
            rng.random() < 0.05,
        ),
    )


def _random_cancel(rng: Random, levered: bool) -> Step:
    return Step("cancel", (rng.randrange(WALLETS), rng.randint(1, 25), rng.random() < 0.5))


def _random_outside(rng: Random) -> Step:
    """Deposits, other inbox messages, withdrawals, sessions, rubbish, silence."""
    who = rng.randrange(WALLETS)
    kind = rng.choice(("deposit", "inbox", "withdraw", "withdraw", "garbage", "session", "silence"))
    if kind == "deposit":
        sub = rng.choice((0, 0, 0, 1, 31, 32, 253, 254, 255, 2**200))
        amount = rng.choice((0, 1, 9 * USDC, 10 * USDC, 100 * USDC, 300 * USDC, 1 << 64))
        return Step(kind, (who, sub, amount))
    if kind == "inbox":
        return Step(kind, (rng.choice((rng.randbytes(128), b"", word(2) + word(0) * 3, ALL_ONES)),))
    if kind == "withdraw":
        sub = rng.choice((0, 0, 0, 1, 253, 254, 255))
        return Step(kind, (who, sub, rng.randint(1, 300 * USDC), rng.randrange(4)))
    if kind == "garbage":
        return Step(kind, (rng.randbytes(rng.randrange(80)), who))
    if kind == "session":
        return Step(kind, (who, rng.randrange(3), rng.randrange(4), rng.random() < 0.3,
                           rng.random() < 0.3))  # fmt: skip
    return Step(kind, (rng.randint(1, 25_000),))


def random_flow(seed: int, length: int) -> list[Step]:
    """Return `length` steps: trading on few accounts, a walking price with shocks, hostile rest."""
    rng = Random(seed)
    flow: list[Step] = []
    walk = [0, 0]
    levered = rng.random() < 0.6
    for _ in range(length):
        dice = rng.random()
        if dice < 0.62:
            flow.append(_random_place(rng, levered))
        elif dice < 0.68:
            flow.append(_random_cancel(rng, levered))
        elif dice < 0.70:
            flow.append(Step("cancel_all", (rng.randrange(WALLETS), rng.randrange(3))))
        elif dice < 0.74:
            several = [rng.choice((_random_place, _random_cancel))(rng, levered) for _ in range(4)]
            flow.append(Step("batch", tuple(Step(s.kind, (0, *s.arguments[1:])) for s in several)))
        elif dice < 0.76:
            flow.append(Step("resend"))
        elif dice < 0.92:
            feed = rng.randrange(2)
            gap = 1_000 if levered else 300
            move = rng.gauss(0, gap) if rng.random() < 0.2 else rng.gauss(0, 40)
            walk[feed] = max(-3_000, min(3_000, walk[feed] + int(move)))
            flow.append(Step("spot", (feed, walk[feed], rng.choice((20, 500, 1_000, 4_000)))))
        else:
            flow.append(_random_outside(rng))
    return flow


flows = st.builds(random_flow, st.integers(0, 1 << 32), st.integers(50, 150))
"""Seeded flows: the seed and length name the run."""


def funded() -> World:
    """A world in which some wallets have money and the insurance fund a little."""
    world = World(volatile_genesis())
    world.block()
    for number, amount in enumerate((1_000, 400, 100, 50_000)):
        world.deposit(wallet(number), amount * USDC)
    world.deposit(bytes.fromhex(world.genesis.insurance_wallet), 20 * USDC, 253)
    return world


def _action(world: World, step: Step) -> PlaceOrder | CancelOrder:
    if step.kind == "cancel":
        who, back, by_client = step.arguments
        if by_client:
            return CancelOrder(wallet(who), 0, 0, max(0, world.client - back))
        return CancelOrder(wallet(who), 0, max(0, world.state.next_order - back))
    who, sub, instrument, side, offset, qty, tif, post_only, reduce_only = step.arguments
    price = 0
    if offset is not None:
        tick = world.genesis.instruments[instrument].tick_size
        price = max(1, world.spot[instrument] * (10_000 + offset) // 10_000 // tick)
    flags = {"post_only": post_only, "reduce_only": reduce_only}
    return world.order(
        wallet(who), side, price, qty, instrument=instrument, tif=tif, sub=sub, **flags
    )


def perform(world: World, step: Step) -> tuple[Any, ...]:
    """Let one step happen; return the commands it brought and the block's events."""
    commands: tuple[Command, ...] = ()
    inbox: tuple[bytes, ...] = ()
    after = 7
    a = step.arguments
    world.quiet = step.kind == "silence"
    if step.kind in ("place", "cancel"):
        commands = (world.command(_action(world, step)),)
        world.last = commands[0]
    elif step.kind == "resend" and world.last is not None:
        commands = (replace(world.last, id=world.command(b"").id),)
    elif step.kind == "cancel_all":
        commands = (world.command(CancelAll(wallet(a[0]), 0, side=a[1])),)
    elif step.kind == "batch":
        commands = (world.command(Batch(tuple(_action(world, one) for one in a)), wallet(0)),)
    elif step.kind == "deposit":
        inbox = (deposit_message(wallet(a[0]), a[1], a[2]),)
        world.deposited += a[2]
    elif step.kind == "inbox":
        inbox = (a[0],)
        if a[0] == ALL_ONES:
            world.deposited += 2**256 - 1
    elif step.kind == "withdraw":
        client = a[3].to_bytes(32, "big")
        commands = (
            world.command(Withdraw(wallet(a[0]), a[1], a[2], b"\x01" * 20, client)),
            world.command(Withdraw(b"\0" * 19 + b"\xfe", 254, a[2], b"\x01" * 20, client)),
        )
    elif step.kind == "spot":
        world.spot[a[0]] = SPOT[a[0]] * (10_000 + a[1]) // 10_000
        after = a[2]
    elif step.kind == "silence":
        after = a[0]
    elif step.kind == "garbage":
        commands = (world.command(a[0], wallet(a[1])),)
    elif step.kind == "session":
        who, other, scope, revoke, forged = a
        action = AuthoriseSession(wallet(who), wallet(other + 100), scope, world.now + 60_000)
        if revoke:
            action = RevokeSession(wallet(who), wallet(other + 100))  # type: ignore[assignment]
        commands = (world.command(action, wallet(other + 100) if forged else wallet(who)),)
    return commands, world.block(*commands, after_ms=after, inbox=inbox).events
