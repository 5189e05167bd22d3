"""Numbers as a trader writes them, to the engine's integers and back, always exactly."""

from __future__ import annotations

import re
from fractions import Fraction

from matcher.state import Market
from matcher.units import WAD

USDC = 1_000_000
_NUMBER = re.compile(r"[-+]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?")
_MILLISECONDS = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000}


class BadValue(ValueError):
    """A cell that is no value of its column."""


def number(text: str) -> Fraction:
    """Return a decimal number such as -1,234.5."""
    if _NUMBER.fullmatch(text) is None:
        raise BadValue(f"`{text}` is not a number")
    return Fraction(text.replace(",", ""))


def whole(text: str, scale: Fraction | int, what: str) -> int:
    """Return `text` x `scale`, which has to be an integer."""
    value = number(text) * scale
    if value.denominator != 1:
        raise BadValue(f"`{text}` is not a whole number of {what}")
    return value.numerator


def usdc(text: str) -> int:
    return whole(text, USDC, "micro-USDC")


def percent(text: str) -> int:
    if not text.endswith("%"):
        raise BadValue(f"`{text}` needs a %")
    return whole(text[:-1].strip(), WAD // 100, "1e-18")


def integer(text: str) -> int:
    return whole(text, 1, "ones")


def duration(text: str) -> int:
    """Return milliseconds of `500 ms`, `60 s`, `5 min` or `8 h`."""
    parts = text.split()
    if len(parts) != 2 or parts[1] not in _MILLISECONDS:
        raise BadValue(f"`{text}` is no time: write 500 ms, 60 s, 5 min or 8 h")
    value = whole(parts[0], _MILLISECONDS[parts[1]], "milliseconds")
    if value < 0:
        raise BadValue(f"`{text}`: time does not go back")
    return value


def yes(text: str) -> bool:
    if text not in ("yes", "no"):
        raise BadValue(f"`{text}` is neither yes nor no")
    return text == "yes"


def ticks(text: str, market: Market) -> int:
    return whole(text, Fraction(USDC, market.spec.tick_size), f"ticks of {market.spec.name}")


def lots(text: str, market: Market) -> int:
    return whole(text, market.lot_units, f"lots of {market.spec.name}")


def show(value: Fraction) -> str:
    """Return the shortest decimal of a fraction whose denominator divides a power of ten."""
    digits = 0
    while (value * 10**digits).denominator != 1:
        digits += 1
        assert digits <= 18, f"{value} is no decimal"
    scaled = str(abs((value * 10**digits).numerator)).rjust(digits + 1, "0")
    sign = "-" if value < 0 else ""
    return sign + (f"{scaled[:-digits]}.{scaled[-digits:]}" if digits else scaled)


def show_usdc(value: int) -> str:
    return show(Fraction(value, USDC))


def show_price(value: int, market: Market) -> str:
    return show(Fraction(value * market.spec.tick_size, USDC))


def show_qty(value: int, market: Market) -> str:
    return show(Fraction(value, market.lot_units))


def show_percent(value: int) -> str:
    return show(Fraction(value * 100, WAD)) + " %"


def show_yes(value: bool) -> str:
    return "yes" if value else "no"
