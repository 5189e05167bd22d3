"""Claims about `matcher.book.Book`, most of them against the naive book.

Hypothesis prints the failing example; each random stream below is made from the seed it names.
"""

from __future__ import annotations

import pickle
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus import codec
from matcher.book import (
    BUY,
    OP_CANCEL,
    OP_LIMIT,
    OP_MARKET,
    PRICE_MAX,
    SELL,
    BadRow,
    Book,
    BookError,
    Fill,
    Resting,
    Row,
    Trade,
)
from tests.matcher.book_model import check, check_structure, drive, random_rows
from tests.matcher.naive_book import NaiveBook
from tests.matcher.naive_book import replay as naive_replay

ROWS = st.lists(
    st.tuples(
        st.sampled_from([OP_LIMIT, OP_LIMIT, OP_LIMIT, OP_CANCEL, OP_MARKET]),
        st.integers(0, 40),
        st.integers(0, 1),
        st.integers(95, 105),
        st.integers(1, 20),
    ),
    max_size=80,
)


def fast_replay(rows: list[Row]) -> tuple[Book, list[Trade]]:
    book, trades = Book(), list[Trade]()
    book.replay(rows, trades.append)
    return book, trades


def without_repeats(rows: list[Row]) -> list[Row]:
    """Give every limit and market order its own id, cancels keeping theirs."""
    return [
        (op, i if op == OP_CANCEL else n, side, price, qty)
        for n, (op, i, side, price, qty) in enumerate(rows)
    ]


@given(ROWS, st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_any_sequence_of_calls_matches_the_naive_book(rows: list[Row], seed: int) -> None:
    drive(Book(), NaiveBook(), without_repeats(rows), Random(seed))


@given(ROWS)
@settings(max_examples=150, deadline=None)
def test_replay_trades_as_the_naive_book_does(rows: list[Row]) -> None:
    rows = without_repeats(rows)
    book, trades = fast_replay(rows)
    assert trades == naive_replay(rows)
    check_structure(book)


@pytest.mark.parametrize("seed", range(8))
def test_long_streams_trade_as_the_naive_book_does(seed: int) -> None:
    rows = random_rows(Random(seed), 1_500)
    book, trades = fast_replay(rows)
    assert trades == naive_replay(rows), f"seed {seed}"
    assert len(trades) > 100
    check_structure(book)


@given(ROWS)
@settings(max_examples=100, deadline=None)
def test_what_is_bought_is_sold_and_nothing_is_lost(rows: list[Row]) -> None:
    rows = without_repeats(rows)
    book, trades = fast_replay(rows)
    for side in (BUY, SELL):
        ids = {i: qty for op, i, s, _, qty in rows if s == side and op != OP_CANCEL}
        traded = sum(qty for taker, maker, _, qty in trades if taker in ids or maker in ids)
        cancelled_or_dropped = sum(ids.values()) - traded - book.open_qty(side)
        assert cancelled_or_dropped >= 0
        if not any(op != OP_LIMIT for op, *_ in rows):
            assert cancelled_or_dropped == 0


@given(ROWS, st.integers(0, 80))
@settings(max_examples=100, deadline=None)
def test_a_restored_book_goes_on_as_the_first_would(rows: list[Row], cut: int) -> None:
    rows = without_repeats(rows)
    whole, trades = fast_replay(rows)
    before, head = fast_replay(rows[:cut])
    for after in (
        Book.restore(before.export()),
        pickle.loads(pickle.dumps(before)),
        Book.restore(codec.decode(tuple[Resting, ...], codec.encode(before.export()))),
    ):
        tail: list[Trade] = []
        after.replay(rows[cut:], tail.append)
        assert head + tail == trades
        assert after.export() == whole.export()


@given(st.permutations(range(12)), st.permutations(range(12)))
@settings(max_examples=50, deadline=None)
def test_the_export_forgets_the_past(first: list[int], gone: list[int]) -> None:
    """Books with different rows, free lists and empty levels, but the same orders, export alike."""
    plain, worn = Book(), Book()
    for n in first:
        worn.place(100 + n, 0, n % 2, 50 + 40 * (n % 2) + n, 5)
    for n in gone:
        worn.cancel(100 + n)
    for n in range(12):
        for book in (plain, worn):
            book.place(n, n, n % 2, 50 + 40 * (n % 2) + n // 4, 5)
    assert plain.export() == worn.export()


def test_equal_prices_trade_in_order_of_arrival() -> None:
    book = Book()
    for order_id in (3, 1, 2):
        book.place(order_id, 10 + order_id, SELL, 100, 5)
    assert book.match(BUY, 100, 12) == [
        Fill(3, 13, 100, 5),
        Fill(1, 11, 100, 5),
        Fill(2, 12, 100, 2),
    ]
    assert book.front(SELL) == Resting(2, 12, SELL, 100, 3)


def test_a_better_price_trades_first_and_the_maker_sets_the_price() -> None:
    book = Book()
    book.place(1, 0, BUY, 99, 5)
    book.place(2, 0, BUY, 101, 5)
    book.place(3, 0, BUY, 100, 5)
    assert book.match(SELL, 100, 100) == [Fill(2, 0, 101, 5), Fill(3, 0, 100, 5)]
    assert book.depth(BUY, 5) == [(99, 5)]


def test_a_size_decrease_keeps_priority() -> None:
    book = Book()
    book.place(1, 0, BUY, 100, 5)
    book.place(2, 0, BUY, 100, 5)
    assert book.reduce(1, 4) == 1
    assert book.match(SELL, 100, 2) == [Fill(1, 0, 100, 1), Fill(2, 0, 100, 1)]
    assert book.reduce(2, 4) == 0
    assert 2 not in book
    assert book.reduce(2, 1) is None
    assert book.best(BUY) is None


def test_an_order_that_does_not_rest_is_none() -> None:
    book = Book()
    assert book.cancel(1) is None
    assert book.order(1) is None
    assert book.front(BUY) is None
    assert book.best(SELL) is None


@pytest.mark.parametrize("limit", [99, 100, 101, None])
@pytest.mark.parametrize("qty", [1, 5, 6, 11, 12])
def test_fillable_and_crosses_foretell_the_match(limit: int | None, qty: int) -> None:
    for side in (BUY, SELL):
        book = Book()
        book.place(1, 0, 1 - side, 100, 5)
        book.place(2, 0, 1 - side, 100 + (1 if side == BUY else -1), 6)
        foretold = book.fillable(side, limit, qty)
        if limit is not None:
            assert book.crosses(side, limit) == (foretold > 0)
        assert sum(fill.qty for fill in book.match(side, limit, qty)) == foretold


def test_prices_at_the_bounds_and_below_zero_work() -> None:
    book = Book()
    book.place(1, 0, BUY, -PRICE_MAX, 1)
    book.place(2, 0, SELL, PRICE_MAX, 1)
    assert not book.crosses(BUY, PRICE_MAX - 1)
    assert not book.crosses(SELL, -PRICE_MAX + 1)
    assert book.match(SELL, None, 1) == [Fill(1, 0, -PRICE_MAX, 1)]
    assert book.match(BUY, None, 1) == [Fill(2, 0, PRICE_MAX, 1)]
    assert book.match(BUY, None, 1) == []


def test_a_call_auction_may_cross_the_book() -> None:
    book = Book()
    book.place(1, 0, BUY, 101, 1)
    book.place(2, 0, SELL, 99, 1)
    assert (book.best(BUY), book.best(SELL)) == (101, 99)
    assert Book.restore(book.export()).export() == book.export()


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([Resting(1, 0, BUY, 100, 0)], "bad order"),
        ([Resting(1, 0, 2, 100, 1)], "bad order"),
        ([Resting(1, 0, BUY, PRICE_MAX + 1, 1)], "bad order"),
        ([Resting(1, 0, BUY, 100, 1), Resting(1, 0, BUY, 99, 1)], "bad order"),
        ([Resting(1, 0, BUY, 100, 1), Resting(2, 0, BUY, 101, 1)], "priority"),
        ([Resting(1, 0, SELL, 100, 1), Resting(2, 0, BUY, 99, 1)], "priority"),
    ],
)
def test_restore_refuses_what_no_book_exports(rows: list[Resting], why: str) -> None:
    with pytest.raises(BookError, match=why):
        Book.restore(rows)


