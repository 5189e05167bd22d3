"""Checkpoints and the machine that gets them signed by a quorum and submitted.

`CheckpointCore.step(now_ms, input) -> list[Effect]` is pure and is driven like the replica: effects
are carried out in order, and `Persist` is a barrier. One share is signed for each number, it is
durable before it leaves, and after a restart exactly the stored one is sent again. Newer
checkpoints replace older ones: only the newest that has q shares needs to reach the chain.
Source: ARCHITECTURE.md, "Settlement".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from msgspec import Struct

from consensus.codec import encode
from consensus.digest import keccak, signed_word, typed_data_hash, word
from consensus.effects import Blame, Halt, Persist, SetTimer, TimerFired, Write
from settlement.shares import Share, ShareGroup, ShareSigner, well_formed

CHECKPOINTS_OPEN_MAX = 16
"""Checkpoints formed and not accepted that are kept; the oldest is forgotten first."""
SHARES_PER_PEER_MAX = 16
"""Shares kept of one peer, formed numbers or not; that of the lowest number goes first."""

TABLE = "checkpoint"
KEY_SHARE = b"share"
KEY_EVIDENCE = b"evidence/"
TIMER_SUBMIT = "checkpoint/submit"
TIMER_RESEND = "checkpoint/resend"

EMPTY_DATA_HASH = keccak(b"")
"""`data_hash` of a checkpoint that posts no data."""

_TYPEHASH = keccak(
    b"Checkpoint(uint64 epoch,uint64 number,uint64 height,uint64 blockTimeMs,bytes32 stateRoot,"
    b"bytes32 snapshotRoot,bytes32 withdrawalsRoot,uint256 withdrawnTotal,uint64 inboxCount,"
    b"bytes32 inboxHash,int256 netTotal,uint256 positiveTotal,uint64 dataSince,bytes32 dataHash,"
    b"bytes32 nextEpochHash)"
)


class SafetyViolation(AssertionError):
    """We were asked to sign two checkpoints of one number: stop, an operator must look."""

    def __init__(self, number: int, signed: bytes, asked: bytes) -> None:
        super().__init__(f"checkpoint {number}: signed {signed.hex()}, now asked for {asked.hex()}")


class Checkpoint(Struct, frozen=True, array_like=True):
    """The committed state that the contract is asked to accept.

    Units: totals in micro-USDC, `block_time_ms` in milliseconds; `number` is
    `block_time_ms // checkpoint_interval_ms`. Shape: roots and hashes 32 bytes.
    """

    epoch: int
    number: int
    height: int
    block_time_ms: int
    state_root: bytes
    snapshot_root: bytes
    withdrawals_root: bytes
    withdrawn_total: int
    inbox_count: int
    inbox_hash: bytes
    net_total: int
    positive_total: int
    data_since: int
    data_hash: bytes
    next_epoch_hash: bytes


class OtherCheckpoint(Struct, frozen=True, array_like=True):
    """The dump of a halt: ours, and the digest that others have for its number."""

    mine: Checkpoint
    others: bytes


def checkpoint_digest(separator: bytes, checkpoint: Checkpoint) -> bytes:
    """Return the 32 bytes that the group signs. Source: EIP-712, the checkpoints' domain."""
    c = checkpoint
    words = (
        word(c.epoch),
        word(c.number),
        word(c.height),
        word(c.block_time_ms),
        word(c.state_root),
        word(c.snapshot_root),
        word(c.withdrawals_root),
        word(c.withdrawn_total),
        word(c.inbox_count),
        word(c.inbox_hash),
        signed_word(c.net_total),
        word(c.positive_total),
        word(c.data_since),
        word(c.data_hash),
        word(c.next_epoch_hash),
    )
    return typed_data_hash(separator, keccak(_TYPEHASH + b"".join(words)))


class ShareRecord(Struct, frozen=True, array_like=True):
    """What is durable: the last share as sent, and the checkpoint it is for."""

    checkpoint: Checkpoint
    share: Share


class Equivocation(Struct, frozen=True, array_like=True):
    """Two shares of one operator for one number with two digests, each with its signature."""

    first: Share
    second: Share


@dataclass(frozen=True, slots=True)
class Start:
    """The node is up; `record` is what the store holds under (TABLE, KEY_SHARE)."""

    record: ShareRecord | None


