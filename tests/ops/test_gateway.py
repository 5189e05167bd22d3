"""The trader's door, through real sockets: what it takes, what it refuses, and how."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
import trio
import trio.testing

from matcher.genesis import devnet_genesis
from ops.admission import SigningDomain
from ops.client_keys import TraderKey
from ops.gateway import wire
from ops.gateway.app import serve
from ops.gateway.limits import BODY_BYTES_MAX, COMMANDS_MAX, Limits
from ops.metrics import Metrics
from tests.ops.door_cases import JSON, Door, cases, many, single
from tests.ops.tiny_node import NETWORK, VAULT, TinyLedger, TinyNode

NOW_MS = 1_700_000_000_000
DOMAIN = SigningDomain(NETWORK, b"\x5a" * 32)


class Running:
    """A node, its open door and a client of it."""

    def __init__(self, node: TinyNode, metrics: Metrics, port: int, http: httpx.AsyncClient):
        self.node = node
        self.metrics = metrics
        self.port = port
        self.http = http
        self.door = Door(
            str(http.base_url),
            DOMAIN,
            NOW_MS,
            TraderKey(b"\x01" * 32),
            TraderKey(b"\x02" * 32),
            0,
        )

    async def post(self, content: bytes) -> httpx.Response:
        return await self.http.post("/v1/commands", content=content, headers=JSON)


async def running(
    nursery: trio.Nursery, shutdown: trio.Event, limits: Limits | None = None
) -> Running:
    node = TinyNode(TinyLedger(NOW_MS))
    metrics = Metrics(replica=0, replicas=5, version="test", process=False)

    async def start(task_status: Any) -> None:
        await serve(
            node,
            DOMAIN,
            devnet_genesis(),
            "127.0.0.1",
            0,
            shutdown,
            metrics=metrics.gateway,
            limits=limits,
            task_status=task_status,
        )

    port = await nursery.start(lambda task_status: start(task_status))
    http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False)
    return Running(node, metrics, port, http)


@pytest.fixture
async def open_door(nursery: trio.Nursery) -> AsyncIterator[Running]:
    shutdown = trio.Event()
    at = await running(nursery, shutdown)
    async with at.http:
        yield at
    shutdown.set()


def code_of(response: httpx.Response) -> str:
    """Return the code of the uniform error object, which must be all there is but results."""
    body = response.json()
    assert set(body) <= {"error", "results"}, body
    assert set(body["error"]) == {"code", "message"}
    assert "Traceback" not in response.text
    code: str = body["error"]["code"]
    return code


async def test_every_bad_request_gets_its_error_and_the_node_sees_nothing(
    open_door: Running,
) -> None:
    for case in cases(open_door.door):
        response = await open_door.http.request(
            case.method, case.path, headers=case.headers, content=case.body or None
        )
        assert (response.status_code, code_of(response)) == (case.status, case.code), case.name
        assert response.headers["content-type"] == "application/json"
    assert open_door.node.submits == 0
    assert not open_door.node.log
    good = await open_door.post(single(open_door.door.order(2).body))
    assert good.status_code == 200, "the door is whole after all that"


async def test_a_command_goes_through_with_its_receipt(open_door: Running) -> None:
    command = open_door.door.order(7)
    response = await open_door.post(single(command.body))
    id_ = wire.hexed(command.id)
    assert (response.status_code, response.json()) == (
        200,
        {"results": [{"id": id_, "status": "seen"}]},
    )
    assert open_door.node.log == {command.id: command.body}
    receipt = (await open_door.http.get(f"/v1/receipts/{id_}")).json()
    assert receipt == {
        "id": id_,
        "state": "settled",
        "seen": {"log": 0, "seq": 1},
        "ordered": {"height": 1, "position": 0, "block_time_ms": NOW_MS},
        "executed": {
            "sequence": 1,
            "status": "accepted",
            "reason": "",
            "details": {"qty": 5},
            "executed_at_ms": NOW_MS,
        },
        "settled": {"checkpoint": 1},
    }


async def test_the_states_of_a_receipt(open_door: Running) -> None:
    node, door = open_door.node, open_door.door
    node.auto = False
    command = door.order(1, ahead_ms=1_000)
    await open_door.post(single(command.body))
    path = f"/v1/receipts/{command.id.hex()}"
    assert (await open_door.http.get(path)).json()["state"] == "seen"
    node.ledger.block_time_ms += 1_000
    node.execute()
    assert (await open_door.http.get(path)).json()["state"] == "void"
    ids = json.dumps({"ids": [command.id.hex(), "00" * 40]}).encode()
    answer = (await open_door.http.post("/v1/receipts", content=ids, headers=JSON)).json()
    assert answer["block_time_ms"] == NOW_MS + 1_000
    assert [receipt["state"] for receipt in answer["receipts"]] == ["void", "unknown"]


async def test_a_duplicate_is_told_so_and_changes_nothing(open_door: Running) -> None:
    command = open_door.door.order(1)
    await open_door.post(single(command.body))
    again = await open_door.post(single(command.body))
    assert (again.status_code, code_of(again)) == (409, "duplicate")
    assert again.json()["results"][0]["id"] == wire.hexed(command.id)
    twice = await open_door.post(many([open_door.door.order(2).body] * 2))
    assert [r["status"] for r in twice.json()["results"]] == ["seen", "duplicate"]
    assert len(open_door.node.ledger.outcomes) == 2


async def test_a_signatures_twin_is_the_same_command(open_door: Running) -> None:
    """s -> n - s and v flipped verifies too: the id must not change, or it happens twice."""
    command = open_door.door.order(1)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    head, signature = command.body[:-65], command.body[-65:]
    s = order - int.from_bytes(signature[32:64], "big")
    twin = head + signature[:32] + s.to_bytes(32, "big") + bytes([signature[64] ^ 1])
    first = await open_door.post(single(command.body))
    second = await open_door.post(single(twin))
    assert first.json()["results"][0]["id"] == second.json()["results"][0]["id"]
    assert (second.status_code, code_of(second)) == (409, "duplicate")


async def test_a_batch_judges_each_command_for_itself(open_door: Running) -> None:
    door = open_door.door
    bodies = [door.order(i).body for i in range(COMMANDS_MAX)]
    bodies[3] = b"garbage"
    bodies[7] = door.order(99, ahead_ms=-1).body
    response = await open_door.post(many(bodies))
    assert response.status_code == 200
    results = response.json()["results"]
    assert len(results) == COMMANDS_MAX
    refused = {i: r["error"]["code"] for i, r in enumerate(results) if r["status"] == "refused"}
    assert refused == {3: "malformed", 7: "expired"}
    assert len(open_door.node.log) == COMMANDS_MAX - 2
    assert open_door.node.submits == 1


async def test_the_largest_batch_fits_through_the_door(open_door: Running) -> None:
    """The body's bound is not smaller than what the commands' bounds allow."""
    body = many([bytes(8_192)] * COMMANDS_MAX)
    assert len(body) <= BODY_BYTES_MAX
    response = await open_door.post(body)
    assert response.status_code == 200
    codes = {result["error"]["code"] for result in response.json()["results"]}
    assert codes == {"malformed"}


async def test_a_busy_node_says_when_to_come_back(open_door: Running) -> None:
    open_door.node.room = 1
    door = open_door.door
    await open_door.post(single(door.order(1).body))
    response = await open_door.post(single(door.order(2).body))
    assert (response.status_code, code_of(response)) == (503, "busy")
    assert response.headers["retry-after"] == "1"
    assert response.json()["results"][0]["retry_after_ms"] == 50
    assert (await open_door.post(many([door.order(2).body]))).status_code == 200


async def test_an_unready_node_takes_nothing(open_door: Running) -> None:
    open_door.node.ready_why = "catching up"
    response = await open_door.post(single(open_door.door.order(1).body))
    assert (response.status_code, code_of(response)) == (503, "not_ready")
    assert (await open_door.http.get("/readyz")).status_code == 503
    assert (await open_door.http.get("/healthz")).status_code == 200
    open_door.node.healthy_why = "stuck"
    assert (await open_door.http.get("/healthz")).status_code == 503
    assert open_door.node.submits == 0


async def test_a_failing_node_shows_nothing_of_itself(open_door: Running) -> None:
    open_door.node.broken = True
    response = await open_door.post(single(open_door.door.order(1).body))
    assert (response.status_code, code_of(response)) == (500, "internal")
    assert "secret" not in response.text
    assert (await open_door.http.get("/v1/status")).status_code == 200


async def test_outcomes_are_paged_and_waited_for(open_door: Running) -> None:
    door = open_door.door
    await open_door.post(many([door.order(i).body for i in range(5)]))
    page = (await open_door.http.get("/v1/outcomes?after=1&limit=2")).json()
    assert [outcome["sequence"] for outcome in page["outcomes"]] == [2, 3]
    assert page["next"] == 3
    assert (await open_door.http.get("/v1/outcomes?after=5")).json()["outcomes"] == []
    async with trio.open_nursery() as nursery:
        answers = []

        async def wait() -> None:
            answers.append(await open_door.http.get("/v1/outcomes?after=5&wait_ms=5000"))

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await open_door.post(single(door.order(9, qty=13).body))
    outcome = answers[0].json()["outcomes"][0]
    assert (outcome["sequence"], outcome["status"], outcome["reason"]) == (6, "rejected", "unlucky")
    trades = (await open_door.http.get("/v1/trades?after=0")).json()
    assert (len(trades["trades"]), trades["next"]) == (5, 5)
    open_door.node.ledger.oldest = 3
    gone = await open_door.http.get("/v1/outcomes?after=1")
    assert (gone.status_code, code_of(gone)) == (410, "cursor_lost")


async def test_views_read_back_as_they_were_given(open_door: Running) -> None:
    """Each view's JSON decodes into the struct that clients use, with every field."""
    node = open_door.node
    pairs: list[tuple[str, Any, Any]] = [
        ("/v1/status", wire.StatusAnswer, node.status()),
        ("/v1/book?instrument=1&depth=2", wire.BookAnswer, node.book(1, 2)),
        (f"/v1/account?wallet=0x{VAULT.hex()}", wire.AccountAnswer, node.account(VAULT, 0)),
        ("/v1/proof/withdrawal/0", wire.ProofAnswer, node.withdrawal_proof(0)),
    ]
    for path, type_, view in pairs:
        response = await open_door.http.get(path)
        assert response.status_code == 200, response.text
        answer = msgspec.json.decode(response.content, type=type_, strict=False)
        assert _same(view, answer), path
    listed = await open_door.http.get("/v1/instruments")
    answer = msgspec.json.decode(listed.content, type=wire.InstrumentsAnswer, strict=False)
    assert all(map(_same, node.instruments(), answer.instruments))
    account = (await open_door.http.get(f"/v1/account?wallet={VAULT.hex()}")).json()
    assert account["cash"] == str(10**18 + 1), "money passes 2**53: a string"


