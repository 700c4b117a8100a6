"""Work that shares a device, and work that has it for itself."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from udfs.busy import BusyClock
from udfs.turns import Turns

pytestmark = pytest.mark.unit


def test_who_is_alone_has_nobody_beside_them_and_is_let_in() -> None:
    turns, inside, seen = Turns(), set[int](), list[int]()
    lock = threading.Lock()

    def share(number: int) -> None:
        with turns.shared():
            with lock:
                inside.add(number)
            with lock:
                inside.discard(number)

    def alone(_: int) -> None:
        with turns.alone():
            seen.append(len(inside))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: alone(n) if n % 5 == 0 else share(n), range(2000)))
    assert seen == [0] * 400


def test_who_waits_to_be_alone_goes_before_those_who_come_later() -> None:
    turns, order = Turns(), list[str]()
    begun, go = threading.Event(), threading.Event()

    def first() -> None:
        with turns.shared():
            begun.set()
            go.wait(30)

    def waits() -> None:
        with turns.alone():
            order.append("alone")

    def later() -> None:
        with turns.shared():
            order.append("later")

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(first)]
        begun.wait(30)
        futures.append(pool.submit(waits))
        while not turns._waiting:
            pass
        futures.append(pool.submit(later))
        go.set()
        for future in futures:
            future.result(30)
    assert order == ["alone", "later"]


def test_an_error_inside_lets_others_in() -> None:
    turns = Turns()
    for turn in (turns.shared, turns.alone):
        with pytest.raises(ZeroDivisionError), turn():
            raise ZeroDivisionError
    with turns.alone():
        pass


def test_busy_seconds_are_those_in_which_anything_was_under_way() -> None:
    now = [0.0]
    clock = BusyClock(lambda: now[0])

    def at(moment: float) -> None:
        now[0] = moment

    def outer() -> float:
        at(2)
        _, seconds = clock.timed(lambda: at(5))
        at(6)
        return seconds

    inner, rest = clock.timed(outer)
    assert (inner, rest) == (5, 1)
    at(100)
    with pytest.raises(ZeroDivisionError):
        clock.timed(lambda: 1 / 0)
    assert clock.timed(lambda: at(103)) == (None, 3)
