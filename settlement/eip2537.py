"""BLS12-381 points as the EVM takes them: uncompressed, coordinates padded to 64 bytes.

Source: EIP-2537.
"""

from __future__ import annotations

from consensus.crypto import g1_point, g2_point

_PADDING = bytes(16)


def _padded(coordinates: bytes) -> bytes:
    return b"".join(_PADDING + coordinates[i : i + 48] for i in range(0, len(coordinates), 48))


def g1_words(compressed: bytes) -> bytes:
    """Return the 128 bytes of a signature (48 bytes). Errors: InvalidPoint."""
    return _padded(bytes(g1_point(compressed).to_xy_bytes_be()))


def g2_words(compressed: bytes) -> bytes:
    """Return the 256 bytes of a public key (96 bytes). Errors: InvalidPoint."""
    return _padded(bytes(g2_point(compressed).to_xy_bytes_be()))
