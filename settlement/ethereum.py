"""The settlement contracts as the network uses them: deposits, checkpoints, claims, the inbox.

Addresses are 20 bytes, amounts micro-USDC. Errors are those of `settlement.errors`, everywhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from settlement.checkpoint import Checkpoint
from settlement.eip2537 import g1_words
from settlement.errors import (
    ChainError,
    ChainInconsistent,
    ChainUnavailable,
    RpcRefused,
    TransactionReverted,
    WrongChain,
)
from settlement.proofs import WithdrawalProof
from settlement.rpc import TIMEOUT_S, Finality, Rpc, TrioHTTPProvider, checksum, open_rpc
from settlement.transactions import Call, Pace, Receipt, Transactor

__all__ = [
    "Addresses",
    "ChainError",
    "ChainInconsistent",
    "ChainUnavailable",
    "Finality",
    "Pace",
    "Receipt",
    "RpcRefused",
    "SettlementClient",
    "TransactionReverted",
    "TrioHTTPProvider",
    "WrongChain",
    "open_client",
]

T = TypeVar("T")

DEPOSIT_GAS = 300_000
"""For a deposit sent together with its approval, whose cost cannot be asked for before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the contracts are."""

    token: bytes
    vault: bytes
    inbox: bytes
    checkpoints: bytes


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The inbox's event: message `index` (the first is 1), and the chained hash after it."""

    block: int
    index: int
    message: bytes
    chained: bytes


@dataclass(frozen=True, slots=True)
class AcceptedEvent:
    """The checkpoints' event: `digest` was accepted as `number`, in the named transaction."""

    block: int
    number: int
    digest: bytes
    transaction: bytes = b""


