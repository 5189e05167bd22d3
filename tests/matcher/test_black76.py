"""Black-76 in integers against mpmath, and against QuantLib's BlackCalculator."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import pytest
from mpmath import mpf

from matcher import black76
from matcher.black76 import Greeks
from matcher.normal import CDF_BITS
from matcher.units import WAD
from tests.matcher.test_numeric import EXACT, SEED, exact

PRICE_ERROR = EXACT.mpf("1e-15")


class Case(NamedTuple):
    forward: int
    strike: int
    vol: int
    tau: int
    rate: int
    call: bool


def case(random: Random, deviations: float) -> Case:
    """Any forward; a strike up to so many standard deviations away."""
    forward = int(10 ** random.uniform(-6, 9) * WAD)
    vol, tau = 10 ** random.uniform(-2, 1), 10 ** random.uniform(-7, 1)
    away = random.uniform(-deviations, deviations) * vol * tau**0.5
    strike = max(1, int(forward * float(EXACT.exp(min(40, max(-40, away))))))
    rate = random.uniform(0, 0.3)
    return Case(forward, strike, *(int(x * WAD) for x in (vol, tau, rate)), random.random() < 0.5)


def reference(of: Case) -> list[mpf]:
    """Price, delta, gamma, vega, theta, rho in the textbook's words, at 60 digits."""
    f, k, vol, tau, rate = (exact(x) for x in of[:5])
    s = vol * EXACT.sqrt(tau)
    d1 = EXACT.log(f / k) / s + s / 2
    d2, discount, density = d1 - s, EXACT.exp(-rate * tau), EXACT.npdf(d1)
    if of.call:
        price, delta = f * EXACT.ncdf(d1) - k * EXACT.ncdf(d2), EXACT.ncdf(d1)
    else:
        price, delta = k * EXACT.ncdf(-d2) - f * EXACT.ncdf(-d1), -EXACT.ncdf(-d1)
    price *= discount
    vega = discount * f * density * EXACT.sqrt(tau)
    theta = rate * price - discount * f * density * vol / (2 * EXACT.sqrt(tau))
    return [price, discount * delta, discount * density / (f * s), vega, theta, -tau * price]


def test_prices_stay_within_their_error() -> None:
    random, worst = Random(SEED), EXACT.mpf(0)
    for i in range(2_000):
        of = case(random, (0.5, 4, 12)[i % 3])
        discount = black76.discount_factor(of.rate, of.tau)
        found = black76.price(of.forward, of.strike, of.vol, of.tau, discount, of.call)
        assert found >= 0
        # One unit of 1e-18 apart: the result is rounded down to it.
        error = abs(exact(found) - reference(of)[0]) - EXACT.mpf("2e-18")
        worst = max(worst, error / exact(max(of.forward, of.strike)))
    print(f"price: worst with seed {SEED}: {EXACT.nstr(worst, 3)} x max(forward, strike)")
    assert worst <= PRICE_ERROR


def scales(of: Case) -> list[mpf]:
    """What each greek's error is measured in."""
    f, k, vol, tau, rate = (exact(x) for x in of[:5])
    root = EXACT.sqrt(tau)
    larger = max(f, k)
    return [
        larger,
        1 / min(1, vol * root),
        1 / (f * vol * root * min(1, vol * root)),
        larger * max(1, root) / min(1, vol * root),
        larger * max(1, vol / root, rate) / min(1, vol * root),
        larger * max(1, tau),
    ]


def test_greeks_stay_within_their_errors() -> None:
    random, worst = Random(SEED), [EXACT.mpf(0)] * 6
    for i in range(1_000):
        of = case(random, (0.5, 4, 10)[i % 3])
        found = black76.greeks(*of)
        slack = EXACT.mpf("4e-18") * max(1, exact(of.tau), exact(of.rate))
        for g in range(6):
            error = max(0, abs(exact(found[g]) - reference(of)[g]) - slack)
            worst[g] = max(worst[g], error / scales(of)[g])
    named = ", ".join(f"{n} {EXACT.nstr(w, 2)}" for n, w in zip(Greeks._fields, worst, strict=True))
    print(f"greeks: worst with seed {SEED}, in their scales: {named}")
    assert max(worst) <= PRICE_ERROR


def test_quantlib_says_the_same() -> None:
    quantlib = pytest.importorskip("QuantLib")
    random, worst = Random(SEED), 0.0
    for _ in range(3_000):
        of = case(random, 3)
        f, k, vol, tau, rate = (float(exact(x)) for x in of[:5])
        kind = quantlib.Option.Call if of.call else quantlib.Option.Put
        theirs = quantlib.BlackCalculator(
            quantlib.PlainVanillaPayoff(kind, k), f, vol * tau**0.5, float(EXACT.exp(-rate * tau))
        )
        ours = [float(exact(x)) for x in black76.greeks(*of)]
        s, larger = vol * tau**0.5, max(f, k)
        pairs = [
            (ours[0], theirs.value(), larger),
            (ours[1], theirs.deltaForward(), 1.0),
            (ours[2], theirs.gammaForward(), 1 / (f * s)),
            (ours[3], theirs.vega(tau), larger * tau**0.5),
            (ours[4], theirs.theta(f, tau), larger * max(1, vol / tau**0.5)),
        ]
        for mine, yours, scale in pairs:
            # A float's ln(F/K) leaves 1e-16 / s in d1; ours are multiples of 1e-18.
            worst = max(worst, max(0, abs(mine - yours) - 1e-17) / scale * min(1, s))
    print(f"QuantLib: worst difference with seed {SEED}: {worst:.1e} / min(1, vol sqrt(tau))")
    assert worst < 1e-14


def test_a_chain_is_the_same_as_one_price_at_a_time() -> None:
    random = Random(SEED)
    for _ in range(200):
        strike = int(10 ** random.uniform(-3, 6) * WAD)
        vol, tau = int(random.uniform(0, 3) * WAD), int(10 ** random.uniform(-6, 1) * WAD)
        forwards = [max(1, int(strike * 10 ** random.gauss(0, 0.3))) for _ in range(9)]
        deviation = vol * black76.root_years(tau) // WAD
        pairs = [(forward, black76.ln_ratio(forward, strike)) for forward in forwards]
        chain = black76.calls(strike, deviation, pairs)
        alone = [black76.price(forward, strike, vol, tau, WAD, True) for forward in forwards]
        assert [value >> CDF_BITS for value in chain] == alone


def test_without_time_or_volatility_an_option_is_its_payoff() -> None:
    for forward, strike in ((3, 2), (2, 3), (2, 2)):
        for vol, tau in ((0, WAD), (WAD, 0)):
            call = black76.price(forward * WAD, strike * WAD, vol, tau, WAD, True)
            put = black76.price(forward * WAD, strike * WAD, vol, tau, WAD, False)
            assert (call, put) == (max(0, forward - strike) * WAD, max(0, strike - forward) * WAD)
