"""Every key of a collection, by a route that does not rest on the order in which a server answers.

pymilvus' own iterator was seen to return 2 rows where 500 were asked for, and milvus-lite does not sort by key, so
"the next page begins after the last key" can lose rows. Here a range of keys is *counted* first; a range with more
rows than a page is cut; one that fits is read whole, with no limit that could truncate it. A server that counts right
and answers an unlimited query fully can therefore not lose a key, in whatever order it answers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

from jobs.errors import NotProvenError
from jobs.index.protocol import MAX_KEY, MIN_KEY, Keys

MAX_CUTS = 1024


def iterate_keys(
    count: Callable[[int, int], int],
    read: Callable[[int, int], Keys],
    *,
    page: int,
    low: int = MIN_KEY,
    high: int = MAX_KEY,
) -> Iterator[Keys]:
    """Distinct keys in [low, high], ascending, about half a page to a page at a time.

    Args:
        count: exact rows in a closed range of keys, duplicates counted each.
        read: all distinct keys in a closed range, in any order.
        page: most rows that ``read`` is asked for (duplicates of a single key aside).
    """
    if page < 1:
        raise ValueError("page must be positive")
    ranges = [(low, high)]
    while ranges:
        first, last = ranges.pop()
        rows = count(first, last)
        if rows == 0:
            continue
        if rows > page and first < last:
            ranges.extend(reversed(_cut(first, last, math.ceil(2 * rows / page))))
            continue
        keys = np.unique(read(first, last))
        if keys.size == 0 or keys.size > rows or keys[0] < first or keys[-1] > last:
            raise NotProvenError(
                f"The index counts {rows} rows in a range of keys but returned {keys.size} keys for it.",
                hint="flush and load the collection, then verify again; if it stays, rebuild it.",
            )
        yield keys


def _cut(first: int, last: int, parts: int) -> list[tuple[int, int]]:
    """Closed ranges of nearly equal width that cover [first, last] exactly."""
    width = last - first + 1
    parts = max(2, min(parts, MAX_CUTS, width))
    edges = [first + width * i // parts for i in range(parts)] + [last + 1]
    return [(low, high - 1) for low, high in itertools.pairwise(edges)]
