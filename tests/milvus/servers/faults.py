"""What a double is told to do wrong."""

from __future__ import annotations

from collections import defaultdict, deque

CODES = {"not ready": 1, "unavailable": 2, "rate limited": 8}
"""Words that make a call answer a code that says "not now"."""
LOST, CUT, LATE = "lost", "cut", "late"
"""Words for a call over HTTP: it is done and its answer is lost; the connection is cut before; done, and HTTP 408."""


class Faults:
    """Words for what comes next, by what they are for: ``create``, ``describe``, a method of gRPC; ``job``,
    ``compaction``. Each is taken once."""

    def __init__(self) -> None:
        self._next: dict[str, deque[str]] = defaultdict(deque)

    def add(self, what: str, *words: str) -> None:
        """The next calls (jobs, plans) of this name, one a word."""
        self._next[what].extend(words)

    def take(self, what: str) -> str:
        """The word for this one; empty: nothing is wrong."""
        return self._next[what].popleft() if self._next[what] else ""
