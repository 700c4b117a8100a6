"""What a person or a log collector sees while a job runs: bars or lines on stderr, the result on stdout."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

LogFormat = Literal["text", "json"]
#: Tells how many of how many are done.
Show = Callable[[int, int], None]

_LINE_EVERY_S = 30.0
_LEAST_S = 0.5


class ProgressRate:
    """How fast a thing goes, counted from the first report: what was done before (a resumed load) is no speed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._first: int | None = None

    def of(self, done: int, total: int) -> tuple[float, int] | None:
        """So many a second, and the seconds that are left at that rate; None while there is nothing to tell by."""
        if self._first is None:
            self._first = done
        elapsed, gained = self._clock() - self._began, done - self._first
        if elapsed < _LEAST_S or gained <= 0:
            return None
        rate = gained / elapsed
        return rate, round(max(0, total - done) / rate)


class Console:
    """Step lines and, on a terminal, bars go to stderr; results to stdout. ``quiet`` leaves the results.

    All bars share one live display, so a step may show its rows while Spark's tasks have a bar of their own.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        log_format: LogFormat = "text",
        err: RichConsole | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run_id: str | None = None
        self._quiet = quiet
        self._json = log_format == "json"
        self._out = RichConsole(file=sys.stdout, highlight=False, soft_wrap=True)
        self._err = err or RichConsole(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
        self._clock = clock
        self._lock = threading.RLock()
        self._bars: Progress | None = None

    @property
    def draws(self) -> bool:
        """Whether somebody looks on, so that bars are drawn."""
        return self._err.is_terminal and not self._quiet and not self._json

    def step(self, name: str, state: str, **facts: Any) -> None:
        """One line: time, run, step, state, facts."""
        if self._quiet:
            return
        if self._json:
            self._json_line(step=name, state=state, facts=facts)
            return
        # A person at a terminal knows the day and the run.
        now, run = datetime.now(UTC), f"{self.run_id} " if self.run_id else ""
        stamp = f"{now:%H:%M:%S} " if self._err.is_terminal else f"{now:%Y-%m-%dT%H:%M:%SZ} {run}"
        shown = " ".join(f"{k}={_short(v)}" for k, v in facts.items())
        self._say(f"{stamp}{name}: {state} {shown}".rstrip())

    def begins(self, run_id: str) -> None:
        """All lines are this run's from now on. A person at a terminal is told once: the lines there leave it out."""
        self.run_id = run_id
        if self._err.is_terminal and not self._json:
            self.note(f"run {run_id}; if it is killed, the same command with --run-id {run_id} resumes it")

    @contextmanager
    def meter(self, step: str, unit: str, words: str = "") -> Iterator[Show]:
        """A function to tell how many of how many ``unit`` are done: a bar on a terminal, a line now and then else.

        ``words`` name the bar, where the step's own name says too little.
        """
        if self.draws:
            with self._bar(words or step, unit) as show:
                yield show
        else:
            yield self._lines(step, unit)

    def _lines(self, step: str, unit: str) -> Show:
        rate, told = ProgressRate(self._clock), self._clock()

        def show(done: int, total: int) -> None:
            nonlocal told
            now, speed = self._clock(), rate.of(done, total)
            if now - told >= _LINE_EVERY_S and done < total:
                told = now
                known = {"per_s": round(speed[0], 2), "eta_s": speed[1]} if speed else {}
                self.step(step, "running", **{unit: done}, of=total, **known)

        return show

    @contextmanager
    def _bar(self, what: str, unit: str) -> Iterator[Show]:
        with self._lock:
            if self._bars is None:
                columns = ("{task.description}", "{task.fields[count]}", "{task.fields[rate]}")
                what_column, *others = (TextColumn(column, markup=False) for column in columns)
                self._bars = Progress(
                    what_column, BarColumn(), *others, console=self._err, transient=True, auto_refresh=False
                )
                self._bars.start()
            bars = self._bars
            task = bars.add_task(what, total=None, count="", rate="")
        rate = ProgressRate(self._clock)

        def show(done: int, total: int) -> None:
            count = f"{done:,} of {total:,} {unit}"
            rate_text = _in_words(rate.of(done, total), unit)
            bars.update(task, completed=done, total=total or None, count=count, rate=rate_text, refresh=True)

        try:
            yield show
        finally:
            with self._lock:
                bars.remove_task(task)
                if not bars.tasks:
                    bars.stop()
                    self._bars = None

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """A small table on stdout. The first column names the rows and is never cut."""
        table = Table(title=title, title_justify="left")
        for number, column in enumerate(columns):
            table.add_column(column, no_wrap=number == 0, overflow="fold")
        for row in rows:
            table.add_row(*row)
        self._out.print(table)

    def note(self, text: str) -> None:
        """One more line for a person, on stderr."""
        if self._quiet:
            return
        if self._json:
            self._json_line(state="note", message=text)
        else:
            self._say(text)

    def failed(self, name: str, message: str) -> None:
        """Why the job ends, on stderr; also where it is otherwise quiet."""
        if self._json:
            self._json_line(step=name, state="failed", message=message)
        else:
            self._say(f"{name}: failed: {message}")

    def line(self, text: str) -> None:
        """One line on stdout, as it is."""
        print(text, flush=True)  # noqa: T201

    def json(self, data: dict[str, Any]) -> None:
        """The result as one JSON object on the last line of stdout."""
        print(json.dumps(data, default=str), flush=True)  # noqa: T201

    def _json_line(self, **facts: Any) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._say(json.dumps({"time": stamp, "run_id": self.run_id, **facts}, default=str))

    def _say(self, text: str) -> None:
        self._err.print(text, soft_wrap=True)


def _in_words(speed: tuple[float, int] | None, unit: str) -> str:
    return f"{speed[0]:,.1f} {unit}/s, {timedelta(seconds=speed[1])} left" if speed else ""


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "; ".join(map(_short, value))
    return f"{value:.1f}" if isinstance(value, float) else str(value)
