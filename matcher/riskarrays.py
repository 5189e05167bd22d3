"""Risk arrays: each option's value under every valuation, kept packed, and the quick check.

An option's row is one big integer with a lane of `LANE_BITS` for each valuation of the grid, so a
position adds to all scenarios with one multiplication, and an expiry's sum is a dot product of
lots and rows. Lanes are signed: the sum of lane x 2**(LANE_BITS x i), so that a negative lane
borrows from the next. `Packed.lanes` gives them back; the check reads only what it needs.

Values per lot count in 1e-12 USDC, discount factors in 2**-44: with them a lane holds 150 million
USDC per account and expiry. Whoever has more is checked with lists, to the same result. ADR-0020
has the alternatives and their measured times. Source: SPAN's risk arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter, mul
from typing import Final, NamedTuple

from matcher import portfolio
from matcher.scenarios import SKEWS, Grid, Term, fixed_part, term
from matcher.strikes import Shocked, ln_price
from matcher.travel import Travel
from matcher.units import WAD, div_ceil, div_floor

LANE_BITS: Final = 112
LANE_BYTES: Final = LANE_BITS // 8
FACTOR_BITS: Final = 44
"""Discount factors are multiples of 2**-44: `gain` rounded down, `owed` up."""
ONE: Final = 1 << FACTOR_BITS
VALUE_UNIT: Final = 10**12
"""Values per lot are multiples of 1e-12 USDC."""
PER_MONEY: Final = VALUE_UNIT // 10**6
"""Value units in a micro-USDC."""
LANE_MAX: Final = 1 << (LANE_BITS - 2)
LOTS_MAX: Final = 1 << 48
"""No account holds more lots of one option."""

_ONE_WAD: Final = ONE * WAD
_HALF: Final = 1 << (LANE_BITS - 1)
_MASK: Final = (1 << LANE_BITS) - 1


class Packed:
    """A grid's lanes: what is the same for every row."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.count = len(grid.valuations)
        self.ones = sum(1 << (LANE_BITS * i) for i in range(self.count))
        self.bias = self.ones << (LANE_BITS - 1)
        self.bytes = LANE_BYTES * self.count
        scenarios = grid.parameters.scenarios
        plain = [(s, i) for s, i in zip(scenarios, grid.lanes, strict=True) if s.kind not in SKEWS]
        self.slices = tuple(
            (dampening, tuple(self._slice(i) for s, i in plain if s.dampening == dampening))
            for dampening in dict.fromkeys(s.dampening for s, _ in plain)
        )
        self.rising, self.falling = (
            sum(
                portfolio.slope(factor, ONE, sign) << (LANE_BITS * i)
                for i, (factor, kind) in enumerate(grid.valuations)
                if kind not in SKEWS
            )
            for sign in (1, -1)
        )
        skews = [(s, i) for s, i in zip(scenarios, grid.lanes, strict=True) if s.kind in SKEWS]
        self.skew_places = tuple((i, lane * LANE_BITS) for i, (_, lane) in enumerate(skews))
        self.skew_slopes, self.skew_falls = (
            tuple((s.dampening, portfolio.slope(s.factor, ONE, sign)) for s, _ in skews)
            for sign in (1, -1)
        )
        self.steepest = max(abs(s.factor - WAD) * ONE // WAD + 1 for s in scenarios)
        self.low = max([2, *(lane for lane in grid.lanes if grid.valuations[lane][1] in SKEWS)])
        self.low_mask = (1 << (LANE_BITS * (self.low + 1))) - 1
        self.up_shift = grid.basis_up * LANE_BITS
        self.down_shift = grid.basis_down * LANE_BITS

    def _slice(self, lane: int) -> slice:
        end = self.bytes - lane * LANE_BYTES
        return slice(end - LANE_BYTES, end)

    def pack(self, values: Sequence[int]) -> int:
        """Return a row of non-negative values below 2**(LANE_BITS - 1) as one integer."""
        return int.from_bytes(
            b"".join([v.to_bytes(LANE_BYTES, "little") for v in values]), "little"
        )

    def lanes(self, row: int) -> list[int]:
        """Return the signed values of a row or of a sum of rows."""
        data = (row + self.bias).to_bytes(self.bytes, "little")
        return [
            int.from_bytes(data[at : at + LANE_BYTES], "little") - _HALF
            for at in range(0, self.bytes, LANE_BYTES)
        ]


class ExpiryArray:
    """The rows of one expiry's options: `rows[2 i]` is strike i's call, `rows[2 i + 1]` its put.

    Units: `spot` the value of a lot's worth of spot, in value units; `confidence` WAD.
    """

    def __init__(self, packed: Packed, lots_per_unit: int) -> None:
        self._packed = packed
        self._per = lots_per_unit * WAD // VALUE_UNIT
        self._state: tuple[int, int, int, int] | None = None
        self._shocked: Shocked | None = None
        self._leg = 0
        self._strikes: list[tuple[int, int]] = []
        self._vols: list[int | None] = []
        self._calls: list[list[int]] = []
        self.rows: list[int] = []
        self.travel = Travel(packed.grid, ONE)
        self.gain = self.owed = self.basis = self.reach = 0
        self._most = (0, 0)
        self.spot = 0
        self.confidence = WAD
        self.version = 0
        """Counts the moves that changed a row."""

    def add_strike(self, strike: int) -> int:
        """List a strike's call and put, valued by the next `move`; return its index. Units: WAD."""
        self._strikes.append((strike, ln_price(strike)))
        self._vols.append(None)
        self._calls.append([])
        self.rows += [0, 0]
        self._state = None
        return len(self._strikes) - 1

    def move(
        self, time_ms: int, forward: int, rate: int, vols: Sequence[int], fixed: int | None = None
    ) -> int:
        """Bring the rows to these inputs; return how many strikes had to be computed again.

        If only volatilities moved, only their strikes are. Units: ms to expiry, WAD; `vols` by
        index of strike; `fixed` as in `scenarios.fixed_part`.
        """
        assert len(vols) == len(self._strikes)
        state = (time_ms, forward, rate, fixed_part(forward, time_ms, fixed))
        before = self._shocked
        everything = state != self._state
        lost = self._refresh(state) if everything else 0
        after = self._shocked
        assert after is not None
        before = before or after
        computed = furthest = 0
        for index, vol in enumerate(vols):
            if everything or vol != self._vols[index]:
                self._vols[index] = vol
                furthest = max(furthest, self._compute(before, after, index, vol))
                computed += 1
        self.travel.total += furthest + lost
        self.version += computed > 0
        return computed

    def _refresh(self, state: tuple[int, int, int, int]) -> int:
        """Take new inputs; return what a lot can lose by the moves of the factors alone."""
        time_ms, forward, rate, fixed = self._state = state
        packed, first = self._packed, self._shocked is None
        of: Term = term(packed.grid.parameters, time_ms, rate)
        self._shocked = Shocked(packed.grid, of, forward, fixed, self._per)
        self._leg = packed.pack(self._shocked.leg)
        gain, owed = div_floor(of.gain * ONE, WAD), div_ceil(of.owed * ONE, WAD)
        moved = max(abs(gain - self.gain), abs(owed - self.owed))
        basis_moved = abs(of.basis - self.basis)
        self._most = (max(self.owed, owed), max(self.basis, of.basis))
        self.gain, self.owed, self.basis = gain, owed, of.basis
        # No option is worth more than the dearest forward or the dearest strike.
        paid = self._shocked.strike_leg(max((strike for strike, _ in self._strikes), default=0))
        most = [max(paid, leg) + 1 for leg in self._shocked.leg]
        self.reach = max(most) * max(gain, owed, ONE)
        return 0 if first else self.travel.drift(most, moved, basis_moved)

    def _compute(self, before: Shocked, after: Shocked, index: int, vol: int) -> int:
        """Compute a strike's rows again; return what a lot of them can have lost."""
        strike, ln_strike = self._strikes[index]
        old, new = self._calls[index], after.call_row(strike, ln_strike, vol)
        self._calls[index] = new
        row = self._packed.pack(new)
        self.rows[2 * index] = row
        paid = after.strike_leg(strike) * self._packed.ones
        self.rows[2 * index + 1] = row - self._leg + paid
        if not old:
            return 0
        lost = self.travel.loss(old, new, *self._most)
        if before is after:  # the same forward and strike: puts moved as calls did
            return lost
        puts = before.put_row(old, strike), after.put_row(new, strike)
        return max(lost, self.travel.loss(*puts, *self._most))


class OptionsHeld:
    """An account's options in one expiry: signed lots by index of row, and their counts.

    `naked` and `gross` are lots, kept up to date with every trade; so is `row`, the sum of lots x
    row, which holds for the rows of `version`.
    """

    __slots__ = ("_gather", "gross", "lots", "naked", "row", "version")

    def __init__(self) -> None:
        self.lots: dict[int, int] = {}
        self.naked = 0
        self.gross = 0
        self.row = 0
        self.version = -1
        self._gather: itemgetter[tuple[int, ...]] | None = None

    def trade(self, array: ExpiryArray, index: int, lots: int) -> None:
        """Count `lots` (signed) more of the option at `index`."""
        held, other = self.lots.get(index, 0), self.lots.get(index ^ 1, 0)
        now = held + lots
        self.naked += portfolio.naked_shorts(now, other) - portfolio.naked_shorts(held, other)
        self.gross += abs(now) - abs(held)
        assert self.gross <= LOTS_MAX
        self.row += lots * array.rows[index]
        if not (held and now):
            self._gather = None
        if now:
            self.lots[index] = now
        else:
            self.lots.pop(index, None)

    def take_rows(self, array: ExpiryArray) -> None:
        """Sum up lots x row anew, for the rows as they are now."""
        self.version, lots = array.version, self.lots
        if len(lots) < 2:
            self.row = sum(array.rows[index] * count for index, count in lots.items())
            return
        if self._gather is None:
            self._gather = itemgetter(*lots)
        self.row = sum(map(mul, lots.values(), self._gather(array.rows)))


class Held(NamedTuple):
    """An account in one underlying: options by expiry, and the rest in value units."""

    options: Sequence[tuple[ExpiryArray, OptionsHeld]]
    rest: portfolio.Underlying
    """Without expiries, `one` being `ONE`."""
    offered: Sequence[tuple[int, int]] = ()
    """With open orders: by expiry, the lots that they add to `gross` and to `naked` at most."""


def as_underlying(packed: Packed, held: Held) -> portfolio.Underlying:
    """Return the account with its expiries as lists: the plain way to the same result."""
    expiries = []
    for at, (array, options) in enumerate(held.options):
        gross, naked = held.offered[at] if held.offered else (0, 0)
        sums = [0] * packed.count
        for index, lots in options.lots.items():
            row = packed.lanes(array.rows[index])
            sums = [total + lots * value for total, value in zip(sums, row, strict=True)]
        expiries.append(
            portfolio.Expiry(
                sums,
                array.gain,
                array.owed,
                array.basis,
                array.confidence,
                (options.gross + gross) * array.spot,
                (options.naked + naked) * array.spot,
            )
        )
    rest = held.rest
    return portfolio.Underlying(
        expiries,
        rest.perp,
        rest.futures,
        rest.collateral,
        rest.spot_confidence,
        rest.stable,
        ONE,
    )


def margin(
    packed: Packed, held: Held, initial: bool, orders: portfolio.Orders | None = None
) -> int:
    """Return the margin of `portfolio.assess`, without cash. Units: value units.

    With open orders, `held` has options and perpetuals counted at their largest: `Held.offered`.
    """
    p, rest = packed.grid.parameters, held.rest
    mtm, exposure = portfolio.linear_parts(rest)
    bound = abs(exposure) * packed.steepest
    naked, gross = 0, []
    for at, (array, options) in enumerate(held.options):
        bound += array.reach * options.gross
        lots, shorts = options.gross, options.naked
        if held.offered:
            lots, shorts = lots + held.offered[at][0], shorts + held.offered[at][1]
        naked += shorts * array.spot
        gross.append((array.confidence, lots * array.spot))
    if bound >= LANE_MAX:
        return portfolio.assess(packed.grid, as_underlying(packed, held), initial, orders).margin
    sums = _sum(packed, held.options, exposure)
    factor = p.margin_factor(initial, rest.stable)
    if orders is None:
        worst = factor * _worst(packed, sums, exposure) // WAD
    else:
        worst = factor * sums.basis // WAD + orders.basis
        for pnl, more in zip(_pnls(packed, sums, exposure), orders.scenarios, strict=True):
            with_orders = factor * pnl // WAD + more
            if with_orders < worst:
                worst = with_orders
    return mtm + sums.mtm + worst - portfolio.contingencies(p, rest, naked, gross, initial)


class _Sums(NamedTuple):
    """An account's expiries together: `total` is packed, in 1/ONE; `skewed` per skew scenario."""

    mtm: int
    basis: int
    total: int
    skewed: list[int]


def _sum(packed: Packed, held: Sequence[tuple[ExpiryArray, OptionsHeld]], exposure: int) -> _Sums:
    bias, half, mask, sign_shift = packed.bias, _HALF, _MASK, LANE_BITS - 1
    low_mask, up_shift, down_shift = packed.low_mask, packed.up_shift, packed.down_shift
    places = packed.skew_places
    skewed = [0] * len(places)
    mtm = basis = 0
    total = exposure * (packed.rising if exposure >= 0 else packed.falling)
    for array, options in held:
        gain, owed = array.gain, array.owed
        if options.version != array.version:
            options.take_rows(array)
        row = options.row
        biased = row + bias
        signs = biased & bias
        if signs == bias:
            total += row * gain
        elif not signs:
            total += row * owed
        else:  # under the mask stay the lanes that are not negative
            kept = biased & (signs - (signs >> sign_shift))
            total += row * owed - kept * (owed - gain)
        low = biased & low_mask
        now = (low & mask) - half
        mtm += now
        drop = (low >> up_shift & mask) - half - now
        fall = (low >> down_shift & mask) - half - now
        if fall < drop:
            drop = fall
        if drop < 0:
            basis += drop * array.basis
        now <<= FACTOR_BITS
        for i, shift in places:
            value = (low >> shift & mask) - half
            change = value * (gain if value >= 0 else owed) - now
            skewed[i] -= change if change >= 0 else -change
    return _Sums(mtm, basis // WAD, total, skewed)


def _worst(packed: Packed, sums: _Sums, exposure: int) -> int:
    """Return the least of the basis contingency and of the scenarios' PnL."""
    # Biased lanes as big-endian bytes stand in the order of their values.
    lane = (sums.total + packed.bias).to_bytes(packed.bytes, "big").__getitem__
    base = (sums.mtm << FACTOR_BITS) + _HALF
    least = sums.basis * _ONE_WAD
    for dampening, slices in packed.slices:
        lowest = min(map(lane, slices)) if len(slices) > 1 else lane(slices[0])
        change = dampening * (int.from_bytes(lowest, "big") - base)
        if change < least:
            least = change
    slopes = packed.skew_slopes if exposure >= 0 else packed.skew_falls
    for change, (dampening, slope) in zip(sums.skewed, slopes, strict=True):
        change = dampening * (change + exposure * slope)
        if change < least:
            least = change
    return least // _ONE_WAD


def _pnls(packed: Packed, sums: _Sums, exposure: int) -> list[int]:
    """Return every scenario's PnL, rounded down."""
    values, base, skewed = packed.lanes(sums.total), sums.mtm << FACTOR_BITS, iter(sums.skewed)
    found = []
    for scenario, lane in zip(packed.grid.parameters.scenarios, packed.grid.lanes, strict=True):
        if scenario.kind in SKEWS:
            change = next(skewed) + exposure * portfolio.slope(scenario.factor, ONE, exposure)
        else:
            change = values[lane] - base
        found.append(scenario.dampening * change // (ONE * WAD))
    return found
