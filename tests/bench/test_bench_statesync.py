"""Joining with 20,000 accounts: two replicas over frames, edge and RocksDB, in CPU seconds.

`FAIRLANE_BENCH_ACCOUNTS=100000` is the long form.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from time import process_time
from typing import TypeVar

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from consensus import effects as core
from consensus import statesync
from consensus.admission import Admission
from consensus.batches import log_start
from consensus.blocktree import genesis_block
from consensus.codec import encode
from consensus.committee import Committee, Parameters
from consensus.messages import StateObjects
from consensus.replica import Replica
from matcher.genesis import devnet_genesis
from ops.replica import Exchange, ReplicaConfig
from ops.sim.keys import real_keys
from ops.store import Store

ACCOUNTS = int(os.environ.get("FAIRLANE_BENCH_ACCOUNTS", 20_000))
NETWORK = sha256(b"bench of statesync").digest()
PARAMETERS = Parameters(batch_interval_ms=20, block_interval_ms=25)
START_MS = 1_700_000_000_000
STEP_MS = 25
T = TypeVar("T")


class Node:
    """One replica with its store, its timers, and the CPU that it has taken."""

    def __init__(self, committee: Committee, me: int, path: Path, accounts: int) -> None:
        config = ReplicaConfig(
            committee=committee,
            parameters=PARAMETERS,
            market=devnet_genesis(),
            genesis_time_ms=START_MS,
            checkpoint_interval_ms=2_000,
            checkpoints_separator=bytes(32),
            me=me,
        )
        self.cpu_s = 0.0
        self.longest_s = 0.0
        self.sent: list[bytes] = []
        self.sent_bytes = 0
        self.timers: dict[str, int] = {}
        self.store = Store.open(path)
        self.exchange = Exchange(config)
        fill(self.exchange, accounts)
        self.exchange.replaying = False
        keys = real_keys(NETWORK, 1)
        self.replica = Replica(
            committee, PARAMETERS, me, keys.signers[0], self.store, self.exchange, START_MS
        )
        _, genesis = genesis_block(NETWORK, 1, (log_start(NETWORK, 1, 0),))
        self.admission = Admission(committee, PARAMETERS, genesis, lambda body: None)

    def step(self, now_ms: int, event: core.Input) -> None:
        effects = self.timed(lambda: self.replica.step(now_ms, event))
        self.exchange.executed.clear()
        self.exchange.due.clear()
        for effect in effects:
            match effect:
                case core.Persist(writes, sync):
                    self.timed(lambda w=writes, s=sync: self.store.apply(w, s))  # type: ignore[misc]
                case core.Send(_, message) | core.Broadcast(message):
                    frame = self.timed(lambda m=message: encode(m))  # type: ignore[misc]
                    self.sent.append(frame)
                    self.sent_bytes += len(frame) if isinstance(message, StateObjects) else 0
                case core.SetTimer(name, at_ms):
                    self.timers[name] = at_ms
                case core.Halt(why):
                    raise AssertionError(why)
                case _:
                    pass

    def timed(self, work: Callable[[], T]) -> T:
        began = process_time()
        result = work()
        took = process_time() - began
        self.cpu_s += took
        self.longest_s = max(self.longest_s, took)
        return result

    def tick(self, now_ms: int) -> None:
        for name, at_ms in list(self.timers.items()):
            if at_ms <= now_ms and self.timers.get(name) == at_ms:
                del self.timers[name]
                self.step(now_ms, core.TimerFired(name))

    def hear(self, now_ms: int, peer: int, frame: bytes) -> None:
        message = self.timed(lambda: self.admission.admit(peer, frame))
        self.step(now_ms, core.Received(peer, message))


def fill(exchange: Exchange, accounts: int) -> None:
    """Open accounts with money, some used client ids and, one in four, a session."""
    state = exchange.engine.state
    for number in range(accounts):
        address = sha256(number.to_bytes(8, "big")).digest()[:20]
        account = state.open_account(state.wallet_of(address), 0)
        account.cash += 1_000_000 + number
        state.vault -= 1_000_000 + number
        account.client_ids.ids.extend(range(number, number + 20))
        if number % 4 == 0:
            account.wallet.sessions[address] = (3, START_MS + 10**9)


def keep_trading(server: Node, now_ms: int, share: float) -> tuple[int, float]:
    """Change a share of all accounts between two snapshots; return the longest step."""
    accounts = server.exchange.engine.state.accounts
    shelf = server.replica.ctx.shelf
    server.longest_s = 0.0
    until, step, at = server.replica.height + 200, max(1, int(len(accounts) * share / 60)), 0
    while server.replica.height < until or shelf.backlog:
        if server.replica.height < until:
            for account in accounts[at : at + step]:
                server.exchange.engine.state.cash_changed(account)
                account.client_ids.ids[-1:] = [now_ms]
            at = at + step if at + step < len(accounts) * share else 0
        now_ms += STEP_MS
        server.tick(now_ms)
        server.sent.clear()
    return now_ms, server.longest_s


def exchange_frames(server: Node, joining: Node, now_ms: int) -> None:
    """Carry frames both ways until nobody has anything to say at this moment."""
    while server.sent or joining.sent:
        to_joining, server.sent = server.sent, []
        for frame in to_joining:
            joining.hear(now_ms, 0, frame)
        to_server, joining.sent = joining.sent, []
        for frame in to_server:
            if joining.replica.ctx.me < joining.replica.ctx.committee.n:
                server.hear(now_ms, 1, frame)
            else:
                answer_outsider(server, frame)


def answer_outsider(server: Node, frame: bytes) -> None:
    """What `Participant` does for a node outside the committee: it answers questions."""
    message = server.timed(lambda: server.admission.admit(1, frame))
    answer = server.timed(lambda: server.replica.answer(message))  # type: ignore[arg-type]
    if answer is not None:
        data = server.timed(lambda: encode(answer))
        server.sent.append(data)
        server.sent_bytes += len(data) if isinstance(answer, StateObjects) else 0


def test_bench_join(
    benchmark: BenchmarkFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an empty disk to the newest blocks, with a snapshot one interval old."""
    monkeypatch.setattr(statesync, "SNAPSHOT_GAP", 0)
    benchmark.pedantic(join, (tmp_path,), rounds=1)  # type: ignore[no-untyped-call]


