"""The engine under a scenario: blocks, oracle, inbox, and what must hold after every block."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from matcher.actions import (
    SUBACCOUNT_FEES,
    SUBACCOUNT_INSURANCE,
    SUBACCOUNT_SUSPENSE,
    Action,
    encode_action,
)
from matcher.engine import BlockInput, Command, Engine
from matcher.genesis import MarketGenesis, address
from matcher.inbox import INBOX_START, chain, deposit_message
from matcher.outcome import (
    CommandOutcome,
    Deposited,
    Event,
    Fill,
    InsurancePaid,
    Liquidation,
    MarkMoved,
    Moved,
    Withdrawn,
)
from matcher.reasons import REASONS
from matcher.state import Account, Market
from matcher.units import narrow
from tests.matcher import naive_margin as naive
from tests.matcher.scenarios.values import BadValue

START_MS = 1_000_000
RISK_TICK_MS = 500


class Shadow:
    """Cash and lots added up from the events alone, and when a liquidation may begin."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.cash: dict[int, int] = {}
        self.lots: dict[tuple[int, int], int] = {}
        self.funding: dict[int, int] = {}
        self.value: dict[int, int] = {}

    def _pay(self, payer: int, payee: int, amount: int) -> None:
        self.cash[payer] = self.cash.get(payer, 0) - amount
        self.cash[payee] = self.cash.get(payee, 0) + amount

    def take(self, event: Event) -> None:
        """Count one event; a liquidation that begins above maintenance margin is an error."""
        wallets = self.engine.state.wallets
        match event:
            case Deposited():
                amount = narrow(event.amount)
                self.cash[event.account] = self.cash.get(event.account, 0) + amount
            case Moved():
                held = wallets[event.wallet].accounts[SUBACCOUNT_SUSPENSE]
                self._pay(held.index, event.account, event.amount)
            case Withdrawn():
                account = wallets[event.wallet].accounts[event.subaccount]
                self.cash[account.index] -= event.amount
            case MarkMoved():
                self.funding[event.instrument] = event.funding
                self.value[event.instrument] = event.value
            case Fill():
                self._fill(event)
            case Liquidation(stage="started"):
                left = self.maintenance(event.account)
                assert left < 0, f"account {event.account} liquidated with {left} to spare"
            case Liquidation():
                self._pay(event.account, 1, event.fee)
            case InsurancePaid():
                self._pay(1, event.account, event.amount)
            case _:
                pass

    def _fill(self, fill: Fill) -> None:
        market = self.engine.state.markets[fill.instrument]
        worth = fill.price * market.tick_value - self.funding[fill.instrument]
        buyer, seller = fill.taker_account, fill.maker_account
        if fill.taker_side:
            buyer, seller = seller, buyer
        self._pay(buyer, seller, fill.qty * worth)
        self._pay(fill.taker_account, 0, fill.taker_fee)
        self._pay(fill.maker_account, 0, fill.maker_fee)
        for account, lots in ((buyer, fill.qty), (seller, -fill.qty)):
            key = account, fill.instrument
            self.lots[key] = self.lots.get(key, 0) + lots

    def maintenance(self, account: int) -> int:
        """Return maintenance margin without orders: cash + value - 5 % of notional, by hand."""
        total = self.cash.get(account, 0)
        for (index, instrument), lots in self.lots.items():
            if index != account or not lots:
                continue
            spec = self.engine.state.markets[instrument].spec
            value = self.value[instrument]
            notional = Fraction(abs(lots) * (value + self.funding[instrument]))
            rate = Fraction(spec.maintenance_rate, 10**18)
            total += lots * value - ceil(
                notional * rate * max(Fraction(1), notional / spec.size_base)
            )
        return total

    def compare(self) -> None:
        """The engine's accounts are what its events add up to."""
        for account in self.engine.state.accounts:
            told = self.cash.get(account.index, 0)
            assert account.cash == told, f"account {account.index}: {account.cash}, told {told}"
            for market in self.engine.state.markets:
                held = account.positions.get(market.id)
                lots = self.lots.get((account.index, market.id), 0)
                assert (held.lots if held else 0) == lots, f"account {account.index}: lots"


