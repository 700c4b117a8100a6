"""How long a device was in use, where several threads use it at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class BusyClock:
    """Counts the seconds in which at least one piece of work was under way, each second for one of them only."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._under_way = 0
        self._since = 0.0
        self._unclaimed = 0.0

    def timed(self, work: Callable[[], T]) -> tuple[T, float]:
        """Do ``work``; returns its result and the busy seconds that no other work has been given yet.

        Over all work they come to the time in which any was under way. Work that raises leaves its seconds to others.
        """
        self._count(1)
        try:
            result = work()
        finally:
            self._count(-1)
        with self._lock:
            seconds, self._unclaimed = self._unclaimed, 0.0
        return result, seconds

    def _count(self, change: int) -> None:
        with self._lock:
            now = self._now()
            if self._under_way:
                self._unclaimed += now - self._since
            self._since = now
            self._under_way += change
