"""Every rule of batch validity and of links between batches, broken one by one."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from consensus.batches import (
    INBOX_START_HASH,
    batch_fault,
    inbox_chain,
    link_fault,
)
from consensus.digest import keccak
from consensus.messages import (
    INBOX_MESSAGE_BYTES_MAX,
    INBOX_MESSAGES_MAX,
    OBSERVATIONS_MAX,
    InboxClaim,
    LogBatch,
    Observation,
)
from tests.consensus.samples import Sample

SAMPLE = Sample()
IDS = [SAMPLE.command(b"%d" % k) for k in range(700)]
FIRST, SECOND = IDS[0], IDS[1]
QUOTA = SAMPLE.parameters.introduce_max(SAMPLE.n)
MOST = SAMPLE.parameters.entries_max
CLAIM = InboxClaim(1, inbox_chain(INBOX_START_HASH, (b"m",)), (b"m",))
GOOD = SAMPLE.batch(
    1,
    None,
    (FIRST[0], SECOND[0]),
    (FIRST[1],),
    5_000,
    (Observation(0, 7, 4_999),),
    CLAIM,
)


def fault(batch: LogBatch) -> str | None:
    return batch_fault(batch, SAMPLE.committee, SAMPLE.parameters, SAMPLE.check)


def entries(count: int) -> tuple[bytes, ...]:
    return tuple(id_ for id_, _ in IDS[:count])


BROKEN: dict[str, dict[str, object]] = {
    "another epoch": {"epoch": 2},
    "no such author": {"author": 4},
    "negative author": {"author": -1},
    "seq zero": {"seq": 0},
    "seq without bound": {"seq": 1 << 62},
    "short prev": {"prev": bytes(31)},
    "negative time": {"time_ms": -1},
    "time without bound": {"time_ms": 1 << 62},
    "too many entries": {"entries": entries(MOST + 1)},
    "entry too short": {"entries": (bytes(39), FIRST[0])},
    "entry too long": {"entries": (bytes(41), FIRST[0])},
    "entry twice": {"entries": (FIRST[0], FIRST[0])},
    "body twice": {"bodies": (FIRST[1], FIRST[1])},
    "body without entry": {"bodies": (IDS[5][1],)},
    "body without signature": {"bodies": (FIRST[1][:-1] + b"\x02",)},
    "body is garbage": {"bodies": (b"garbage",)},
    "introduces too many": {
        "entries": entries(QUOTA + 1),
        "bodies": tuple(body for _, body in IDS[: QUOTA + 1]),
    },
    "too many observations": {"oracle": (Observation(0, 1, 1),) * (OBSERVATIONS_MAX + 1)},
    "no such feed": {"oracle": (Observation(OBSERVATIONS_MAX, 1, 1),)},
    "negative feed": {"oracle": (Observation(-1, 1, 1),)},
    "price of nothing": {"oracle": (Observation(0, 0, 1),)},
    "price without bound": {"oracle": (Observation(0, 1 << 63, 1),)},
    "observed before time began": {"oracle": (Observation(0, 1, -1),)},
    "negative claim": {"inbox": InboxClaim(-1, bytes(32), ())},
    "short claim hash": {"inbox": InboxClaim(1, bytes(31), ())},
    "too many inbox messages": {
        "inbox": replace(CLAIM, messages=(b"",) * (INBOX_MESSAGES_MAX + 1))
    },
    "inbox message too long": {
        "inbox": replace(CLAIM, messages=(bytes(INBOX_MESSAGE_BYTES_MAX + 1),))
    },
}


def test_a_good_batch_is_good_up_to_every_limit() -> None:
    assert fault(GOOD) is None
    full = {
        "entries": entries(MOST),
        "bodies": tuple(body for _, body in IDS[:QUOTA]),
        "oracle": tuple(Observation(k, 1, 1) for k in range(OBSERVATIONS_MAX)),
    }
    assert fault(replace(GOOD, **full)) is None
    assert QUOTA * SAMPLE.n <= MOST, "no liar can stuff the others' logs"


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_alone_refuses(rule: str) -> None:
    assert fault(replace(GOOD, **BROKEN[rule])) is not None


LINKS: dict[str, dict[str, object]] = {
    "seq repeats": {"seq": 1},
    "seq leaps": {"seq": 3},
    "time goes back": {"time_ms": 4_999},
    "claim goes back": {"inbox": InboxClaim(0, INBOX_START_HASH, ())},
    "claim leaps": {"inbox": replace(CLAIM, count=3, messages=(b"n",))},
    "claim is another chain's": {"inbox": InboxClaim(2, bytes(32), (b"n",))},
    "claim changes without a message": {"inbox": InboxClaim(1, bytes(32), ())},
}


def follower() -> LogBatch:
    after = inbox_chain(CLAIM.hash, (b"n",))
    return replace(GOOD, seq=2, time_ms=5_000, inbox=InboxClaim(2, after, (b"n",)))


def test_a_follower_follows() -> None:
    assert link_fault(GOOD, follower()) is None
    assert link_fault(GOOD, replace(follower(), inbox=replace(CLAIM, messages=()))) is None


@pytest.mark.parametrize("rule", LINKS)
def test_each_link_rule_alone_refuses(rule: str) -> None:
    assert link_fault(GOOD, replace(follower(), **LINKS[rule])) is not None


def test_a_first_batch_starts_the_log_and_the_inbox() -> None:
    assert link_fault(None, GOOD) is None
    assert link_fault(None, replace(GOOD, seq=2)) is not None
    assert link_fault(None, replace(GOOD, inbox=replace(CLAIM, count=2))) is not None


def test_the_inbox_chain_is_the_contracts() -> None:
    """hash_k = keccak(hash_{k-1} | keccak(message)), from keccak("fairlane.inbox.v1")."""
    start = keccak(b"fairlane.inbox.v1")
    assert start == INBOX_START_HASH
    once = keccak(start + keccak(b"a"))
    assert inbox_chain(start, (b"a", b"b")) == keccak(once + keccak(b"b"))
