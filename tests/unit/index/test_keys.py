"""Iteration by counted ranges, whatever the keys and in whatever order a server answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import NotProvenError
from jobs.index.milvus.keys import iterate_keys
from jobs.index.protocol import MAX_KEY, MIN_KEY

pytestmark = pytest.mark.unit


class Table:
    """Rows with keys (some twice) that answers in no order, and remembers how much was read at once."""

    def __init__(self, keys: list[int]) -> None:
        self.keys = keys
        self.reads: list[int] = []

    def count(self, low: int, high: int) -> int:
        return sum(low <= key <= high for key in self.keys)

    def read(self, low: int, high: int) -> np.ndarray:
        found = {key for key in self.keys if low <= key <= high}
        self.reads.append(len(found))
        return np.array(sorted(found, key=hash), dtype=np.int64)


KEYS = st.integers(MIN_KEY, MAX_KEY) | st.integers(-20, 20)


@given(st.lists(KEYS, max_size=60), st.integers(1, 20))
def test_every_key_comes_once_and_in_order(keys: list[int], page: int) -> None:
    table = Table(keys)
    pages = list(iterate_keys(table.count, table.read, page=page))
    found = np.concatenate(pages).tolist() if pages else []
    assert found == sorted(set(keys))
    assert all(n <= page for n in table.reads)


def test_uniform_keys_take_about_two_questions_a_page() -> None:
    keys = np.random.default_rng(0).integers(MIN_KEY, MAX_KEY, 10_000).tolist()
    table = Table(keys)
    pages = list(iterate_keys(table.count, table.read, page=1_000))
    assert 15 <= len(pages) <= 21


@pytest.mark.parametrize("answer", [[], [5, 6, 7], [200]])
def test_a_server_that_contradicts_its_own_count_is_not_believed(answer: list[int]) -> None:
    with pytest.raises(NotProvenError, match="counts 2 rows"):
        list(iterate_keys(lambda *_: 2, lambda *_: np.array(answer, np.int64), page=10, low=0, high=100))


def test_a_page_holds_something() -> None:
    with pytest.raises(ValueError, match="positive"):
        list(iterate_keys(lambda *_: 0, lambda *_: np.empty(0, np.int64), page=0))
