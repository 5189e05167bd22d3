"""The exchange engine: blocks in, events out, the same bits at every replica.

Inside a block, in this order: premium of the time gone by, oracle observations, inbox messages;
if a risk tick is due funding, marks, (expiries, timers, triggers: their place,) liquidations;
then the commands in their order, then what sequencing refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from consensus.digest import Digest
from matcher import access, deposits, funding, orders, prices, risk, snapshot, views
from matcher.actions import (
    ANY_INSTRUMENT,
    SCOPE_CANCEL,
    SCOPE_TRADE,
    AuthoriseSession,
    Batch,
    CancelAll,
    CancelOrder,
    PlaceOrder,
    RevokeSession,
    Withdraw,
    parse,
)
from matcher.chunks import ChunkTree
from matcher.genesis import MarketGenesis, validate
from matcher.outcome import DONE, REJECTED, ActionResult, CommandOutcome, Event, Outcome
from matcher.state import State

__all__ = ["BlockInput", "CheckpointState", "Command", "Engine", "Event", "Outcome"]


@dataclass(frozen=True, slots=True)
class Command:
    """One ordered command: its id (40 bytes), the address that signed it, its payload."""

    id: bytes
    signer: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class BlockInput:
    """Everything that one block brings.

    `observations` are per order log its latest (feed, value, time_ms); `inbox` the newly anchored
    messages and `inbox_hash` the chained hash after them; `refused` are command ids that
    sequencing refused, with the reason.
    """

    height: int
    time_ms: int
    observations: tuple[tuple[tuple[int, int, int], ...], ...]
    inbox: tuple[bytes, ...]
    inbox_hash: bytes
    commands: tuple[Command, ...]
    refused: tuple[tuple[bytes, str], ...] = ()


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """The engine's part of a checkpoint. Units: micro-USDC; roots are 32 bytes of Keccak."""

    state_root: bytes
    withdrawals_root: bytes
    withdrawn_total: int
    inbox_count: int
    inbox_hash: bytes
    net_total: int
    positive_total: int


