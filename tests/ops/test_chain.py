"""The embedded chain: its pool, its blocks, its answers to anything, and level memory."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h11
import pytest
import trio
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.digest import keccak
from contracts.loader import artifact
from ops.chain import embedded
from ops.chain.embedded import Call, EmbeddedChain, Rejected, Reverted, Unknown
from ops.chain.rpc import BATCH_MAX, METHODS, REQUEST_BYTES_MAX, answer
from ops.chain.server import serve

CHAIN_ID = 31_337
START_S = 1_700_000_000
ETHER = 10**18
SECRET = b"\x01" * 32
OWNER = bytes.fromhex(Account.from_key(SECRET).address[2:])
GWEI = 10**9


def fresh() -> EmbeddedChain:
    return EmbeddedChain(CHAIN_ID, {OWNER: 100 * ETHER}, START_S)


def signed(nonce: int, secret: bytes = SECRET, **changes: Any) -> bytes:
    fields = {
        "chainId": CHAIN_ID,
        "nonce": nonce,
        "gas": 21_000,
        "to": "0x" + "22" * 20,
        "value": 1,
        "maxFeePerGas": 10 * GWEI,
        "maxPriorityFeePerGas": GWEI,
        **changes,
    }
    return bytes(Account.sign_transaction(fields, secret).raw_transaction)


def rpc(chain: EmbeddedChain, method: str, *params: Any) -> Any:
    request = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    reply = json.loads(answer(chain, json.dumps(request).encode()))
    assert reply["jsonrpc"] == "2.0" and reply["id"] == 7
    return reply


def result(chain: EmbeddedChain, method: str, *params: Any) -> Any:
    reply = rpc(chain, method, *params)
    assert "error" not in reply, reply
    return reply["result"]


def deployed_token(chain: EmbeddedChain) -> bytes:
    code = bytes.fromhex(artifact("TestToken").bytecode)
    gas = chain.estimate(Call(sender=OWNER, data=code), chain.number)
    nonce = chain.nonce(OWNER, chain.number)
    hash_ = chain.send(signed(nonce, to=b"", data=code, gas=gas, value=0))
    chain.mine(0)
    mined = chain.mined(hash_)
    assert mined is not None and mined.ok and mined.created is not None
    return mined.created


def mint_data(to: bytes, amount: int) -> bytes:
    return keccak(b"mint(address,uint256)")[:4] + bytes(12) + to + amount.to_bytes(32, "big")


# Blocks


def test_blocks_carry_wall_clock_time_and_strictly_grow() -> None:
    chain = fresh()
    for _ in range(120):  # Many at once must not push the chain's clock ahead for good.
        chain.send(signed(chain.pending_nonce(OWNER)))
    times = [chain.mine(START_S + wall).header.timestamp - START_S for wall in (5, 6, 6, 6, 20)]
    assert times == [5, 6, 7, 8, 20]
    assert chain.nonce(OWNER, chain.number) == 120


def test_a_block_sees_its_own_timestamp() -> None:
    """TIMESTAMP PUSH0 SSTORE: what a contract is told must be the header's time."""
    chain = fresh()
    runtime = bytes.fromhex("425f55")
    create = bytes.fromhex("62") + runtime + bytes.fromhex("5f526003601df3")
    hash_ = chain.send(signed(0, to=b"", data=create, gas=200_000, value=0))
    chain.mine(START_S + 10)
    contract = chain.mined(hash_).created  # type: ignore[union-attr]
    assert contract is not None and chain.code(contract, chain.number) == runtime
    chain.send(signed(1, to=contract, gas=100_000, value=0))
    chain.mine(START_S + 777)
    assert chain.storage(contract, 0, chain.number) == START_S + 777


def test_a_block_is_as_full_as_its_gas_limit_and_the_rest_waits() -> None:
    chain = fresh()
    for nonce in range(4):
        chain.send(signed(nonce, to=b"", data=b"\xfe", gas=10_000_000))  # INVALID burns it all
    assert [len(chain.mine(0).transactions) for _ in range(3)] == [3, 1, 0]


