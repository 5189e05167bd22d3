"""What Checkpoints accepts and refuses, on the shipped bytecode."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from eth_tester.exceptions import TransactionFailed
from hypothesis import given, settings
from hypothesis import strategies as st
from py_arkworks_bls12381 import G1Point

from consensus.digest import keccak
from contracts.loader import artifact
from settlement import checkpoint as settlement_checkpoint
from tests.contracts.chain import Checkpoint, Group, World, other_chain, uncompressed

FIELD_MODULUS = int(
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf"
    "6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab",
    16,
)
POINTS: dict[str, list[str]] = json.loads(
    Path("tests/vectors/eip2537/pairing_check.json").read_text()
)["points"]


def point(name: str) -> bytes:
    """Return a named point of the vectors, encoded."""
    return b"".join(bytes(16) + bytes.fromhex(coordinate) for coordinate in POINTS[name])


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def shared() -> World:
    """A world in which one checkpoint was accepted; only for calls that change nothing."""
    world = World()
    world.deposit(100 * 10**6)
    world.withdrawals[0] = (world.accounts[2], 10 * 10**6)
    world.submit(height=100)
    world.deposit(50 * 10**6)
    return world


def test_an_honest_checkpoint_is_accepted_and_kept(world: World) -> None:
    world.deposit(70 * 10**6)
    world.withdrawals[0] = (world.accounts[2], 30 * 10**6)
    checkpoint = world.next()
    receipt = world.transact(world.submission(checkpoint))
    functions = world.checkpoints.functions
    assert functions.acceptedNumber().call() == checkpoint.number
    assert functions.acceptedHeight().call() == checkpoint.height
    assert functions.isFinal(checkpoint.number).call()
    assert functions.accepted(checkpoint.number).call() == (
        checkpoint.withdrawals_root,
        checkpoint.state_root,
        world.now,
        1,
        30 * 10**6,
        40 * 10**6,
    )
    assert world.event(world.checkpoints, "CheckpointAccepted", receipt) == {
        "number": checkpoint.number,
        "height": checkpoint.height,
        "digest": checkpoint.digest(world.separator),
        "stateRoot": checkpoint.state_root,
        "withdrawalsRoot": checkpoint.withdrawals_root,
        "inboxCount": 1,
    }


def test_an_unknown_number_has_nothing(shared: World) -> None:
    number = shared.checkpoints.functions.acceptedNumber().call() + 1
    kept = shared.checkpoints.functions.accepted(number).call()
    assert kept == (bytes(32), bytes(32), 0, 0, 0, 0)
    assert not shared.checkpoints.functions.isFinal(number).call()


@pytest.mark.parametrize("replicas", list(combinations(range(Group.n), Group.q)))
def test_any_quorum_is_the_group(shared: World, replicas: tuple[int, ...]) -> None:
    checkpoint = shared.next()
    signature = shared.group.sign(checkpoint.digest(shared.separator), replicas)
    shared.submission(checkpoint, signature).call()
    assert signature == shared.signed(checkpoint), "the group has one signature"


@pytest.mark.parametrize("replicas", [*combinations(range(5), 3), (0, 1), (4,)])
def test_fewer_than_a_quorum_are_not(shared: World, replicas: tuple[int, ...]) -> None:
    checkpoint = shared.next()
    signature = shared.group.sign(checkpoint.digest(shared.separator), replicas)
    assert shared.refusal(shared.submission(checkpoint, signature)) == "BadSignature"


def test_the_digest_is_the_settlement_layers(shared: World) -> None:
    checkpoint = shared.next(net_total=-(2**63), positive_total=2**63, withdrawn_total=2**64 - 1)
    on_chain = bytes(shared.checkpoints.functions.digest(checkpoint.fields()).call())
    ours = settlement_checkpoint.Checkpoint(*checkpoint.fields())  # type: ignore[arg-type]
    assert on_chain == checkpoint.digest(shared.separator)
    assert on_chain == settlement_checkpoint.checkpoint_digest(shared.separator, ours)


ACCEPTED_HEIGHT = 100
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("WrongEpoch", {"epoch": 0}),
    ("WrongEpoch", {"epoch": 2}),
    ("WrongNumber", {"number": 2**40}),
    ("WrongNumber", {"number": 2**64 - 1}),
    ("HeightNotGrowing", {"height": ACCEPTED_HEIGHT}),
    ("HeightNotGrowing", {"height": 0}),
    ("TimeAhead", {"time_ms": 2**63}),
    ("ZeroRoot", {"state_root": bytes(32)}),
    ("ZeroRoot", {"snapshot_root": bytes(32)}),
    ("ZeroRoot", {"withdrawals_root": bytes(32)}),
    ("TotalTooLarge", {"withdrawn_total": 2**64}),
    ("TotalTooLarge", {"positive_total": 2**64}),
    ("TotalTooLarge", {"positive_total": 2**256 - 1}),
    ("ReservedField", {"data_since": 1}),
    ("ReservedField", {"data_hash": bytes(32)}),
    ("ReservedField", {"next_epoch_hash": keccak(b"next")}),
    ("InboxCountWentBack", {"inbox_count": 0}),
    ("InboxHashMismatch", {"inbox_hash": keccak(b"fairlane.inbox.v1")}),
    ("WithdrawnTotalWentBack", {"withdrawn_total": 10 * 10**6 - 1}),
    ("NetTotalMismatch", {"net_total": 140 * 10**6 + 1}),
    ("NetTotalMismatch", {"net_total": -140 * 10**6}),
    ("NetTotalMismatch", {"net_total": 2**255 - 1}),
    ("NetTotalMismatch", {"net_total": -(2**255)}),
]


@pytest.mark.parametrize(("error", "changes"), REFUSED)
def test_what_breaks_a_rule_is_refused_though_signed(
    shared: World, error: str, changes: dict[str, Any]
) -> None:
    shared.submission(shared.next()).call()
    assert shared.refusal(shared.submission(shared.next(**changes))) == error


def test_the_inbox_cannot_be_run_ahead_of(shared: World) -> None:
    beyond = replace(shared.next(), inbox_count=3)
    assert shared.refusal(shared.submission(beyond)) == "UnknownCount"


def test_numbers_only_grow(world: World) -> None:
    first = world.submit()
    assert world.refusal(world.submission(first)) == "NumberNotGrowing"
    again = world.next(time_ms=first.time_ms)
    assert world.refusal(world.submission(again)) == "NumberNotGrowing"
    earlier = world.next(time_ms=first.time_ms - 10_000)
    assert world.refusal(world.submission(earlier)) == "NumberNotGrowing"
    world.submit(time_ms=first.time_ms + 10_000)  # A gap is no harm.


def test_time_is_at_most_a_minute_ahead(world: World) -> None:
    ahead = (world.now + 60) * 1_000  # A call is judged at the last block's time.
    assert world.refusal(world.submission(world.next(time_ms=ahead + 1))) == "TimeAhead"
    world.submission(world.next(time_ms=ahead)).call()


def test_old_messages_must_be_consumed_but_not_more_than_64() -> None:
    world = World(inclusion_delay=600)
    for _ in range(66):
        world.deposit(10**6)
    world.submit(inbox_count=0)  # None of them is old.
    world.travel(601)
    assert world.refusal(world.submission(world.next(inbox_count=0))) == "InboxIgnored"
    assert world.refusal(world.submission(world.next(inbox_count=63))) == "InboxIgnored"
    world.submission(world.next(inbox_count=66)).call()
    world.submit(inbox_count=64)
    assert world.refusal(world.submission(world.next(inbox_count=65))) == "InboxIgnored"
    world.deposit(10**6)
    world.submit(inbox_count=66)  # The youngest may wait.


def test_a_signature_is_for_one_chain_contract_epoch_and_number(shared: World) -> None:
    checkpoint = shared.next()
    there = shared.group.sign(checkpoint.digest(other_chain(shared)))
    assert shared.refusal(shared.submission(checkpoint, there)) == "BadSignature"
    twin = shared.at(
        "Checkpoints", shared.deploy_vault(shared.group.key).functions.checkpoints().call()
    )
    fresh = replace(
        checkpoint, inbox_count=0, inbox_hash=keccak(b"fairlane.inbox.v1"), net_total=-(10**7)
    )
    submit = twin.functions.submit(fresh.fields(), shared.signed(fresh))
    assert shared.refusal(submit) == "BadSignature"
    own = bytes(twin.functions.domainSeparator().call())
    twin.functions.submit(fresh.fields(), shared.group.sign(fresh.digest(own))).call()
    for other in (
        replace(checkpoint, epoch=2),
        replace(checkpoint, number=checkpoint.number + 1),
        replace(checkpoint, height=checkpoint.height + 1),
    ):
        signature = shared.signed(other)
        assert shared.refusal(shared.submission(checkpoint, signature)) == "BadSignature"


def test_another_group_is_not_the_group(shared: World) -> None:
    checkpoint = shared.next()
    signature = Group(b"others").sign(checkpoint.digest(shared.separator))
    assert shared.refusal(shared.submission(checkpoint, signature)) == "BadSignature"


MALFORMED = {
    "nothing": b"",
    "short": point("G1")[:-1],
    "long": point("G1") + b"\0",
    "identity": bytes(128),
    "off the curve": point("G1_not_on_curve"),
    "outside the subgroup": point("G1_not_in_correct_subgroup"),
    "not canonical": point("G1_invalid_field_element"),
    "padded wrongly": b"\x10" + point("G1")[1:],
    "a point of G2": point("G2"),
    "the generator": point("G1"),
    "compressed infinity": b"\xc0" + bytes(127),
}


@pytest.mark.parametrize("signature", MALFORMED.values(), ids=MALFORMED)
def test_malformed_signatures_are_refused(shared: World, signature: bytes) -> None:
    assert shared.refusal(shared.submission(shared.next(), signature)) == "BadSignature"


@settings(max_examples=30, deadline=None)
@given(place=st.integers(0, 127), mask=st.integers(1, 255))
def test_no_changed_signature_is_taken(place: int, mask: int) -> None:
    world = flip_world()
    checkpoint = flip_checkpoint(world)
    signature = bytearray(world.signed(checkpoint))
    signature[place] ^= mask
    assert world.refusal(world.submission(checkpoint, bytes(signature))) == "BadSignature"


def test_the_other_point_of_the_same_x_is_refused(shared: World) -> None:
    checkpoint = shared.next()
    signature = shared.signed(checkpoint)
    y = int.from_bytes(signature[64:], "big")
    negated = signature[:64] + (FIELD_MODULUS - y).to_bytes(64, "big")
    assert shared.refusal(shared.submission(checkpoint, negated)) == "BadSignature"
    beyond = signature[:64] + (FIELD_MODULUS + y).to_bytes(64, "big")
    assert shared.refusal(shared.submission(checkpoint, beyond)) == "BadSignature"


BAD_KEYS = {
    "nothing": b"",
    "identity": bytes(256),
    "short": point("G2")[:-1],
    "off the curve": point("G2_not_on_curve"),
    "outside the subgroup": point("G2_not_in_correct_subgroup"),
    "not canonical": point("G2_invalid_field_element"),
    "a point of G1, twice": point("G1") * 2,
}


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
def test_bad_group_keys_make_no_contract(shared: World, key: bytes) -> None:
    code = artifact("Vault")
    contract = shared.w3.eth.contract(abi=code.abi, bytecode=code.bytecode)
    constructor = contract.constructor(shared.token.address, 10**6, (2_000, 600, 0, key))
    selector = repr(keccak(b"BadGroupKey()")[:4])[2:-1]
    with pytest.raises(TransactionFailed, match="execution reverted") as refused:
        constructor.estimate_gas()
    assert selector in str(refused.value)


def test_the_group_key_can_be_read_back(shared: World) -> None:
    assert shared.checkpoints.functions.groupKey(1).call() == shared.group.key
    assert shared.refusal(shared.checkpoints.functions.groupKey(2)) == "WrongEpoch"


_FLIP: list[World] = []


def flip_world() -> World:
    """Return one world for all examples: they change nothing in it."""
    if not _FLIP:
        _FLIP.append(World())
    return _FLIP[0]


def flip_checkpoint(world: World) -> Checkpoint:
    return world.next()


def test_the_vectors_generator_is_ours() -> None:
    assert uncompressed(bytes(G1Point().to_compressed_bytes())) == point("G1")
