"""The contracts' real bytecode, over real HTTP: deposits, checkpoints, claims, outages."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial, reduce

import httpx
import pytest
import trio

from consensus.digest import keccak
from matcher.inbox import INBOX_START, chain, deposit_message
from matcher.tree import DenseTree, withdrawal_leaf
from settlement import proofs
from settlement.checkpoint import SubmitCheckpoint, checkpoint_digest
from settlement.errors import (
    ChainInconsistent,
    ChainUnavailable,
    TransactionReverted,
    WrongChain,
)
from settlement.ethereum import SettlementClient
from settlement.rpc import Finality, Rpc, checksum, open_rpc, revert_reason
from settlement.submitter import Submitter
from settlement.transactions import Call, Pace, Transactor
from settlement.watcher import (
    ORIGIN,
    ChainEvent,
    CheckpointAccepted,
    Cursor,
    InboxAdvance,
    Watcher,
)
from tests.settlement.chainkit import CHAIN_ID, DEPLOYER, PACE, key, running, until

USDC = 10**6


def chained(hash_: bytes, messages: Iterable[bytes]) -> bytes:
    return reduce(chain, messages, hash_)


async def ignore(event: ChainEvent) -> None:
    await trio.lowlevel.checkpoint()


async def seen(watcher: Watcher) -> list[ChainEvent]:
    """Return everything that is final now."""
    events: list[ChainEvent] = []
    while True:
        more, watcher.cursor = await watcher.look()
        events += more
        if watcher.cursor.block >= watcher.final_block:
            return events


async def test_a_deposit_a_checkpoint_and_a_claim_end_to_end() -> None:
    async with running() as kit:
        alice, operator = kit.clients["alice"], kit.clients["operator 0"]
        watcher = Watcher(alice)
        assert await seen(watcher) == []
        assert await operator.domain_separator() == kit.separator

        await alice.deposit(500 * USDC, key("alice")[1])
        await alice.deposit(20 * USDC, key("bob")[1], 3)
        messages = (
            deposit_message(key("alice")[1], 0, 500 * USDC),
            deposit_message(key("bob")[1], 3, 20 * USDC),
        )
        inbox_hash = chained(INBOX_START, messages)
        assert await seen(watcher) == [InboxAdvance(0, messages, inbox_hash)]

        recipient = key("carol")[1]
        tree = DenseTree()
        tree.set(0, withdrawal_leaf(0, recipient, 120 * USDC))
        root, siblings = tree.root(), tree.proof(0)
        checkpoint = kit.checkpoint(0, 2, inbox_hash, 520 * USDC, 120 * USDC, root)
        receipt = await operator.submit(checkpoint, kit.signature(checkpoint))
        assert receipt.gas_used < 260_000
        accepted = [e for e in await seen(watcher) if isinstance(e, CheckpointAccepted)]
        assert [e.number for e in accepted] == [checkpoint.number]
        assert await operator.accepted_number() == checkpoint.number

        proof = proofs.WithdrawalProof(0, recipient, 120 * USDC, siblings)
        assert proofs.verify_withdrawal(root, proof)
        assert await operator.is_final(checkpoint.number) and not await operator.is_claimed(0)
        await operator.claim(checkpoint.number, proof)
        assert await operator.is_claimed(0)
        assert await operator.token_balance(recipient) == 120 * USDC
        with pytest.raises(TransactionReverted, match=r"AlreadyClaimed\(0\)"):
            await operator.claim(checkpoint.number, proof)


async def test_the_contract_and_we_agree_on_every_digest() -> None:
    async with running() as kit:
        client = kit.clients["bob"]
        for number in (0, 1, 7):
            checkpoint = kit.checkpoint(number, number, bytes([number]) * 32, 9 - number)
            fields = tuple(getattr(checkpoint, f) for f in checkpoint.__struct_fields__)
            contract = client.rpc.contract("Checkpoints", kit.deployed.addresses.checkpoints)
            digest = await contract.functions.digest(fields).call()
            assert digest == checkpoint_digest(kit.separator, checkpoint)


async def test_refusals_carry_the_contracts_own_words() -> None:
    async with running() as kit:
        operator = kit.clients["operator 0"]
        good = kit.checkpoint(0, 0, INBOX_START, 0)
        for voters, reason in (((0, 1, 2), r"BadSignature\(\)"),):
            with pytest.raises(TransactionReverted, match=reason):
                await operator.submit(good, kit.signature(good, voters))
        wrong = kit.checkpoint(0, 0, INBOX_START, 5)
        with pytest.raises(TransactionReverted, match=r"NetTotalMismatch\(5, 0\)"):
            await operator.submit(wrong, kit.signature(wrong))
        unknown = kit.checkpoint(0, 4, INBOX_START, 0)
        with pytest.raises(TransactionReverted, match=r"UnknownCount\(4, 0\)"):
            await operator.submit(unknown, kit.signature(unknown))
        await operator.submit(good, kit.signature(good))
        with pytest.raises(TransactionReverted, match="NumberNotGrowing"):
            await operator.submit(good, kit.signature(good))


def test_revert_reasons_are_decoded_or_shown_as_hex() -> None:
    words = (7).to_bytes(32, "big") + (12).to_bytes(32, "big")
    selector = keccak(b"NotFinal(uint64,uint256)")[:4]
    assert revert_reason(selector + words) == "NotFinal(7, 12)"
    assert revert_reason(selector + words[:5]) == "NotFinal(undecodable)"
    assert revert_reason(b"\x01\x02\x03\x04\x05") == "0x0102030405"
    assert revert_reason(b"") == "no reason given"


async def test_another_chain_is_refused_before_anything_is_sent() -> None:
    async with running() as kit, open_rpc(kit.process.url) as rpc:
        client = SettlementClient(rpc, 1, kit.deployed.addresses, key("alice")[0])
        with pytest.raises(WrongChain):
            await Watcher(client).run(ignore)
        submitter = Submitter(client)
        good = kit.checkpoint(0, 0, INBOX_START, 0)
        submitter.offer(SubmitCheckpoint(good, kit.signature(good)))
        with pytest.raises(WrongChain):
            await submitter.run()


async def test_submitting_what_is_there_is_success_and_nonsense_is_counted() -> None:
    async with running() as kit:
        first, second = kit.clients["operator 0"], kit.clients["alice"]
        good, bad = kit.checkpoint(0, 0, INBOX_START, 0), kit.checkpoint(1, 0, INBOX_START, 1)
        effect = SubmitCheckpoint(good, kit.signature(good))
        one, two = Submitter(first), Submitter(second)
        results = []

        async def submit(submitter: Submitter) -> None:
            results.append(await submitter.submit(effect))

        async with trio.open_nursery() as nursery:  # Both may be mined in one block.
            nursery.start_soon(submit, one)
            nursery.start_soon(submit, two)
        assert results == [True, True]
        assert (one.submitted + two.submitted, one.already + two.already) == (1, 1)
        assert await one.submit(effect) is True
        assert await one.submit(SubmitCheckpoint(bad, kit.signature(bad))) is False
        assert one.refused == 1 and "NetTotalMismatch" in one.last_error


async def test_the_watcher_and_the_submitter_outlive_a_chain_outage() -> None:
    async with running() as kit, trio.open_nursery() as nursery:
        alice, operator = kit.clients["alice"], kit.clients["operator 0"]
        watcher, submitter = Watcher(alice, poll_s=0.02), Submitter(operator)
        events: list[ChainEvent] = []

        async def emit(event: ChainEvent) -> None:
            events.append(event)

        nursery.start_soon(watcher.run, emit)
        nursery.start_soon(submitter.run)
        await alice.deposit(5 * USDC, key("alice")[1])
        message = deposit_message(key("alice")[1], 0, 5 * USDC)
        inbox_hash = chained(INBOX_START, [message])
        await until(lambda: events)
        kit.process.down()
        checkpoint = kit.checkpoint(0, 1, inbox_hash, 5 * USDC)
        submitter.offer(SubmitCheckpoint(checkpoint, kit.signature(checkpoint)))
        await until(lambda: submitter.failures and watcher.failures)
        assert not watcher.available
        await kit.process.up()
        await until(lambda: len(events) >= 2)
        assert events[0] == InboxAdvance(0, (message,), inbox_hash)
        assert isinstance(events[1], CheckpointAccepted)
        assert events[1].number == checkpoint.number and watcher.available
        nursery.cancel_scope.cancel()


async def test_a_watcher_goes_on_from_a_cursor_and_reads_long_histories_in_ranges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as kit:
        alice = kit.clients["alice"]
        for amount in (3, 4, 5):
            await alice.deposit(amount * USDC, key("alice")[1])
            await kit.process.mine(20)
        whole = await seen(Watcher(alice))
        monkeypatch.setattr("settlement.watcher.RANGE_BLOCKS_MAX", 16)
        first = Watcher(alice)
        told, cursor = await first.look()
        assert cursor.block == 15 and first.final_block > 60
        first.cursor = cursor
        while first.cursor.count < 2:
            more, first.cursor = await first.look()
            told += more
        told += await seen(Watcher(alice, start=first.cursor))
        assert [m for e in told if isinstance(e, InboxAdvance) for m in e.messages] == [
            m for e in whole if isinstance(e, InboxAdvance) for m in e.messages
        ]


async def test_more_than_a_batchful_of_messages_comes_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as kit:
        monkeypatch.setattr("settlement.watcher.INBOX_MESSAGES_MAX", 4)
        alice = kit.clients["alice"]
        await alice.deposit(1 * USDC, key("alice")[1])
        vault = alice.rpc.contract("Vault", kit.deployed.addresses.vault)
        token = alice.rpc.contract("TestToken", kit.deployed.addresses.token)
        approve = token.functions.approve(vault.address, 10**12)
        deposit = vault.functions.deposit(USDC, checksum(key("alice")[1]), 1)
        calls = [
            Call(to=kit.deployed.addresses.token, data=data_of(approve), gas=100_000),
            *[Call(to=kit.deployed.addresses.vault, data=data_of(deposit), gas=200_000)] * 10,
        ]
        await alice.sender.send_many(calls)
        events = [e for e in await seen(Watcher(alice)) if isinstance(e, InboxAdvance)]
        assert sum(len(e.messages) for e in events) == 11
        assert max(len(e.messages) for e in events) <= 4
        hash_, count = INBOX_START, 0
        for event in events:
            assert event.since == count
            hash_, count = chained(hash_, event.messages), count + len(event.messages)
            assert event.hash == hash_


def data_of(function: object) -> bytes:
    return bytes.fromhex(function._encode_transaction_data()[2:])  # type: ignore[attr-defined]


class Lying(SettlementClient):
    """An endpoint that leaves out, makes up or reorders the inbox's events."""

    lie = ""

    async def events(self, first, last):  # type: ignore[no-untyped-def]
        enqueued, accepted = await super().events(first, last)
        match self.lie:
            case "omit the last":
                enqueued = enqueued[:-1]
            case "omit the first":
                enqueued = enqueued[1:]
            case "reorder":
                enqueued = enqueued[::-1]
            case "invent":
                made_up = deposit_message(b"\x66" * 20, 0, 10**15)
                hash_ = chained(enqueued[-1].chained, [made_up])
                last_one = enqueued[-1]
                enqueued = [*enqueued, type(last_one)(last_one.block, 3, made_up, hash_)]
        return enqueued, accepted