def join(tmp_path: Path) -> None:
    """Fill and run the one, join the other, and print what both took."""
    committee = Committee(NETWORK, 1, real_keys(NETWORK, 1).publics)
    server = Node(committee, 0, tmp_path / "server", ACCOUNTS)
    now_ms = START_MS
    server.step(now_ms, core.Start())
    server.longest_s = 0.0
    shelf = server.replica.ctx.shelf
    while not [r for r in shelf.kept if r.is_milestone] or shelf.backlog:
        now_ms += STEP_MS
        server.tick(now_ms)
        server.sent.clear()
    first_s, server.longest_s = server.longest_s, 0.0
    print(f"\nlongest step with the first snapshot, everything new: {first_s * 1000:.0f} ms")
    for share in (0.02, 1.0):
        now_ms, longest_s = keep_trading(server, now_ms, share)
        print(f"{share:.0%} of accounts changed between snapshots: {longest_s * 1000:.1f} ms")
    # What was changed by hand is in no block: the state that is taken over must have it all.
    changed = server.replica.height
    while [r for r in shelf.kept if r.is_milestone][-2].height <= changed:
        now_ms += STEP_MS
        server.tick(now_ms)
        server.sent.clear()
    # The newest checkpoint on chain is one interval old.
    accepted = [r for r in shelf.kept if r.is_milestone][-2]
    before_s, server.longest_s = server.cpu_s, 0.0
    joining = Node(committee, 1, tmp_path / "joining", 0)
    joining.step(now_ms, core.Start())
    joining.step(now_ms, core.StateAccepted(accepted.height, accepted.root))
    began_ms = now_ms
    while not joining.replica.ctx.counters.get("snapshots_installed"):
        now_ms += 5
        server.tick(now_ms)
        joining.tick(now_ms)
        exchange_frames(server, joining, now_ms)
        assert now_ms < began_ms + 120_000, joining.replica.ctx.counters
    installed_s = joining.cpu_s
    while joining.replica.height < server.replica.height - 2:
        now_ms += 5
        server.tick(now_ms)
        joining.tick(now_ms)
        exchange_frames(server, joining, now_ms)
    counters = joining.replica.ctx.counters
    print(
        f"{ACCOUNTS:,} accounts: {counters['state_bytes_fetched']:,} bytes of state, "
        f"{server.sent_bytes:,} on the wire; the joining side {installed_s:.1f} CPU s to install "
        f"(longest step {joining.longest_s:.1f} s, the restore), {joining.cpu_s - installed_s:.2f} "
        f"to replay {joining.replica.height - accepted.height} blocks; the serving side "
        f"{server.cpu_s - before_s:.1f} CPU s, longest step {server.longest_s * 1000:.0f} ms; "
        f"store {joining.store.size_bytes() / 1e6:.0f} MB"
    )
    assert joining.cpu_s < 60
    server.store.close()
    joining.store.close()
