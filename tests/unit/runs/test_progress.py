"""What a person or a log collector sees: bars with rate and ETA on a terminal, lines or JSON elsewhere."""

from __future__ import annotations

import json
import re
from io import StringIO

import pytest
from rich.console import Console as RichConsole

from jobs.runs.console import Console, LogFormat, ProgressRate

pytestmark = pytest.mark.unit


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made(*, terminal: bool = False, quiet: bool = False, log_format: LogFormat = "text") -> tuple[Console, StringIO]:
    out = StringIO()
    err = RichConsole(
        file=out, force_terminal=terminal, width=140, highlight=False, soft_wrap=True, markup=False, emoji=False
    )
    console = Console(quiet=quiet, log_format=log_format, err=err, clock=Clock())
    return console, out


def passing(console: Console, seconds: float) -> None:
    clock = console._clock
    assert isinstance(clock, Clock)
    clock.now += seconds


def shown(out: StringIO) -> str:
    """What was drawn, without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())


def test_a_line_tells_time_run_step_state_and_facts() -> None:
    console, out = made()
    console.run_id = "night-1"
    console.step("stage", "done", seconds=1.234, rows=12, running=["a", "b"])
    assert re.fullmatch(
        r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ night-1 stage: done seconds=1\.2 rows=12 running=a; b\n", out.getvalue()
    )


def test_json_lines_parse_and_hold_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    console, out = made(log_format="json", terminal=True)
    console.step("gate", "started")
    console.run_id = "night-1"
    console.step("stage", "done", seconds=1.234, text="with 'quotes' and\nlines")
    console.note("[red]as it is[/red] " + "long " * 100)
    console.failed("reindex", "no Java. Next step: install it.")
    with console.meter("import", "rows") as show:
        passing(console, 60)
        show(1, 2)
    first, step, note, failed, running = (json.loads(line) for line in out.getvalue().splitlines())
    assert first["run_id"] is None
    assert {**step, "time": ""} == {
        "time": "", "run_id": "night-1", "step": "stage", "state": "done",
        "facts": {"seconds": 1.234, "text": "with 'quotes' and\nlines"},
    }  # fmt: skip
    assert note["message"].startswith("[red]as it is[/red]")
    assert (failed["step"], failed["state"], failed["message"]) == (
        "reindex",
        "failed",
        "no Java. Next step: install it.",
    )
    assert running["state"] == "running"
    assert all(re.fullmatch(r"[\d-]+T[\d:.]+Z", line["time"]) for line in (first, step, note, failed, running))
    assert capsys.readouterr().out == ""


def test_quiet_leaves_only_why_a_job_failed() -> None:
    console, out = made(quiet=True, terminal=True)
    console.step("stage", "done")
    console.note("a note")
    with console.meter("import", "rows") as show:
        show(1, 2)
    assert out.getvalue() == ""
    console.failed("load", "no disk.")
    assert shown(out) == "load: failed: no disk.\n"


def test_a_terminal_shows_a_bar_with_rate_and_time_left() -> None:
    console, out = made(terminal=True)
    with console.meter("import", "rows", words="import the [staged] files") as show:
        show(0, 10_000)
        passing(console, 10)
        show(2_500, 10_000)
        console.step("other", "done")
    text = shown(out)
    assert "import the [staged] files" in text
    assert "2,500 of 10,000 rows 250.0 rows/s, 0:00:30 left" in text
    assert re.search(r"\r\d\d:\d\d:\d\d other: done\s", text)


def test_bars_within_bars_share_the_terminal() -> None:
    console, out = made(terminal=True)
    with console.meter("embed", "images") as images:
        images(1, 2)
        with console.meter("chunk", "tasks") as tasks:
            tasks(3, 4)
            both = shown(out).split("\n")
        images(2, 2)
    assert any("1 of 2 images" in line for line in both)
    assert any("3 of 4 tasks" in line for line in both)
    assert "2 of 2 images" in shown(out)
    # And the display is free again.
    with console.meter("later", "rows") as show:
        show(5, 6)
    assert "5 of 6 rows" in shown(out)


def test_elsewhere_a_line_comes_now_and_then() -> None:
    console, out = made()
    with console.meter("import", "rows") as show:
        show(0, 100)
        for done in (10, 20, 30, 40, 100):
            passing(console, 16)
            show(done, 100)
    lines = out.getvalue().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "import: running rows=20 of=100 per_s=0.6 eta_s=128",
        "import: running rows=40 of=100 per_s=0.6 eta_s=96",
    ]


def test_what_was_done_before_is_no_speed() -> None:
    clock = Clock()
    rate = ProgressRate(clock)
    assert rate.of(900, 1_000) is None
    clock.now += 10
    assert rate.of(900, 1_000) is None
    assert rate.of(950, 1_000) == (5.0, 10)
