"""The dealt key and the real BLS scheme: q shares are the group's word, fewer are nothing."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.committee import quorum
from consensus.crypto import (
    GROUP_ORDER,
    address_of,
    bls_combine,
    bls_public,
    bls_sign,
    bls_verify,
    lagrange_at_zero,
)
from consensus.digest import domain_separator, keccak
from settlement.dealer import DEALER_WARNING, Dealing, deal
from settlement.shares import BlsGroup, BlsShareSigner, Share, consistent

SEPARATOR = domain_separator("Fairlane", "1", 1, b"\x11" * 20)
ENTROPY = st.binary(min_size=32, max_size=64)
MESSAGE = st.binary(min_size=32, max_size=32)


def operator(i: int) -> tuple[bytes, bytes]:
    """Return the operator's secret and address."""
    from coincurve import PrivateKey

    secret = keccak(b"operator %d" % i)
    return secret, address_of(PrivateKey(secret).public_key)


def group_of(dealing: Dealing, q: int) -> BlsGroup:
    operators = [operator(i)[1] for i in range(len(dealing.secrets))]
    return BlsGroup(SEPARATOR, dealing.group_key, dealing.share_keys, operators, q)


@given(ENTROPY, MESSAGE, st.sampled_from([4, 5, 7]), st.randoms(use_true_random=False))
@settings(max_examples=12, deadline=None)
def test_any_q_shares_combine_and_q_minus_1_never(
    entropy: bytes, message: bytes, n: int, random: object
) -> None:
    q = quorum(n)
    dealing = deal(entropy, n, q)
    shares = [(i + 1, bls_sign(secret, message)) for i, secret in enumerate(dealing.secrets)]
    signatures = {bls_combine(chosen) for chosen in combinations(shares, q)}
    assert len(signatures) == 1
    signature = signatures.pop()
    assert bls_verify(dealing.group_key, message, signature)
    for fewer in combinations(shares, q - 1):
        assert bls_combine(fewer) != signature
    assert not bls_verify(dealing.group_key, message, bls_combine(shares[: q - 1]))


@given(ENTROPY, st.sampled_from([1, 4, 5]))
@settings(max_examples=10, deadline=None)
def test_the_dealing_is_one_polynomial_of_degree_q_minus_1(entropy: bytes, n: int) -> None:
    q = quorum(n)
    dealing = deal(entropy, n, q)
    secret = 0
    for coefficient, share in zip(
        lagrange_at_zero(list(range(1, q + 1))), dealing.secrets, strict=False
    ):
        secret = (secret + coefficient * share) % GROUP_ORDER
    assert bls_public(secret) == dealing.group_key
    assert dealing.share_keys == tuple(bls_public(s) for s in dealing.secrets)
    assert consistent(dealing.group_key, dealing.share_keys, q)
    assert deal(entropy, n, q) == dealing
    assert deal(entropy + b"x", n, q).group_key != dealing.group_key


def test_the_warning_says_who_can_sign() -> None:
    assert "ONE process" in DEALER_WARNING and "devnet only" in DEALER_WARNING


@pytest.mark.parametrize("wrong", ["group", "share", "degree", "identity"])
def test_keys_that_do_not_belong_together_are_refused(wrong: str) -> None:
    dealing, other = deal(b"a" * 32, 5, 4), deal(b"b" * 32, 5, 4)
    group_key, share_keys, q = dealing.group_key, list(dealing.share_keys), 4
    if wrong == "group":
        group_key = other.group_key
    elif wrong == "share":
        share_keys[4] = other.share_keys[4]
    elif wrong == "degree":
        q = 3
    else:
        share_keys[1] = b"\xc0" + bytes(95)
    operators = [operator(i)[1] for i in range(5)]
    with pytest.raises(ValueError, match="do not belong"):
        BlsGroup(SEPARATOR, group_key, share_keys, operators, q)


def test_the_signer_and_the_group_agree_and_nothing_else_passes() -> None:
    dealing, digest = deal(b"a" * 32, 5, 4), keccak(b"checkpoint")
    group = group_of(dealing, 4)
    shares = []
    for i, secret in enumerate(dealing.secrets):
        signer = BlsShareSigner(SEPARATOR, secret, operator(i)[0])
        share, vouch = signer.sign(1, 7, digest)
        assert (share, vouch) == signer.sign(1, 7, digest)
        assert group.verify_share(i, digest, share)
        assert not group.verify_share((i + 1) % 5, digest, share)
        assert group.vouched(Share(1, 7, digest, i, share, vouch))
        assert not group.vouched(Share(1, 7, digest, (i + 1) % 5, share, vouch))
        assert not group.vouched(Share(1, 7, digest, 99, share, vouch))
        assert not group.vouched(Share(2, 7, digest, i, share, vouch))
        assert not group.vouched(Share(1, 8, digest, i, share, vouch))
        shares.append((i, share))
    signature = group.combine(shares[1:])
    assert signature is not None and group.verify(digest, signature)
    assert not group.verify(keccak(b"other"), signature)
    assert group.combine([*shares[:3], (4, b"\xff" * 48)]) is None
    assert group.combine([*shares[:3], (4, b"\xc0" + bytes(47))]) is None
    spoilt = group.combine([*shares[:3], (4, shares[3][1])])
    assert spoilt is not None and not group.verify(digest, spoilt)
