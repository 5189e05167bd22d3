"""Print a digest over option prices, greeks, risk arrays and margins; run by other interpreters."""

from __future__ import annotations

from hashlib import sha256
from random import Random

from matcher import black76, normal, portfolio, surface
from matcher.riskarrays import ONE, ExpiryArray, Held, OptionsHeld, Packed, margin
from matcher.scenarios import DAY_MS, Grid, PortfolioParameters
from matcher.units import WAD

SEED = 5


def digest() -> str:
    random, found = Random(SEED), sha256(repr(normal.TABLE).encode())
    for _ in range(300):
        forward, strike = (random.randrange(WAD, 10**5 * WAD) for _ in range(2))
        vol, tau = random.randrange(WAD // 10, 3 * WAD), random.randrange(10**10, 2 * WAD)
        greeks = black76.greeks(forward, strike, vol, tau, random.randrange(WAD // 4), vol % 2 == 0)
        found.update(repr(greeks).encode())
    nodes = [WAD * k // 10 for k in range(-4, 5)]
    rows = [[random.randrange(WAD * WAD) for _ in nodes] for _ in range(3)]
    found.update(repr(surface.without_arbitrage(nodes, rows)).encode())
    packed = Packed(Grid(PortfolioParameters()))
    of, held = ExpiryArray(packed, 100), OptionsHeld()
    for i in range(25):
        of.add_strike((1_500 + 100 * i) * WAD)
    of.spot = 26 * 10**12
    vols = [random.randrange(WAD // 3, WAD) for _ in range(25)]
    of.move(7 * DAY_MS, 2_600 * WAD, WAD // 50, vols)
    for i in range(0, 50, 3):
        held.trade(of, i, random.randrange(1, 500) * (-1) ** i)
    one = Held([(of, held)], portfolio.Underlying((), one=ONE))
    found.update(repr((of.rows, margin(packed, one, True), margin(packed, one, False))).encode())
    return found.hexdigest()


if __name__ == "__main__":
    print(digest())
