"""The story of a devnet, from keys to the summary."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import trio
from msgspec.structs import replace

from consensus.committee import faults
from matcher.genesis import MarketGenesis, devnet_genesis
from ops.admission import SigningDomain, signing_domain
from ops.client import Client, Config, Journal, open_client
from ops.devnet.behaviours import CRASH_LOOP
from ops.devnet.load import Load
from ops.devnet.orders import IndexFollower, Scale, first_price
from ops.devnet.plan import (
    CHECKPOINT_INTERVAL_MS,
    HOST,
    NodePlan,
    Plan,
    make_genesis,
    make_plan,
    operators,
    write_homes,
)
from ops.devnet.prices import PriceBoard, serve_prices
from ops.devnet.processes import Child
from ops.devnet.report import Summary, percentiles
from ops.devnet.stores import Disks
from ops.devnet.traders import (
    DEPOSIT,
    WAIT_S,
    Bank,
    SetupFailed,
    Trader,
    authorise_all,
    make_traders,
    proof_of,
    withdraw,
)
from ops.devnet.trouble import Trouble, until
from ops.devnet.verdict import Lies, hunted, lied
from ops.devnet.watch import Watch
from ops.flow.event import FlowEvent
from ops.flow.files import counts_satoshi, read
from ops.flow.generator import Market, generate
from settlement.deploy import Terms, deploy
from settlement.rpc import open_rpc
from settlement.transactions import Pace, Transactor

TRADERS = 50
CHAIN_ID = 31_337
SATOSHI_PER_LOT = 10_000
"""A Bitstamp file counts satoshi; a lot of BTC-PERP is 0.0001 BTC."""
GENERATED = (Market(mid=5_000_000, lots=20), Market(mid=300_000, lots=50, weight=1))
WITHDRAWAL = 250_000_000
SETTLE_S = 45.0
CHECKPOINTS_MIN = 3
IN_FLIGHT_MAX = 50_000
EXECUTE_S = 60.0
SAMPLE_S = 0.5
HONEST_SHARE = 3
"""Liars are honest for the first of so many parts of the trading, to compare with."""
HUNT_LIFETIME_MS = 115_000
"""Commands of a hunt may have to wait for nodes to come back; the door takes up to 120 s."""
HUNT_EXECUTE_S = 120.0
PACE = Pace(poll_s=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asks for."""

    nodes: int
    home: Path
    replay: Path | None
    rate: int
    seconds: float
    events: int
    seed: int
    kill: int
    log_level: str
    kills: int = 0
    byzantine: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Flow:
    """The order flow to play: events, the units of its quantities, first prices by feed."""

    events: Iterator[FlowEvent]
    scale: Scale
    prices: dict[int, int]


def open_flow(options: Options, market: MarketGenesis) -> Flow:
    """Open the file to replay, or the generator. Errors: FlowError, OSError."""
    first = market.instruments[0]
    if options.replay is None:
        events = generate(options.seed, GENERATED, options.rate)
        prices = {i: m.mid * market.instruments[i].tick_size for i, m in enumerate(GENERATED)}
        return Flow(events, Scale(), prices)
    source = read(options.replay)
    price, taken = first_price(source)
    scale = Scale(SATOSHI_PER_LOT) if counts_satoshi(options.replay) else Scale()
    prices = {0: price * first.tick_size, 1: GENERATED[1].mid * market.instruments[1].tick_size}
    return Flow(chain(taken, source), scale, prices)