# The pool


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (signed(0, chainId=1), "chain id"),
        (signed(0, gas=20_000), "intrinsic gas"),
        (signed(0, gas=40_000_000), "block gas limit"),
        (signed(0, value=100 * ETHER), "insufficient funds"),
        (signed(0, secret=b"\x02" * 32), "insufficient funds"),
        (b"", "not supported"),
        (b"\x02" + b"\xff" * 40, "invalid"),
        (b"\x03" + b"\xff" * 40, "not supported"),
        (b"\xc0", "invalid"),
        (bytes(200_000), "oversized"),
    ],
)
def test_the_pool_says_what_is_wrong_with_a_transaction(raw: bytes, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        fresh().send(raw)


def test_nonces_gaps_and_replacements_are_treated_as_elsewhere() -> None:
    chain = fresh()
    later = chain.send(signed(1))
    assert chain.pending_nonce(OWNER) == 0
    chain.mine(0)
    assert chain.mined(later) is None and chain.waiting(later) is not None
    first = chain.send(signed(0))
    assert chain.pending_nonce(OWNER) == 2
    with pytest.raises(Rejected, match="already known"):
        chain.send(signed(0))
    with pytest.raises(Rejected, match="replacement transaction underpriced"):
        chain.send(signed(0, value=2, maxFeePerGas=11 * GWEI))
    better = chain.send(signed(0, value=2, maxFeePerGas=11 * GWEI, maxPriorityFeePerGas=2 * GWEI))
    block = chain.mine(0)
    assert block.transactions == (better, later) and chain.mined(first) is None
    with pytest.raises(Rejected, match="nonce too low"):
        chain.send(signed(0, value=9))


def test_the_pool_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "POOL_SENDER_MAX", 8)
    chain = fresh()
    for nonce in range(1, 9):
        chain.send(signed(nonce))
    with pytest.raises(Rejected, match="txpool is full"):
        chain.send(signed(9))


def test_a_transaction_that_cannot_pay_the_base_fee_waits_until_it_can() -> None:
    chain = fresh()
    fee = chain.base_fee * 9 // 10
    cheap = chain.send(signed(0, maxFeePerGas=fee, maxPriorityFeePerGas=1))
    mined_in = [len(chain.mine(0).transactions) for _ in range(3)]
    assert mined_in == [0, 1, 0] and chain.mined(cheap) is not None


# Calls


def test_a_revert_comes_back_with_the_contracts_data() -> None:
    chain = fresh()
    token = deployed_token(chain)
    transfer = keccak(b"transfer(address,uint256)")[:4] + bytes(31) + b"\x09" + bytes(31) + b"\x05"
    call = {"from": "0x" + OWNER.hex(), "to": "0x" + token.hex(), "data": "0x" + transfer.hex()}
    for method in ("eth_call", "eth_estimateGas"):
        error = rpc(chain, method, call)["error"]
        assert error["code"] == 3 and error["message"].startswith("execution reverted")
        selector = keccak(b"ERC20InsufficientBalance(address,uint256,uint256)")[:4]
        assert error["data"].startswith("0x" + selector.hex())
    with pytest.raises(Reverted):
        chain.call(Call(sender=OWNER, to=token, data=transfer), chain.number)


@given(st.integers(1, 2**64), st.booleans())
@settings(max_examples=20, deadline=None)
def test_an_estimate_is_enough_and_not_far_off(amount: int, again: bool) -> None:
    chain = fresh()
    token = deployed_token(chain)
    data = mint_data(b"\x33" * 20, amount)
    if again:
        chain.send(signed(1, to=token, data=data, gas=200_000, value=0))
        chain.mine(0)
    estimate = chain.estimate(Call(sender=OWNER, to=token, data=data), chain.number)
    nonce = chain.nonce(OWNER, chain.number)
    hash_ = chain.send(signed(nonce, to=token, data=data, gas=estimate, value=0))
    chain.mine(0)
    mined = chain.mined(hash_)
    assert mined is not None and mined.ok
    assert mined.gas_used <= estimate <= mined.gas_used * 5 // 4 + 5_000


def test_a_failed_transaction_has_a_receipt_that_says_so() -> None:
    chain = fresh()
    token = deployed_token(chain)
    data = keccak(b"transfer(address,uint256)")[:4] + bytes(31) + b"\x09" + bytes(31) + b"\x05"
    hash_ = chain.send(signed(1, to=token, data=data, gas=100_000, value=0))
    assert result(chain, "eth_getTransactionReceipt", "0x" + hash_.hex()) is None
    chain.mine(0)
    receipt = result(chain, "eth_getTransactionReceipt", "0x" + hash_.hex())
    assert receipt["status"] == "0x0" and receipt["logs"] == []


