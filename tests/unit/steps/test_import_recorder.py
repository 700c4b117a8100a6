"""What a run's record keeps of imports: also how often they failed, for a restarted run asks with another key."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jobs.errors import LeaseLost
from jobs.index.import_records import DONE, FAILED
from jobs.runs.record import Run
from jobs.runs.results import FileImported
from jobs.runs.step_result import StepResult
from jobs.steps.import_recorder import RunImportRecorder

pytestmark = pytest.mark.unit


class Record:
    """The part of a run that keeps steps, as JSON."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.commits = 0
        self.lease = SimpleNamespace()
        self.job = SimpleNamespace(console=SimpleNamespace(step=lambda *_, **__: None))

    def parts(self, kind: type[StepResult]) -> dict[str, Any]:
        return {part: kind.of_record(json.loads(text)) for part, text in self.kept.items()}

    def record_parts(self, results: Mapping[str, StepResult]) -> None:
        self.commits += 1
        self.kept.update({part: json.dumps(result.record()) for part, result in results.items()})


def recorder(record: Record) -> RunImportRecorder:
    return RunImportRecorder(cast(Run, record), "faces_r1")


def test_failures_are_counted_and_outlive_the_process() -> None:
    record = Record()
    first = recorder(record)
    first.started([0, 1], "7")
    assert first.attempt([0, 1]) == 0
    first.finished([0], FAILED)
    first.started([0], "8")
    again = recorder(record)
    again.finished([0], FAILED)
    assert (again.attempt([0]), again.attempt([1]), again.attempt([0, 1]), again.attempt([2])) == (2, 0, 2, 0)
    again.started([0], "9")
    again.finished([0], DONE)
    assert again.known()[0] == ("9", DONE)
    assert again.attempt([0]) == 2


def test_a_record_of_an_earlier_release_has_failed_not_yet() -> None:
    record = Record()
    record.kept["0"] = '{"job_id": "1", "state": "failed"}'
    assert recorder(record).attempt([0]) == 0
    assert FileImported(job_id="1", state=DONE).record() == {"job_id": "1", "state": DONE, "collection": None}


def test_a_window_of_files_is_one_commit_and_times_are_those_of_the_jobs() -> None:
    record = Record()
    first = recorder(record)
    first.starting(range(17))
    assert (record.commits, len(record.kept)) == (1, 17)
    for number in range(17):
        first.started([number], f"job-{number}")
    first.finished([3], DONE)
    assert (record.commits, recorder(record).known()[3]) == (1, ("", "started"))
    first.starting([17])
    assert (record.commits, recorder(record).known()[3]) == (2, ("job-3", DONE))
    there = json.loads(record.kept["3"])
    assert there["began"] <= there["ended"] <= time.time()
    assert "ended" not in json.loads(record.kept["4"])


def test_who_has_lost_the_lease_is_told() -> None:
    def check(max_age_s: float) -> None:
        raise LeaseLost("another run took over")

    record = Record()
    record.lease = SimpleNamespace(check=check)
    with pytest.raises(LeaseLost):
        recorder(record).check()
