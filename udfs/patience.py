"""How long to go on asking an object store that is busy, or silent."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

_WORTH_A_LINE_S = 30.0


class Patience:
    """What a process knows of its object store: since when nobody has had an answer from it.

    A store that slows its clients down (503 SlowDown) or is out of reach for some minutes costs a night these minutes,
    and not the pictures that were asked for meanwhile. One that stays away costs them once: after that nobody waits,
    until somebody has had an answer. And an object that cannot be read while others can is waited for by nobody.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._answered = -float("inf")
        self._silent_since: float | None = None

    def answered(self) -> None:
        """The store has answered, be it that there is no such object."""
        with self._lock:
            now = self._now()
            silent, self._silent_since, self._answered = self._silent_since, None, now
        if silent is not None and now - silent >= _WORTH_A_LINE_S:
            log.warning("an object store answers again, after %.0f s", now - silent)

    def is_over(self, began: float, patience_s: float, *, busy: bool) -> bool:
        """Whether to give up an object, asked for since ``began``, that has failed now.

        ``busy``: the store has said that it has too much to do; else it has not said anything of use.
        """
        with self._lock:
            now = self._now()
            if self._silent_since is None:
                self._silent_since = now
            if self._answered >= began and not busy:
                return True
            return now - min(began, self._silent_since) >= patience_s
