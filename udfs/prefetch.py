"""Work done ahead on threads, in order, within a number of items and of bytes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class ByteBudget:
    """How many bytes finished work may hold before more is begun.

    A size is known only once an image is decoded, so the budget may be exceeded by one image for each thread. The
    item that is awaited next is never held back: whoever waits for it may be holding the rest.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes_held = 0
        self._next = 0
        self._closed = False
        self._changed = threading.Condition()

    def wait_for_room(self, index: int) -> None:
        """Block until item ``index`` may begin."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes_held < self._limit or index <= self._next or self._closed)

    def add(self, size: int) -> None:
        """Count ``size`` bytes as held, or as given back where negative."""
        with self._changed:
            self._bytes_held += size
            self._changed.notify_all()

    def awaiting(self, index: int) -> None:
        """Item ``index`` is wanted now."""
        with self._changed:
            self._next = index
            self._changed.notify_all()

    def close(self) -> None:
        """Hold nobody back any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class ByteRoom:
    """Bytes that decoders may use at once, whatever thread they run on.

    Whoever holds some never waits for more, so nobody waits for ever.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Wait for ``size`` bytes (more than there are at all: for all of them), and give them back at the end."""
        size = min(size, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._used + size <= self._limit)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()


def map_ahead(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    threads: int,
    ahead: int,
    budget: ByteBudget,
    size_of: Callable[[R], int],
) -> Generator[R, None, None]:
    """Like ``map(work, items)``, with up to ``ahead`` items in work or waiting; results in order.

    The consumer gives a result's bytes back with ``budget.add(-size_of(result))``. ``items`` is read on the
    consumer's thread. Closing the iterator early leaves no thread behind.
    """

    def begin(index: int, item: T) -> R:
        budget.wait_for_room(index)
        result = work(item)
        budget.add(size_of(result))
        return result

    source = enumerate(items)
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        done = 0
        while True:
            while len(waiting) < ahead and (entry := next(source, None)) is not None:
                waiting.append(pool.submit(begin, *entry))
            if not waiting:
                return
            budget.awaiting(done)
            yield waiting.popleft().result()
            done += 1
    finally:
        budget.close()
        pool.shutdown(wait=True, cancel_futures=True)
