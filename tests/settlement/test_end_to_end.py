"""Five checkpoint machines with real BLS keys, one of them lying, and the real contracts."""

from __future__ import annotations

import pytest

from consensus.committee import faults, quorum
from consensus.effects import Blame, Persist, SetTimer, TimerFired
from matcher.inbox import INBOX_START, chain, deposit_message
from matcher.tree import DenseTree, withdrawal_leaf
from settlement import checkpoint as cp
from settlement.proofs import WithdrawalProof, verify_withdrawal
from settlement.shares import Share
from settlement.submitter import Submitter
from settlement.watcher import CheckpointAccepted, InboxAdvance, Watcher
from tests.settlement.chainkit import Kit, N, key, running

USDC = 10**6
LIAR = 2


class Committee:
    """The machines, joined by a perfect wire; what is to be submitted is kept for the test."""

    def __init__(self, kit: Kit, now_ms: int = 0) -> None:
        self.now_ms = now_ms
        group = kit.group()
        self.cores = [
            cp.CheckpointCore(
                cp.CheckpointConfig(
                    me=i,
                    n=N,
                    quorum=quorum(N),
                    faults=faults(N),
                    epoch=1,
                    separator=kit.separator,
                ),
                signer,
                group,
            )
            for i, signer in enumerate(kit.signers())
        ]
        self.due: list[tuple[int, str, int]] = []
        self.submissions: list[tuple[int, cp.SubmitCheckpoint]] = []
        self.blames: list[int] = []

    def feed(self, i: int, event: cp.Input) -> None:
        for effect in self.cores[i].step(self.now_ms, event):
            match effect:
                case cp.BroadcastShare(share):
                    self.spread(i, share)
                case cp.SubmitCheckpoint():
                    self.submissions.append((i, effect))
                case SetTimer(name, at_ms):
                    self.due.append((at_ms, name, i))
                case Blame(peer):
                    self.blames.append(peer)
                case Persist():
                    pass
                case _:
                    raise AssertionError(effect)

    def spread(self, i: int, share: Share) -> None:
        """Send a share to all; the liar's is a true point of the group, by another key."""
        if i == LIAR:
            stolen = self.cores[LIAR]._signer.sign(1, share.number, b"\x13" * 32)[0]
            share = Share(1, share.number, share.digest, LIAR, stolen, share.operator_signature)
        for j in range(N):
            if j != i:
                self.feed(j, cp.ShareReceived(i, share))

    def form(self, checkpoint: cp.Checkpoint) -> None:
        order = (LIAR, *(i for i in range(N) if i != LIAR))
        for i in order:
            self.feed(i, cp.Formed(checkpoint))

    def pass_time(self, until_ms: int) -> None:
        while self.due and min(self.due)[0] <= until_ms:
            at_ms, name, i = min(self.due)
            self.due.remove((at_ms, name, i))
            self.now_ms = at_ms
            self.feed(i, TimerFired(name))


@pytest.mark.parametrize("primary_is_dead", [False, True])
async def test_deposit_checkpoint_by_q_of_n_with_a_liar_then_claim(primary_is_dead: bool) -> None:
    async with running() as kit:
        alice, operator = kit.clients["alice"], kit.clients["operator 0"]
        watcher = Watcher(operator)
        wallet, recipient = key("alice")[1], key("carol")[1]
        await alice.deposit(500 * USDC, wallet)
        message = deposit_message(wallet, 0, 500 * USDC)
        inbox_hash = chain(INBOX_START, message)
        events, watcher.cursor = await watcher.look()
        assert events == [InboxAdvance(0, (message,), inbox_hash)]

        tree = DenseTree()
        tree.set(0, withdrawal_leaf(0, recipient, 120 * USDC))
        checkpoint = kit.checkpoint(0, 1, inbox_hash, 500 * USDC, 120 * USDC, tree.root())
        committee = Committee(kit)
        committee.form(checkpoint)
        submitted = committee.submissions
        assert [i for i, _ in submitted] == [checkpoint.number % N]
        assert committee.blames and set(committee.blames) == {LIAR}
        if primary_is_dead:
            committee.submissions.clear()
            committee.pass_time(4_000)
            assert [i for i, _ in submitted] == [(checkpoint.number + 1) % N]
        assert await Submitter(operator).submit(submitted[0][1])

        events, watcher.cursor = await watcher.look()
        digest = cp.checkpoint_digest(kit.separator, checkpoint)
        (accepted,) = events
        assert isinstance(accepted, CheckpointAccepted)
        assert (accepted.number, accepted.digest) == (checkpoint.number, digest)
        assert await operator.submitted(accepted.transaction) == checkpoint
        for i in range(N):
            committee.feed(i, cp.Accepted(checkpoint.number, digest))
            assert committee.cores[i].open_numbers == []
        committee.submissions.clear()
        committee.pass_time(600_000)
        assert committee.submissions == [] and committee.due == []

        proof = WithdrawalProof(0, recipient, 120 * USDC, tree.proof(0))
        assert verify_withdrawal(checkpoint.withdrawals_root, proof)
        await operator.claim(checkpoint.number, proof)
        assert await operator.token_balance(recipient) == 120 * USDC
        assert await operator.token_balance(kit.deployed.addresses.vault) == 380 * USDC
