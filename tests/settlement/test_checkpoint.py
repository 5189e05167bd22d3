"""The checkpoint machine: one digest a number, durable before it is sent, and always settled."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.codec import decode
from consensus.committee import quorum
from consensus.effects import Blame, Halt, Persist, TimerFired
from settlement import checkpoint as cp
from settlement.insecure import InsecureGroup, InsecureSigner
from settlement.shares import Share
from tests.settlement.net import (
    NETWORK,
    Broken,
    Net,
    config_of,
    digest_of,
    make_checkpoint,
)

SEEDS = st.integers(min_value=0, max_value=2**32)


def core_of(me: int, n: int = 5) -> cp.CheckpointCore:
    group = InsecureGroup(NETWORK, quorum(n))
    return cp.CheckpointCore(config_of(me, n), InsecureSigner(NETWORK, me), group)


def share_of(voter: int, checkpoint: cp.Checkpoint) -> Share:
    digest = digest_of(checkpoint)
    signed = InsecureSigner(NETWORK, voter).sign(1, checkpoint.number, digest)
    return Share(1, checkpoint.number, digest, voter, *signed)


def submissions(effects: list[cp.Effect]) -> list[cp.SubmitCheckpoint]:
    return [effect for effect in effects if isinstance(effect, cp.SubmitCheckpoint)]


def blamed(effects: list[cp.Effect]) -> list[int]:
    return [effect.peer for effect in effects if isinstance(effect, Blame)]


# The digest


def test_the_digest_is_what_an_independent_eip712_encoder_says() -> None:
    from eth_account.messages import _hash_eip191_message, encode_typed_data

    checkpoint = make_checkpoint(9)
    types = {
        "Checkpoint": [
            {"name": name, "type": type_}
            for type_, name in (
                ("uint64", "epoch"),
                ("uint64", "number"),
                ("uint64", "height"),
                ("uint64", "blockTimeMs"),
                ("bytes32", "stateRoot"),
                ("bytes32", "snapshotRoot"),
                ("bytes32", "withdrawalsRoot"),
                ("uint256", "withdrawnTotal"),
                ("uint64", "inboxCount"),
                ("bytes32", "inboxHash"),
                ("int256", "netTotal"),
                ("uint256", "positiveTotal"),
                ("uint64", "dataSince"),
                ("bytes32", "dataHash"),
                ("bytes32", "nextEpochHash"),
            )
        ]
    }
    names = [field["name"] for field in types["Checkpoint"]]
    values = [getattr(checkpoint, field) for field in cp.Checkpoint.__struct_fields__]
    domain = {
        "name": "Fairlane",
        "version": "1",
        "chainId": 1,
        "verifyingContract": "0x" + "11" * 20,
    }
    message = encode_typed_data(domain, types, dict(zip(names, values, strict=True)))
    assert _hash_eip191_message(message) == digest_of(checkpoint)


@given(st.integers(0, 14), SEEDS)
def test_every_field_is_covered_by_the_digest(field: int, seed: int) -> None:
    checkpoint = make_checkpoint(seed % 1_000)
    name = cp.Checkpoint.__struct_fields__[field]
    old = getattr(checkpoint, name)
    new = old + 1 if isinstance(old, int) else bytes([old[0] ^ 1]) + old[1:]
    values = {key: getattr(checkpoint, key) for key in cp.Checkpoint.__struct_fields__}
    assert digest_of(cp.Checkpoint(**{**values, name: new})) != digest_of(checkpoint)


# One replica


def test_the_share_is_persisted_with_sync_and_then_broadcast() -> None:
    effects = core_of(1).step(0, cp.Formed(make_checkpoint(3)))
    persist, broadcast = effects[0], effects[1]
    assert isinstance(persist, Persist) and persist.sync
    assert isinstance(broadcast, cp.BroadcastShare)
    assert persist.writes[0].value is not None
    assert decode(cp.ShareRecord, persist.writes[0].value).share == broadcast.share


def test_after_a_restart_exactly_the_stored_share_is_sent_again() -> None:
    first = core_of(1).step(0, cp.Formed(make_checkpoint(3)))
    assert isinstance(first[0], Persist) and first[0].writes[0].value is not None
    record = decode(cp.ShareRecord, first[0].writes[0].value)
    core = core_of(1)
    again = core.step(50, cp.Start(record))
    assert [e.share for e in again if isinstance(e, cp.BroadcastShare)] == [record.share]
    assert not any(isinstance(e, Persist) for e in again)
    executed_again = core.step(60, cp.Formed(make_checkpoint(3)))
    assert not any(isinstance(e, cp.BroadcastShare) for e in executed_again)


def test_a_second_digest_for_a_number_is_a_safety_violation() -> None:
    core = core_of(1)
    core.step(0, cp.Formed(make_checkpoint(3)))
    with pytest.raises(cp.SafetyViolation):
        core.step(1, cp.Formed(make_checkpoint(3, b"other")))


def test_a_second_digest_after_a_restart_is_a_safety_violation() -> None:
    first = core_of(1).step(0, cp.Formed(make_checkpoint(3)))
    assert isinstance(first[0], Persist) and first[0].writes[0].value is not None
    core = core_of(1)
    core.step(5, cp.Start(decode(cp.ShareRecord, first[0].writes[0].value)))
    with pytest.raises(cp.SafetyViolation):
        core.step(6, cp.Formed(make_checkpoint(3, b"other")))


def test_nothing_is_signed_below_the_last_number() -> None:
    core = core_of(1)
    record = cp.ShareRecord(make_checkpoint(8), share_of(1, make_checkpoint(8)))
    core.step(0, cp.Start(record))
    effects = core.step(1, cp.Formed(make_checkpoint(7)))
    assert not any(isinstance(e, cp.BroadcastShare | Persist) for e in effects)
    assert 7 in core.open_numbers


def test_the_replica_whose_turn_it_is_submits_at_the_qth_share() -> None:
    core, checkpoint = core_of(3), make_checkpoint(8)
    assert submissions(core.step(0, cp.Formed(checkpoint))) == []
    for voter in (0, 1):
        assert submissions(core.step(1, cp.ShareReceived(voter, share_of(voter, checkpoint)))) == []
    sent = submissions(core.step(2, cp.ShareReceived(4, share_of(4, checkpoint))))
    assert [s.checkpoint for s in sent] == [checkpoint]
    assert InsecureGroup(NETWORK, 4).verify(digest_of(checkpoint), sent[0].signature)


@pytest.mark.parametrize(("me", "turns"), [(4, 1), (0, 2), (1, 3), (2, 4)])
def test_the_next_replicas_wait_for_growing_delays(me: int, turns: int) -> None:
    core, checkpoint = core_of(me), make_checkpoint(8)
    core.step(0, cp.Formed(checkpoint))
    for voter in range(5):
        if voter != me:
            effects = core.step(1, cp.ShareReceived(voter, share_of(voter, checkpoint)))
            assert submissions(effects) == []
    due_ms = config_of(me, 5).submit_delay_ms * turns * (turns + 1) // 2
    assert submissions(core.step(due_ms - 1, TimerFired(cp.TIMER_SUBMIT))) == []
    assert submissions(core.step(due_ms, TimerFired(cp.TIMER_SUBMIT))) != []


def test_a_submission_is_repeated_with_growing_pauses_until_accepted() -> None:
    core, checkpoint = core_of(3), make_checkpoint(8)
    core.step(0, cp.Formed(checkpoint))
    for voter in (0, 1, 2):
        core.step(0, cp.ShareReceived(voter, share_of(voter, checkpoint)))
    times = [
        now_ms
        for now_ms in range(1_000, 200_000, 1_000)
        if submissions(core.step(now_ms, TimerFired(cp.TIMER_SUBMIT)))
    ]
    assert times == [8_000, 24_000, 56_000, 120_000]
    core.step(200_000, cp.Accepted(8, digest_of(checkpoint)))
    assert core.open_numbers == []
    assert core.step(900_000, TimerFired(cp.TIMER_SUBMIT)) == []


def test_a_newer_checkpoint_is_submitted_in_an_older_ones_place() -> None:
    core = core_of(3)
    for number in (8, 9, 10):
        core.step(0, cp.Formed(make_checkpoint(number)))
        for voter in (0, 1, 2):
            core.step(0, cp.ShareReceived(voter, share_of(voter, make_checkpoint(number))))
    sent = submissions(core.step(8_000, TimerFired(cp.TIMER_SUBMIT)))
    assert [s.checkpoint.number for s in sent] == [10]


def test_another_digest_accepted_on_chain_halts() -> None:
    core = core_of(1)
    core.step(0, cp.Formed(make_checkpoint(3)))
    assert any(isinstance(e, Halt) for e in core.step(1, cp.Accepted(3, b"\xaa" * 32)))
    late = core_of(1)
    late.step(0, cp.Accepted(3, b"\xaa" * 32))
    effects = late.step(1, cp.Formed(make_checkpoint(3)))
    assert [type(e) for e in effects] == [Halt]


@pytest.mark.parametrize("formed_first", [True, False])
def test_f_voters_for_another_digest_are_blamed_and_f_plus_1_halt(formed_first: bool) -> None:
    core, other = core_of(1), make_checkpoint(3, b"other")
    effects: list[cp.Effect] = []
    if formed_first:
        core.step(0, cp.Formed(make_checkpoint(3)))
        effects += core.step(1, cp.ShareReceived(0, share_of(0, other)))
        assert blamed(effects) == [0] and not any(isinstance(e, Halt) for e in effects)
        effects += core.step(1, cp.ShareReceived(2, share_of(2, other)))
    else:
        core.step(1, cp.ShareReceived(0, share_of(0, other)))
        core.step(1, cp.ShareReceived(2, share_of(2, other)))
        effects += core.step(2, cp.Formed(make_checkpoint(3)))
        assert not any(isinstance(e, cp.BroadcastShare) for e in effects)
    assert blamed(effects) == [0, 2]
    assert sum(isinstance(e, Halt) for e in effects) == 1


def test_bad_shares_are_blamed_and_change_nothing() -> None:
    core, checkpoint = core_of(1), make_checkpoint(3)
    good = share_of(2, checkpoint)
    core.step(0, cp.Formed(checkpoint))
    bad = [
        (2, share_of(3, checkpoint)),
        (1, share_of(1, checkpoint)),
        (9, share_of(2, checkpoint)),
        (-1, share_of(2, checkpoint)),
        (2, Share(1, 3, good.digest, 2, good.share[:-1], good.operator_signature)),
        (2, Share(1, 3, good.digest[:-1], 2, good.share, good.operator_signature)),
        (2, Share(1, 3, good.digest, 2, good.share, bytes(65))),
        (2, Share(1, 1 << 63, good.digest, 2, good.share, good.operator_signature)),
        (2, Share(1, -1, good.digest, 2, good.share, good.operator_signature)),
    ]
    for peer, share in bad:
        assert blamed(core.step(1, cp.ShareReceived(peer, share))) == [peer]
    assert core.shares_held(3) == 1
    assert core.step(1, cp.ShareReceived(2, good)) == []
    assert core.shares_held(3) == 2


def test_a_second_different_share_is_blamed_and_two_digests_are_evidence() -> None:
    core, checkpoint = core_of(1), make_checkpoint(3)
    first = share_of(2, checkpoint)
    core.step(0, cp.ShareReceived(2, first))
    twin = Share(1, 3, first.digest, 2, bytes(48), first.operator_signature)
    assert blamed(core.step(1, cp.ShareReceived(2, twin))) == [2]
    second = share_of(2, make_checkpoint(3, b"other"))
    effects = core.step(2, cp.ShareReceived(2, second))
    assert blamed(effects) == [2]
    stored = [w.value for e in effects if isinstance(e, Persist) for w in e.writes]
    assert len(stored) == 1 and stored[0] is not None
    assert decode(cp.Equivocation, stored[0]) == cp.Equivocation(first, second)


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=60), SEEDS)
@settings(max_examples=30, deadline=None)
def test_shares_and_open_checkpoints_are_bounded(numbers: list[int], seed: int) -> None:
    core = core_of(1)
    for number in numbers:
        core.step(0, cp.ShareReceived(2, share_of(2, make_checkpoint(number))))
    for number in range(1, 60):
        core.step(number, cp.Formed(make_checkpoint(number)))
    assert len(core.open_numbers) == cp.CHECKPOINTS_OPEN_MAX
    assert max(core.open_numbers) == 59
    held = sum(core.shares_held(number) for number in {*numbers, *range(60)})
    assert held <= 2 * cp.SHARES_PER_PEER_MAX


# A network of them


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_every_checkpoint_settles_without_faults(seed: int) -> None:
    net = Net(seed)
    net.run(6, settle_ms=10_000)
    assert sorted(net.accepted) == [1, 2, 3, 4, 5, 6], seed
    assert [i for i, _ in net.submitted] == [number % 5 for number in sorted(net.accepted)]
    assert not net.blames


@given(SEEDS, st.sampled_from([4, 5, 7]))
@settings(max_examples=40, deadline=None)
def test_the_newest_settles_despite_a_liar_loss_and_crashes_between_effects(
    seed: int, n: int
) -> None:
    net = Net(seed, n=n, liar=True, loss=0.15)
    net.kill_rate = 0.04
    net.run(8, settle_ms=20_000)
    net.kill_rate = 0.0
    net.run(1, settle_ms=90_000)
    assert max(net.accepted) == 9, seed
    for number, digest in net.accepted.items():
        assert digest == digest_of(make_checkpoint(number)), seed
    assert all(not replica.halted for replica in net.replicas), seed
    assert all(blame.peer == net.liar for _, blame in net.blames), seed


def test_the_network_of_these_tests_does_crash_and_lie() -> None:
    nets = [Net(seed, liar=True, loss=0.15) for seed in range(5)]
    for net in nets:
        net.kill_rate = 0.04
        net.run(8)
    assert sum(net.kills for net in nets) >= 10
    assert {"does not verify", "two digests for one number", "not its operator's signature"} <= {
        blame.why.removeprefix("share: ") for net in nets for _, blame in net.blames
    }


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_after_a_chain_outage_the_newest_settles(seed: int) -> None:
    net = Net(seed, loss=0.05)
    net.chain_up = False
    net.run(30, settle_ms=0)
    assert net.accepted == {}
    net.chain_up = True
    net.run(1, settle_ms=90_000)
    assert max(net.accepted) == 31, seed
    assert all(not net.core(i).open_numbers for i in range(5)), seed


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_after_power_loss_of_all_the_last_checkpoint_settles_without_new_blocks(seed: int) -> None:
    net = Net(seed)
    net.chain_up = False
    net.run(3, settle_ms=1_000)
    for i in range(5):
        net.crash(i)
    net.chain_up, net.number = True, 0  # Nothing is executed again: only the record is left.
    for i in range(5):
        net.boot(i)
    net.run(0, settle_ms=60_000)
    assert max(net.accepted) == 3, seed


# Broken on purpose


class CombinesUnchecked(cp.CheckpointCore):
    """Takes any combination for the group's signature."""

    def _combine(self, open_: cp._Open) -> bool:
        number = open_.checkpoint.number
        chosen = self._usable(open_)[: self._config.quorum]
        shares = [(voter, self._shares[voter][number].share) for voter in chosen]
        open_.signature = self._group.combine(shares)
        return open_.signature is not None


