"""Random portfolios in the shape that `fairlane margin` reads."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.matcher.margin_oracle import DEFAULTS, STANDARD

EXPIRY_SECONDS = (0, 90, 1_799, 1_800, 7_000, 86_400, 700_000, 2_592_000, 2_592_001, 3e7, 9e7)


def text(value: float, digits: int = 9) -> str:
    return f"{value:.{digits}f}"


def trust(random: Random) -> str:
    return random.choice(("1", "1", "1", text(random.random(), 4)))


def parameters(random: Random, defaults: dict[str, str]) -> dict[str, Any]:
    """A few of the numbers moved by up to a third, sometimes with other scenarios."""
    moved: dict[str, Any] = {
        name: text(float(defaults[name]) * random.uniform(0.67, 1.33), 6)
        for name in random.sample(sorted(defaults), random.randrange(4))
    }
    if "vol_up" in defaults and random.random() < 0.2:
        kinds = ("up", "none", "down", "linear", "abs")
        moved["scenarios"] = [
            [text(random.uniform(0.1, 3), 3), random.choice(kinds), text(random.random(), 3)]
            for _ in range(random.randint(1, 9))
        ]
    return moved


def portfolio(random: Random, mode: str) -> dict[str, Any]:
    spot = 10 ** random.uniform(-1, 5)
    made: dict[str, Any] = {
        "mode": mode,
        "spot": text(spot),
        "spot_confidence": trust(random),
        "stable": random.choice(("1", text(random.uniform(0.9, 1.02), 6))),
        "cash": text(random.gauss(0, spot)),
        "expiries": [expiry(random, spot) for _ in range(random.randrange(4))],
        "parameters": parameters(random, DEFAULTS if mode == "portfolio" else STANDARD),
    }
    if random.random() < 0.6:
        made["perp"] = {
            "size": text(random.gauss(0, 2), 4),
            "price": text(spot * random.uniform(0.98, 1.02)),
            "confidence": trust(random),
            "unrealised_pnl": text(random.gauss(0, spot / 10)),
            "unrealised_funding": text(random.gauss(0, spot / 100)),
        }
    if mode == "portfolio" and random.random() < 0.4:
        made["collateral"] = [collateral(random) for _ in range(random.randint(1, 2))]
    if made["expiries"]:
        made["options"] = [option(random, made, spot) for _ in range(random.randrange(9))]
    return made


def expiry(random: Random, spot: float) -> dict[str, Any]:
    seconds = int(random.choice(EXPIRY_SECONDS))
    forward = spot * random.uniform(0.95, 1.05)
    made: dict[str, Any] = {
        "seconds": seconds,
        "forward": text(forward),
        "forward_confidence": trust(random),
        "rate": random.choice(("0", text(random.uniform(-0.1, 0.3), 4))),
        "rate_confidence": trust(random),
        "vol_confidence": trust(random),
    }
    if seconds < 1_800 and random.random() < 0.5:
        made["fixed"] = text(forward * random.uniform(0, 0.999))
    return made


def option(random: Random, made: dict[str, Any], spot: float) -> dict[str, Any]:
    return {
        "expiry": random.randrange(len(made["expiries"])),
        "strike": text(spot * random.choice((0.5, 0.8, 0.9, 1, 1.1, 1.3, 2))),
        "call": random.random() < 0.5,
        "size": text(random.choice((-1, 1)) * random.uniform(0.01, 5), 4),
        "mark_vol": text(random.uniform(0.1, 2), 6),
    }


def collateral(random: Random) -> dict[str, Any]:
    return {
        "amount": text(random.uniform(0, 5), 4),
        "price": text(10 ** random.uniform(0, 4)),
        "confidence": trust(random),
        "mm_haircut": text(random.uniform(0, 0.2), 4),
        "im_haircut": text(random.uniform(0, 0.2), 4),
        "risk_cancelling": random.random() < 0.5,
    }
