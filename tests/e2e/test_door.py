"""A trader's errors at the door of a real node, which has no chain: each is told, none does harm.

One network of one node per test, with its real driver, engine, store, transport and door.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from matcher.actions import (
    BUY,
    LIMIT,
    SCOPE_TRADE,
    SELL,
    AuthoriseSession,
    PlaceOrder,
    Withdraw,
)
from ops.client_keys import SignedCommand, TraderKey
from tests.e2e.one_node import OneNode, deposits, make_home, running
from tests.ops.door_cases import cases

pytestmark = pytest.mark.e2e

ALICE, BOB = TraderKey(b"\x01" * 32), TraderKey(b"\x02" * 32)
SESSION = TraderKey(b"\x03" * 32)
USDC = 1_000_000
PRICE = 5_000_000
"""Ticks: the index."""


async def opened(one: OneNode) -> None:
    """Give Alice and Bob money, and Alice a session key."""
    one.deposit(*deposits((ALICE, 1_000 * USDC), (BOB, 1_000 * USDC)))
    path = f"/v1/account?wallet={bytes(BOB.address).hex()}"
    await one.until(lambda: one.http.get(path), lambda r: r.status_code == 200)
    authorise = AuthoriseSession(ALICE.address, SESSION.address, SCOPE_TRADE, one.now_ms + 600_000)
    assert (await one.outcome(one.sign(ALICE, authorise)))["status"] == "done"


def order(key: TraderKey, client_id: int, side: int = BUY, qty: int = 10) -> PlaceOrder:
    return PlaceOrder(key.address, 0, 0, client_id, side, LIMIT, PRICE, qty)


async def snapshot(one: OneNode) -> dict[str, Any]:
    """Return all that a command could have changed, as clients and as the engine see it."""
    engine = one.node.driver.replica.engine
    book = await one.get("/v1/book?instrument=0")
    engine.checkpoint_state()  # Brings the account tree up to date; it is derived state.
    return {
        "alice": await one.account(ALICE.address),
        "bob": await one.account(BOB.address),
        "book": (book["bids"], book["asks"]),
        "accounts": engine.state.account_tree.root().hex(),
        "withdrawals": len(engine.state.withdrawals),
        "trades": (await one.get("/v1/status"))["trades"],
    }


async def outcomes(one: OneNode, *commands: SignedCommand) -> list[str]:
    """Return the statuses of all outcomes that these commands got."""
    ids = {"0x" + command.id.hex() for command in commands}
    page = await one.get("/v1/outcomes?limit=500")
    return [each["status"] for each in page["outcomes"] if each["id"] in ids]


async def test_every_bad_request_gets_its_error_and_changes_nothing(tmp_path: Path) -> None:
    async with running(make_home(tmp_path)) as one:
        await opened(one)
        before = await snapshot(one)
        told = (await one.get("/v1/status"))["outcomes"]
        for case in cases(one.door(ALICE, SESSION)):
            response = await one.http.request(
                case.method, case.path, headers=case.headers, content=case.body or None
            )
            answer = (response.status_code, response.json()["error"]["code"])
            assert answer == (case.status, case.code), case.name
        good = one.sign(SESSION, order(ALICE, 77, qty=1))
        assert (await one.outcome(good))["status"] == "resting"
        assert (await one.get("/v1/status"))["outcomes"] == told + 1, "only the good one happened"
        after = await snapshot(one)
        assert (after["bob"], after["trades"]) == (before["bob"], before["trades"])
        assert [each["client_id"] for each in after["alice"]["orders"]] == [77]


async def test_an_order_without_margin_is_rejected_and_changes_nothing(tmp_path: Path) -> None:
    async with running(make_home(tmp_path)) as one:
        await opened(one)
        await one.outcome(one.sign(BOB, order(BOB, 1, SELL)))
        before = await snapshot(one)
        wanted = one.sign(SESSION, order(ALICE, 5, qty=100_000))
        outcome = await one.outcome(wanted)
        assert (outcome["status"], outcome["reason"]) == ("rejected", "insufficient_margin")
        assert await snapshot(one) == before
        receipt = await one.get(f"/v1/receipts/{wanted.id.hex()}")
        assert set(receipt) == {"id", "state", "seen", "ordered", "executed"}
        metrics = (await one.http.get("/metrics")).text
        assert 'fairlane_execution_rejects_total{reason="insufficient_margin"} 1.0' in metrics
        assert "fairlane_execution_latency_seconds_count 3.0" in metrics, "what came in here"
        affordable = await one.outcome(one.sign(SESSION, order(ALICE, 6)))
        assert affordable["status"] == "filled", "with margin the same trader does trade"
        assert await snapshot(one) != before


async def test_a_client_id_used_again_is_rejected(tmp_path: Path) -> None:
    async with running(make_home(tmp_path)) as one:
        await opened(one)
        first = one.sign(SESSION, order(ALICE, 9))
        assert (await one.outcome(first))["status"] == "resting"
        before = await snapshot(one)
        again = one.sign(SESSION, order(ALICE, 9), ahead_ms=31_000)
        assert again.id != first.id, "another envelope"
        outcome = await one.outcome(again)
        assert (outcome["status"], outcome["reason"]) == ("rejected", "duplicate_client_id")
        changed = one.sign(SESSION, replace(order(ALICE, 9), side=SELL), ahead_ms=32_000)
        assert (await one.outcome(changed))["reason"] == "duplicate_client_id"
        assert await snapshot(one) == before


async def test_a_session_key_cannot_withdraw(tmp_path: Path) -> None:
    async with running(make_home(tmp_path)) as one:
        await opened(one)
        before = await snapshot(one)
        withdraw = Withdraw(ALICE.address, 0, 5 * USDC, SESSION.address, b"\x07" * 32)
        typed = await one.outcome(one.sign(SESSION, withdraw))
        assert (typed["status"], typed["reason"]) == ("rejected", "wallet_only")
        assert await snapshot(one) == before
        assert (await one.outcome(one.sign(ALICE, withdraw)))["status"] == "done"
        after = await snapshot(one)
        assert int(after["alice"]["cash"]) == int(before["alice"]["cash"]) - 5 * USDC


async def test_a_replayed_command_happens_once_also_after_a_restart(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    async with running(home) as one:
        await opened(one)
        await one.outcome(one.sign(BOB, order(BOB, 1, SELL, qty=100)))
        command = one.sign(SESSION, order(ALICE, 3), ahead_ms=110_000)
        assert (await one.outcome(command))["status"] == "filled"
        before = await snapshot(one)
        for _ in range(3):
            response = await one.post(command.body)
            assert (response.status_code, response.json()["error"]["code"]) == (409, "duplicate")
        assert await outcomes(one, command) == ["filled"]
        assert await snapshot(one) == before
        await one.until(lambda: one.get("/v1/status"), lambda s: s["executed_height"] > 0)
        told = await one.get("/v1/outcomes?limit=500")
        receipt = await one.get(f"/v1/receipts/{command.id.hex()}")
        digests = dict((await one.get("/v1/status"))["recent_digests"])
    async with running(home) as one:
        response = await one.post(command.body)
        assert (response.status_code, response.json()["error"]["code"]) == (409, "duplicate")
        later = one.sign(SESSION, order(ALICE, 4))
        assert (await one.outcome(later))["status"] == "filled", "it goes on trading"
        assert await outcomes(one, command) == ["filled"]
        again = await one.get("/v1/outcomes?limit=500")
        assert again["outcomes"][: len(told["outcomes"])] == told["outcomes"]
        assert await one.get(f"/v1/receipts/{command.id.hex()}") == receipt
        now = dict((await one.get("/v1/status"))["recent_digests"])
        assert digests and {h: now.get(h) for h in digests} == digests, "replayed, all the same"
        trades = (await one.get("/v1/trades"))["trades"]
        assert [trade["sequence"] for trade in trades] == [1, 2]
