"""Each fault put into the book on purpose is caught by the checks of `book_model`."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

import matcher.book
from tests.matcher.book_model import check_structure, drive, random_rows
from tests.matcher.naive_book import NaiveBook
from tests.matcher.naive_book import replay as naive_replay

SOURCE = Path(matcher.book.__file__).read_text()

MUTATIONS = {
    "newest first at a level": (
        "        row = self._next[level]\n        fill = Fill(",
        "        row = self._prev[level]\n        fill = Fill(",
    ),
    "a new order goes to the front": (
        """        last = self._prev[level]
        self._next[last] = row
        self._prev[row] = last
        self._next[row] = level
        self._prev[level] = row
""",
        """        first = self._next[level]
        self._prev[first] = row
        self._next[row] = first
        self._prev[row] = level
        self._next[level] = row
""",
    ),
    "best price stays after a cancel": (
        "if before == after and self._key[before] == self._best[self._side[before]]:",
        "if False:",
    ),
    "best price stays after a replayed cancel": (
        "if left == right and self._key[left] == best[self._side[left]]:",
        "if False:",
    ),
    "the best price falls past resting orders": (
        "            if self._next[level] != level:\n                break\n            self._free",
        "            if level != levels[keys[-1]]:\n                break\n            self._free",
    ),
    "a freed row stays linked": (
        "        self._next[before] = after\n        self._prev[after] = before\n",
        "",
    ),
    "a replayed cancel leaves its row linked": (
        "                after[left] = right\n                before[right] = left\n",
        "",
    ),
    "a row is freed twice": (
        "        self._free.append(row)\n        if before == after",
        "        self._free.extend((row, row))\n        if before == after",
    ),
    "a level's sum keeps what was cancelled": (
        "        self._qty[self._level[row]] -= qty\n        self._unlink(row)",
        "        self._unlink(row)",
    ),
    "a level's sum keeps what was swept": (
        "            qtys[level] -= wanted - qty\n",
        "",
    ),
    "a better price behind the best": (
        "        if key > self._best[side]:\n            keys.append(key)",
        "        if key > self._best[side] and not keys:\n            keys.append(key)",
    ),
    "an empty level is dropped but still found": (
        "            if self._next[level] == level:\n                self._free.append(level)\n"
        "                del levels[key]",
        "            if self._next[level] == level:\n                self._free.append(level)",
    ),
    "a partial fill loses its place": (
        "        if left:\n            self._qty[row] = left\n",
        "        if left:\n            order = self._resting(row)\n"
        "            self._qty[row] = left\n"
        "            self.cancel(order.order_id)\n"
        "            self.place(order.order_id, order.owner, order.side, order.price, left)\n",
    ),
    "the taker's price, not the maker's": (
        "            price = self._price(level)\n            row = after[level]",
        "            price = -taker_key if side == BUY else taker_key\n"
        "            row = after[level]",
    ),
    "one lot too many": (
        "                if resting > qty:",
        "                if resting >= qty:",
    ),
    "a trade at the limit is missed": (
        "        while taker_key + best[side] >= 0:",
        "        while taker_key + best[side] > 0:",
    ),
    "what is left of a market order rests": (
        "            if op == OP_MARKET:\n                continue\n",
        "",
    ),
}


def mutant(wrong: tuple[str, str]) -> ModuleType:
    before, after = wrong
    assert SOURCE.count(before) == 1, "the mutation no longer fits the source"
    module = ModuleType("mutant_book")
    sys.modules["mutant_book"] = module
    exec(compile(SOURCE.replace(before, after), "mutant_book", "exec"), module.__dict__)
    return module


def hunt(module: ModuleType) -> None:
    """Raise AssertionError when a book of `module` differs from the naive book."""
    for seed in range(4):
        rows = random_rows(Random(seed), 300)
        drive(module.Book(), NaiveBook(), rows, Random(seed))
        trades: list[tuple[int, int, int, int]] = []
        book = module.Book()
        for row in rows:
            book.replay([row], trades.append)
            check_structure(book)
        assert trades == naive_replay(rows), f"seed {seed}"
    empty_levels = module.Book()
    for n in range(400):
        empty_levels.place(n, 0, 0, 10**6 if n == 0 else n % 90, 1)
        if n:
            empty_levels.cancel(n)
        check_structure(empty_levels)


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_the_fault_is_caught(name: str) -> None:
    module = mutant(MUTATIONS[name])
    with pytest.raises((AssertionError, matcher.book.BadRow, LookupError, module.BadRow)):
        hunt(module)


def test_the_book_without_a_fault_passes_the_same_hunt() -> None:
    hunt(mutant(("class BookError", "class BookError")))
