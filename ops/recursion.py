"""Keep the interpreter's recursion limit where decoders in C cannot overflow the stack.

py_ecc, which web3 and eth-account import, raises the limit to 100,000 when it is loaded. Under that
limit a few hundred kilobytes of `[` end the process with a segmentation fault inside `json` or
`msgspec` instead of a RecursionError. Measured with the usual stack of 8 MiB: sound at 20,000, a
fault at 40,000.
"""

from __future__ import annotations

import sys
from typing import Final

RECURSION_MAX: Final = 10_240
"""What py-evm asks for; half of what was seen to be sound."""

_set_limit = sys.setrecursionlimit


def _set_capped_limit(limit: int, /) -> None:
    _set_limit(min(limit, RECURSION_MAX))


def cap_recursion() -> None:
    """Bound the limit now and whatever a library, loaded later, asks for."""
    sys.setrecursionlimit = _set_capped_limit  # the only hook there is: no limit of the limit
    _set_capped_limit(sys.getrecursionlimit())
