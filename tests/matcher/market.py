"""A small market for the engine's tests: genesis, deposits, prices and commands in one place."""

from __future__ import annotations

from msgspec.structs import replace

from matcher.actions import (
    BUY,
    GTC,
    IOC,
    LIMIT,
    MARKET,
    Action,
    CancelAll,
    CancelOrder,
    PlaceOrder,
    encode_action,
)
from matcher.engine import BlockInput, Command, Engine
from matcher.genesis import MarketGenesis, devnet_genesis
from matcher.inbox import INBOX_START, chain, deposit_message
from matcher.outcome import CommandOutcome, Event, Outcome

UNLIMITED = 1 << 50
USDC = 1_000_000
SPOT = (236 * USDC, 24 * USDC)


def free_genesis(**changes: object) -> MarketGenesis:
    """Return the devnet's genesis without rate limits, with `changes`."""
    genesis = replace(
        devnet_genesis(),
        orders_per_s=UNLIMITED,
        orders_burst=UNLIMITED,
        cancels_per_s=UNLIMITED,
        cancels_burst=UNLIMITED,
    )
    return replace(genesis, **changes)


def changed_instruments(genesis: MarketGenesis, **changes: object) -> MarketGenesis:
    """Return the genesis with `changes` in every instrument."""
    return replace(
        genesis, instruments=tuple(replace(one, **changes) for one in genesis.instruments)
    )


def wallet(number: int) -> bytes:
    """Return test wallet `number`'s address."""
    return b"\xaa" + number.to_bytes(19, "big")


class World:
    """An engine and the outside that feeds it: clock, oracle, inbox, command ids."""

    def __init__(self, genesis: MarketGenesis | None = None, n: int = 5, f: int = 1) -> None:
        self.genesis = genesis or free_genesis()
        self.n, self.f = n, f
        self.engine = Engine(self.genesis, n, f)
        self.height = 0
        self.now = 1_000_000
        self.spot = list(SPOT)
        self.inbox_hash = INBOX_START
        self.deposited = 0
        self.commands = 0
        self.client = 0
        self.quiet = False
        self.last: Command | None = None
        self.accepted: dict[bytes, bool] = {}
        self.marked = {0, 1}

    @property
    def state(self):  # type: ignore[no-untyped-def]
        return self.engine.state

    def observations(self) -> tuple[tuple[tuple[int, int, int], ...], ...]:
        if self.quiet:
            return ()
        seen = tuple((feed, value, self.now) for feed, value in enumerate(self.spot))
        return (seen,) * self.n

    def block(
        self,
        *commands: Command,
        after_ms: int = 0,
        inbox: tuple[bytes, ...] = (),
        observations: tuple[tuple[tuple[int, int, int], ...], ...] | None = None,
    ) -> Outcome:
        """Apply one block `after_ms` after the last."""
        self.height += 1
        self.now += after_ms
        for message in inbox:
            self.inbox_hash = chain(self.inbox_hash, message)
        seen = self.observations() if observations is None else observations
        return self.engine.apply(
            BlockInput(self.height, self.now, seen, inbox, self.inbox_hash, commands)
        )

    def deposit(self, who: bytes, amount: int, sub: int = 0) -> tuple[Event, ...]:
        self.deposited += amount
        return self.block(inbox=(deposit_message(who, sub, amount),)).events

    def command(self, action: Action | bytes, signer: bytes | None = None) -> Command:
        """Wrap an action (or raw payload bytes), signed by its wallet unless said otherwise."""
        self.commands += 1
        payload = action if isinstance(action, bytes) else encode_action(action)
        if signer is None:
            signer = getattr(action, "wallet", b"\0" * 20)
        return Command(self.commands.to_bytes(40, "big"), signer, payload)

    def run(self, action: Action | bytes, signer: bytes | None = None) -> CommandOutcome:
        """Apply a block with this one command and return its outcome."""
        events = self.block(self.command(action, signer)).events
        (outcome,) = [event for event in events if isinstance(event, CommandOutcome)]
        return outcome

    def order(
        self,
        who: bytes,
        side: int,
        price: int,
        qty: int,
        *,
        instrument: int = 0,
        tif: int = GTC,
        sub: int = 0,
        **flags: bool,
    ) -> PlaceOrder:
        """Return an order with a fresh client id; price 0 makes it a market order."""
        self.client += 1
        kind = LIMIT if price else MARKET
        return PlaceOrder(who, sub, instrument, self.client, side, kind, price, qty, tif, **flags)

    def place(self, who: bytes, side: int, price: int, qty: int, **more) -> CommandOutcome:  # type: ignore[no-untyped-def]
        return self.run(self.order(who, side, price, qty, **more))

    def cancel(self, who: bytes, order_id: int) -> CommandOutcome:
        return self.run(CancelOrder(who, 0, order_id))

    def cancel_all(self, who: bytes) -> CommandOutcome:
        return self.run(CancelAll(who, 0))

    def move_spot(self, feed: int, value: int, after_ms: int = 500) -> Outcome:
        """Set a price and let a risk tick pass."""
        self.spot[feed] = value
        return self.block(after_ms=after_ms)


def ready(*balances: int, genesis: MarketGenesis | None = None) -> World:
    """Return a world with prices and wallets 0.. holding `balances` USDC in subaccount 0."""
    world = World(genesis)
    world.block()
    for number, balance in enumerate(balances):
        world.deposit(wallet(number), balance * USDC)
    return world


__all__ = ["BUY", "IOC", "SPOT", "USDC", "World", "changed_instruments", "ready", "wallet"]