@pytest.mark.parametrize("lie", ["omit the last", "omit the first", "reorder", "invent"])
async def test_an_endpoint_that_lies_about_the_inbox_is_noticed(lie: str) -> None:
    async with running() as kit:
        alice = kit.clients["alice"]
        await alice.deposit(3 * USDC, key("alice")[1])
        await alice.deposit(4 * USDC, key("alice")[1])
        client = Lying(alice.rpc, CHAIN_ID, kit.deployed.addresses)
        client.lie = lie
        watcher = Watcher(client)
        with pytest.raises(ChainInconsistent):
            await watcher.look()
        assert watcher.cursor == ORIGIN


class Trusting(Watcher):
    """Broken on purpose: does not compare with the contract's own record."""

    async def _confirm(self, cursor: Cursor, final: int, advanced: bool) -> None:
        return None


@pytest.mark.parametrize("lie", ["omit the last", "invent"])
async def test_mutation_without_the_contracts_record_the_lie_goes_through(lie: str) -> None:
    async with running() as kit:
        alice = kit.clients["alice"]
        await alice.deposit(3 * USDC, key("alice")[1])
        await alice.deposit(4 * USDC, key("alice")[1])
        client = Lying(alice.rpc, CHAIN_ID, kit.deployed.addresses)
        client.lie = lie
        _, cursor = await Trusting(client).look()
        assert cursor.count != 2


