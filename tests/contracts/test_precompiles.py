"""The fast precompiles answer as EIP-2537 and py-evm's own do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from eth.exceptions import VMError
from eth.precompiles import bls12_map_fp2_to_g2, bls12_map_fp_to_g1, bls12_pairing_check
from eth.vm.forks.prague.computation import PragueComputation
from hypothesis import given, settings
from hypothesis import strategies as st
from py_arkworks_bls12381 import G1Point, G2Point, Scalar

from ops.chain import precompiles

VECTORS = Path("tests/vectors/eip2537")
P = int(
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf"
    "6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab",
    16,
)
SLOW = {
    precompiles.pairing_check: bls12_pairing_check,
    precompiles.map_fp_to_g1: bls12_map_fp_to_g1,
    precompiles.map_fp2_to_g2: bls12_map_fp2_to_g2,
}


@dataclass
class Call:
    """The part of a computation that a precompile sees."""

    msg: Any
    gas: int = 0
    output: bytes = b""

    def consume_gas(self, amount: int, reason: str) -> None:
        self.gas += amount


def run(precompile: Any, data: bytes) -> tuple[bytes, int] | None:
    """Return output and gas, or None when the call fails."""
    call = Call(SimpleNamespace(data=data))
    try:
        precompile(call)
    except VMError:
        return None
    return call.output, call.gas


@cache
def pairing_file() -> dict[str, Any]:
    text = (VECTORS / "pairing_check.json").read_text()
    return dict(json.loads(text))


def coordinates(name: str) -> list[int]:
    return [int(c, 16) for c in pairing_file()["points"][name]]


def point(name: str) -> bytes:
    return b"".join(c.to_bytes(64, "big") for c in coordinates(name))


def pairing_input(vector: dict[str, Any]) -> bytes:
    """Return the input that a vector describes by its points and what is done to their bytes."""
    data = b"".join(point(name) for name in vector["input"])
    data = bytes.fromhex(vector.get("first", "")) + data[len(vector.get("first", "")) // 2 :]
    data = bytes.fromhex(vector.get("prefix", "")) + data
    # The source drops the first byte.
    return data[vector.get("cut", 0) :]


def vectors(name: str) -> list[Any]:
    listed = json.loads((VECTORS / f"{name}.json").read_text())["vectors"]
    return [pytest.param(vector, id=vector["name"]) for vector in listed]


@pytest.mark.parametrize("vector", vectors("pairing_check"))
def test_pairing_vectors(vector: dict[str, Any]) -> None:
    got = run(precompiles.pairing_check, pairing_input(vector))
    if "error" in vector:
        assert got is None
    else:
        assert got == (vector["expected"].to_bytes(32, "big"), vector["gas"])


@pytest.mark.parametrize(
    ("name", "precompile"),
    [
        ("map_fp_to_g1", precompiles.map_fp_to_g1),
        ("map_fp2_to_g2", precompiles.map_fp2_to_g2),
    ],
)
def test_map_vectors(name: str, precompile: Any) -> None:
    for parameter in vectors(name):
        (vector,) = parameter.values
        got = run(precompile, bytes.fromhex(vector["input"]))
        if "error" in vector:
            assert got is None, vector["name"]
        else:
            expected = (bytes.fromhex(vector["expected"]), vector["gas"])
            assert got == expected, vector["name"]


def test_the_bad_points_are_bad_for_the_reason_given() -> None:
    """A point that fails for another reason than the vector's would test nothing."""

    def on_curve(name: str) -> bool:
        x, y = coordinates(name)
        return (y * y - x**3 - 4) % P == 0

    for name in ("G1", "2G1", "G1_not_in_correct_subgroup"):
        assert max(coordinates(name)) < P and on_curve(name), name
    for name in ("G1_not_on_curve", "G1_not_on_curve_2"):
        assert max(coordinates(name)) < P and not on_curve(name), name
    for name in ("G1_invalid_field_element", "G2_invalid_field_element"):
        bad, good = coordinates(name), coordinates(name[:2])
        assert max(bad) >= P and [c % P for c in bad] == good, name
    for name in ("G2_not_on_curve", "G2_not_on_curve_2", "G2_not_in_correct_subgroup"):
        assert max(coordinates(name)) < P, name
    packed = b"".join(c.to_bytes(48, "big") for c in coordinates("G2_not_in_correct_subgroup"))
    outside = G2Point.from_xy_bytes_unchecked_be(packed)
    assert not outside.is_in_subgroup()
    assert precompiles.encode_point(outside) == point("G2_not_in_correct_subgroup")
    assert point("G1") == precompiles.encode_point(G1Point())
    assert point("G2") == precompiles.encode_point(G2Point())
    assert point("-G2") == precompiles.encode_point(-G2Point())


