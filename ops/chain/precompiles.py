"""BLS12-381 precompiles for the embedded chain: same gas and same answers as EIP-2537, but fast.

py-evm computes them in pure Python: 0.9 s for one signature check. `install` puts arkworks behind
the three that cost most (pairing check and the two maps); everything else stays py-evm's.
"""

from __future__ import annotations

from collections.abc import Callable

from eth.abc import ComputationAPI
from eth.exceptions import VMError
from eth.vm.forks.prague.computation import PragueComputation
from py_arkworks_bls12381 import GT, G1Point, G2Point

Precompile = Callable[[ComputationAPI], None]

PAIRING_CHECK = (0x0F).to_bytes(20, "big")
MAP_FP_TO_G1 = (0x10).to_bytes(20, "big")
MAP_FP2_TO_G2 = (0x11).to_bytes(20, "big")

PAIRING_BASE_GAS = 37_700
PAIRING_PAIR_GAS = 32_600
MAP_FP_TO_G1_GAS = 5_500
MAP_FP2_TO_G2_GAS = 23_800

FP_BYTES = 64
G1_BYTES = 2 * FP_BYTES
G2_BYTES = 4 * FP_BYTES
PAIR_BYTES = G1_BYTES + G2_BYTES
_PADDING = bytes(16)


def encode_point(point: G1Point | G2Point) -> bytes:
    """Return EIP-2537's encoding of a point.

    Shape: 128 bytes for G1, 256 for G2; each coordinate padded to 64; the identity is all zeros.
    """
    is_g1 = isinstance(point, G1Point)
    if point == (G1Point.identity() if is_g1 else G2Point.identity()):
        return bytes(G1_BYTES if is_g1 else G2_BYTES)
    packed = bytes(point.to_xy_bytes_be())
    return b"".join(_PADDING + packed[i : i + 48] for i in range(0, len(packed), 48))


def decode_g1(data: bytes) -> G1Point:
    """Return the point of G1 behind 128 bytes, subgroup included. Errors: VMError."""
    assert len(data) == G1_BYTES
    if not any(data):
        return G1Point.identity()
    try:
        return G1Point.from_xy_bytes_be(_strip(data))
    except ValueError as error:
        raise VMError(f"not a point of G1: {error}") from None


def decode_g2(data: bytes) -> G2Point:
    """Return the point of G2 behind 256 bytes, subgroup included. Errors: VMError."""
    assert len(data) == G2_BYTES
    if not any(data):
        return G2Point.identity()
    try:
        return G2Point.from_xy_bytes_be(_strip(data))
    except ValueError as error:
        raise VMError(f"not a point of G2: {error}") from None


def pairing_check(computation: ComputationAPI) -> None:
    """Run precompile 0x0f: 1 when the product of the pairings is one, else 0. Source: EIP-2537."""
    data = bytes(computation.msg.data)
    if not data or len(data) % PAIR_BYTES:
        raise VMError(f"pairing check: {len(data)} bytes are no pairs")
    pairs = [data[i : i + PAIR_BYTES] for i in range(0, len(data), PAIR_BYTES)]
    computation.consume_gas(PAIRING_BASE_GAS + PAIRING_PAIR_GAS * len(pairs), "BLS12 pairing check")
    left = [decode_g1(pair[:G1_BYTES]) for pair in pairs]
    right = [decode_g2(pair[G1_BYTES:]) for pair in pairs]
    computation.output = int(GT.pairing_check(left, right)).to_bytes(32, "big")


def map_fp_to_g1(computation: ComputationAPI) -> None:
    """Run precompile 0x10: map a field element to G1, cofactor cleared. Source: EIP-2537."""
    data = _exactly(computation, FP_BYTES)
    computation.consume_gas(MAP_FP_TO_G1_GAS, "BLS12 map to G1")
    try:
        point = G1Point.map_from_fp_be(_strip(data))
    except ValueError as error:
        raise VMError(f"not a field element: {error}") from None
    computation.output = encode_point(point)


def map_fp2_to_g2(computation: ComputationAPI) -> None:
    """Run precompile 0x11: map an element of Fp2 to G2, cofactor cleared. Source: EIP-2537."""
    data = _exactly(computation, 2 * FP_BYTES)
    computation.consume_gas(MAP_FP2_TO_G2_GAS, "BLS12 map to G2")
    try:
        point = G2Point.map_from_fp2_be(_strip(data))
    except ValueError as error:
        raise VMError(f"not an element of Fp2: {error}") from None
    computation.output = encode_point(point)


REPLACEMENTS: dict[bytes, Precompile] = {
    PAIRING_CHECK: pairing_check,
    MAP_FP_TO_G1: map_fp_to_g1,
    MAP_FP2_TO_G2: map_fp2_to_g2,
}


def install() -> None:
    """Replace py-evm's three slow precompiles, in this process, for Prague rules. Idempotent."""
    table = PragueComputation._precompiles
    assert all(address in table for address in REPLACEMENTS), "py-evm lacks EIP-2537"
    table.update(REPLACEMENTS)


def _exactly(computation: ComputationAPI, size: int) -> bytes:
    data = bytes(computation.msg.data)
    if len(data) != size:
        raise VMError(f"{len(data)} bytes given, {size} expected")
    return data


def _strip(data: bytes) -> bytes:
    """Return the field elements without their 16 bytes of padding each. Errors: VMError."""
    elements = []
    for i in range(0, len(data), FP_BYTES):
        if data[i : i + 16] != _PADDING:
            raise VMError("padding of a field element is not zero")
        elements.append(data[i + 16 : i + FP_BYTES])
    return b"".join(elements)