class Devnet:
    """One run."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        """`say` shows a line of progress."""
        self.options = options
        self._say = say
        self._market = devnet_genesis()
        self._flow = open_flow(options, self._market)
        self.plan: Plan = make_plan(options.home, options.nodes)
        self.traders: list[Trader] = make_traders(TRADERS)
        self.chain = Child(
            "chain",
            ["chain", "--port", "0", "--accounts", "1", "--json", *self._funds()],
            options.home / "chain.log",
        )
        self.nodes = [self._child(node) for node in self.plan.nodes]
        self.honest = [i for i in range(options.nodes) if i not in options.byzantine]
        self.watch = Watch([self.plan.nodes[i].url for i in self.honest])
        self.faults: list[str] = []
        self.liars_ended: list[str] = []
        self.trouble = Trouble(self.nodes, self.watch, say, self.faults, options.seed)
        self._lying_from_ms = 0

    def _child(self, node: NodePlan) -> Child:
        behaviour = self.options.byzantine.get(node.index, CRASH_LOOP)
        log = node.home / "node.log"
        if behaviour == CRASH_LOOP:
            return Child(f"node {node.index}", ["node", "--home", str(node.home)], log)
        arguments = [
            str(node.home),
            behaviour,
            f"--liars={','.join(map(str, self.options.byzantine))}",
            f"--victim={bytes(self.traders[0].wallet.address).hex()}",
            f"--seed={self.options.seed}",
        ]
        return Child(f"node {node.index}", arguments, log, "ops.devnet.liar")

    def _funds(self) -> list[str]:
        addresses = operators(self.plan.nodes) + [bytes(t.wallet.address) for t in self.traders]
        return list(chain.from_iterable(("--fund", "0x" + each.hex()) for each in addresses))

    async def run(self, keep: Callable[[Summary], object] | None) -> Summary:
        """Play the whole story. Errors: ProcessFailed, SetupFailed, ChainError."""
        try:
            async with AsyncExitStack() as stack:
                return await self._play(stack, keep)
        finally:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    for child in (*self.nodes, self.chain):
                        nursery.start_soon(child.stop)

    async def _play(
        self, stack: AsyncExitStack, keep: Callable[[Summary], object] | None
    ) -> Summary:
        options = self.options
        self._say(f"home {options.home}")
        for child in self.nodes:
            child.prepare()
        started = json.loads(await self.chain.start())
        rpc = await stack.enter_async_context(open_rpc(started["url"]))
        secret = bytes.fromhex(started["accounts"][0]["private_key"][2:])
        deployer = Transactor(rpc, CHAIN_ID, secret, PACE)
        self._say(f"chain {CHAIN_ID} at {started['url']}; deploying the settlement contracts")
        deployed = await deploy(rpc, deployer, self._terms())
        genesis = self.genesis = make_genesis(self.plan, CHAIN_ID, deployed, self._market)
        await trio.to_thread.run_sync(
            write_homes, self.plan, genesis, started["url"], options.log_level
        )
        board = PriceBoard(self._flow.prices)
        bank = Bank(rpc, CHAIN_ID, deployed.addresses)
        domain = signing_domain(genesis.network_id(), CHAIN_ID, deployed.addresses.vault)
        nursery = await stack.enter_async_context(trio.open_nursery())
        await nursery.start(serve_prices, board, HOST, self.plan.price_port)
        self._say(f"starting {options.nodes} nodes; {TRADERS} traders deposit")
        async with trio.open_nursery() as setup:
            setup.start_soon(bank.fund, deployer, self.traders)
            for child in self.nodes:
                setup.start_soon(child.start)
        nursery.start_soon(self.watch.run)
        nursery.start_soon(self._sample)
        client = await stack.enter_async_context(
            open_client(self._config(domain), Journal(None, IN_FLIGHT_MAX))
        )
        credited = await self._deposits(client)
        await authorise_all(client, domain, self.traders)
        self._say(f"{credited} deposits credited, {TRADERS} session keys authorised; trading")
        follower = IndexFollower(board, self._market.instruments)
        load = Load(client, domain, self.traders, follower, self._flow.scale)
        cpu = [child.cpu_s for child in self.nodes]
        begun = trio.current_time()
        await self._trade(load)
        seconds = trio.current_time() - begun
        used = [
            child.cpu_s - before
            for child, before in zip(self.nodes, cpu, strict=True)
            if child.starts == 1
        ]
        claimed = 0
        if self._all_executed(load):
            # Otherwise the network stands still, and nothing below would end.
            claimed = await self._withdraw(client, domain, bank)
            await self._settle(load)
        summary = self._summary(load, credited, claimed, seconds, used)
        summary = await self._read_disks(load, summary)
        if keep is not None:
            keep(summary)
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()
        return summary

    def _terms(self) -> Terms:
        return Terms(
            group_key=self.plan.dealing.group_key,
            interval_ms=CHECKPOINT_INTERVAL_MS,
            inclusion_delay_s=600,
            dispute_delay_s=0,
            minimum_deposit=self._market.deposit_min,
        )

    def _config(self, domain: SigningDomain) -> Config:
        urls = [node.url for node in self.plan.nodes]
        return Config(
            gateways=urls,
            domain=domain,
            faults=faults(len(urls)),
            poll_seconds_min=0.2,
            lifetime_ms=HUNT_LIFETIME_MS if self.options.kills else 60_000,
        )

    async def _sample(self) -> None:
        """Take note of memory and CPU, and of children that ended by themselves."""
        while True:
            for child in (*self.nodes, self.chain):
                child.sample()
                if child.process is not None and not child.running and not child.expected_down:
                    child.expected_down = True
                    lies = child.module != "ops"
                    said = f"{child.name} ended by itself: {child.last_words()}"
                    (self.liars_ended if lies else self.faults).append(said)
            await trio.sleep(SAMPLE_S)

    async def _deposits(self, client: Client) -> int:
        """Wait until every node has consumed all deposits; return how many are credited."""
        with trio.move_on_after(WAIT_S):
            await until(self._deposits_consumed)
            accounts = [await client.account(bytes(t.wallet.address)) for t in self.traders]
            return sum(account.cash == DEPOSIT for account in accounts)
        raise SetupFailed("the deposits were not credited in time")

    def _deposits_consumed(self) -> bool:
        statuses = [node.status for node in self.watch.nodes]
        return all(status and status.inbox_count >= TRADERS for status in statuses)

    async def _trade(self, load: Load) -> None:
        options = self.options
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._progress, load)
            if options.byzantine:
                nursery.start_soon(self._lie, nursery)
            async with trio.open_nursery() as troubles:
                if options.kill == 1:
                    troubles.start_soon(self.trouble.kill_one)
                elif options.kill > 1:
                    troubles.start_soon(self.trouble.stall, options.kill)
                if options.kills:
                    troubles.start_soon(self._hunt, load)
                await load.run(self._flow.events, options.rate, options.events, options.seconds)
                with trio.move_on_after(HUNT_EXECUTE_S if options.kills else EXECUTE_S):
                    await until(lambda: self._all_executed(load))
            nursery.cancel_scope.cancel()

    async def _hunt(self, load: Load) -> None:
        """Trade for as long as the hunt lasts."""
        self._say(f"kill -9, {self.options.kills} times, --seed {self.options.seed}")
        await self.trouble.hunt(self.options.kills)
        load.stop()

    async def _lie(self, nursery: trio.Nursery) -> None:
        """Let the liars be honest for a while, then lie."""
        seconds = min(self.options.seconds, self.options.events / self.options.rate)
        await trio.sleep(seconds / HONEST_SHARE)
        named = ", ".join(f"node {i}: {name}" for i, name in self.options.byzantine.items())
        self._say(f"from now on they lie: {named}")
        self._lying_from_ms = time.time_ns() // 1_000_000
        for i, name in self.options.byzantine.items():
            if name == CRASH_LOOP:
                nursery.start_soon(self.trouble.crash_loop, self.nodes[i])
            else:
                self.nodes[i].signal(signal.SIGUSR1)

    def _all_executed(self, load: Load) -> bool:
        ids = list(load.submitted_ms)
        return all(len(node.executed_ms) >= len(ids) for node in self.watch.nodes) and (
            self.watch.everywhere(ids) == len(ids)
        )

    async def _progress(self, load: Load) -> None:
        last = 0
        while True:
            await trio.sleep(1)
            node = self.watch.nodes[0]
            done = len(node.executed_ms)
            status = node.status
            latest = self.watch.executed_latencies(
                dict(list(load.submitted_ms.items())[-500:]), faults(len(self.nodes)) + 1
            )
            p50 = f"{latest[len(latest) // 2]} ms" if latest else "-"
            self._say(
                f"height {self.watch.height():>6}  submitted {len(load.submitted_ms):>7}"
                f"  executed {done:>7} (+{done - last}/s)"
                f"  trades {status.trades if status else 0:>6}  latency p50 {p50}"
                f"  checkpoint {status.checkpoint_accepted if status else 0}"
            )
            last = done

    async def _withdraw(self, client: Client, domain: SigningDomain, bank: Bank) -> int:
        """Withdraw for the first trader who can, and claim it on chain; return how many."""
        for trader in self.traders:
            result = await withdraw(client, domain, trader, WITHDRAWAL)
            if result.kind == "executed" and result.status != "rejected":
                break
            if result.kind != "executed":
                self.faults.append(f"a withdrawal is {result.kind}: it was not ordered in time")
                return 0
        else:
            self.faults.append("nobody could withdraw")
            return 0
        try:
            proof = await proof_of(client, int(result.details["order_id"]))
        except SetupFailed as error:
            self.faults.append(str(error))
            return 0
        paid = await bank.claim(trader, proof)
        if paid != WITHDRAWAL:
            self.faults.append(f"the claim paid {paid} instead of {WITHDRAWAL}")
            return 0
        self._say(f"withdrew {WITHDRAWAL // 10**6} USDC and claimed them on chain by proof")
        return 1

    async def _settle(self, load: Load) -> None:
        """Wait until checkpoints on chain cover everything that was traded."""
        target = max(self.watch.nodes[0].heights.values(), default=0)
        with trio.move_on_after(SETTLE_S):
            await until(lambda: self._settled(target))
            return
        self.faults.append("checkpoints on chain do not cover what was traded")

    def _settled(self, height: int) -> bool:
        """Say whether enough checkpoints are on chain, and all nodes agree, up to `height`."""
        first = self.watch.nodes[0]
        agreed = self.watch.agreed()
        return (
            first.status is not None
            and first.status.settled_height >= height
            and len(first.settled_at_ms) > CHECKPOINTS_MIN
            and agreed is not None
            and agreed[0] >= height
        )

    def _summary(
        self, load: Load, credited: int, claimed: int, seconds: float, used: list[float]
    ) -> Summary:
        ids = list(load.submitted_ms)
        first = self.watch.nodes[0]
        executed = self.watch.everywhere(ids)
        agreed = self.watch.agreed()
        agree = agreed is not None and agreed[1] != ""
        rejected = Counter(first.rejected[id_] for id_ in ids if id_ in first.rejected)
        status = first.status
        trades = status.trades if status else 0
        checkpoints = len([height for height in first.settled_at_ms if height])
        self._judge(len(ids), executed, agree, trades, checkpoints, credited)
        return Summary(
            nodes=len(self.nodes),
            submitted=len(ids),
            executed=executed,
            rejected=sum(rejected.values()),
            rejected_reasons=dict(rejected.most_common()),
            trades=trades,
            blocks=self.watch.height(),
            seconds=round(seconds, 1),
            executed_latency_ms=percentiles(
                self.watch.executed_latencies(load.submitted_ms, faults(len(self.nodes)) + 1)
            ),
            executed_everywhere_latency_ms=percentiles(
                self.watch.executed_latencies(load.submitted_ms, len(self.watch.nodes))
            ),
            settled_latency_ms=percentiles(self.watch.settled_latencies(load.submitted_ms)),
            deposits_credited=credited,
            withdrawals_claimed=claimed,
            checkpoints=checkpoints,
            agree=agree,
            state_digest=agreed[1] if agreed else "",
            rss_mb_max=round(max(child.rss_kb_max for child in self.nodes) * 1.024e-3, 1),
            cpu_s_per_node=round(sum(used) / len(used), 1) if used else 0.0,
            cpu_s_chain=round(self.chain.cpu_s, 1),
            kills=self.trouble.kills,
            faults=self.faults,
        )

    async def _read_disks(self, load: Load, summary: Summary) -> Summary:
        """End the nodes, and hold what their disks say against what was promised."""
        options = self.options
        if not options.byzantine and not options.kills:
            return summary
        self._say("ending the nodes; reading their disks")
        async with trio.open_nursery() as nursery:
            for child in self.nodes:
                nursery.start_soon(child.stop)
        homes = [node.home for node in self.plan.nodes]
        disks = Disks(self.genesis, homes, tuple(options.byzantine))
        report = await trio.to_thread.run_sync(disks.read)
        self.faults.extend(report.faults)
        if options.kills:
            found = hunted(self.trouble, load, options.kills, disks, report)
            summary = replace(summary, hunt=found)
        if options.byzantine:
            story = Lies(options.byzantine, options.nodes, self._lying_from_ms, self.liars_ended)
            summary = replace(summary, byzantine=lied(story, load, self.watch, report))
        return replace(summary, faults=self.faults)

    def _judge(
        self,
        submitted: int,
        executed: int,
        agree: bool,
        trades: int,
        checkpoints: int,
        credited: int,
    ) -> None:
        """Take note of everything that did not hold."""
        if executed != submitted:
            self.faults.append(f"{submitted - executed} commands have no outcome at every node")
        if any(node.twice for node in self.watch.nodes):
            self.faults.append("a command was executed twice")
        if not agree:
            self.faults.append("the nodes' state digests differ")
        if not trades:
            self.faults.append("no trades")
        if checkpoints < CHECKPOINTS_MIN:
            self.faults.append(f"only {checkpoints} checkpoints on chain")
        if credited != TRADERS:
            self.faults.append(f"{credited} of {TRADERS} deposits credited")