def test_logs_are_filtered_by_range_address_and_topics() -> None:
    chain = fresh()
    token, other = deployed_token(chain), deployed_token(chain)
    for i, (contract, to) in enumerate([(token, 1), (other, 1), (token, 2), (token, 1)]):
        data = mint_data(bytes([to]) * 20, 10 + i)
        chain.send(signed(2 + i, to=contract, data=data, gas=100_000, value=0))
        chain.mine(0)
    transfer = "0x" + keccak(b"Transfer(address,address,uint256)").hex()
    to_one = "0x" + (bytes(12) + b"\x01" * 20).hex()

    def amounts(**filter_: Any) -> list[int]:
        base = {"fromBlock": "earliest", "toBlock": "latest"}
        logs = result(chain, "eth_getLogs", {**base, **filter_})
        return [int(log["data"], 16) for log in logs]

    assert amounts() == [10, 11, 12, 13]
    assert amounts(address="0x" + token.hex()) == [10, 12, 13]
    assert amounts(address=["0x" + token.hex(), "0x" + other.hex()], toBlock="0x4") == [10, 11]
    assert amounts(fromBlock="0x5", toBlock="0x5") == [12]
    assert amounts(topics=[transfer, None, to_one]) == [10, 11, 13]
    assert amounts(topics=[[transfer, to_one], [], [to_one]]) == [10, 11, 13]
    assert amounts(topics=[to_one]) == []
    assert amounts(topics=[None, None, None, None]) == []
    assert amounts(fromBlock="0x7", toBlock="0x99") == []


# Anything at all

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
HEX = st.one_of(
    st.just("0x"), st.just("0xzz"), st.just("latest"), st.binary(max_size=33).map(
        lambda data: "0x" + data.hex()
    ), st.integers(0, 2**256).map(hex)
)  # fmt: skip
CALLS = st.dictionaries(
    st.sampled_from(
        ["from", "to", "data", "input", "value", "gas", "fromBlock", "toBlock", "topics", "address"]
    ),
    HEX | JSON,
)
CHAIN = fresh()


@given(st.sampled_from(sorted(METHODS)), st.lists(HEX | CALLS | JSON, max_size=3))
@settings(max_examples=400, deadline=None)
def test_any_parameters_get_a_well_formed_answer(method: str, params: list[Any]) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    reply = json.loads(answer(CHAIN, body))
    assert reply["id"] == 1 and ("result" in reply) != ("error" in reply)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=200, deadline=None)
def test_any_bytes_get_a_well_formed_answer(body: bytes) -> None:
    reply = json.loads(answer(CHAIN, body))
    replies = reply if isinstance(reply, list) else [reply]
    assert replies and all(single["jsonrpc"] == "2.0" for single in replies)


def test_batches_and_requests_are_bounded() -> None:
    one = {"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber"}
    assert len(json.loads(answer(CHAIN, json.dumps([one] * BATCH_MAX).encode()))) == BATCH_MAX
    for body in (json.dumps([one] * (BATCH_MAX + 1)).encode(), b" " * (REQUEST_BYTES_MAX + 1)):
        assert "error" in json.loads(answer(CHAIN, body))


# Memory


def grow(chain: EmbeddedChain, blocks: int) -> None:
    """Mine blocks that each touch a new account and a token's storage."""
    token = deployed_token(chain)
    for i in range(blocks):
        nonce = chain.nonce(OWNER, chain.number)
        holder = keccak(b"%d" % (i % 50))[:20]
        chain.send(signed(nonce, to=token, data=mint_data(holder, 1), gas=100_000, value=0))
        chain.mine(0)


@contextmanager
def small_history(states: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "STATES_KEPT_MAX", states)
        patch.setattr(embedded, "BLOCKS_KEPT_MAX", 4 * states)
        patch.setattr(embedded, "LOGS_KEPT_MAX", 4 * states)
        yield


def test_memory_is_level_and_recent_states_stay_whole() -> None:
    with small_history(32):
        chain = fresh()
        sizes = []
        for _ in range(6):
            grow(chain, 63)
            sizes.append(chain.store_bytes)
        assert max(sizes[2:]) < 1.15 * min(sizes[2:])
        assert len(chain._blocks) <= 128 and len(chain._mined) <= 128
        assert len(chain._events) <= 128
        for number in range(chain.number - 31, chain.number + 1):
            chain.balance(OWNER, number)
            chain.call(Call(to=OWNER), number)
        with pytest.raises(Unknown, match="pruned"):
            chain.balance(OWNER, chain.number - 80)
        with pytest.raises(Unknown, match="pruned"):
            list(chain.events(0, chain.number))
        assert rpc(chain, "eth_getBlockByNumber", "0x1")["result"] is None


