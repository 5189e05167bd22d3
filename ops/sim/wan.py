"""Named wide-area networks: published round-trip times between data centres.

A frame's way takes half a round trip and then what varies. Sources: `aws5` are averages between
AWS regions as published in "Latency between AWS global regions" (2017); `ibm10` is IBM Cloud VPC's
published table of inter-region latency, 27 July to 25 August 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

LOCAL_RTT_MS = 1.0
"""Between two nodes in one region."""


@dataclass(frozen=True, slots=True)
class Wan:
    """Sites, and the round-trip times between them in milliseconds, row by row."""

    about: str
    sites: tuple[str, ...]
    rtt_ms: tuple[tuple[float, ...], ...]

    @property
    def one_way_max_ms(self) -> float:
        """The longest way between two sites."""
        return max(max(row) for row in self.rtt_ms) / 2


WANS = MappingProxyType(
    {
        "aws5": Wan(
            "Virginia, Oregon, Ireland, Tokyo, Singapore",
            ("us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1", "ap-southeast-1"),
            (
                (0, 87.0, 80.6, 145.3, 216.7),
                (88.7, 0, 137.0, 89.1, 161.4),
                (80.5, 137.0, 0, 212.4, 239.0),
                (145.3, 89.2, 212.4, 0, 73.8),
                (216.7, 161.4, 238.1, 73.8, 0),
            ),
        ),
        "ibm10": Wan(
            "ten regions from Dallas to Sydney and Sao Paulo",
            ("dal", "tor", "wdc", "fra", "lon", "mad", "osa", "syd", "tok", "sao"),
            (
                (0, 34, 31, 123, 113, 119, 150, 186, 143, 146),
                (34, 0, 19, 93, 82, 108, 168, 215, 162, 129),
                (31, 19, 0, 91, 75, 87, 172, 214, 164, 118),
                (123, 93, 91, 0, 13, 29, 232, 250, 233, 198),
                (113, 83, 75, 13, 0, 27, 244, 261, 243, 188),
                (122, 106, 88, 29, 27, 0, 257, 275, 258, 209),
                (150, 169, 172, 231, 243, 257, 0, 122, 9, 293),
                (186, 214, 214, 249, 261, 275, 122, 0, 115, 328),
                (143, 162, 166, 233, 244, 256, 9, 115, 0, 284),
                (144, 128, 119, 196, 187, 208, 291, 328, 283, 0),
            ),
        ),
        "metro": Wan(
            "three data centres of one city, 2 ms apart",
            ("a", "b", "c"),
            ((0, 2, 2), (2, 0, 2), (2, 2, 0)),
        ),
    }
)


def one_way_us(name: str, n: int) -> list[list[int]]:
    """Return the least one-way delay from node to node; node i stands at site i mod sites.

    Errors: KeyError for a name that is not in WANS.
    """
    wan = WANS[name]
    sites = len(wan.sites)

    def way(a: int, b: int) -> int:
        rtt_ms = wan.rtt_ms[a % sites][b % sites]
        return round((rtt_ms or LOCAL_RTT_MS) * 500)

    return [[way(a, b) for b in range(n)] for a in range(n)]