def test_identities_are_all_zeros_both_ways() -> None:
    assert precompiles.encode_point(G1Point.identity()) == bytes(128)
    assert precompiles.encode_point(G2Point.identity()) == bytes(256)
    assert precompiles.decode_g1(bytes(128)) == G1Point.identity()
    assert precompiles.decode_g2(bytes(256)) == G2Point.identity()


@given(st.integers(1, 2**255))
def test_points_survive_encoding(scalar: int) -> None:
    left, right = G1Point() * Scalar(scalar), G2Point() * Scalar(scalar)
    assert precompiles.decode_g1(precompiles.encode_point(left)) == left
    assert precompiles.decode_g2(precompiles.encode_point(right)) == right


ELEMENT = st.one_of(
    st.integers(0, P - 1),
    st.sampled_from([0, 1, P - 1, P, P + 1, 2**381, 2**384 - 1, 2**384, 2**512 - 1]),
)


@settings(max_examples=20, deadline=None)
@given(st.lists(ELEMENT, max_size=3), st.binary(max_size=1))
def test_maps_answer_as_py_evms(elements: list[int], tail: bytes) -> None:
    data = b"".join(e.to_bytes(64, "big") for e in elements) + tail
    for fast in (precompiles.map_fp_to_g1, precompiles.map_fp2_to_g2):
        assert run(fast, data) == run(SLOW[fast], data)


@settings(max_examples=4, deadline=None)
@given(st.integers(1, 2**64), st.integers(1, 2**64), st.booleans())
def test_pairings_answer_as_py_evms(a: int, b: int, right: bool) -> None:
    """e(aG1, bG2) x e(-abG1, G2) is one, and with another product it is not."""
    pairs = [
        (G1Point() * Scalar(a), G2Point() * Scalar(b)),
        (-(G1Point() * Scalar(a * b + (not right))), G2Point()),
    ]
    data = b"".join(precompiles.encode_point(p) for pair in pairs for p in pair)
    got = run(precompiles.pairing_check, data)
    assert got == run(bls12_pairing_check, data)
    assert got is not None and got[0] == int(right).to_bytes(32, "big")


BAD = [v.values[0] for v in vectors("pairing_check") if "error" in v.values[0]]


@pytest.mark.parametrize("vector", BAD, ids=[v["name"] for v in BAD])
def test_py_evm_refuses_the_same_pairs(vector: dict[str, Any]) -> None:
    assert run(bls12_pairing_check, pairing_input(vector)) is None


def test_installing_replaces_three_and_twice_is_once() -> None:
    precompiles.install()
    before = dict(PragueComputation._precompiles)
    precompiles.install()
    assert PragueComputation._precompiles == before
    assert before[(0x0F).to_bytes(20, "big")] is precompiles.pairing_check
    assert before[(0x10).to_bytes(20, "big")] is precompiles.map_fp_to_g1
    assert before[(0x11).to_bytes(20, "big")] is precompiles.map_fp2_to_g2
    untouched = before[(0x0B).to_bytes(20, "big")]
    assert untouched.__module__.startswith("eth.precompiles")
