from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from udfs.prefetch import ByteBudget, ByteRoom, map_ahead

pytestmark = pytest.mark.unit


def test_order_is_kept_whatever_finishes_first() -> None:
    first_may_end = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert first_may_end.wait(20)
        elif item == 3:
            first_may_end.set()
        return item * 10

    budget = ByteBudget(1000)
    out = map_ahead(work, range(20), threads=3, ahead=6, budget=budget, size_of=lambda _: 0)
    assert list(out) == [i * 10 for i in range(20)]


def test_not_more_ahead_than_asked() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for item in range(50):
            taken.append(item)
            yield item

    out = map_ahead(lambda i: i, source(), threads=2, ahead=4, budget=ByteBudget(1000), size_of=lambda _: 0)
    assert next(out) == 0
    assert len(taken) <= 4
    out.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def test_bytes_hold_work_back_but_never_the_next_item() -> None:
    budget = ByteBudget(100)
    held = 0
    most = 0
    lock = threading.Lock()

    def work(item: int) -> int:
        nonlocal held, most
        with lock:
            held += 100
            most = max(most, held)
        return item

    # The consumer gives nothing back before it has three items: it would wait for ever if the budget were strict.
    seen = []
    for item in map_ahead(work, range(12), threads=2, ahead=8, budget=budget, size_of=lambda _: 100):
        seen.append(item)
        if len(seen) % 3 == 0:
            with lock:
                held -= 300
            budget.add(-300)
    assert seen == list(range(12))
    assert most <= 300 + 2 * 100


def test_closing_early_frees_threads_that_wait_for_room() -> None:
    out = map_ahead(lambda i: i, range(10), threads=2, ahead=8, budget=ByteBudget(1), size_of=lambda _: 10)
    assert next(out) == 0
    out.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def test_errors_of_the_source_reach_the_consumer() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(map_ahead(lambda i: i, source(), threads=1, ahead=2, budget=ByteBudget(1), size_of=lambda _: 0))


def test_decoders_together_take_no_more_than_the_room() -> None:
    room, lock = ByteRoom(100), threading.Lock()
    used, most = [0], [0]

    def decode(size: int) -> None:
        with room.taken(size):
            with lock:
                used[0] += min(size, 100)
                most[0] = max(most[0], used[0])
            time.sleep(0.002)
            with lock:
                used[0] -= min(size, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [30, 100, 5, 60, 250, 40] * 6))
    assert 60 <= most[0] <= 100


def test_room_is_given_back_after_an_error() -> None:
    room = ByteRoom(10)
    with pytest.raises(ZeroDivisionError), room.taken(10):
        raise ZeroDivisionError
    with room.taken(10):
        pass