def _same(view: Any, answer: Any) -> bool:
    if isinstance(view, msgspec.Struct):
        assert view.__struct_fields__ == answer.__struct_fields__
        return all(_same(getattr(view, f), getattr(answer, f)) for f in view.__struct_fields__)
    if isinstance(view, bytes):
        return bool(wire.hexed(view) == answer)
    if isinstance(view, tuple | list):
        return len(view) == len(answer) and all(map(_same, view, answer))
    return bool(view == answer)


async def test_head_is_get_without_a_body(open_door: Running) -> None:
    response = await open_door.http.head("/v1/status")
    assert response.status_code == 200
    assert not response.content
    assert int(response.headers["content-length"]) > 100
    assert (await open_door.http.get("/healthz")).json() == {"ok": True}


async def test_metrics_count_what_came_to_the_door(open_door: Running) -> None:
    door = open_door.door
    await open_door.post(many([door.order(1).body, b"x"]))
    await open_door.http.get("/v1/nothing")
    registry = open_door.metrics.registry

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"fairlane_gateway_{name}", labels)

    assert value("commands_total", status="seen") == 1
    assert value("commands_total", status="refused") == 1
    assert value("requests_total", route="commands", code="200") == 1
    assert value("requests_total", route="none", code="404") == 1
    text = await open_door.http.get("/metrics")
    assert text.content == open_door.node.metrics