class Exchange:
    """One engine with names for wallets, accounts, keys and instruments."""

    def __init__(self, genesis: MarketGenesis, replicas: int, faulty: int) -> None:
        self.genesis = genesis
        self.replicas, self.faulty = replicas, faulty
        self.engine = Engine(genesis, replicas, faulty)
        self.shadow = Shadow(self.engine)
        self.height = 0
        self.now = START_MS
        self.inbox_hash = INBOX_START
        self.deposited = 0
        self.commands = 0
        self.clients = 0
        self.addresses: dict[str, bytes] = {}
        self.markets = {market.spec.name: market for market in self.engine.state.markets}
        self.feeds = {one.name: at for at, one in enumerate(genesis.underlyings)}
        self.prices: list[list[int | None]] = [[None] * replicas for _ in genesis.underlyings]
        self.seen: list[list[tuple[int, int, int] | None]] = [
            [None] * replicas for _ in genesis.underlyings
        ]
        self.funding_paid: dict[tuple[int, int], int] = {}

    def market(self, name: str) -> Market:
        if name not in self.markets:
            raise BadValue(f"no instrument `{name}`; there are {', '.join(self.markets)}")
        return self.markets[name]

    def feed(self, name: str) -> int:
        if name not in self.feeds:
            raise BadValue(f"no index `{name}`; there are {', '.join(self.feeds)}")
        return self.feeds[name]

    def address(self, name: str, new: bool = False) -> bytes:
        """Return the address behind a wallet's or key's name."""
        if name not in self.addresses:
            if not new:
                raise BadValue(f"nobody is called `{name}`")
            self.addresses[name] = b"\xaa" + (len(self.addresses) + 1).to_bytes(19, "big")
        return self.addresses[name]

    def who(self, text: str, new: bool = False) -> tuple[bytes, int]:
        """Return wallet and subaccount of `alice`, `alice/3`, `fees` or `insurance`."""
        if text == "fees":
            return address(self.genesis.fee_wallet), SUBACCOUNT_FEES
        if text == "insurance":
            return address(self.genesis.insurance_wallet), SUBACCOUNT_INSURANCE
        name, slash, sub = text.partition("/")
        if slash and not sub.isdecimal():
            raise BadValue(f"`{text}`: a subaccount is a number, as in alice/3")
        return self.address(name, new), int(sub or "0")

    def account(self, text: str) -> Account:
        wallet, sub = self.who(text)
        held = self.engine.state.wallets.get(wallet)
        if held is None or sub not in held.accounts:
            raise BadValue(f"`{text}` has no account")
        return held.accounts[sub]

    def name(self, index: int) -> str:
        """Return what a scenario calls the account of this index."""
        account = self.engine.state.accounts[index]
        if account.sub in (SUBACCOUNT_FEES, SUBACCOUNT_INSURANCE):
            return "fees" if account.sub == SUBACCOUNT_FEES else "insurance"
        named = [n for n, raw in self.addresses.items() if raw == account.wallet.address]
        return named[0] + (f"/{account.sub}" if account.sub else "")

    def command(self, action: Action, signer: bytes) -> Command:
        self.commands += 1
        return Command(self.commands.to_bytes(40, "big"), signer, encode_action(action))

    def client_id(self) -> int:
        self.clients += 1
        return self.clients

    def _observations(self) -> tuple[tuple[tuple[int, int, int], ...], ...]:
        """Every replica's log: its latest observation of each index, new if it speaks now."""
        for feed, prices in enumerate(self.prices):
            for replica, price in enumerate(prices):
                if price is not None:
                    self.seen[feed][replica] = (feed, price, self.now)
        logs = [[column[at] for column in self.seen] for at in range(self.replicas)]
        return tuple(tuple(one for one in log if one is not None) for log in logs)

    def block(
        self,
        commands: tuple[Command, ...] = (),
        after_ms: int = 0,
        deposits: tuple[tuple[bytes, int, int], ...] = (),
    ) -> tuple[Event, ...]:
        """Apply one block, and check everything that must hold after any block."""
        self.height += 1
        self.now += after_ms
        inbox = tuple(deposit_message(*deposit) for deposit in deposits)
        for message in inbox:
            self.inbox_hash = chain(self.inbox_hash, message)
        self.deposited += sum(amount for _, _, amount in deposits)
        state = self.engine.state
        before = {market.id: market.funding for market in state.markets}
        held = [(a.index, p.market, p.lots) for a in state.accounts for p in a.positions.values()]
        block = BlockInput(
            self.height, self.now, self._observations(), inbox, self.inbox_hash, commands
        )
        events = self.engine.apply(block).events
        for account, market, lots in held:
            key = account, market.id
            paid = lots * (market.funding - before[market.id])
            self.funding_paid[key] = self.funding_paid.get(key, 0) + paid
        self._check(commands, events)
        return events

    def _check(self, commands: tuple[Command, ...], events: tuple[Event, ...]) -> None:
        """Money, positions, books, outcomes, liquidations."""
        for event in events:
            self.shadow.take(event)
        self.shadow.compare()
        outcomes = [event for event in events if isinstance(event, CommandOutcome)]
        assert [one.id for one in outcomes] == [one.id for one in commands], "one outcome each"
        for outcome in outcomes:
            told = (outcome.reason, *(result.reason for result in outcome.results))
            assert all(reason is None or reason in REASONS for reason in told)
        state = self.engine.state
        naive.check_money(state, self.deposited)
        naive.check_books(state)
        assert sum(self.funding_paid.values()) == 0, "funding does not sum to zero"

    def check_snapshot(self) -> None:
        """An engine made from the snapshot is this one."""
        data = self.engine.export_state()
        other = Engine(self.genesis, self.replicas, self.faulty)
        other.restore_state(data)
        assert other.state_digest() == self.engine.state_digest(), "the snapshot lost something"
        assert other.export_state() == data