class Relapsing(Rpc):
    """Says every second time that an older block is the last final one."""

    asked = 0

    async def final_block(self, finality: Finality) -> int:
        self.asked += 1
        return await super().final_block(finality) - (20 if self.asked % 2 == 0 else 0)


async def test_an_endpoint_that_goes_back_in_time_changes_nothing() -> None:
    async with running() as kit:
        alice = kit.clients["alice"]
        async with httpx.AsyncClient() as http:
            rpc = Relapsing(kit.process.url, http)
            watcher = Watcher(SettlementClient(rpc, CHAIN_ID, kit.deployed.addresses))
            told: list[ChainEvent] = []
            finals = []
            for amount in range(1, 7):
                await alice.deposit(amount * USDC, key("alice")[1])
                more, watcher.cursor = await watcher.look()
                told += more
                finals.append(watcher.final_block)
        told += await seen(Watcher(alice, start=watcher.cursor))
        assert finals == sorted(finals) and rpc.asked == 6
        messages = [m for e in told if isinstance(e, InboxAdvance) for m in e.messages]
        wallet = key("alice")[1]
        assert messages == [deposit_message(wallet, 0, a * USDC) for a in range(1, 7)]


async def test_a_depth_is_kept_and_a_cursor_ahead_of_the_chain_waits() -> None:
    async with running() as kit:
        alice = kit.clients["alice"]
        await kit.process.mine(30)
        deep = Watcher(alice, finality=10)
        _, cursor = await deep.look()
        assert cursor.block <= kit.chain.number - 10
        ahead = Cursor(kit.chain.number + 1_000, 0, INBOX_START)
        assert await Watcher(alice, start=ahead).look() == ([], ahead)


