"""The open-order rules leave no more margin than brute force over all sets of fills does."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from random import Random
from typing import NamedTuple

import pytest

from matcher import openorders, portfolio, standard
from matcher.openorders import OrderSide, added, linear_side, option_side
from matcher.riskarrays import ONE, ExpiryArray, Held, OptionsHeld, margin
from matcher.standard import LinearHeld, OptionHeld, Options, StandardParameters
from matcher.units import WAD
from tests.matcher.risk_market import PACKED, SPOT_LOT, array, perpetual

SEED = 20_150_504
STRIKES = (2_200, 2_600, 3_000)
GRID = PACKED.grid
PERP = -1


class Order(NamedTuple):
    """`where` is the expiry's place (or PERP), `lots` signed, `limit` per lot."""

    where: int
    index: int
    lots: int
    limit: int


def random_orders(random: Random, arrays: list[ExpiryArray], count: int) -> list[Order]:
    found = []
    for _ in range(count):
        lots = random.choice((-1, 1)) * random.randint(1, 300)
        where = random.randrange(-1, len(arrays))
        index = random.randrange(2 * len(STRIKES))
        value = SPOT_LOT if where == PERP else PACKED.lanes(arrays[where].rows[index])[0]
        wide = 0.03 if where == PERP else 0.4
        found.append(Order(where, index, lots, int(value * random.uniform(1 - wide, 1 + wide)) + 1))
    return found


