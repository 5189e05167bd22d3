"""The integer functions against mpmath at 60 digits: within their stated errors, everywhere."""

from __future__ import annotations

from random import Random

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf

from matcher import normal, numeric
from matcher.units import WAD

SEED = 20_150_501
EXACT = mpmath.mp.clone()
EXACT.dps = 60

LN_ERROR = EXACT.mpf("2e-18")
EXP_ERROR = EXACT.mpf("2e-18")
CDF_ERROR = EXACT.mpf("1e-16")
PDF_ERROR = EXACT.mpf("1e-18")
SQRT_ERROR = EXACT.mpf("1e-18")


def exact(value: int) -> mpf:
    return EXACT.mpf(value) / WAD


def ln_error(x: int) -> mpf:
    return abs(exact(numeric.ln(x)) - EXACT.log(exact(x)))


def exp_error(x: int) -> mpf:
    """The error as a multiple of max(1, exp x)."""
    right = EXACT.exp(exact(x))
    return abs(exact(numeric.exp(x)) - right) / max(1, right)


def power_error(base: int, exponent: int) -> mpf:
    right = exact(base) ** exact(exponent)
    return abs(exact(numeric.power(base, exponent)) - right) / max(1, right)


def cdf_error(x: int) -> mpf:
    return abs(exact(normal.cdf(x)) - EXACT.ncdf(exact(x)))


def pdf_error(x: int) -> mpf:
    return abs(exact(normal.pdf(x)) - EXACT.npdf(exact(x)))


def sqrt_error(x: int) -> mpf:
    return abs(exact(numeric.sqrt(x)) - EXACT.sqrt(exact(x)))


def tiny_or_wide(random: Random, wide: float) -> int:
    """A signed WAD: half of them spread evenly, half of them over all magnitudes."""
    if random.random() < 0.5:
        return int(random.uniform(-wide, wide) * WAD)
    return int(random.choice((-1, 1)) * wide * WAD * 10 ** random.uniform(-19, 0))


def worst(name: str, errors: list[mpf], bound: mpf) -> None:
    found = max(errors)
    print(f"{name}: worst of {len(errors)} with seed {SEED}: {EXACT.nstr(found, 3)}, bound {bound}")
    assert found <= bound


def test_ln_stays_within_its_error() -> None:
    random = Random(SEED)
    points = [int(2 ** random.uniform(0, 254)) for _ in range(2_000)]
    points += [max(1, WAD + tiny_or_wide(random, 0.5)) for _ in range(2_000)]
    points += [1, WAD - 1, WAD, WAD + 1, numeric.LN_MAX - 1]
    points += [(128 + i) * WAD // 128 + d for i in range(129) for d in (-1, 0, 1)]
    worst("ln", [ln_error(x) for x in points], LN_ERROR)


def test_exp_stays_within_its_error() -> None:
    random = Random(SEED)
    points = [random.randrange(numeric.EXP_MIN - WAD, numeric.EXP_MAX) for _ in range(2_000)]
    points += [tiny_or_wide(random, 3) for _ in range(2_000)]
    points += [0, 1, -1, numeric.EXP_MAX, numeric.EXP_MIN, numeric.EXP_MIN - 1]
    worst("exp", [exp_error(x) for x in points], EXP_ERROR)


def test_power_stays_within_its_error() -> None:
    random = Random(SEED)
    pairs = [
        (int(10 ** random.uniform(-9, 9) * WAD), tiny_or_wide(random, 2)) for _ in range(2_000)
    ]
    worst("power", [power_error(*pair) for pair in pairs], EXP_ERROR)


def test_sqrt_stays_within_its_error() -> None:
    random = Random(SEED)
    points = [int(2 ** random.uniform(0, 190)) for _ in range(1_000)]
    worst("sqrt", [sqrt_error(x) for x in [0, 1, WAD, *points]], SQRT_ERROR)


def test_the_normal_cdf_stays_within_its_error() -> None:
    random = Random(SEED)
    points = [tiny_or_wide(random, 10) for _ in range(4_000)]
    points += [i * WAD // 256 + d for i in range(-2_180, 2_181, 7) for d in (-1, 0, 1)]
    worst("cdf", [cdf_error(x) for x in points], CDF_ERROR)


def test_the_normal_density_stays_within_its_error() -> None:
    random = Random(SEED)
    points = [tiny_or_wide(random, 20) for _ in range(2_000)]
    worst("pdf", [pdf_error(x) for x in points], PDF_ERROR)


@given(st.integers(1, numeric.LN_MAX - 1))
def test_any_ln(x: int) -> None:
    assert ln_error(x) <= LN_ERROR


@given(st.integers(-(1 << 200), numeric.EXP_MAX))
def test_any_exp(x: int) -> None:
    assert exp_error(x) <= EXP_ERROR


@given(st.integers(-(1 << 100), 1 << 100))
def test_any_cdf_is_within_its_error_and_symmetric(x: int) -> None:
    assert cdf_error(x) <= CDF_ERROR
    assert abs(normal.cdf(x) + normal.cdf(-x) - WAD) <= 2


@given(st.integers(-10 * WAD, 10 * WAD), st.integers(100, WAD))
def test_the_cdf_never_falls_by_more_than_its_error(x: int, step: int) -> None:
    assert normal.cdf(x + step) >= normal.cdf(x) - 40


def test_a_table_off_by_a_hair_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks above see a cell wrong by 3e-16 and a ln 2 wrong in its 20th digit."""
    middle = normal.TABLE[normal.CELLS]
    changed = (middle[0] + 6_000, *middle[1:])
    table = (*normal.TABLE[: normal.CELLS], changed, *normal.TABLE[normal.CELLS + 1 :])
    monkeypatch.setattr(normal, "TABLE", table)
    monkeypatch.setattr(numeric, "LN2", numeric.LN2 + (numeric.ONE >> 59))
    assert cdf_error(WAD // 512) > CDF_ERROR
    assert ln_error(100 * WAD) > LN_ERROR
