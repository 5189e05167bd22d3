"""A committee of one, driven by hand: the pure replica, a disk that forgets, virtual time.

The machine carries effects out one by one, as `Effect` demands, and can die between any two.
Around it stand the clients, price source, inbox and contract that a real node has: they say
again what has had no effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import NamedTuple

from msgspec.structs import replace

from consensus import effects as core
from consensus.batches import INBOX_START_HASH
from consensus.command import CommandId
from consensus.committee import Committee, Parameters
from consensus.crypto import Signature
from consensus.messages import Observation
from matcher.actions import Action
from matcher.genesis import devnet_genesis
from matcher.inbox import chain, deposit_message
from matcher.outcome import CommandOutcome, Fill
from ops.admission import SigningDomain
from ops.client_keys import SignedCommand, TraderKey
from ops.replica import ExchangeReplica, Executed, FormedCheckpoint, Input, ReplicaConfig
from ops.store import MemoryStore
from settlement.checkpoint import (
    Accepted,
    BroadcastShare,
    SubmitCheckpoint,
    checkpoint_digest,
)
from settlement.shares import Share

GENESIS_MS = 1_000_000
NETWORK = sha256(b"solo").digest()
SEPARATOR = sha256(b"checkpoints").digest()
DOMAIN = SigningDomain(NETWORK, sha256(b"vault").digest())
INTERVAL_MS = 300
PRICES_MS = 100
AGAIN_MS = 60
"""What a client or the watcher said without effect is said again after so long."""
DOWN_MS = 15
PARAMETERS = Parameters(batch_interval_ms=20, idle_batch_ms=60, block_interval_ms=25)
BTC = 50_000_000_000


class HashSigner:
    """Signs with a hash: nobody verifies here, and equal statements have equal signatures."""

    def sign(self, epoch: int, tag: bytes, digest: bytes) -> Signature:
        half = sha256(tag + epoch.to_bytes(8, "big") + digest).digest()
        return Signature(half + half)


class HashShares:
    """A share is a hash, and one of them is the group's signature."""

    def sign(self, epoch: int, number: int, digest: bytes) -> tuple[bytes, bytes]:
        return sha256(digest).digest() + bytes(16), bytes(65)

    def vouched(self, share: Share) -> bool:
        return True

    def combine(self, shares: Iterable[tuple[int, bytes]]) -> bytes | None:
        return next(share for _, share in shares)

    def verify(self, digest: bytes, signature: bytes) -> bool:
        return signature == sha256(digest).digest() + bytes(16)

    def verify_share(self, voter: int, digest: bytes, share: bytes) -> bool:
        return self.verify(digest, share)


def boot(store: MemoryStore) -> ExchangeReplica:
    """Return the replica that this disk describes."""
    return ExchangeReplica(
        ReplicaConfig(
            committee=Committee(NETWORK, 1, (bytes(32),)),
            parameters=PARAMETERS,
            market=replace(devnet_genesis(), risk_tick_ms=100),
            genesis_time_ms=GENESIS_MS,
            checkpoint_interval_ms=INTERVAL_MS,
            checkpoints_separator=SEPARATOR,
            me=0,
        ),
        HashSigner(),
        HashShares(),
        HashShares(),
        store,
    )


class Killed(Exception):
    """The machine died between two effects."""


class Told(NamedTuple):
    """One outcome as it was told: its number, command, and what became of it."""

    sequence: int
    id: CommandId
    status: str
    reason: str | None
    filled: int