class Engine:
    """One market, from its genesis on. Height and time of the blocks never go back."""

    def __init__(self, genesis: MarketGenesis, n: int, f: int) -> None:
        """`n` replicas of which at most `f` lie. Errors: GenesisError."""
        validate(genesis)
        self.state = State(genesis, n, f)
        self.state.open_system_accounts()
        self._digest = snapshot.StateDigest(self.state)

    def apply(self, block: BlockInput) -> Outcome:
        """Carry out one block. A bad command is refused in the outcome and never raises."""
        state = self.state
        assert block.height > state.height and block.time_ms >= state.time_ms
        state.events = events = []
        funding.accumulate(state, block.time_ms)
        state.height, state.time_ms = block.height, block.time_ms
        prices.observe(state, block.observations)
        deposits.consume(state, block.inbox, block.inbox_hash)
        every = state.genesis.risk_tick_ms
        if block.time_ms // every > state.tick_ms // every:
            risk.tick(state)
        for command in block.commands:
            events.append(self._command(command))
        for id_, reason in block.refused:
            events.append(CommandOutcome(id_, REJECTED, reason))
        state.events = []
        return Outcome(tuple(events))

    def _command(self, command: Command) -> CommandOutcome:
        action = parse(command.payload)
        signer = command.signer
        if isinstance(action, str):
            return CommandOutcome(command.id, REJECTED, action)
        if isinstance(action, PlaceOrder):
            result = self._place(action, signer)
        elif isinstance(action, CancelOrder | CancelAll):
            result = self._cancel(action, signer)
        elif isinstance(action, Batch):
            results = tuple(
                self._place(one, signer)
                if isinstance(one, PlaceOrder)
                else self._cancel(one, signer)
                for one in action.actions
            )
            return CommandOutcome(command.id, DONE, None, 0, 0, 0, results)
        else:
            result = self._wallet(action, signer)
        return CommandOutcome(
            command.id,
            result.status,
            result.reason,
            result.order_id,
            result.filled,
            result.remaining,
        )

    def _place(self, action: PlaceOrder, signer: bytes) -> ActionResult:
        """Check authority, instrument and rate, then place the order."""
        state = self.state
        wallet = state.wallets.get(action.wallet)
        reason = access.refusal(state, wallet, signer, SCOPE_TRADE)
        if reason is not None or wallet is None:
            return ActionResult(REJECTED, reason)
        account = wallet.accounts.get(action.subaccount)
        if account is None:
            return ActionResult(REJECTED, "unknown_account")
        if not 0 <= action.instrument < len(state.markets):
            return ActionResult(REJECTED, "unknown_instrument")
        if not access.take_token(state, wallet, False):
            return ActionResult(REJECTED, "rate_limit")
        return orders.place(state, account, action)

    def _cancel(self, action: CancelOrder | CancelAll, signer: bytes) -> ActionResult:
        """Check authority and rate, then cancel; cancel-all has no rate."""
        state = self.state
        wallet = state.wallets.get(action.wallet)
        reason = access.refusal(state, wallet, signer, SCOPE_CANCEL)
        if reason is not None or wallet is None:
            return ActionResult(REJECTED, reason)
        account = wallet.accounts.get(action.subaccount)
        if account is None:
            return ActionResult(REJECTED, "unknown_account")
        if isinstance(action, CancelAll):
            known = action.instrument == ANY_INSTRUMENT or (
                0 <= action.instrument < len(state.markets)
            )
            if not known:
                return ActionResult(REJECTED, "unknown_instrument")
            return orders.cancel_all(state, account, action)
        if not access.take_token(state, wallet, True):
            return ActionResult(REJECTED, "rate_limit")
        return orders.cancel_one(state, account, action)

    def _wallet(
        self, action: AuthoriseSession | RevokeSession | Withdraw, signer: bytes
    ) -> ActionResult:
        """Do what only the wallet itself may ask for."""
        state = self.state
        if signer != action.wallet:
            return ActionResult(REJECTED, "wallet_only")
        wallet = state.wallets.get(action.wallet)
        if wallet is None:
            return ActionResult(REJECTED, "unknown_account")
        if not access.take_token(state, wallet, isinstance(action, RevokeSession)):
            return ActionResult(REJECTED, "rate_limit")
        match action:
            case AuthoriseSession():
                return access.authorise(state, wallet, action)
            case RevokeSession():
                return access.revoke(state, wallet, action)
            case Withdraw():
                return access.withdraw(state, wallet, action)

    def state_digest(self) -> Digest:
        """Return the digest of all that the next block depends on; only changes are hashed."""
        return self._digest.digest()

    def checkpoint_state(self) -> CheckpointState:
        """Return what a checkpoint after this block commits to."""
        return CheckpointState(*views.checkpoint(self.state))

    def withdrawal_proof(self, index: int) -> tuple[tuple[int, bytes, int], tuple[bytes, ...]]:
        """Return the leaf (index, recipient, amount) and its 32 siblings. Errors: IndexError."""
        if not 0 <= index < len(self.state.withdrawals):
            raise IndexError(f"no withdrawal {index}")
        recipient, amount = self.state.withdrawals[index]
        return (index, recipient, amount), self.state.withdrawal_tree.proof(index)

    def account_view(self, wallet: bytes, subaccount: int) -> dict[str, object]:
        """Return a subaccount's money, margin, positions, orders; empty when there is none."""
        return views.account(self.state, wallet, subaccount)

    def book_view(self, instrument: int, depth: int) -> dict[str, object]:
        """Return the best `depth` levels a side, as [price, qty]. Errors: IndexError."""
        return views.book(self.state, instrument, depth)

    def status_view(self) -> dict[str, object]:
        """Return height, time, totals, feeds and markets."""
        return views.status(self.state)

    def export_state(self) -> bytes:
        """Return the canonical snapshot of everything that the next block depends on."""
        return snapshot.export(self.state)

    def restore_state(self, data: bytes) -> None:
        """Become the engine that exported `data`: same digest, same future.

        Errors: SnapshotError; the engine is unchanged then.
        """
        genesis = self.state.genesis
        self.state = snapshot.restore(genesis, self.state.n, self.state.f, data)
        self._digest = snapshot.StateDigest(self.state)

    def trees(self) -> tuple[ChunkTree, ChunkTree, ChunkTree]:
        """Return the trees over system, wallets and withdrawals, brought up to date."""
        return self._digest.trees()

    def load(self, parts: Sequence[Sequence[bytes]]) -> None:
        """Become the engine whose trees hold these chunks, tree by tree.

        The caller compares the roots afterwards. Errors: SnapshotError, unchanged then.
        """
        genesis = self.state.genesis
        self.state = snapshot.load(genesis, self.state.n, self.state.f, parts)
        self._digest = snapshot.StateDigest(self.state)