@dataclass(frozen=True, slots=True)
class Formed:
    """The replicated state machine crossed a checkpoint number."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class ShareReceived:
    """A share from the replica with index `peer`, nothing about it verified."""

    peer: int
    share: Share


@dataclass(frozen=True, slots=True)
class Accepted:
    """The contract accepted checkpoint `number`, as of a final block of its chain."""

    number: int
    digest: bytes


Input = Start | Formed | ShareReceived | TimerFired | Accepted


@dataclass(frozen=True, slots=True)
class BroadcastShare:
    """Send `share` to every other replica; each copy may get lost."""

    share: Share


@dataclass(frozen=True, slots=True)
class SubmitCheckpoint:
    """Bring `checkpoint` with the group's `signature` (48 bytes, G1) to the contract."""

    checkpoint: Checkpoint
    signature: bytes


Effect = Persist | BroadcastShare | SetTimer | SubmitCheckpoint | Blame | Halt


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """Who we are and the pace of submission.

    Units: milliseconds. The k-th replica after the one whose turn it is waits
    `submit_delay_ms` x (1 + 2 + .. + k); a submission is repeated after `resubmit_ms`, doubled
    each time up to `resubmit_max_ms`.
    """

    me: int
    n: int
    quorum: int
    faults: int
    epoch: int
    separator: bytes
    submit_delay_ms: int = 4_000
    resubmit_ms: int = 8_000
    resubmit_max_ms: int = 120_000
    resend_ms: int = 2_000


@dataclass(slots=True)
class _Open:
    """A formed checkpoint that is not accepted; `due_ms` None: another one stands for it."""

    checkpoint: Checkpoint
    digest: bytes
    due_ms: int | None
    attempts: int = 0
    signature: bytes | None = None
    suspicious: bool = False


