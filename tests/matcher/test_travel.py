"""No account falls below zero before the path length allowed by its last check is used up."""

from __future__ import annotations

from random import Random

import pytest

from matcher import portfolio
from matcher.riskarrays import ONE, VALUE_UNIT, ExpiryArray, Held, OptionsHeld, margin
from matcher.scenarios import DAY_MS
from matcher.travel import Travel, allowances, linear_weight
from matcher.units import WAD
from tests.matcher.risk_market import LOTS_PER_UNIT, PACKED, holding

SEED = 20_150_505
STRIKES = (1_300, 2_400, 2_600, 2_800, 4_000)
P = PACKED.grid.parameters


class Market:
    """Spot, two expiries and their volatilities on a random path, 500 ms a step, with jumps."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.spot = 2_600.0
        self.left_ms = [DAY_MS // 2, 20 * DAY_MS]
        self.vols = [[0.6 + random.random() / 5 for _ in STRIKES] for _ in self.left_ms]
        self.arrays = [ExpiryArray(PACKED, LOTS_PER_UNIT) for _ in self.left_ms]
        self.path = 0
        self.spot_lot = 0
        for of in self.arrays:
            for strike in STRIKES:
                of.add_strike(strike * WAD)
        self.move()

    def step(self, jumps: bool) -> None:
        random = self.random
        wild = 20 if jumps and random.random() < 0.1 else 1
        self.spot *= 1 + random.gauss(0, 0.0003) * wild
        for e, row in enumerate(self.vols):
            self.left_ms[e] -= 500
            self.vols[e] = [max(0.05, vol + random.gauss(0, 0.002) * wild) for vol in row]
        self.move()

    def move(self) -> None:
        before = self.spot_lot
        self.spot_lot = int(self.spot * VALUE_UNIT) // LOTS_PER_UNIT
        self.path += abs(self.spot_lot - before) if before else 0
        for of, left, row in zip(self.arrays, self.left_ms, self.vols, strict=True):
            of.spot = self.spot_lot
            vols = [int(vol * WAD) for vol in row]
            of.move(left, int(self.spot * 1.01 * WAD), WAD // 20, vols)

    def travelled(self) -> list[int]:
        """The path lengths of all kinds of risk: each expiry's, then spot's."""
        return [of.travel.total for of in self.arrays] + [self.path]


class Account:
    """An account with its slack at the last check, and what each kind may travel until the next."""

    def __init__(self, market: Market, lots_max: int, share: float) -> None:
        random = market.random
        self.market = market
        self.options = [
            (of, holding(random, of, random.randrange(4), lots_max)) for of in market.arrays
        ]
        self.perps = random.choice((0, random.randint(-lots_max, lots_max)))
        gross = abs(self.perps) + sum(options.gross for _, options in self.options)
        self.entry = market.spot_lot
        self.cash = int(gross * market.spot_lot * share) - self.margin()
        self.checks = 0
        self.check()

    def margin(self) -> int:
        spot = self.market.spot_lot
        perp = portfolio.Linear(
            self.perps * spot, abs(self.perps) * spot, self.perps * (spot - self.entry), WAD
        )
        held = Held(self.options, portfolio.Underlying((), perp, one=ONE))
        return margin(PACKED, held, False)

    def check(self) -> None:
        self.checks += 1
        slack = self.cash + self.margin()
        naked = sum(options.naked for _, options in self.options)
        linear = abs(self.perps) * (linear_weight(PACKED.grid) + P.perp_mm) + naked * P.option_mm
        weights = [options.gross for _, options in self.options] + [-(-linear // WAD)]
        now = self.market.travelled()
        self.until = [
            None if allowed < 0 else at + allowed
            for at, allowed in zip(now, allowances(max(0, slack), weights), strict=True)
        ]

    def is_safe(self) -> bool:
        return all(
            until is None or at <= until
            for at, until in zip(self.market.travelled(), self.until, strict=True)
        )


def failures(steps: int, accounts: int, jumps: bool = True) -> tuple[int, int]:
    """How often an account was called safe below zero, and how many checks there were."""
    random = Random(SEED)
    market = Market(random)
    held = [Account(market, 500, random.choice((0.001, 0.02, 0.2))) for _ in range(accounts)]
    failed = 0
    for _ in range(steps):
        market.step(jumps)
        for account in held:
            if account.is_safe():
                failed += account.cash + account.margin() < 0
            else:
                account.check()
    return failed, sum(account.checks for account in held)


def test_a_safe_account_is_never_below_zero() -> None:
    failed, checks = failures(120, 40)
    print(f"{checks} checks instead of {120 * 40} on a path with jumps, seed {SEED}")
    assert failed == 0
    assert checks < 120 * 40


def test_a_path_length_cut_short_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Travel, "loss", lambda *_: 0)
    assert failures(120, 40)[0] > 0


def test_a_single_option_may_lose_what_its_row_says() -> None:
    """The bound is no wider than it needs to be: a short call uses a good part of it."""
    random = Random(SEED)
    market = Market(random)
    of = market.arrays[1]
    account = Account(market, 1, 0.0)
    short = OptionsHeld()
    short.trade(of, 0, -1_000)
    account.options, account.perps = [(of, short)], 0
    before, path = account.margin(), of.travel.total
    for _ in range(20):
        market.spot *= 1.0005
        market.move()
    allowed, lost = 1_000 * (of.travel.total - path), before - account.margin()
    print(f"a short call lost {100 * lost // allowed} % of what its path allows")
    assert allowed // 4 < lost < allowed


def test_slack_is_shared_among_kinds_and_rounded_down() -> None:
    assert allowances(1_000_000, [0, 0]) == [-1, -1]
    assert allowances(0, [5, 0, 7]) == [0, -1, 0]
    assert allowances(1_000_024, [10, 0, 1]) == [50_000, -1, 500_000]