# Transactions


async def test_what_a_crash_left_in_the_pool_is_outbid_and_replaced() -> None:
    async with running() as kit, open_rpc(kit.process.url) as rpc:
        await kit.process.restart(block_time_s=3_600.0)
        secret, address = key("alice")
        before, after = (Transactor(rpc, CHAIN_ID, secret, PACE) for _ in range(2))

        def waiting() -> list[int]:
            return [transaction.value for transaction in kit.chain._pool_hashes.values()]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(before.send, Call(to=key("bob")[1], value=1))
            await until(lambda: waiting() == [1])
            nursery.cancel_scope.cancel()
        balance = kit.chain.balance(key("bob")[1], kit.chain.number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(after.send, Call(to=key("bob")[1], value=2))
            await until(lambda: waiting() == [2])
            kit.chain.mine(0)
        assert kit.chain.nonce(address, kit.chain.number) == 1
        assert kit.chain.balance(key("bob")[1], kit.chain.number) == balance + 2


class OffersNothing(Transactor):
    """Offers one wei at first, below the least base fee there is."""

    async def _fees(self) -> tuple[int, int]:
        return 1, 1


class NeverBumps(OffersNothing):
    """Broken on purpose: offers the same again."""

    def _bump(self, flight: object) -> bool:
        return True


async def test_a_stuck_transaction_is_bumped_until_it_pays_enough() -> None:
    async with running() as kit, open_rpc(kit.process.url) as rpc:
        for _ in range(200):
            kit.chain.mine(0)  # The base fee falls to its least, 7 wei.
        assert kit.chain.base_fee == 7
        call = Call(to=key("bob")[1], value=3, gas=21_000)
        pace = Pace(poll_s=0.02, stuck_s=0.05, timeout_s=1.0)
        with pytest.raises(ChainUnavailable, match="not mined"):
            await NeverBumps(rpc, CHAIN_ID, key("alice")[0], pace).send(call)
        pace = Pace(poll_s=0.02, stuck_s=0.05, timeout_s=20.0)
        receipt = await OffersNothing(rpc, CHAIN_ID, key("alice")[0], pace).send(call)
        mined = kit.chain.mined(receipt.hash)
        assert mined is not None and mined.gas_price >= 7


async def test_calls_in_a_row_are_mined_without_waiting_in_between() -> None:
    async with running() as kit, open_rpc(kit.process.url) as rpc:
        sender = Transactor(rpc, CHAIN_ID, DEPLOYER[0], PACE)
        await kit.process.restart(block_time_s=0.5)
        calls = [Call(to=key("bob")[1], value=1, gas=21_000) for _ in range(60)]
        receipts = await sender.send_many(calls)
        assert len(receipts) == 60
        assert receipts[-1].block - receipts[0].block <= 30  # One by one it takes 59.


async def test_a_silent_endpoint_is_unavailable_and_not_an_exception_of_a_library() -> None:
    async def silent(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async def garbage(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{{{{{")

    async def wrong_types(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        body = b'{"jsonrpc":"2.0","id":0,"result":{"number":[]}}'
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
        await stream.send_all(head + body)

    async def not_found(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.aclose()

    for handler in (silent, garbage, wrong_types, not_found, hang_up):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, handler, 0)
            port = listeners[0].socket.getsockname()[1]
            async with open_rpc(f"http://127.0.0.1:{port}", timeout_s=0.3) as rpc:
                for ask in (rpc.chain_id, rpc.newest_block, partial(rpc.final_block, "safe")):
                    with pytest.raises(ChainUnavailable):
                        await ask()
            nursery.cancel_scope.cancel()
