"""Both margin modes again, in the words of the rules, over 40-digit numbers or floats.

Nothing of `matcher` is used. A portfolio is the object that `fairlane margin` reads. `price` is any
function (forward, strike, deviation, call) -> undiscounted value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath

MP = mpmath.mp.clone()
MP.dps = 40
DAY = 86_400
YEAR = 365 * DAY
Number = Any
Price = Callable[[Number, Number, Number, bool], Number]

DEFAULTS: dict[str, str] = {
    "vol_up": ".5", "vol_down": ".275", "vol_power_short": ".3", "vol_power_long": ".13",
    "vol_floor_days": "1", "vol_min_shocked": ".45", "im_factor": "1", "mm_factor": ".8",
    "short_rate_mult": ".5", "long_rate_mult": "1", "short_rate_add": ".08",
    "long_rate_add": ".08", "discount_long": "1", "discount_short": "1.04", "basis_up": "1.045",
    "basis_down": ".955", "basis_add": ".5", "basis_mult": "2", "peg_threshold": ".98",
    "peg_factor": "2", "confidence_threshold": ".55", "confidence_factor": "1",
    "perp_mm": ".015", "perp_im": ".005", "option_mm": ".003", "option_im": ".002",
    "skew_linear_cap": ".15", "skew_linear_slope": "-.05", "skew_abs_cap": ".15",
    "skew_abs_slope": "-.05", "skew_min_k": ".01", "skew_width": "4", "skew_vol_static": ".6",
    "skew_vol_scale": "-.1",
}  # fmt: skip
STANDARD: dict[str, str] = {
    "perp_im": ".065", "perp_mm": ".05", "size_base": "0", "open_interest_low": "0",
    "open_interest_high": "0", "option_im": ".15", "option_im_min": ".1", "option_mm": ".075",
    "put_im_mult": "1.05", "unpaired_im": "1.2", "unpaired_mm": "1.1",
    "confidence_threshold": ".4", "confidence_factor": ".4",
}  # fmt: skip
SCENARIOS: list[tuple[str, str, str]] = [
    ("1.18", "up", "1"),
    *((factor, vol, "1") for factor in ("1.135", "1.09", "1.045", "1", ".955", ".91", ".865")
      for vol in ("down", "none", "up")),
    (".82", "up", "1"), (".34", "up", "6/110"), (".67", "up", "12/110"), ("1.5", "up", ".072"),
    ("2", "up", ".036"), ("3", "up", ".018"), ("4", "up", ".012"),
    ("1", "linear", "1"), ("1", "abs", "1"),
]  # fmt: skip


def n(text: Any) -> Number:
    top, _, bottom = str(text).partition("/")
    return MP.mpf(top) / MP.mpf(bottom or 1)


def black(forward: Number, strike: Number, deviation: Number, call: bool) -> Number:
    if deviation == 0:
        value = max(0, forward - strike)
    else:
        d1 = MP.log(forward / strike) / deviation + deviation / 2
        value = forward * MP.ncdf(d1) - strike * MP.ncdf(d1 - deviation)
    return value if call else value - forward + strike


def get(source: dict[str, Any], name: str, default: str = "0") -> Number:
    return n(source.get(name, default))


class ExpiryOracle:
    """One expiry: values of all its options, now and shocked."""

    def __init__(self, of: dict[str, Any], options: list[Any], p: dict[str, Number], price: Price):
        self.p, self.price = p, price
        self.t = n(of["seconds"])
        self.tau = self.t / YEAR
        self.forward = n(of["forward"])
        self.rate = max(0, get(of, "rate"))
        self.discount = MP.exp(-self.rate * self.tau)
        self.fixed = 0
        if self.t < 1_800:
            self.fixed = (
                n(of["fixed"]) if "fixed" in of else self.forward * (1_800 - self.t) / 1_800
            )
        names = ("forward_confidence", "rate_confidence", "vol_confidence")
        self.trust = min(get(of, name, "1") for name in names)
        self.options = [
            (n(o["strike"]), o["call"], n(o["size"]), n(o["mark_vol"])) for o in options
        ]

    def shock(self) -> Number:
        p = self.p
        power = p["vol_power_short"] if self.t <= 30 * DAY else p["vol_power_long"]
        return (30 * DAY / max(self.t, p["vol_floor_days"] * DAY)) ** power

    def vol(self, strike: Number, vol: Number, kind: str) -> Number:
        p, m = self.p, self.shock()
        if kind == "none":
            return vol
        if kind == "up":
            return max(p["vol_min_shocked"], vol * (1 + p["vol_up"] * m))
        if kind == "down":
            return vol * max(0, 1 - p["vol_down"] * m)
        k, root = MP.log(strike / self.forward), MP.sqrt(self.tau)
        k = abs(k) if kind == "abs" else k
        cap = p[f"skew_{kind}_cap"] + p[f"skew_{kind}_slope"] * root
        width = p["skew_width"] * root * (p["skew_vol_static"] + p["skew_vol_scale"] * root)
        x = k * cap / max(p["skew_min_k"], width)
        u = min(cap, x) if k >= 0 else max(-cap, x)
        return vol * max(0, 1 + u)

    def value(self, factor: Number, kind: str) -> Number:
        """All options, discounted."""
        total = MP.mpf(0)
        for strike, call, size, vol in self.options:
            forward = factor * (self.forward - self.fixed) + self.fixed
            if kind in ("linear", "abs"):
                forward = self.forward
            deviation = self.vol(strike, vol, kind) * MP.sqrt(self.tau)
            total += size * self.discount * self.price(forward, strike, deviation, call)
        return total

    def discounted(self, value: Number) -> Number:
        p = self.p
        if value >= 0:
            rate = p["long_rate_mult"] * self.rate + p["long_rate_add"]
            return value * p["discount_long"] * MP.exp(-self.tau * rate)
        rate = p["short_rate_mult"] * self.rate + p["short_rate_add"]
        return value * min(1 / self.discount, p["discount_short"] / MP.exp(-self.tau * rate))

    def naked(self) -> Number:
        total = 0
        for at in {strike for strike, *_ in self.options}:
            calls = sum(s for k, call, s, _ in self.options if k == at and call)
            puts = sum(s for k, call, s, _ in self.options if k == at and not call)
            total += max(0, max(0, -calls) - max(0, puts)) + max(0, max(0, -puts) - max(0, calls))
        return total


def expiries_of(source: dict[str, Any], p: dict[str, Number], price: Price) -> list[ExpiryOracle]:
    return [
        ExpiryOracle(of, [o for o in source.get("options", []) if o["expiry"] == i], p, price)
        for i, of in enumerate(source.get("expiries", []))
    ]


def portfolio_margin(source: dict[str, Any], price: Price = black) -> dict[str, Number]:
    given = source.get("parameters", {})
    p = {name: n(given.get(name, value)) for name, value in DEFAULTS.items()}
    scenarios = given.get("scenarios", SCENARIOS)
    spot, stable = n(source["spot"]), get(source, "stable", "1")
    perp = source.get("perp", {})
    size, perp_price = get(perp, "size"), get(perp, "price")
    expiries = expiries_of(source, p, price)
    held = [(n(c["amount"]) * n(c["price"]) / stable, c) for c in source.get("collateral", [])]
    now = [expiry.value(MP.mpf(1), "none") for expiry in expiries]
    mtm = sum(now) + get(perp, "unrealised_pnl") + get(perp, "unrealised_funding")
    mtm += sum(value for value, _ in held)
    pnls = []
    for factor, kind, damp in scenarios:
        factor, damp = n(factor), n(damp)
        pnl = size * (factor - 1) * perp_price * damp
        pnl += sum(value * (factor - 1) * damp for value, c in held if c.get("risk_cancelling"))
        for expiry, before in zip(expiries, now, strict=True):
            change = damp * (expiry.discounted(expiry.value(factor, kind)) - before)
            pnl += -abs(change) if kind in ("linear", "abs") else change
        pnls.append(pnl)
    basis = MP.mpf(0)
    for expiry, before in zip(expiries, now, strict=True):
        up, down = (expiry.value(p[name], "none") for name in ("basis_up", "basis_down"))
        basis += min(up - before, down - before, 0) * (
            p["basis_add"] + p["basis_mult"] * expiry.tau
        )
    shorts = sum(expiry.naked() for expiry in expiries)
    keep = p["perp_mm"] * abs(size) * spot + p["option_mm"] * spot * shorts
    keep += sum(value * get(c, "mm_haircut") for value, c in held)
    first = keep + p["perp_im"] * abs(size) * spot + p["option_im"] * spot * shorts
    first += sum(value * get(c, "im_haircut") for value, c in held)
    spot_trust = get(source, "spot_confidence", "1")
    perp_trust = min(spot_trust, get(perp, "confidence", "1"))
    of_expiry = perp_trust if size else spot_trust
    doubts = [(perp_trust, abs(size) * spot)]
    doubts += [
        (min(of_expiry, e.trust), sum(abs(o[2]) for o in e.options) * spot) for e in expiries
    ]
    doubts += [(min(spot_trust, get(c, "confidence", "1")), value) for value, c in held]
    for trust, value in doubts:
        if trust < p["confidence_threshold"]:
            first += p["confidence_factor"] * (1 - trust) * value
    cash, worst = get(source, "cash"), min(basis, *pnls)
    initial_factor = p["im_factor"] + p["peg_factor"] * max(0, p["peg_threshold"] - stable)
    return {
        "mtm": mtm,
        "equity": cash + mtm,
        "worst": min(pnls),
        "pnls": pnls,
        "basis": basis,
        "initial_margin": cash + mtm + initial_factor * worst - first,
        "maintenance_margin": cash + mtm + p["mm_factor"] * worst - keep,
    }


def standard_margin(source: dict[str, Any], price: Price = black) -> dict[str, Number]:
    given = source.get("parameters", {})
    p = {name: n(given.get(name, value)) for name, value in STANDARD.items()}
    shocks = {name: n(value) for name, value in DEFAULTS.items()}
    spot, perp = n(source["spot"]), source.get("perp", {})
    size, mark = get(perp, "size"), get(perp, "price")
    spot_trust = get(source, "spot_confidence", "1")
    pnl = get(perp, "unrealised_pnl") + get(perp, "unrealised_funding")
    notional = abs(size) * mark
    larger = max(1, notional / p["size_base"]) if p["size_base"] else 1
    rate, low, high = p["perp_im"], p["open_interest_low"], p["open_interest_high"]
    if high > low and abs(size) > low:
        rate = min(1, rate + (1 - rate) * (abs(size) - low) / (high - low))
    initial, maintenance = notional * rate * larger, notional * p["perp_mm"] * larger
    doubts = [(min(spot_trust, get(perp, "confidence", "1")), abs(size))]
    marks = MP.mpf(0)
    for i, of in enumerate(source.get("expiries", [])):
        chosen = [o for o in source.get("options", []) if o["expiry"] == i]
        expiry = ExpiryOracle(of, chosen, shocks, price)
        alone = {True: MP.mpf(0), False: MP.mpf(0)}
        short = net = MP.mpf(0)
        for strike, call, held, vol in expiry.options:
            one = expiry.discount * price(expiry.forward, strike, vol * MP.sqrt(expiry.tau), call)
            marks += held * one
            net -= held if call else 0
            if held >= 0:
                continue
            short -= held
            keep = one + p["option_mm"] * (spot if call else max(spot, one))
            out = max(0, (strike - spot if call else spot - strike) / spot)
            first = one + max(p["option_im"] - out, p["option_im_min"]) * spot
            first = first if call else max(first, p["put_im_mult"] * keep)
            alone[True] -= held * first
            alone[False] -= held * keep
        points = [MP.mpf(0)] + [o[0] for o in expiry.options]
        payoffs = [
            sum(s * max(0, at - k if call else k - at) for k, call, s, _ in expiry.options)
            for at in points
        ]
        loss, naked = -min(0, *payoffs), max(0, net) * expiry.forward
        initial += min(alone[True], loss + naked * p["unpaired_im"])
        maintenance += min(alone[False], loss + naked * p["unpaired_mm"])
        names = ("forward_confidence", "vol_confidence")
        doubts.append((min(spot_trust, *(get(of, name, "1") for name in names)), short))
    for trust, amount in doubts:
        if trust < p["confidence_threshold"]:
            initial += p["confidence_factor"] * (1 - trust) * spot * amount
    cash = get(source, "cash")
    return {
        "mtm": pnl + marks,
        "equity": cash + pnl + marks,
        "initial_margin": cash + pnl - initial,
        "maintenance_margin": cash + pnl - maintenance,
    }
