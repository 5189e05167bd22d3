"""Every bound of the door, and the token buckets that keep one address from taking it all."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

from msgspec import Struct

from consensus.command import COMMAND_BYTES_MAX

COMMANDS_MAX = 50
"""Commands in one request."""
BODY_BYTES_MAX = (COMMAND_BYTES_MAX * 4 // 3 + 16) * COMMANDS_MAX + 1_024
"""A request's body: the largest batch in base64, quoted, and some white space."""
HEAD_BYTES_MAX = 16_384
"""Request line and headers together."""
HEADERS_MAX = 64
RECEIPTS_MAX = 100
"""Receipts in one request."""
PAGE_MAX = 500
"""Outcomes or trades in one answer."""
DEPTH_MAX = 200
"""Levels a side in one book."""
WAIT_MS_MAX = 10_000
"""How long a request for a stream may wait for news."""
ADDRESSES_MAX = 10_000
"""Addresses that have a bucket; the one that has been quiet for longest is forgotten first."""


class Limits(Struct, frozen=True, kw_only=True):
    """What an operator may tune. Units: seconds, bytes, tokens (a request is one, a command too).

    `bodies_bytes_max` is for all requests under way. `proxies` are addresses whose
    `x-forwarded-for` is believed (its last element), and whose connections only count in all.
    """

    connections_max: int = 512
    connections_per_address_max: int = 128
    streams_waiting_max: int = 128
    submits_max: int = 64
    bodies_bytes_max: int = 32 << 20
    rate_per_second: float = 2_000.0
    rate_burst: float = 4_000.0
    head_seconds: float = 5.0
    idle_seconds: float = 30.0
    body_seconds: float = 10.0
    handle_seconds: float = 15.0
    write_seconds: float = 10.0
    linger_seconds: float = 2.0
    graceful_seconds: float = 5.0
    requests_per_connection_max: int = 100_000
    proxies: tuple[str, ...] = ()


def rate_key(address: str) -> str:
    """Return what shares one bucket: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return parsed.packed[:8].hex()
    return str(parsed)


class Buckets:
    """One token bucket per address."""

    def __init__(self, rate_per_second: float, burst: float) -> None:
        assert rate_per_second > 0 and burst >= 1
        self._rate = rate_per_second
        self._burst = burst
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, key: str, tokens: float, now: float) -> float:
        """Take `tokens` at time `now` and return 0, or return the seconds until they are there.

        More than a whole burst is charged as one, so that a valid request can always pass once.
        Units: seconds, monotonic. A refused request takes nothing.
        """
        tokens = min(tokens, self._burst)
        level, at = self._levels.pop(key, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._rate)
        wait = 0.0 if level >= tokens else (tokens - level) / self._rate
        self._levels[key] = (level if wait else level - tokens, now)
        if len(self._levels) > ADDRESSES_MAX:
            self._levels.popitem(last=False)
        return wait