def test_mutation_without_pruning_memory_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "prune", lambda store, recent: None)
    with small_history(32):
        chain = fresh()
        grow(chain, 126)
        before = chain.store_bytes
        grow(chain, 126)
        assert chain.store_bytes > 1.5 * before


def test_pruning_changes_no_answer() -> None:
    """Every account and slot reads the same on a chain that prunes and on one that does not."""
    with small_history(16):
        pruned = fresh()
        grow(pruned, 70)
    whole = fresh()
    grow(whole, 70)
    assert pruned.head.header.state_root == whole.head.header.state_root
    token = "0x" + (keccak(b"") * 2)[:20].hex()
    assert result(pruned, "eth_getCode", token) == "0x"
    for i in range(50):
        holder = keccak(b"%d" % i)[:20]
        call = Call(to=created(OWNER), data=keccak(b"balanceOf(address)")[:4] + bytes(12) + holder)
        assert pruned.call(call, pruned.number) == whole.call(call, whole.number) != bytes(32)


def created(sender: bytes) -> bytes:
    """Return the address of the sender's first contract (RLP of [sender, 0])."""
    return keccak(b"\xd6\x94" + sender + b"\x80")[12:]


# The server


async def post(stream: trio.SocketStream, body: bytes, extra: bytes = b"") -> tuple[int, bytes]:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%s\r\n" % (len(body), extra)
    await stream.send_all(head + body)
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
    http.send(h11.EndOfMessage())
    status, reply = 0, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some(65_536))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            reply += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return status, reply


async def test_the_server_keeps_connections_and_refuses_what_is_no_request() -> None:
    block_number = b'{"jsonrpc":"2.0","id":1,"method":"eth_blockNumber"}'
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve, fresh(), "127.0.0.1", 0, 3_600.0)
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        for _ in range(3):
            status, reply = await post(stream, block_number)
            assert status == 200 and json.loads(reply)["result"] == "0x1"
        status, _ = await post(stream, b"x" * (REQUEST_BYTES_MAX + 1))
        assert status == 413
        for garbage, expected in ((b"\x16\x03\x01\x00garbage\r\n\r\n", b"400"), (
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"405"
        )):  # fmt: skip
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(garbage)
            assert expected in await stream.receive_some(1_000)
        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
        status, _ = await post(await trio.open_tcp_stream("127.0.0.1", port), block_number)
        assert status == 200
        nursery.cancel_scope.cancel()


async def test_only_loopback_is_served() -> None:
    with pytest.raises(ValueError, match="loopback"):
        await serve(fresh(), "0.0.0.0", 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "not a loopback address"),
        (["--host", "localhost"], "IPv4 or IPv6"),
        (["--fund", "0x12"], "not an address"),
        (["--mnemonic", "no such words"], "Error"),
        (["--accounts", "100000"], "range"),
        (["--block-time-s", "0"], "range"),
    ],
)
def test_the_command_refuses_what_it_cannot_do_in_one_line(arguments: list[str], said: str) -> None:
    from click.testing import CliRunner

    from ops.commands.chain import command

    outcome = CliRunner().invoke(command, ["--port", "0", *arguments])
    assert outcome.exit_code in (1, 2) and said in outcome.output
    assert "Traceback" not in outcome.output


def test_the_command_says_so_when_the_port_is_taken() -> None:
    from click.testing import CliRunner

    from ops.commands.chain import command

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        outcome = CliRunner().invoke(command, ["--port", port, "--accounts", "0"])
    assert outcome.exit_code == 1 and "in use" in outcome.output


def test_the_command_serves_and_stops_on_sigterm() -> None:
    command = [sys.executable, "-m", "ops", "chain", "--port", "0", "--accounts", "2", "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
    )
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["chain_id"] == CHAIN_ID and len(said["accounts"]) == 2
        body = b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}'
        request = urllib.request.Request(said["url"], data=body)
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert json.load(reply)["result"] == hex(CHAIN_ID)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()