class CheckpointCore:
    """One replica's part in signing and submitting the checkpoints of one epoch.

    Cost on the machine it was built on: a share 0.6 ms to sign and 0.1 ms to take in; a
    combination of 4 with its check 3 ms, done only when it is this replica's turn to submit.
    False shares cost a check of 2 ms for each voter and number, once.
    """

    def __init__(self, config: CheckpointConfig, signer: ShareSigner, group: ShareGroup) -> None:
        assert 0 <= config.me < config.n
        self._config = config
        self._signer = signer
        self._group = group
        self._record: ShareRecord | None = None
        self._accepted = Accepted(-1, b"")
        self._open: dict[int, _Open] = {}
        self._shares: list[dict[int, Share]] = [{} for _ in range(config.n)]
        self._checked: list[dict[int, bool]] = [{} for _ in range(config.n)]
        self._timer_ms: int | None = None

    @property
    def accepted_number(self) -> int:
        """The newest number known to be accepted and final; -1 before the first."""
        return self._accepted.number

    @property
    def open_numbers(self) -> list[int]:
        """Formed numbers that are not accepted, lowest first."""
        return sorted(self._open)

    def shares_held(self, number: int) -> int:
        """Return how many voters' shares are held for `number`, checked or not."""
        return sum(number in shares for shares in self._shares)

    def step(self, now_ms: int, event: Input) -> list[Effect]:
        """Take in one input; a bad one from a peer never raises. Errors: SafetyViolation."""
        match event:
            case Start(record):
                effects = self._on_start(now_ms, record)
            case Formed(checkpoint):
                effects = self._on_formed(now_ms, checkpoint)
            case ShareReceived(peer, share):
                effects = self._on_share(peer, share)
            case Accepted():
                effects = self._on_accepted(event)
            case TimerFired(name):
                effects = self._on_timer(now_ms, name)
            case _:
                assert_never(event)
        return effects + self._submit_due(now_ms)

    def _on_start(self, now_ms: int, record: ShareRecord | None) -> list[Effect]:
        if record is None:
            return []
        self._record = record
        share = record.share
        assert checkpoint_digest(self._config.separator, record.checkpoint) == share.digest
        if share.epoch != self._config.epoch or share.number <= self._accepted.number:
            return []
        self._add_open(now_ms, record.checkpoint, share.digest)
        self._keep(self._config.me, share)
        return [BroadcastShare(share), self._resend_timer(now_ms)]

    def _on_formed(self, now_ms: int, checkpoint: Checkpoint) -> list[Effect]:
        number, config = checkpoint.number, self._config
        assert checkpoint.epoch == config.epoch
        digest = checkpoint_digest(config.separator, checkpoint)
        known = self._open.get(number)
        if known is not None and known.digest != digest:
            raise SafetyViolation(number, known.digest, digest)
        last = self._record.share if self._record is not None else None
        if last is not None and last.number == number and last.digest != digest:
            raise SafetyViolation(number, last.digest, digest)
        if number == self._accepted.number and digest != self._accepted.digest:
            return [_diverged(checkpoint, self._accepted)]
        if number <= self._accepted.number or known is not None:
            return []
        self._add_open(now_ms, checkpoint, digest)
        effects = self._dispute(number)
        if any(isinstance(effect, Halt) for effect in effects):
            return effects
        if last is not None and number <= last.number:
            return effects  # Never sign below the last number: the record holds only that one.
        share, vouch = self._signer.sign(config.epoch, number, digest)
        mine = Share(config.epoch, number, digest, config.me, share, vouch)
        self._record = ShareRecord(checkpoint, mine)
        self._keep(config.me, mine)
        write = Write(TABLE, KEY_SHARE, encode(self._record))
        effects += [Persist((write,), sync=True), BroadcastShare(mine)]
        return [*effects, self._resend_timer(now_ms)]

    def _on_share(self, peer: int, share: Share) -> list[Effect]:
        config = self._config
        if not 0 <= peer < config.n or peer == config.me:
            return [Blame(peer, "share: not another replica")]
        if share.voter != peer or not well_formed(share):
            return [Blame(peer, "share: malformed")]
        if share.epoch != config.epoch or share.number <= self._accepted.number:
            return []
        known = self._shares[peer].get(share.number)
        if known == share:
            return []
        if not self._group.vouched(share):
            return [Blame(peer, "share: not its operator's signature")]
        if known is not None:
            return self._second_share(peer, known, share)
        if not self._keep(peer, share) or share.number not in self._open:
            return []
        return self._dispute(share.number) if self._differs(share) else []

    def _second_share(self, peer: int, known: Share, share: Share) -> list[Effect]:
        if known.digest == share.digest:
            return [Blame(peer, "share: two different ones for one digest")]
        evidence = encode(Equivocation(known, share))
        write = Write(TABLE, KEY_EVIDENCE + bytes((peer,)), evidence)
        blame = Blame(peer, "share: two digests for one number")
        return [Persist((write,), sync=False), blame]

    def _differs(self, share: Share) -> bool:
        return self._open[share.number].digest != share.digest

    def _dispute(self, number: int) -> list[Effect]:
        """Blame voters for another digest than ours; stop when f + 1 of them agree on one.

        One of f + 1 is honest, and honest replicas have one digest: then ours is wrong.
        """
        effects: list[Effect] = []
        others: dict[bytes, int] = {}
        for voter, shares in enumerate(self._shares):
            share = shares.get(number)
            if share is None or not self._differs(share):
                continue
            others[share.digest] = others.get(share.digest, 0) + 1
            if number not in self._checked[voter]:
                self._checked[voter][number] = False
                effects.append(Blame(voter, "share: another digest than the committed one"))
        for digest, count in others.items():
            if count > self._config.faults:
                mine = self._open[number].checkpoint
                effects.append(_diverged(mine, Accepted(number, digest)))
        return effects

    def _on_accepted(self, event: Accepted) -> list[Effect]:
        number = event.number
        if number <= self._accepted.number:
            return []
        self._accepted = event
        mine = self._open.get(number)
        for old in [key for key in self._open if key <= number]:
            del self._open[old]
        for shares, checked in zip(self._shares, self._checked, strict=True):
            for old in [key for key in shares if key <= number]:
                del shares[old]
                checked.pop(old, None)
        if mine is not None and mine.digest != event.digest:
            return [_diverged(mine.checkpoint, event)]
        return []

    def _on_timer(self, now_ms: int, name: str) -> list[Effect]:
        if name == TIMER_SUBMIT:
            self._timer_ms = None
        if name != TIMER_RESEND or self._record is None:
            return []
        share = self._record.share
        if share.number <= self._accepted.number or share.epoch != self._config.epoch:
            return []
        return [BroadcastShare(share), self._resend_timer(now_ms)]

    def _resend_timer(self, now_ms: int) -> SetTimer:
        return SetTimer(TIMER_RESEND, now_ms + self._config.resend_ms)

    def _add_open(self, now_ms: int, checkpoint: Checkpoint, digest: bytes) -> None:
        config = self._config
        turn = (config.me - checkpoint.number) % config.n
        delay_ms = config.submit_delay_ms * turn * (turn + 1) // 2
        self._open[checkpoint.number] = _Open(checkpoint, digest, now_ms + delay_ms)
        if len(self._open) > CHECKPOINTS_OPEN_MAX:
            del self._open[min(self._open)]

    def _keep(self, voter: int, share: Share) -> bool:
        """Keep `share`, and say whether there was room: the lowest number goes first."""
        shares = self._shares[voter]
        shares[share.number] = share
        if len(shares) > SHARES_PER_PEER_MAX:
            lowest = min(shares)
            del shares[lowest]
            self._checked[voter].pop(lowest, None)
        return share.number in shares

    def _submit_due(self, now_ms: int) -> list[Effect]:
        """When a checkpoint with q shares is due, submit the newest such one; set the timer."""
        effects: list[Effect] = []
        due = [o for o in self._open.values() if o.due_ms is not None and o.due_ms <= now_ms]
        ready = [o.checkpoint.number for o in due if self._has_quorum(o)]
        for number in sorted(self._open, reverse=True) if ready else ():
            if number >= min(ready) and self._combined(self._open[number], effects):
                effects.append(self._submit(now_ms, number))
                break
        waiting = [o.due_ms for o in self._open.values() if o.due_ms is not None]
        at_ms = min((due_ms for due_ms in waiting if due_ms > now_ms), default=None)
        if at_ms is not None and at_ms != self._timer_ms:
            effects.append(SetTimer(TIMER_SUBMIT, at_ms))
            self._timer_ms = at_ms
        return effects

    def _submit(self, now_ms: int, number: int) -> SubmitCheckpoint:
        """Submit `number`, which from now on stands for all older ones."""
        chosen = self._open[number]
        replaced = [o for key, o in self._open.items() if key <= number]
        chosen.attempts = max(o.attempts for o in replaced) + 1
        for older in replaced:
            older.due_ms = None
        wait_ms = self._config.resubmit_ms << min(chosen.attempts - 1, 16)
        chosen.due_ms = now_ms + min(wait_ms, self._config.resubmit_max_ms)
        assert chosen.signature is not None
        return SubmitCheckpoint(chosen.checkpoint, chosen.signature)

    def _combined(self, open_: _Open, effects: list[Effect]) -> bool:
        """Combine `open_`'s shares if that is possible; blame those found false on the way."""
        if open_.signature is not None:
            return True
        if not self._has_quorum(open_):
            return False
        if not open_.suspicious and self._combine(open_):
            return True
        open_.suspicious = True
        for voter in self._usable(open_):
            self._check_share(open_, voter, effects)
        if not self._has_quorum(open_):
            return False
        # Every share is true and the keys lie on one polynomial, so this cannot fail.
        assert self._combine(open_), f"checkpoint {open_.checkpoint.number}: true shares"
        return True

    def _has_quorum(self, open_: _Open) -> bool:
        return open_.signature is not None or len(self._usable(open_)) >= self._config.quorum

    def _usable(self, open_: _Open) -> list[int]:
        """Return the voters whose share for this digest is held and not known to be false."""
        number = open_.checkpoint.number
        return [
            voter
            for voter, shares in enumerate(self._shares)
            if number in shares
            and shares[number].digest == open_.digest
            and self._checked[voter].get(number) is not False
        ]

    def _combine(self, open_: _Open) -> bool:
        number = open_.checkpoint.number
        chosen = self._usable(open_)[: self._config.quorum]
        shares = [(voter, self._shares[voter][number].share) for voter in chosen]
        signature = self._group.combine(shares)
        if signature is None or not self._group.verify(open_.digest, signature):
            return False
        open_.signature = signature
        return True

    def _check_share(self, open_: _Open, voter: int, effects: list[Effect]) -> None:
        number = open_.checkpoint.number
        if number in self._checked[voter]:
            return
        share = self._shares[voter][number]
        good = self._group.verify_share(voter, share.digest, share.share)
        self._checked[voter][number] = good
        if not good:
            effects.append(Blame(voter, "share: does not verify"))


def _diverged(mine: Checkpoint, other: Accepted) -> Halt:
    """Our state is not the network's: going on would sign and serve a wrong one."""
    why = f"checkpoint {mine.number}: others have digest {other.digest.hex()}"
    return Halt(why, encode(OtherCheckpoint(mine, other.digest)), "checkpoint")