class SettlementClient:
    """One network's contracts behind one endpoint; sends if it has an account's key."""

    def __init__(
        self,
        rpc: Rpc,
        chain_id: int,
        addresses: Addresses,
        secret: bytes | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.rpc = rpc
        self.chain_id = chain_id
        self.addresses = addresses
        self._token = rpc.contract("TestToken", addresses.token)
        self._vault = rpc.contract("Vault", addresses.vault)
        self._inbox = rpc.contract("Inbox", addresses.inbox)
        self._checkpoints = rpc.contract("Checkpoints", addresses.checkpoints)
        self._sender = Transactor(rpc, chain_id, secret, pace) if secret is not None else None

    @property
    def sender(self) -> Transactor:
        """The account that sends."""
        assert self._sender is not None, "this client has no key"
        return self._sender

    async def check_chain(self) -> None:
        """Errors: WrongChain when the endpoint serves another chain."""
        await self.rpc.check_chain(self.chain_id)

    # Sending

    async def deposit(self, amount: int, wallet: bytes, subaccount: int = 0) -> Receipt:
        """Pay `amount` of our token in for a subaccount of `wallet`; approve it if needed.

        After ChainUnavailable it may still be mined: look before depositing again.
        """
        owner, vault = checksum(self.sender.address), checksum(self.addresses.vault)
        allowed = await self._read(self._token.functions.allowance(owner, vault), int)
        deposit = self._vault.functions.deposit(amount, checksum(wallet), subaccount)
        if allowed >= amount:
            return await self.sender.send(self._call(self._vault, deposit))
        approve = self._token.functions.approve(vault, amount)
        calls = [
            self._call(self._token, approve),
            self._call(self._vault, deposit, DEPOSIT_GAS),
        ]
        return (await self.sender.send_many(calls))[1]

    async def submit(self, checkpoint: Checkpoint, signature: bytes) -> Receipt:
        """Bring a checkpoint with the group's signature (48 bytes) to the contract."""
        fields = tuple(getattr(checkpoint, name) for name in Checkpoint.__struct_fields__)
        submit = self._checkpoints.functions.submit(fields, g1_words(signature))
        return await self.sender.send(self._call(self._checkpoints, submit))

    async def claim(self, number: int, proof: WithdrawalProof) -> Receipt:
        """Have a withdrawal paid to its recipient, proved in the final checkpoint `number`."""
        claim = self._vault.functions.claim(
            number, proof.index, checksum(proof.recipient), proof.amount, list(proof.siblings)
        )
        return await self.sender.send(self._call(self._vault, claim))

    @staticmethod
    def _call(contract: Any, function: Any, gas: int | None = None) -> Call:
        data = bytes.fromhex(function._encode_transaction_data()[2:])
        return Call(to=bytes.fromhex(contract.address[2:]), data=data, gas=gas)

    # Reading; `block` is a number, or the newest

    async def _read(self, function: Any, read: Callable[[Any], T], block: int | None = None) -> T:
        identifier = "latest" if block is None else block
        return await self.rpc.ask(function.call(block_identifier=identifier), read)

    async def accepted_number(self, block: int | None = None) -> int:
        """Return the number of the last accepted checkpoint, 0 before the first."""
        return await self._read(self._checkpoints.functions.acceptedNumber(), int, block)

    async def is_final(self, number: int) -> bool:
        """Say whether checkpoint `number` was accepted and can be claimed from."""
        return await self._read(self._checkpoints.functions.isFinal(number), bool)

    async def is_claimed(self, index: int) -> bool:
        """Say whether withdrawal `index` was paid."""
        return await self._read(self._vault.functions.claimed(index), bool)

    async def token_balance(self, address: bytes) -> int:
        """Return the token's balance of `address`."""
        return await self._read(self._token.functions.balanceOf(checksum(address)), int)

    async def domain_separator(self) -> bytes:
        """Return the EIP-712 domain separator of the checkpoints contract."""
        return await self._read(self._checkpoints.functions.domainSeparator(), bytes)

    async def inbox_count(self, block: int | None = None) -> int:
        """Return how many messages the inbox holds."""
        return await self._read(self._inbox.functions.count(), int, block)

    async def inbox_hash(self, count: int, block: int | None = None) -> bytes:
        """Return the inbox's chained hash at `count` messages."""
        return await self._read(self._inbox.functions.entry(count), lambda e: bytes(e[0]), block)

    async def submitted(self, transaction: bytes) -> Checkpoint:
        """Return the checkpoint that a transaction brought, as it says; compare its digest.

        Errors: ChainUnavailable also when it brought none directly, but by another contract.
        """
        name: Any = "0x" + transaction.hex()
        return await self.rpc.ask(self.rpc.w3.eth.get_transaction(name), self._read_submission)

    def _read_submission(self, transaction: Any) -> Checkpoint:
        _, arguments = self._checkpoints.decode_function_input(transaction["input"])
        fields = arguments["checkpoint"]
        values = fields.values() if isinstance(fields, dict) else fields
        return Checkpoint(*values)

    async def events(self, first: int, last: int) -> tuple[list[Enqueued], list[AcceptedEvent]]:
        """Return what the inbox and the checkpoints said in blocks `first` to `last`, in order."""
        addresses = [self._inbox.address, self._checkpoints.address]
        request: Any = {"fromBlock": first, "toBlock": last, "address": addresses}
        logs = self.rpc.w3.eth.get_logs(request)
        return await self.rpc.ask(logs, partial(self._decode, first, last))

    def _decode(
        self, first: int, last: int, logs: Any
    ) -> tuple[list[Enqueued], list[AcceptedEvent]]:
        enqueued: list[Enqueued] = []
        accepted: list[AcceptedEvent] = []
        for log in sorted(logs, key=lambda log: (log["blockNumber"], log["logIndex"])):
            block = int(log["blockNumber"])
            if not first <= block <= last or log.get("removed"):
                raise ValueError(f"a log of block {block}, asked for {first} to {last}")
            if log["address"] == self._inbox.address:
                args = self._inbox.events.Enqueued().process_log(log)["args"]
                chained, message = bytes(args["chained"]), bytes(args["message"])
                enqueued.append(Enqueued(block, int(args["index"]), message, chained))
            elif log["address"] == self._checkpoints.address:
                args = self._checkpoints.events.CheckpointAccepted().process_log(log)["args"]
                number, digest = int(args["number"]), bytes(args["digest"])
                transaction = bytes(log["transactionHash"])
                accepted.append(AcceptedEvent(block, number, digest, transaction))
            else:
                raise ValueError("a log of another contract")
        return enqueued, accepted


@asynccontextmanager
async def open_client(
    url: str,
    chain_id: int,
    addresses: Addresses,
    secret: bytes | None = None,
    pace: Pace | None = None,
    timeout_s: float = TIMEOUT_S,
) -> AsyncIterator[SettlementClient]:
    """Give a client for as long as the context lasts; nothing is asked of the chain yet."""
    async with open_rpc(url, timeout_s) as rpc:
        yield SettlementClient(rpc, chain_id, addresses, secret, pace)
