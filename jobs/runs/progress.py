"""What a person or a log collector sees while a job runs: one line a step on stderr, the result on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track
from rich.table import Table

_T = TypeVar("_T")
_LINE_EVERY_S = 30.0


class Console:
    """Step lines and, on a terminal, a progress bar go to stderr; results to stdout. ``quiet`` leaves the results."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._out = RichConsole(file=sys.stdout, highlight=False, soft_wrap=True)
        self._err = RichConsole(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def step(self, name: str, state: str, **facts: Any) -> None:
        """One line: time, step, state, key=value facts."""
        if self._quiet:
            return
        shown = " ".join(f"{k}={_short(v)}" for k, v in facts.items())
        self._err.print(f"{datetime.now(UTC):%H:%M:%S} {name}: {state} {shown}".rstrip())

    def track(self, items: Sequence[_T], what: str) -> Iterator[_T]:
        """Go through ``items``; on a terminal with a bar that tells how many are done and for how long yet."""
        bare = self._quiet or not self._err.is_terminal
        yield from track(items, what, console=self._err, disable=bare, transient=True)

    @contextmanager
    def meter(self, what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
        """A function to tell how many of how many ``unit`` are done: a bar on a terminal, a line now and then else."""
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
        bare = self._quiet or not self._err.is_terminal
        began = told = time.monotonic()

        def line(done: int, total: int) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= _LINE_EVERY_S and done < total:
                told = now
                left = {"eta_s": round((now - began) * (total - done) / done)} if done else {}
                self.step(what, "running", **{unit: done}, of=total, **left)

        if bare:
            yield line
            return
        with Progress(*columns, console=self._err, transient=True) as progress:
            task = progress.add_task(what, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """A small table on stdout."""
        table = Table(title=title, title_justify="left")
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(*row)
        self._out.print(table)

    def note(self, text: str) -> None:
        """One more line for a person, on stderr."""
        if not self._quiet:
            self._err.print(text)

    def line(self, text: str) -> None:
        """One line on stdout, as it is."""
        print(text, flush=True)  # noqa: T201

    def json(self, data: dict[str, Any]) -> None:
        """The result as one JSON object on the last line of stdout."""
        print(json.dumps(data, default=str), flush=True)  # noqa: T201


def _short(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
