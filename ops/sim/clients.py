"""Traders: they submit to f+1 replicas or more, and again until their command is executed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from consensus.command import CommandId, command_id, encode_command
from consensus.effects import Submitted
from ops.sim.host import WALL_START_MS
from ops.sim.keys import sign_command
from ops.sim.loop import Loop

TRADERS = 7
PATIENT_EXPIRY_MS = 100_000
"""Within what the door takes; a run that would outlive it starts no commands so early."""
RESEND_MS = 700
HASTY_SHARE = 0.1
HASTY_EXPIRY_MS = (40, 900)
"""Some commands expire about when they would be ordered: they test that all agree which did."""
ONCE_SHARE = 0.15
"""Some traders send to one replica, once: if that says `seen`, the network owes them the order."""
DOOR_DELAY_US = (500, 12_000)


@dataclass(slots=True)
class Order:
    """One command on its way."""

    id: CommandId
    body: bytes
    trader: int
    sent_us: int
    patient: bool
    once_to: int | None = None
    seen: bool = False
    """Whether an honest replica gave its receipt."""

    @property
    def is_owed(self) -> bool:
        """Whether the network has to order it."""
        return self.patient or (self.once_to is not None and self.seen)


class Clients:
    """Submits a seeded stream of commands; keeps who sent what, for the checks at the end."""

    def __init__(
        self,
        loop: Loop,
        rng: random.Random,
        network: bytes,
        n: int,
        f: int,
        submit: Callable[[int, Submitted], None],
        is_executed: Callable[[CommandId], bool],
    ) -> None:
        self._loop = loop
        self._rng = rng
        self._network = network
        self._n, self._f = n, f
        self._submit = submit
        self._is_executed = is_executed
        self.orders: dict[CommandId, Order] = {}
        self.resent = 0

    def sender_of(self, id_: CommandId) -> bytes | None:
        """Return the address of the trader who sent a command, or None."""
        order = self.orders.get(id_)
        return order.trader.to_bytes(20, "big") if order is not None else None

    def on_receipt(self, id_: CommandId) -> None:
        """An honest replica says that it has seen a command."""
        if id_ in self.orders:
            self.orders[id_].seen = True

    def start(self, per_s: int, from_ms: int, until_ms: int) -> None:
        """Submit at `per_s` on average, at random times from `from_ms` until `until_ms`."""
        at_us = from_ms * 1_000
        while per_s > 0:
            at_us += round(self._rng.expovariate(per_s / 1_000_000))
            if at_us >= until_ms * 1_000:
                return
            self._loop.at(at_us, self._send_new)

    def _send_new(self) -> None:
        rng, now_us = self._rng, self._loop.now_us
        number = len(self.orders)
        patient = rng.random() >= HASTY_SHARE
        life_ms = PATIENT_EXPIRY_MS if patient else rng.randint(*HASTY_EXPIRY_MS)
        once_to = rng.randrange(self._n) if patient and rng.random() < ONCE_SHARE else None
        trader = number % TRADERS
        expires_ms = WALL_START_MS + now_us // 1_000 + life_ms
        signer, payload = trader.to_bytes(20, "big"), b"order %d" % number
        command = sign_command(self._network, expires_ms, signer, payload)
        id_ = command_id(self._network, command)
        order = Order(
            id_, encode_command(command), trader, now_us, patient and once_to is None, once_to
        )
        self.orders[id_] = order
        self._send(order)

    def _send(self, order: Order) -> None:
        """Send to f+1 replicas or more, to each with its own delay."""
        rng = self._rng
        many = rng.randint(self._f + 1, self._n)
        chosen = rng.sample(range(self._n), many) if order.once_to is None else [order.once_to]
        for replica in chosen:
            delay_us = rng.randint(*DOOR_DELAY_US)
            event = Submitted(order.id, order.body)
            self._loop.after(delay_us, lambda r=replica, e=event: self._submit(r, e))
        if order.patient:
            self._loop.after(RESEND_MS * 1_000, lambda: self._look_again(order))

    def _look_again(self, order: Order) -> None:
        if not self._is_executed(order.id):
            self.resent += 1
            self._send(order)
