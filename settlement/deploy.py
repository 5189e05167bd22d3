"""Deploy the contracts of a fresh network, and fund accounts of a test chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contracts.loader import artifact
from settlement.eip2537 import g2_words
from settlement.ethereum import Addresses
from settlement.rpc import Rpc, checksum
from settlement.transactions import CALLS_MAX, Call, Transactor

MINT_GAS = 120_000
TRANSFER_GAS = 21_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the contracts are made with.

    Units: `minimum_deposit` micro-USDC; delays in seconds. Shape: `group_key` 96 bytes.
    """

    group_key: bytes
    interval_ms: int
    inclusion_delay_s: int
    dispute_delay_s: int
    minimum_deposit: int


@dataclass(frozen=True, slots=True)
class Deployed:
    """Where the contracts are, and the block from which a watcher must start."""

    addresses: Addresses
    block: int


async def deploy(
    rpc: Rpc, sender: Transactor, terms: Terms, token: bytes | None = None
) -> Deployed:
    """Deploy the vault, which makes the inbox and the checkpoints; and a test token if needed.

    Errors: as `Transactor.send`.
    """
    block = await rpc.newest_block()
    if token is None:
        token = await _create(rpc, sender, "TestToken")
    config = (
        terms.interval_ms,
        terms.inclusion_delay_s,
        terms.dispute_delay_s,
        g2_words(terms.group_key),
    )
    vault = await _create(rpc, sender, "Vault", checksum(token), terms.minimum_deposit, config)
    contract = rpc.contract("Vault", vault)
    addresses = Addresses(
        token=token,
        vault=vault,
        inbox=await rpc.ask(contract.functions.inbox().call(), _address),
        checkpoints=await rpc.ask(contract.functions.checkpoints().call(), _address),
    )
    return Deployed(addresses, block)


def _address(text: str) -> bytes:
    return bytes.fromhex(text[2:])


async def _create(rpc: Rpc, sender: Transactor, name: str, *arguments: Any) -> bytes:
    """Deploy artifact `name` and return its address."""
    made = artifact(name)
    factory: Any = rpc.w3.eth.contract(abi=made.abi, bytecode="0x" + made.bytecode)
    data = bytes.fromhex(factory.constructor(*arguments).data_in_transaction[2:])
    receipt = await sender.send(Call(to=None, data=data))
    assert receipt.created is not None
    return receipt.created


async def mint(
    rpc: Rpc, sender: Transactor, token: bytes, amounts: Sequence[tuple[bytes, int]]
) -> None:
    """Give test tokens to (address, micro-USDC) pairs. Errors: as `Transactor.send`."""
    contract = rpc.contract("TestToken", token)
    calls = []
    for address, amount in amounts:
        function = contract.functions.mint(checksum(address), amount)
        data = bytes.fromhex(function._encode_transaction_data()[2:])
        calls.append(Call(to=token, data=data, gas=MINT_GAS))
    await _send_all(sender, calls)


async def send_ether(sender: Transactor, amounts: Sequence[tuple[bytes, int]]) -> None:
    """Send wei to (address, wei) pairs. Errors: as `Transactor.send`."""
    await _send_all(
        sender, [Call(to=address, value=wei, gas=TRANSFER_GAS) for address, wei in amounts]
    )


async def _send_all(sender: Transactor, calls: list[Call]) -> None:
    for i in range(0, len(calls), CALLS_MAX):
        await sender.send_many(calls[i : i + CALLS_MAX])
