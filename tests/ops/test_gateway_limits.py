"""The door under clients that are slow, greedy, many or hostile, through raw sockets."""

from __future__ import annotations

import json
from random import Random

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ops.gateway import limits as bounds
from ops.gateway.limits import BODY_BYTES_MAX, Buckets, Limits, rate_key
from tests.ops.door_cases import single
from tests.ops.test_gateway import Running, running

STATUS = b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n"
QUICK = Limits(
    head_seconds=0.3,
    idle_seconds=0.3,
    body_seconds=0.3,
    handle_seconds=0.3,
    write_seconds=0.3,
    linger_seconds=0.3,
    graceful_seconds=1.0,
)


async def dial(at: Running) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", at.port)


async def read_all(stream: trio.SocketStream) -> bytes:
    """Return what comes until the server closes; a reset counts as a close."""
    data = b""
    with trio.fail_after(5):
        try:
            while chunk := await stream.receive_some(65_536):
                data += chunk
        except trio.BrokenResourceError:
            pass
    return data


async def read_answer(stream: trio.SocketStream) -> bytes:
    """Return one answer of a connection that stays open."""
    data = b""
    with trio.fail_after(5):
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some(65_536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        while len(body) < length:
            body += await stream.receive_some(65_536)
    return head + b"\r\n\r\n" + body


def verdict(answer: bytes) -> tuple[int, str]:
    """Return the status and the error's code."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Traceback" not in answer
    status = int(head.split(b" ", 2)[1])
    return status, json.loads(body)["error"]["code"] if status >= 400 else ""


def post(body: bytes, extra: bytes = b"") -> bytes:
    head = b"POST /v1/commands HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return head + extra + b"content-length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    ("name", "data", "status", "code"),
    [
        ("a slow head", b"GET / HT", 408, "timeout"),
        ("nothing at all", b"", 408, "timeout"),
        ("a slow body", post(b"x" * 50)[:-10], 408, "timeout"),
        ("garbage", b"\x00\xff" * 50 + b"\r\n\r\n", 400, "bad_http"),
        (
            "TLS to a plain port",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
            400,
            "bad_http",
        ),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "bad_http"),
        ("no host", b"GET / HTTP/1.1\r\n\r\n", 400, "bad_http"),
        ("two lengths", post(b"{}", b"content-length: 5\r\n"), 400, "bad_http"),
        (
            "a negative length",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
            400,
            "bad_http",
        ),
        ("a long head", b"GET / HTTP/1.1\r\nx: " + b"y" * 20_000, 431, "headers_too_large"),
        (
            "many headers",
            b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 65 + b"\r\n",
            431,
            "headers_too_large",
        ),
        ("a long path", b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\n", 431, "headers_too_large"),
        (
            "a body that is announced as too large",
            b"POST /v1/commands HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1),
            413,
            "body_too_large",
        ),
        (
            "an absurd length",
            b"POST /v1/commands HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 99999999999999999999\r\n\r\n",
            413,
            "body_too_large",
        ),
        (
            "chunks",
            b"POST /v1/commands HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
            411,
            "length_required",
        ),
        (
            "a get with a body",
            b"GET /v1/status HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx",
            413,
            "body_too_large",
        ),
    ],
)
async def test_bad_http_is_answered_and_cut(
    name: str, data: bytes, status: int, code: str, nursery: trio.Nursery
) -> None:
    at = await running(nursery, trio.Event(), QUICK)
    stream = await dial(at)
    if data:
        await stream.send_all(data)
    assert verdict(await read_all(stream)) == (status, code), name
    assert at.node.submits == 0
    good = await dial(at)
    await good.send_all(STATUS)
    assert (await read_answer(good)).startswith(b"HTTP/1.1 200")
    nursery.cancel_scope.cancel()


async def test_a_slowloris_gains_no_time_by_dripping(nursery: trio.Nursery) -> None:
    """The deadline is of the whole head, not of each byte."""
    at = await running(nursery, trio.Event(), QUICK)
    stream = await dial(at)
    began = trio.current_time()
    try:
        for byte in b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 1_000:
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.05)
    except trio.BrokenResourceError:
        pass
    else:
        pytest.fail("50 s of dripping, and not cut")
    assert trio.current_time() - began < 2
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "upgrade",
    [
        b"connection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-key: AQIDBAUGBwgJCgsMDQ4PEA==\r\nsec-websocket-version: 13\r\n",
        b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: !!\r\n",
    ],
)
async def test_an_upgrade_is_declined(upgrade: bytes, nursery: trio.Nursery) -> None:
    at = await running(nursery, trio.Event(), QUICK)
    stream = await dial(at)
    await stream.send_all(STATUS[:-2] + upgrade + b"\r\n" + b"\xff" * 50)
    assert (await read_all(stream)).startswith(b"HTTP/1.1 200")
    stream = await dial(at)
    await stream.send_all(STATUS)
    assert (await read_answer(stream)).startswith(b"HTTP/1.1 200")
    nursery.cancel_scope.cancel()


async def test_requests_in_a_row_are_answered_in_a_row(nursery: trio.Nursery) -> None:
    at = await running(nursery, trio.Event(), QUICK)
    stream = await dial(at)
    await stream.send_all(STATUS * 20 + post(b"{}") + STATUS[:-2] + b"connection: close\r\n\r\n")
    answers = (await read_all(stream)).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200"] * 20 + [b"400", b"200"]
    nursery.cancel_scope.cancel()


async def test_a_client_that_asks_first_is_told_before_it_sends(nursery: trio.Nursery) -> None:
    at = await running(nursery, trio.Event(), QUICK)
    body = single(at.door.order(1).body)
    request = post(body, b"expect: 100-continue\r\n")
    stream = await dial(at)
    await stream.send_all(request[: -len(body)])
    assert (await stream.receive_some(1_000)).startswith(b"HTTP/1.1 100")
    await stream.send_all(body)
    assert (await read_answer(stream)).startswith(b"HTTP/1.1 200")
    refused = await dial(at)
    await refused.send_all(request[: -len(body)].replace(b"/v1/commands", b"/v1/nothing"))
    assert verdict(await read_all(refused)) == (404, "not_found")
    nursery.cancel_scope.cancel()


async def test_idle_connections_are_closed_in_silence(nursery: trio.Nursery) -> None:
    at = await running(nursery, trio.Event(), QUICK)
    stream = await dial(at)
    await stream.send_all(STATUS)
    await read_answer(stream)
    began = trio.current_time()
    assert await read_all(stream) == b""
    assert 0.2 < trio.current_time() - began < 2
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("which", ["connections_max", "connections_per_address_max"])
async def test_connections_are_bounded(which: str, nursery: trio.Nursery) -> None:
    limits = replace(Limits(), **{which: 3})
    at = await running(nursery, trio.Event(), limits)
    streams = [await dial(at) for _ in range(3)]
    for stream in streams:
        await stream.send_all(STATUS)
        await read_answer(stream)
    fourth = await dial(at)
    assert verdict(await read_all(fourth)) == (503, "too_many_connections")
    registry = at.metrics.registry
    assert registry.get_sample_value("fairlane_gateway_connections_refused_total") == 1
    await streams[0].aclose()
    await trio.testing.wait_all_tasks_blocked(0.05)
    fifth = await dial(at)
    await fifth.send_all(STATUS)
    assert (await read_answer(fifth)).startswith(b"HTTP/1.1 200")
    assert registry.get_sample_value("fairlane_gateway_connections") == 3
    nursery.cancel_scope.cancel()


async def test_rates_are_bounded_with_a_time_to_come_back(nursery: trio.Nursery) -> None:
    at = await running(nursery, trio.Event(), Limits(rate_per_second=0.5, rate_burst=10))
    async with at.http:
        statuses = [(await at.http.get("/v1/status")).status_code for _ in range(12)]
        assert statuses == [200] * 10 + [429] * 2
        response = await at.http.get("/v1/status")
        assert response.json()["error"]["code"] == "rate_limited"
        assert response.headers["retry-after"] == "2"
        assert (await at.http.get("/healthz")).status_code == 200, "probes are free"
        assert (await at.post(single(at.door.order(1).body))).status_code == 429
    assert at.node.submits == 0
    nursery.cancel_scope.cancel()


async def test_commands_count_towards_the_rate(nursery: trio.Nursery) -> None:
    at = await running(nursery, trio.Event(), Limits(rate_per_second=0.001, rate_burst=60))
    async with at.http:
        many = json.dumps({"commands": ["AA=="] * 50}).encode()
        assert (await at.post(many)).status_code == 200
        assert (await at.post(many)).status_code == 429
    nursery.cancel_scope.cancel()


async def test_a_stuck_node_costs_bounded_requests_and_time(nursery: trio.Nursery) -> None:
    at = await running(nursery, trio.Event(), Limits(submits_max=2, handle_seconds=0.4))
    at.node.stuck = True
    answers: list[tuple[int, str]] = []

    async def submit(number: int) -> None:
        response = await at.post(single(at.door.order(number).body))
        answers.append((response.status_code, response.json()["error"]["code"]))

    async with at.http:
        with trio.fail_after(5):
            async with trio.open_nursery() as clients:
                for number in range(5):
                    clients.start_soon(submit, number)
        assert sorted(answers) == [(503, "overloaded")] * 3 + [(503, "timeout")] * 2
        at.node.stuck = False
        assert (await at.post(single(at.door.order(9).body))).status_code == 200
    nursery.cancel_scope.cancel()


async def test_the_bodies_of_all_requests_are_bounded(nursery: trio.Nursery) -> None:
    at = await running(nursery, trio.Event(), Limits(bodies_bytes_max=1_000, linger_seconds=0.1))
    holding = await dial(at)
    await holding.send_all(post(b"x" * 900)[:-100])
    await trio.testing.wait_all_tasks_blocked(0.05)
    refused = await dial(at)
    await refused.send_all(post(b"x" * 200))
    assert verdict(await read_all(refused)) == (503, "overloaded")
    await holding.send_all(b"x" * 100)
    assert verdict(await read_answer(holding)) == (400, "bad_json")
    later = await dial(at)
    await later.send_all(post(b"x" * 900))
    assert verdict(await read_answer(later)) == (400, "bad_json")
    nursery.cancel_scope.cancel()


async def test_only_a_known_proxy_may_name_another_address(nursery: trio.Nursery) -> None:
    """Behind a proxy each client has its own bucket; a client cannot invent one for itself."""
    tight = Limits(rate_per_second=0.001, rate_burst=1)
    behind = await running(nursery, trio.Event(), replace(tight, proxies=("127.0.0.1",)))
    alone = await running(nursery, trio.Event(), tight)
    for at, second in ((behind, 200), (alone, 429)):
        async with at.http:
            statuses = [
                (
                    await at.http.get("/v1/status", headers={"x-forwarded-for": f"9.9.9.9, {who}"})
                ).status_code
                for who in ("1.1.1.1", "2.2.2.2", "1.1.1.1")
            ]
        assert statuses == [200, second, 429]
    nursery.cancel_scope.cancel()


async def test_waiting_streams_are_bounded(nursery: trio.Nursery) -> None:
    at = await running(nursery, trio.Event(), Limits(streams_waiting_max=1))
    async with at.http, trio.open_nursery() as clients:
        clients.start_soon(at.http.get, "/v1/outcomes?wait_ms=10000")
        await trio.testing.wait_all_tasks_blocked(0.05)
        response = await at.http.get("/v1/outcomes?wait_ms=10000")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "overloaded")
        assert (await at.http.get("/v1/outcomes")).status_code == 200
        clients.cancel_scope.cancel()
    nursery.cancel_scope.cancel()


async def test_a_client_that_does_not_read_is_cut(nursery: trio.Nursery) -> None:
    at = await running(nursery, trio.Event(), QUICK)
    at.node.metrics = b"x" * (16 << 20)
    stream = await dial(at)
    await stream.send_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
    await trio.sleep(0.8)
    assert at.metrics.registry.get_sample_value("fairlane_gateway_connections") == 0
    assert len(await read_all(stream)) < 16 << 20
    nursery.cancel_scope.cancel()


async def test_a_stop_ends_what_is_under_way_and_closes_the_idle(nursery: trio.Nursery) -> None:
    shutdown = trio.Event()
    at = await running(nursery, shutdown, Limits(graceful_seconds=5))
    idle, waiting = await dial(at), await dial(at)
    await idle.send_all(STATUS)
    await read_answer(idle)
    await waiting.send_all(b"GET /v1/outcomes?wait_ms=10000 HTTP/1.1\r\nhost: x\r\n\r\n")
    await trio.testing.wait_all_tasks_blocked(0.05)
    began = trio.current_time()
    shutdown.set()
    assert await read_all(idle) == b""
    answer = await read_all(waiting)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    assert trio.current_time() - began < 2
    with pytest.raises(OSError, match=r".*"):
        await dial(at)


async def test_a_stop_does_not_wait_for_the_stuck(nursery: trio.Nursery) -> None:
    shutdown = trio.Event()
    async with trio.open_nursery() as inner:
        at = await running(inner, shutdown, Limits(graceful_seconds=0.3))
        at.node.stuck = True
        stream = await dial(at)
        await stream.send_all(post(single(at.door.order(1).body)))
        await trio.testing.wait_all_tasks_blocked(0.05)
        began = trio.current_time()
        shutdown.set()
    assert trio.current_time() - began < 2


async def test_no_bytes_end_the_server(nursery: trio.Nursery) -> None:
    """Mutated requests, cut and sent at random: each gets an answer or a close; seed 7."""
    random = Random(7)
    at = await running(nursery, trio.Event(), QUICK)
    seeds = [
        STATUS,
        post(single(at.door.order(1).body)),
        b"GET /v1/receipts/" + b"0" * 80 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/outcomes?after=0&wait_ms=1 HTTP/1.1\r\nhost: x\r\n\r\n",
    ]
    for _ in range(150):
        data = bytearray(random.choice(seeds) * random.randint(1, 2))
        for _ in range(random.randint(0, 8)):
            at_ = random.randrange(len(data))
            data[at_ : at_ + random.randint(0, 3)] = random.randbytes(random.randint(0, 3))
        stream = await dial(at)
        await stream.send_all(bytes(data))
        if random.random() < 0.5:
            await stream.send_eof()
            answer = await read_all(stream)
            assert not answer or answer.startswith(b"HTTP/1.1 "), bytes(data)
            assert b" 500 " not in answer[:20], bytes(data)
        else:
            await stream.aclose()
    good = await dial(at)
    await good.send_all(STATUS)
    assert (await read_answer(good)).startswith(b"HTTP/1.1 200")
    nursery.cancel_scope.cancel()


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 12), st.floats(0, 3)), max_size=60))
def test_a_bucket_never_gives_more_than_its_rate(asks: list[tuple[str, int, float]]) -> None:
    """Taken tokens <= burst + rate x time, and a refused client that waits as told passes."""
    check_buckets(Buckets(rate_per_second=2, burst=10), asks)


def test_a_bucket_that_forgets_what_it_gave_is_noticed() -> None:
    """Break it on purpose: a bucket refilled at each request fails the property."""

    class Forgetful(Buckets):
        def take(self, key: str, tokens: float, now: float) -> float:
            self._levels.clear()
            return super().take(key, tokens, now)

    with pytest.raises(AssertionError):
        check_buckets(Forgetful(rate_per_second=2, burst=10), [("a", 8, 0.0), ("a", 8, 0.0)])


def check_buckets(buckets: Buckets, asks: list[tuple[str, int, float]]) -> None:
    now = 0.0
    taken = {"a": 0.0, "b": 0.0}
    for key, tokens, pause in asks:
        now += pause
        wait = buckets.take(key, tokens, now)
        if wait:
            now += wait + 1e-6
            assert buckets.take(key, tokens, now) == 0
        taken[key] += min(tokens, 10)
        assert taken[key] <= 10 + 2 * now + 1e-6


def test_buckets_are_bounded() -> None:
    buckets = Buckets(1, 1)
    for i in range(bounds.ADDRESSES_MAX + 50):
        buckets.take(str(i), 1, float(i))
    assert len(buckets) == bounds.ADDRESSES_MAX


def test_an_ipv6_network_shares_one_bucket() -> None:
    assert rate_key("2001:db8::1") == rate_key("2001:db8::ffff:1")
    assert rate_key("2001:db8::1") != rate_key("2001:db8:0:1::1")
    assert rate_key("::ffff:10.0.0.1") == rate_key("10.0.0.1") == "10.0.0.1"