@pytest.mark.parametrize("bad", [(0, 1, 0, 90, 5), (2, 1, 0, 0, 5), (0, 9, 0, 90, 0)])
def test_a_bad_row_stops_the_replay_after_the_rows_before_it(bad: Row) -> None:
    book = Book()
    with pytest.raises(BadRow):
        book.replay([(0, 1, 0, 100, 5), bad, (0, 3, 0, 100, 5)], lambda _: None)
    assert [order.order_id for order in book.export()] == [1]
    check_structure(book)


@pytest.mark.parametrize("bad", [(1, 0, 0, 90, 5), (2, 0, 0, 90, 0), (3, 0, 0, PRICE_MAX + 1, 1)])
def test_a_broken_precondition_is_an_assertion(bad: tuple[int, int, int, int, int]) -> None:
    book = Book()
    book.place(1, 0, BUY, 100, 5)
    with pytest.raises(AssertionError):
        book.place(*bad)
    with pytest.raises(AssertionError):
        book.fill_front(BUY, 6)


def test_memory_follows_what_rests_not_what_passed() -> None:
    """A hundred thousand orders and prices pass through; at most four rest at once."""
    book = Book()
    for n in range(100_000):
        book.place(n, 0, n % 2, n * 7 % 99_991 - (10**6 if n % 2 == 0 else 0), 1)
        if n >= 4:
            book.cancel(n - 4)
    assert len(book) == 4
    assert len(book._id) <= 512
    assert sum(len(keys) for keys in book._keys) <= 2 * 80
    check_structure(book)


def test_many_empty_levels_cost_their_makers_only() -> None:
    """Emptied levels behind the best are dropped by the time they outnumber orders."""
    book, naive = Book(), NaiveBook()
    book.place(0, 0, BUY, 10**6, 1)
    naive.place(0, 0, BUY, 10**6, 1)
    for n in range(1, 400):
        book.place(n, 0, BUY, n, 1)
        assert book.cancel(n) == 1
        check(book, naive)
    assert len(book._keys[BUY]) <= 70