class Solo:
    """One machine over its lives, and everything that ever left it."""

    def __init__(self, kill_at: int | None = None, power_loss: bool = True) -> None:
        """It dies after `kill_at` effects; in a power loss, unsynced records are lost."""
        self.store = MemoryStore()
        self.now_ms = GENESIS_MS + 5
        self.effects = 0
        self.kills = 0
        self._kill_at = kill_at
        self._power_loss = power_loss
        self.shares: list[Share] = []
        self.told: list[Told] = []
        self.fills: dict[int, Fill] = {}
        self.blocks: dict[int, Executed] = {}
        self.digests: dict[int, bytes] = {}
        self.formed: dict[int, FormedCheckpoint] = {}
        self.replies: list[core.Reply] = []
        self.accepts = True
        """Whether the contract takes what is submitted."""
        self._timers: dict[str, int] = {}
        self._submitted: dict[int, tuple[int, bytes]] = {}
        self.inbox: list[bytes] = []
        self.wishes: list[SignedCommand] = []
        self.replica = self._life()

    def _life(self) -> ExchangeReplica:
        self._timers.clear()
        self._timers["prices"] = self.now_ms
        self._timers["again"] = self.now_ms + 1
        self.replica = boot(self.store)
        return self.replica

    # What happens around the machine.

    def run(self, until_ms: int) -> None:
        """Let virtual time pass; the machine comes back whenever it dies."""
        if not self.effects:
            self.step(core.Start())
        while self._timers:
            name = min(self._timers, key=lambda each: (self._timers[each], each))
            if self._timers[name] > until_ms:
                break
            self.now_ms = max(self.now_ms, self._timers.pop(name))
            for event in self._inputs(name):
                if not self.step(event):
                    break
        self.now_ms = until_ms

    def _inputs(self, name: str) -> Iterator[Input]:
        if name == "prices":
            self._timers[name] = self.now_ms + PRICES_MS
            seen = (Observation(0, BTC, self.now_ms), Observation(1, BTC // 20, self.now_ms))
            yield core.PricesObserved(seen)
        elif name == "again":
            self._timers[name] = self.now_ms + AGAIN_MS
            yield from self._outside()
        else:
            yield core.TimerFired(name)

    def _outside(self) -> Iterator[Input]:
        """Clients and the watcher say what has had no effect yet; who tries again is last first."""
        if self.inbox and self.replica.consensus.keeper.next_inbox() < len(self.inbox):
            hash_ = INBOX_START_HASH
            for message in self.inbox:
                hash_ = chain(hash_, message)
            yield core.L1Observed(0, tuple(self.inbox), hash_)
        done = {told.id for told in self.told}
        open_ = [wish for wish in self.wishes if wish.id not in done]
        for wish in reversed(open_) if self.kills else open_:
            yield core.Submitted(wish.id, wish.body)
        for number, (at_ms, digest) in list(self._submitted.items()):
            if self.accepts and at_ms + 2 * AGAIN_MS <= self.now_ms:
                del self._submitted[number]
                yield Accepted(number, digest)

    def wish(self, key: TraderKey, action: Action, ahead_ms: int = 60_000) -> SignedCommand:
        """Have a client submit `action` until it has an outcome."""
        command = key.sign(DOMAIN, action, self.now_ms + ahead_ms)
        self.wishes.append(command)
        return command

    def deposit(self, wallet: bytes, amount: int) -> None:
        """Put a deposit into the contract's inbox."""
        self.inbox.append(deposit_message(wallet, 0, amount))

    # The machine.

    def step(self, event: Input) -> bool:
        """Put one input through and carry its effects out; False when it died on the way."""
        try:
            for effect in self.arranged(list(self.replica.step(self.now_ms, event))):
                self._perform(effect)
                self.effects += 1
                if self.effects == self._kill_at:
                    raise Killed
        except Killed:
            self.restart(DOWN_MS, power_loss=self._power_loss)
            return False
        self._look()
        return True

    def arranged(self, effects: list[object]) -> list[object]:
        """Return the effects in the order in which they are carried out."""
        return effects

    def restart(self, down_ms: int = DOWN_MS, power_loss: bool = True) -> None:
        """Die, lose what was not durable if it is a power loss, and come back."""
        self.kills += 1
        self.store.crash(keep=0 if power_loss else self.store.unsynced)
        self.now_ms += down_ms
        self._life()
        self.step(core.Start())

    def _perform(self, effect: object) -> None:
        match effect:
            case core.Persist(writes, sync):
                self.store.apply(writes, sync)
            case core.SetTimer(name, at_ms):
                self._timers[name] = max(at_ms, self.now_ms)
            case BroadcastShare(share):
                self.shares.append(share)
            case SubmitCheckpoint(checkpoint):
                digest = checkpoint_digest(SEPARATOR, checkpoint)
                self._submitted[checkpoint.number] = (self.now_ms, digest)
            case core.Reply():
                self.replies.append(effect)
            case Executed():
                self._executed(effect)
            case core.Halt() | core.Blame():
                raise AssertionError(effect)
            case _:
                assert isinstance(effect, core.Broadcast | core.Send)

    def _executed(self, executed: Executed) -> None:
        self.blocks[executed.block.height] = executed
        outcomes = [event for event in executed.events if isinstance(event, CommandOutcome)]
        for sequence, each in enumerate(outcomes, executed.first_outcome):
            id_ = CommandId(each.id)
            self.told.append(Told(sequence, id_, each.status, each.reason, each.filled))
        for event in executed.events:
            if isinstance(event, Fill):
                self.fills[event.trade] = event

    def _look(self) -> None:
        """Take note of digests and checkpoints, which must never change once they are there."""
        for height, digest in self.replica.consensus.ctx.executed_digests.items():
            assert self.digests.setdefault(height, digest) == digest, f"digest at {height}"
        for number, formed in self.replica.formed.items():
            assert self.formed.setdefault(number, formed) == formed, f"checkpoint {number}"


def outcomes_by_number(told: Iterable[Told]) -> dict[int, Told]:
    """Return what each number was told for. Errors: AssertionError when it was two things."""
    found: dict[int, Told] = {}
    numbers: dict[CommandId, int] = {}
    for each in told:
        assert found.setdefault(each.sequence, each) == each, "one number, two outcomes"
        assert numbers.setdefault(each.id, each.sequence) == each.sequence, "executed twice"
    return found


def shares_by_number(shares: Iterable[Share]) -> dict[int, Share]:
    """Return the share of each number. Errors: AssertionError when there were two."""
    found: dict[int, Share] = {}
    for share in shares:
        assert found.setdefault(share.number, share) == share, "one number, two shares"
    return found