class ForgetsItsShare(cp.CheckpointCore):
    """Starts as if its disk were empty, and does not look at what it has open."""

    def step(self, now_ms: int, event: cp.Input) -> list[cp.Effect]:
        if isinstance(event, cp.Start):
            event = cp.Start(None)
        return super().step(now_ms, event)


class SendsBeforeTheDisk(cp.CheckpointCore):
    """Broadcasts first."""

    def step(self, now_ms: int, event: cp.Input) -> list[cp.Effect]:
        effects = super().step(now_ms, event)
        return sorted(effects, key=lambda effect: isinstance(effect, Persist))


class NeverAsksAgain(cp.CheckpointCore):
    """Sends a share once and never again."""

    def _on_timer(self, now_ms: int, name: str) -> list[cp.Effect]:
        return super()._on_timer(now_ms, name) if name == cp.TIMER_SUBMIT else []


def test_mutation_combining_without_a_check_is_caught() -> None:
    with pytest.raises(Broken, match="does not verify"):
        Net(1, n=4, liar=True, make=CombinesUnchecked).run(20)


def test_mutation_a_forgotten_share_is_caught() -> None:
    net = Net(1, make=ForgetsItsShare)
    net.run(2)
    net.crash(1)
    net.boot(1)
    net.feed(1, cp.Formed(make_checkpoint(3)))
    net.replicas[1].core = None
    net.boot(1)
    with pytest.raises(Broken, match="two digests"):
        net.feed(1, cp.Formed(make_checkpoint(3, b"other")))


def test_mutation_sending_before_the_disk_is_caught() -> None:
    with pytest.raises(Broken, match="not on its disk"):
        Net(1, make=SendsBeforeTheDisk).run(1)


def test_mutation_no_resending_stalls_on_a_lossy_network() -> None:
    def settled(make: type[cp.CheckpointCore]) -> int:
        nets = [Net(seed, loss=0.5, make=make) for seed in range(20)]
        for net in nets:
            net.run(1, settle_ms=60_000)
        return sum(1 in net.accepted for net in nets)

    assert settled(cp.CheckpointCore) == 20
    assert settled(NeverAsksAgain) < 20
