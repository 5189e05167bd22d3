"""Carry signed checkpoints to the contract: the newest one wins, already there is success.

It holds nothing that must survive a crash: the machine in `settlement.checkpoint` asks again for
whatever the chain has not accepted.
"""

from __future__ import annotations

import logging

import trio

from settlement.checkpoint import SubmitCheckpoint
from settlement.errors import ChainUnavailable, TransactionReverted
from settlement.ethereum import SettlementClient

BACKOFF_S = 1.0
BACKOFF_MAX_S = 30.0

log = logging.getLogger(__name__)


class Submitter:
    """One account's submissions; counts are for metrics."""

    def __init__(self, client: SettlementClient) -> None:
        self._client = client
        self._next: SubmitCheckpoint | None = None
        self._offered = trio.Event()
        self.submitted = 0
        self.already = 0
        self.refused = 0
        self.failures = 0
        self.last_error = ""
        self.last_gas_used = 0

    def offer(self, effect: SubmitCheckpoint) -> None:
        """Ask for a submission without waiting; an older one that still waits is forgotten."""
        waiting = self._next
        if waiting is None or effect.checkpoint.number >= waiting.checkpoint.number:
            self._next = effect
            self._offered.set()

    async def run(self) -> None:
        """Submit what is offered, for ever. Errors: WrongChain."""
        checked, pause_s = False, BACKOFF_S
        while True:
            await self._offered.wait()
            self._offered = trio.Event()
            effect, self._next = self._next, None
            if effect is None:
                continue
            try:
                if not checked:
                    await self._client.check_chain()
                    checked = True
                await self.submit(effect)
                pause_s = BACKOFF_S
            except ChainUnavailable as error:
                self.failures += 1
                self.last_error = str(error)
                log.warning("checkpoint %d not sent: %s", effect.checkpoint.number, error)
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, BACKOFF_MAX_S)
                self.offer(effect)

    async def submit(self, effect: SubmitCheckpoint) -> bool:
        """Submit once, and say whether the contract has it or a newer one now.

        Errors: ChainUnavailable, after which it may still be mined.
        """
        number = effect.checkpoint.number
        if await self._client.accepted_number() >= number:
            self.already += 1
            return True
        try:
            receipt = await self._client.submit(effect.checkpoint, effect.signature)
        except TransactionReverted as error:
            if await self._client.accepted_number() >= number:
                self.already += 1
                return True
            self.refused += 1
            self.last_error = error.reason
            log.error("the contract refuses checkpoint %d: %s", number, error.reason)
            return False
        self.submitted += 1
        self.last_gas_used = receipt.gas_used
        return True
