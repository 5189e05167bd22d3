"""Fifty traders: wallets, session keys, money in through the vault, money out by proof."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

import trio

from matcher.actions import SCOPE_TRADE, AuthoriseSession, Withdraw
from ops.admission import SigningDomain
from ops.client import Client, GatewayDown, GatewayError, Result, TraderKey
from ops.gateway import wire
from settlement.deploy import mint
from settlement.ethereum import Addresses, SettlementClient
from settlement.proofs import WithdrawalProof
from settlement.rpc import Rpc
from settlement.transactions import Pace, Transactor

DEPOSIT = 1_000_000_000_000
"""A million USDC each, in micro-USDC."""
SESSION_MS = 86_400_000
POLL_S = 0.25
WAIT_S = 60.0
PACE = Pace(poll_s=0.2)


class SetupFailed(RuntimeError):
    """The network did not do what it must before trading can begin."""


@dataclass(frozen=True, slots=True)
class Trader:
    """One trader: the wallet owns the money, the session key signs the orders."""

    wallet: TraderKey
    wallet_secret: bytes
    session: TraderKey


def make_traders(count: int) -> list[Trader]:
    """Draw keys for `count` traders."""
    traders = []
    for _ in range(count):
        secret = secrets.token_bytes(32)
        traders.append(Trader(TraderKey(secret), secret, TraderKey(secrets.token_bytes(32))))
    return traders


class Bank:
    """The traders' side of the chain."""

    def __init__(self, rpc: Rpc, chain_id: int, addresses: Addresses) -> None:
        self._rpc = rpc
        self._chain_id = chain_id
        self._addresses = addresses

    def client(self, trader: Trader) -> SettlementClient:
        """Return a client that sends from the trader's wallet."""
        return SettlementClient(
            self._rpc, self._chain_id, self._addresses, trader.wallet_secret, PACE
        )

    async def fund(self, sender: Transactor, traders: list[Trader]) -> None:
        """Mint tokens for everybody and deposit them. Errors: ChainError."""
        amounts = [(bytes(trader.wallet.address), DEPOSIT) for trader in traders]
        await mint(self._rpc, sender, self._addresses.token, amounts)
        async with trio.open_nursery() as nursery:
            for trader in traders:
                nursery.start_soon(
                    self.client(trader).deposit, DEPOSIT, bytes(trader.wallet.address)
                )

    async def claim(self, trader: Trader, proof: wire.ProofAnswer) -> int:
        """Claim a withdrawal; return by how much the wallet's token balance grew."""
        client = self.client(trader)
        before = await client.token_balance(bytes(trader.wallet.address))
        await client.claim(
            proof.checkpoint,
            WithdrawalProof(
                index=proof.index,
                recipient=bytes.fromhex(proof.recipient[2:]),
                amount=proof.amount,
                siblings=tuple(bytes.fromhex(each[2:]) for each in proof.siblings),
            ),
        )
        return await client.token_balance(bytes(trader.wallet.address)) - before


async def authorise_all(client: Client, domain: SigningDomain, traders: list[Trader]) -> None:
    """Have every wallet authorise its session key. Errors: SetupFailed."""
    until_ms = time.time_ns() // 1_000_000 + SESSION_MS
    commands = [
        trader.wallet.sign(
            domain,
            AuthoriseSession(
                bytes(trader.wallet.address), bytes(trader.session.address), SCOPE_TRADE, until_ms
            ),
            client.expiry_ms(),
        )
        for trader in traders
    ]
    with trio.move_on_after(WAIT_S):
        for pending in await client.submit_many(commands):
            result = await pending.done()
            if result.status == "rejected" or result.kind != "executed":
                raise SetupFailed(f"a session was not authorised: {result}")
        return
    raise SetupFailed("sessions were not authorised in time")


async def withdraw(client: Client, domain: SigningDomain, trader: Trader, amount: int) -> Result:
    """Have the wallet withdraw to itself; return the outcome."""
    wallet = bytes(trader.wallet.address)
    action = Withdraw(wallet, 0, amount, wallet, secrets.token_bytes(32))
    pending = await client.submit(trader.wallet.sign(domain, action, client.expiry_ms()))
    return await pending.done()


async def proof_of(client: Client, index: int) -> wire.ProofAnswer:
    """Wait until an accepted checkpoint has the withdrawal. Errors: SetupFailed."""
    with trio.move_on_after(WAIT_S):
        while True:
            try:
                return await client.withdrawal_proof(index)
            except (GatewayDown, GatewayError):
                await trio.sleep(POLL_S)
    raise SetupFailed(f"withdrawal {index} is in no accepted checkpoint")
