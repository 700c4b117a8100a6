"""What a double is told to do wrong."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable

CODES = {"not ready": 1, "unavailable": 2, "rate limited": 8, "broken": 65535}
"""Words that make a call answer a code: three that say "not now", and that of everything unexpected."""
LOST, CUT, LATE, TWICE, IGNORED = "lost", "cut", "late", "twice", "ignored"
"""Words for a call: it is done and its answer is lost; the connection is cut before; done, and HTTP 408 (REST alone);
done twice, as where something in between repeats a request; answered as done, and not done (gRPC alone)."""
FAIL, STALL, SHORT = "fail", "stall", "short"
"""Words for a job: it fails once its files were read; it stands still at half of them; it tells of a row less."""
FAIL_SHOWN, FAIL_HALF, STALL_SHOWN = "fail shown", "fail half shown", "stall shown"
"""Words for a task of 2.3, which shows its rows before it is told as over (`rows-before-completed`): it fails with all
of them or half of them seen, or is told as under way for ever."""

Word = str | Callable[[], str | None]
"""A word, or something that happens first, which may return one."""


class Faults:
    """Words for what comes next, by what they are for: ``create``, ``describe``, a method of gRPC; ``job``,
    ``compaction``; or a file's path: the job that it is in. Each is taken once.

    ``always``: what happens at each call of a name.
    """

    def __init__(self) -> None:
        self._next: dict[str, deque[Word]] = defaultdict(deque)
        self.always: dict[str, Callable[[], object]] = {}

    def add(self, what: str, *words: Word) -> None:
        """The next calls (jobs, plans) of this name, one a word."""
        self._next[what].extend(words)

    def take(self, what: str) -> str:
        """The word for this one; empty: nothing is wrong."""
        if what in self.always:
            self.always[what]()
        word = self._next[what].popleft() if self._next[what] else ""
        return word if isinstance(word, str) else word() or ""

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._next.clear()
        self.always.clear()
