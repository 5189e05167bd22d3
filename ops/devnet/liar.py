"""A lying node for the devnet: `python -m ops.devnet.liar HOME BEHAVIOUR ...`.

It is the production node, driver, store and transport, around the simulator's liar, which holds
the production core. It is a program of its own, and not an option of `fairlane node`: no flag,
setting or environment variable can make a liar of an operator's node, and nothing that
`fairlane node` imports knows how to lie. The devnet alone starts it.

It is honest until it gets SIGUSR1, so that one run shows a network without and with its lies; and
from the start with `--at-once`.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import trio

from consensus import effects as core
from consensus.codec import CodecError
from consensus.command import CommandId, decode_command
from consensus.effects import Input, Persist
from consensus.replica import Replica
from matcher.actions import parse
from ops.commands.node import run_node
from ops.driver import Driver
from ops.keys import NodeKeys
from ops.node import Node
from ops.recursion import cap_recursion
from ops.replica import Effect, Exchange, ExchangeReplica
from ops.sim.liars import LIARS, Desk, Frame
from ops.store import MemoryStore
from ops.wiring import genesis_digest, replica_config
from p2p.framing import CONSENSUS, frame

VICTIM = (0).to_bytes(20, "big")
"""Whom liars call trader 0."""


class _Straight:
    """The core as the liar knows it: `step` is the true one, all else is the core's own."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.step = replica.step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replica, name)


class LiarDriver(Driver):
    """Carries out what only a liar does: frames of its own making."""

    def _perform(self, effect: Effect | Frame) -> None:
        if isinstance(effect, Frame):
            if self._transport is not None:
                self._transport.send(effect.peer, frame(CONSENSUS, effect.data))
            return
        super()._perform(effect)


class LiarNode(Node):
    """A node whose consensus core is in a liar's hands once it has been told to lie."""

    driver_type = LiarDriver
    behaviour = ""
    liars: tuple[int, ...] = ()
    victim = b""
    seed = 0
    at_once = False

    def make_replica(self, network: bytes, keys: NodeKeys) -> ExchangeReplica:
        replica = super().make_replica(network, keys)
        self._liar = LIARS[self.behaviour](self._desk(replica))
        self._lies = False
        straight = _Straight(replica.consensus)

        def step(now_ms: int, event: Input) -> list[core.Effect]:
            if self._lies:
                return cast(list[core.Effect], self._liar.step(now_ms, event))
            return straight.step(now_ms, event)

        replica.consensus.step = step  # type: ignore[method-assign]
        self._straight = straight
        if self.at_once:
            self._begin()
        return replica

    def _begin(self) -> None:
        self._liar.adopt(cast(Replica, self._straight))
        self._lies = True

    def _desk(self, replica: ExchangeReplica) -> Desk:
        ctx, config = replica.consensus.ctx, replica.config
        n = config.committee.n
        return Desk(
            me=config.me,
            committee=config.committee,
            parameters=config.parameters,
            signer=ctx.signer,
            rng=random.Random(f"{self.seed} {config.me}"),
            honest=tuple(i for i in range(n) if i not in self.liars),
            sender_of=lambda id_: self._sender_of(replica, id_),
            genesis_digest=genesis_digest(self._genesis),
            twin=lambda: self._twin(replica),
        )

    def _sender_of(self, replica: ExchangeReplica, id_: CommandId) -> bytes | None:
        """Return whose command it is: the victim is trader 0, everybody else is himself."""
        body = replica.consensus.body(id_)
        if body is None:
            return None
        try:
            action = parse(decode_command(body).payload)
        except CodecError:
            return None
        wallet = getattr(action, "wallet", None)
        return VICTIM if wallet == self.victim else wallet

    def _twin(self, replica: ExchangeReplica) -> tuple[Replica, Callable[[Persist], None]]:
        config = replica_config(self._genesis, replica.config.me)
        disk = MemoryStore()
        second = Replica(
            config.committee,
            config.parameters,
            config.me,
            replica.consensus.ctx.signer,
            disk,
            Exchange(config),
            config.genesis_time_ms,
        )
        return second, lambda persist: disk.apply(persist.writes, persist.sync)

    async def run(self, shutdown: trio.Event, started: Callable[[int], None]) -> None:
        """Run as a node does, and begin to lie at SIGUSR1."""
        with trio.open_signal_receiver(signal.SIGUSR1) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, signals)
                await super().run(shutdown, started)
                nursery.cancel_scope.cancel()

    async def _listen(self, signals: Any) -> None:
        async for _ in signals:
            if not self._lies:
                self._begin()


def main(arguments: list[str]) -> int:
    """Run a lying node; return its exit status."""
    parser = argparse.ArgumentParser(prog="ops.devnet.liar")
    parser.add_argument("home", type=Path)
    parser.add_argument("behaviour", choices=sorted(LIARS))
    parser.add_argument("--liars", default="", help="all lying nodes, with commas")
    parser.add_argument("--victim", default="", help="wallet of trader 0, in hex")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", action="store_true")
    options = parser.parse_args(arguments)
    LiarNode.behaviour = options.behaviour
    LiarNode.liars = tuple(int(each) for each in options.liars.split(",") if each)
    LiarNode.victim = bytes.fromhex(options.victim)
    LiarNode.seed = options.seed
    LiarNode.at_once = options.at_once
    return trio.run(run_node, options.home, LiarNode)


if __name__ == "__main__":
    cap_recursion()
    sys.exit(main(sys.argv[1:]))
