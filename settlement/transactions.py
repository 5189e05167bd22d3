"""Send transactions of one account: explicit nonces, EIP-1559 fees, receipts, stuck ones bumped.

Nonces come from the chain each time, from what is mined: so what a crash left in the pool is
replaced by what is sent now, and nothing of it need be stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio
from eth_account import Account

from settlement.errors import ChainUnavailable, RpcRefused, TransactionReverted
from settlement.rpc import Rpc, checksum

CALLS_MAX = 200
"""Calls of one `send_many`; other nodes' pools hold few more of one account."""
BUMPS_MAX = 12
GAS_MARGIN_PERCENT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One message to a contract, or its creation when `to` is None.

    `gas` None: ask the chain, which finds a revert before anything is sent. Units: wei.
    """

    to: bytes | None
    data: bytes = b""
    value: int = 0
    gas: int | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """A mined, successful transaction; `created` is the new contract's address."""

    hash: bytes
    block: int
    gas_used: int
    created: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long to wait. Units: seconds; wei per gas for `fee_max`, the most ever offered."""

    poll_s: float = 0.5
    stuck_s: float = 20.0
    timeout_s: float = 180.0
    fee_max: int = 1_000 * 10**9


@dataclass(slots=True)
class _Flight:
    """One nonce under way: every transaction sent for it, and the fees of the last."""

    call: Call
    nonce: int
    gas: int
    max_fee: int
    tip: int
    hashes: list[bytes] = field(default_factory=list)
    sent_s: float = 0.0
    receipt: Receipt | None = None
    failed: str = ""


class Transactor:
    """Sends for one account; calls wait for each other."""

    def __init__(self, rpc: Rpc, chain_id: int, secret: bytes, pace: Pace | None = None) -> None:
        """`secret` is the account's secp256k1 key; `chain_id` goes into every signature."""
        self._rpc = rpc
        self._chain_id = chain_id
        self._account: Any = Account.from_key(secret)
        self.address = bytes.fromhex(self._account.address[2:])
        self._pace = pace or Pace()
        self._lock = trio.Lock()

    async def send(self, call: Call) -> Receipt:
        """Send one call and return once it is mined (not final).

        Errors: TransactionReverted; ChainUnavailable, after which it may still be mined.
        """
        return (await self.send_many([call]))[0]

    async def send_many(self, calls: Sequence[Call]) -> list[Receipt]:
        """Send calls in nonce order without waiting in between; return when all are mined.

        A call that needs an earlier one's effect must bring its own `gas`. Errors: as `send`;
        the others may have been mined.
        """
        assert 0 < len(calls) <= CALLS_MAX
        async with self._lock:
            limits = [call.gas or await self._estimate(call) for call in calls]
            nonce = await self._mined_count()
            max_fee, tip = await self._fees()
            flights = [
                _Flight(call, nonce + i, gas, max_fee, tip)
                for i, (call, gas) in enumerate(zip(calls, limits, strict=True))
            ]
            for flight in flights:
                await self._broadcast(flight)
            with trio.move_on_after(self._pace.timeout_s) as scope:
                await self._settle(flights)
            if scope.cancelled_caught:
                raise ChainUnavailable(f"not mined within {self._pace.timeout_s:.0f} s")
        for flight in flights:
            if flight.failed:
                raise TransactionReverted(flight.failed)
        return [flight.receipt for flight in flights if flight.receipt is not None]

    async def _estimate(self, call: Call) -> int:
        request: Any = self._fields(call)
        gas = await self._rpc.ask(self._rpc.w3.eth.estimate_gas(request), int)
        return gas * (100 + GAS_MARGIN_PERCENT) // 100

    def _fields(self, call: Call) -> dict[str, Any]:
        fields: dict[str, Any] = {"from": self._account.address, "value": call.value}
        fields["data"] = "0x" + call.data.hex()
        if call.to is not None:
            fields["to"] = checksum(call.to)
        return fields

    async def _mined_count(self) -> int:
        eth, account = self._rpc.w3.eth, self._account.address
        return await self._rpc.ask(eth.get_transaction_count(account, "latest"), int)

    async def _fees(self) -> tuple[int, int]:
        """Return (max fee, tip): room for the base fee to double while we wait."""
        eth = self._rpc.w3.eth
        base = await self._rpc.ask(eth.get_block("latest"), lambda b: int(b["baseFeePerGas"]))
        tip = await self._rpc.ask(eth.max_priority_fee, int)
        max_fee = 2 * base + tip
        return min(max_fee, self._pace.fee_max), min(tip, self._pace.fee_max)

    async def _broadcast(self, flight: _Flight) -> None:
        """Hand the transaction to the pool; outbid what an earlier run left at its nonce."""
        for _ in range(BUMPS_MAX):
            raw, hash_ = self._sign(flight)
            flight.sent_s = trio.current_time()
            if hash_ not in flight.hashes:
                flight.hashes.append(hash_)
            try:
                await self._rpc.ask(self._rpc.w3.eth.send_raw_transaction(raw), bytes)
            except RpcRefused as error:
                text = str(error).lower()
                if "already known" in text or "nonce too low" in text:
                    return  # It, or another of its nonce, is in: the receipts will tell.
                if "underpriced" not in text or not self._bump(flight):
                    raise
            else:
                return
        raise ChainUnavailable("outbidding an older transaction failed")

    def _sign(self, flight: _Flight) -> tuple[bytes, bytes]:
        fields = self._fields(flight.call)
        del fields["from"]
        fields |= {
            "chainId": self._chain_id,
            "nonce": flight.nonce,
            "gas": flight.gas,
            "maxFeePerGas": flight.max_fee,
            "maxPriorityFeePerGas": flight.tip,
            "type": 2,
        }
        signed = self._account.sign_transaction(fields)
        return bytes(signed.raw_transaction), bytes(signed.hash)

    def _bump(self, flight: _Flight) -> bool:
        """Raise both fees by a quarter (pools ask for a tenth); say whether the cap allowed it."""
        if flight.max_fee >= self._pace.fee_max:
            return False
        flight.max_fee = min(flight.max_fee * 5 // 4 + 1, self._pace.fee_max)
        flight.tip = min(flight.tip * 5 // 4 + 1, flight.max_fee)
        return True

    async def _settle(self, flights: list[_Flight]) -> None:
        """Wait until every flight is mined, bumping what is stuck; an outage is waited out."""
        while True:
            try:
                mined = await self._mined_count()
                for flight in flights:
                    if flight.nonce < mined and flight.receipt is None and not flight.failed:
                        await self._collect(flight)
                waiting = [f for f in flights if f.receipt is None and not f.failed]
                if not waiting:
                    return
                now_s = trio.current_time()
                for flight in waiting:
                    stuck = now_s - flight.sent_s > self._pace.stuck_s
                    if stuck and flight.nonce >= mined:
                        self._bump(flight)
                        await self._broadcast(flight)
            except ChainUnavailable:
                pass  # The deadline of `send_many` ends this.
            await trio.sleep(self._pace.poll_s)

    async def _collect(self, flight: _Flight) -> None:
        """Find the receipt of whichever transaction took the flight's nonce."""
        for hash_ in reversed(flight.hashes):
            found: Any = hash_
            request = self._rpc.w3.eth.get_transaction_receipt(found)
            try:
                ok, receipt = await self._rpc.ask(request, partial(_receipt, hash_))
            except RpcRefused:
                continue
            if ok:
                flight.receipt = receipt
            else:
                flight.failed = await self._why(flight.call, receipt.block)
            return
        if trio.current_time() - flight.sent_s > self._pace.stuck_s:
            flight.failed = "another transaction of this account took the nonce"

    async def _why(self, call: Call, block: int) -> str:
        """Run the call again where it failed, for the contract's own words."""
        try:
            request: Any = self._fields(call)
            await self._rpc.ask(self._rpc.w3.eth.call(request, block), bytes)
        except TransactionReverted as error:
            return error.reason
        except ChainUnavailable:
            pass
        return "reverted on chain"


def _receipt(hash_: bytes, answer: Any) -> tuple[bool, Receipt]:
    """Return whether the transaction succeeded, and its receipt."""
    created = answer.get("contractAddress")
    receipt = Receipt(
        hash=hash_,
        block=int(answer["blockNumber"]),
        gas_used=int(answer["gasUsed"]),
        created=bytes.fromhex(created[2:]) if created else None,
    )
    return answer["status"] == 1, receipt