def held_with(
    arrays: list[ExpiryArray], lots: list[dict[int, int]], perps: int, worst: int | None = None
) -> Held:
    options = []
    for of, mine in zip(arrays, lots, strict=True):
        held = OptionsHeld()
        for index, count in mine.items():
            held.trade(of, index, count)
        options.append((of, held))
    rest = portfolio.Underlying((), perpetual(perps, worst), spot_confidence=WAD // 2, one=ONE)
    return Held(options, rest)


def by_rule(
    arrays: list[ExpiryArray],
    lots: list[dict[int, int]],
    perps: int,
    orders: list[Order],
    initial: bool,
) -> int:
    factor = GRID.parameters.margin_factor(initial, WAD)
    sides: list[tuple[OrderSide, int, int]] = []
    offered = []
    for at, (of, mine) in enumerate(zip(arrays, lots, strict=True)):
        here = [order for order in orders if order.where == at]
        for order in here:
            row, terms = PACKED.lanes(of.rows[order.index]), (of.gain, of.owed, of.basis)
            side = option_side(GRID, row, terms, ONE, factor, order.lots > 0)
            sides.append((side, order.limit, abs(order.lots)))
        gross = 0
        for index in range(len(of.rows)):
            buys, sells = totals(here, index)
            held = mine.get(index, 0)
            gross += max(abs(held + buys), abs(held - sells)) - abs(held)
        offered.append((gross, sum(-order.lots for order in here if order.lots < 0)))
    for order in orders:
        if order.where == PERP:
            side = linear_side(GRID, SPOT_LOT, SPOT_LOT, ONE, factor, order.lots > 0)
            sides.append((side, order.limit, abs(order.lots)))
    buys, sells = totals([order for order in orders if order.where == PERP], None)
    worst = max(abs(perps + buys), abs(perps - sells))
    held = held_with(arrays, lots, perps, worst)._replace(offered=offered)
    return margin(PACKED, held, initial, added(sides, GRID))


def totals(orders: list[Order], index: int | None) -> tuple[int, int]:
    mine = [order.lots for order in orders if index is None or order.index == index]
    return sum(x for x in mine if x > 0), -sum(x for x in mine if x < 0)


def by_brute_force(
    arrays: list[ExpiryArray],
    lots: list[dict[int, int]],
    perps: int,
    orders: list[Order],
    initial: bool,
) -> int:
    least = None
    for fills in product((0, 1), repeat=len(orders)):
        cash, now_perps, now = 0, perps, [dict(mine) for mine in lots]
        for filled, order in zip(fills, orders, strict=True):
            if not filled:
                continue
            cash -= order.lots * order.limit
            if order.where == PERP:
                cash += order.lots * SPOT_LOT  # its PnL, as a perpetual has no value of its own
                now_perps += order.lots
            else:
                mine = now[order.where]
                mine[order.index] = mine.get(order.index, 0) + order.lots
        found = cash + margin(PACKED, held_with(arrays, now, now_perps), initial)
        least = found if least is None else min(least, found)
    assert least is not None
    return least


def excess(alone: int, force: int, rule: int) -> Fraction:
    """How much of what the rule takes for open orders no set of fills would take, 0 to 1.

    Below 0 the rule takes too little.
    """
    return Fraction(force - rule, max(1, alone - rule))


def portfolio_excesses(count: int, orders_max: int) -> list[Fraction]:
    random, found = Random(SEED), []
    for i in range(count):
        if i % 10 == 0:
            arrays = [array(random, days, STRIKES) for days in (1, 30)]
        lots = [
            {i: random.randint(-300, 300) for i in random.sample(range(6), random.randrange(5))}
            for _ in arrays
        ]
        lots = [{k: v for k, v in mine.items() if v} for mine in lots]
        perps = random.randint(-300, 300)
        orders = random_orders(random, arrays, random.randint(1, orders_max))
        initial = random.random() < 0.7
        rule = by_rule(arrays, lots, perps, orders, initial)
        force = by_brute_force(arrays, lots, perps, orders, initial)
        alone = by_rule(arrays, lots, perps, [], initial)
        found.append(excess(alone, force, rule))
    return found


def test_portfolio_rule_is_never_below_brute_force() -> None:
    excesses = portfolio_excesses(150, 6)
    print(f"portfolio orders: {told(excesses)}")
    # Roundings are units of 1e-12 USDC per lot.
    assert min(excesses) > Fraction(-1, 10**6)


def told(excesses: list[Fraction]) -> str:
    ordered = [float(part) for part in sorted(excesses)]
    mean = sum(ordered) / len(ordered)
    return (
        f"{len(ordered)} accounts with seed {SEED}; of what the rule takes, no fills would take: "
        f"least {ordered[0]:.4f}, median {ordered[len(ordered) // 2]:.4f}, mean {mean:.4f}, "
        f"most {ordered[-1]:.4f}"
    )


@pytest.mark.parametrize("mutant", ["free sells", "contingencies without orders"])
def test_a_weaker_portfolio_rule_is_found(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if mutant == "free sells":
        original = openorders.option_side

        def side(*args: object) -> OrderSide:
            made = original(*args)  # type: ignore[arg-type]
            return made if made.buys else OrderSide(False, (10**30,) * 31, 10**30)

        monkeypatch.setitem(globals(), "option_side", side)
    else:
        monkeypatch.setitem(globals(), "by_rule", without_offered)
    assert min(portfolio_excesses(60, 4)) < Fraction(-1, 10**3)


def without_offered(
    arrays: list[ExpiryArray],
    lots: list[dict[int, int]],
    perps: int,
    orders: list[Order],
    initial: bool,
) -> int:
    """The rule without what orders can add to the contingencies."""
    return margin(PACKED, held_with(arrays, lots, perps), initial)


# Standard mode. Money in micro-USDC, one lot = one unit.

P = StandardParameters(size_base=400_000 * 10**6)
SPOT = 2_600 * 10**6
FORWARD = 2_620 * 10**6


class Instrument(NamedTuple):
    call: bool
    strike: int
    mark: int
    lots: int
    orders: tuple[tuple[int, int], ...]
    """(signed lots, price)"""


def instruments(random: Random) -> list[Instrument]:
    found = []
    for strike in random.sample((1_800, 2_300, 2_600, 2_900, 3_400), random.randint(1, 4)):
        for call in random.sample((True, False), random.randint(1, 2)):
            inside = max(0, 2_620 - strike if call else strike - 2_620)
            mark = int((inside + random.uniform(5, 150)) * 10**6)
            orders = tuple(
                (random.choice((-1, 1)) * random.randint(1, 9), int(mark * random.uniform(0.3, 2)))
                for _ in range(random.choice((0, 0, 1, 1, 2)))
            )
            lots = random.choice((0, random.randint(-9, 9)))
            found.append(Instrument(call, strike * 10**6, mark, lots, orders))
    return found


def standard_rule(held: list[Instrument], perp: LinearHeld, initial: bool) -> int:
    options = [
        OptionHeld(i.call, i.strike, i.mark, i.lots, [(p, -q) for q, p in i.orders if q < 0])
        for i in held
    ]
    premiums = sum(q * p for i in held for q, p in i.orders if q > 0)
    of = Options(options, SPOT, FORWARD, WAD // 4, premiums)
    return standard.standard_margin(P, [perp], [of], initial)


def standard_force(
    held: list[Instrument], perp: LinearHeld, perp_orders: list[tuple[int, int]], initial: bool
) -> int:
    places = [(i, order) for i, one in enumerate(held) for order in one.orders]
    places += [(PERP, order) for order in perp_orders]
    least = None
    for fills in product((0, 1), repeat=len(places)):
        cash, lots, perps = 0, [one.lots for one in held], perp.lots
        for filled, (i, (q, price)) in zip(fills, places, strict=True):
            if filled and i == PERP:
                perps += q
                cash += q * (perp.mark - price)
            elif filled:
                lots[i] += q
                cash -= q * price
        bare = [one._replace(lots=n, orders=()) for one, n in zip(held, lots, strict=True)]
        alone = perp._replace(lots=perps, buys=0, sells=0, loss=0)
        found = cash + standard_rule(bare, alone, initial)
        least = found if least is None else min(least, found)
    assert least is not None
    return least


def standard_excesses(count: int) -> list[Fraction]:
    random, found = Random(SEED), []
    while len(found) < count:
        held = instruments(random)
        if sum(len(i.orders) for i in held) > 6:
            continue
        initial = random.random() < 0.5
        mark = int(SPOT * random.uniform(0.99, 1.01))
        perp_orders = [
            (
                random.choice((-1, 1)) * random.randint(1, 200),
                int(mark * random.uniform(0.98, 1.02)),
            )
            for _ in range(random.randrange(3))
        ]
        perp = LinearHeld(
            random.randint(-200, 200), mark, SPOT, 7, WAD // 3, P.perp_im,
            sum(q for q, _ in perp_orders if q > 0),
            -sum(q for q, _ in perp_orders if q < 0),
            sum(max(0, q * (price - mark)) for q, price in perp_orders),
        )  # fmt: skip
        rule = standard_rule(held, perp, initial)
        bare = [one._replace(orders=()) for one in held]
        alone = standard_rule(bare, perp._replace(buys=0, sells=0, loss=0), initial)
        found.append(excess(alone, standard_force(held, perp, perp_orders, initial), rule))
    return found


def test_standard_rule_is_never_below_brute_force() -> None:
    excesses = standard_excesses(400)
    print(f"standard orders: {told(excesses)}")
    assert min(excesses) > Fraction(-1, 10**6)  # a micro-USDC of rounding per requirement


def test_premiums_lent_to_both_branches_would_be_below_brute_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Why the premium of a sell counts in the isolated sum only."""
    honest = standard.options_requirement

    def lent_to_both(p: StandardParameters, of: Options, initial: bool) -> standard.Requirement:
        found = honest(p, of, initial)
        lent = sum(standard.credit(option) for option in of.held)
        covered = found.loss + found.unpaired - lent
        total = min(found.isolated, covered) + found.doubt + of.premiums
        return found._replace(total=total)

    monkeypatch.setattr(standard, "options_requirement", lent_to_both)
    assert min(standard_excesses(200)) < Fraction(-1, 100)
