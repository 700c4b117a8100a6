"""Steps are watched while they run: bars or lines, names in Spark's UI, and partitions that do not get on."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console as RichConsole

from jobs.runs.console import Console, LogFormat
from jobs.runs.record import JobContext, open_run
from jobs.runs.results import IdCollisionsResolved, Maintained
from jobs.runs.step_watcher import StepWatcher
from jobs.schemas import IMAGES, RUNS
from jobs.steps.accumulators import Counters
from tests.spark.helpers import settings_for, warehouse_for
from tests.unit.runs.samples import read

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def watcher_for(
    spark: SparkSession, *, terminal: bool = False, log_format: LogFormat = "json", stall_after_s: float = 60
) -> tuple[StepWatcher, StringIO]:
    out = StringIO()
    err = RichConsole(file=out, force_terminal=terminal, width=160, highlight=False, markup=False, emoji=False)
    console = Console(err=err, log_format=log_format)
    console.run_id = "night-1"
    return StepWatcher(spark, console, stall_after_s=stall_after_s, look_s=0.1), out


def lines(out: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def descriptions(spark: SparkSession, after: int) -> set[str | None]:
    """Of all jobs that were begun after job number ``after``, what Spark's UI shows."""
    jobs = spark.sparkContext._jsc.sc().statusStore().jobsList(None)
    found = [jobs.apply(number) for number in range(jobs.size())]
    texts = [job.description() for job in found if job.jobId() > after]
    return {text.get() if text.isDefined() else None for text in texts}


def last_job(spark: SparkSession) -> int:
    jobs = spark.sparkContext._jsc.sc().statusStore().jobsList(None)
    return max((jobs.apply(number).jobId() for number in range(jobs.size())), default=-1)


def waiting(wait: Callable[[int], None]) -> Any:
    """A pass over partitions, each of which begins by waiting: ``wait`` is given its number."""

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None
        wait(context.partitionId())
        yield from batches

    return work


def sleeping(seconds: dict[int, float]) -> Any:
    """A pass over partitions in which some take their time."""
    return waiting(lambda partition: time.sleep(seconds.get(partition, 0.0)))


def hanging(hangs: int, until: Path) -> Any:
    """A pass over partitions of which one does not end before there is a file (or a minute is over)."""

    def wait(partition: int) -> None:
        end = time.monotonic() + 60
        while partition == hangs and not until.exists() and time.monotonic() < end:
            time.sleep(0.1)

    return waiting(wait)


def test_a_partition_that_hangs_is_named(spark: SparkSession, tmp_path: Path) -> None:
    told_of, watched = tmp_path / "told", threading.Event()
    watcher, out = watcher_for(spark, stall_after_s=1.5)

    def let_go() -> None:
        # However busy the machine is: the others have to be done when it is told.
        while '"3 of 4"' not in out.getvalue() and not watched.wait(0.1):
            pass
        told_of.touch()

    helper = threading.Thread(target=let_go)
    begin = time.monotonic()
    with watcher.watching("stage"):
        helper.start()
        spark.range(0, 8, 1, 4).mapInArrow(hanging(2, told_of), "id long").count()
    watched.set()
    helper.join()
    stalls = [line for line in lines(out) if line["state"] == "stalled"]
    # Told once for each time that it is too long, and not at every look.
    assert 1 <= len(stalls) <= (time.monotonic() - begin) / 1.5
    told = stalls[-1]
    assert (told["run_id"], told["step"], told["facts"]["tasks"]) == ("night-1", "stage", "3 of 4")
    assert len(told["facts"]["running"]) == 1
    assert re.fullmatch(r"partition 2 on \S+ \(executor driver, \d+ s\)", told["facts"]["running"][0])
    assert told["facts"]["seconds"] >= 1
    assert "executors' logs" in told["facts"]["next"]


def test_what_gets_on_is_not_called_stalled(spark: SparkSession) -> None:
    watcher, out = watcher_for(spark, stall_after_s=1.5)
    with watcher.watching("stage"):
        spark.range(0, 8, 1, 8).mapInArrow(sleeping(dict.fromkeys(range(8), 0.5)), "id long").count()
        time.sleep(2)  # the driver works alone: no task is there to finish
    assert lines(out) == []


def test_a_stage_that_no_executor_takes_is_named_as_such(spark: SparkSession) -> None:
    busy = spark.range(0, 2, 1, 2).mapInArrow(sleeping({0: 3.0, 1: 3.0}), "id long")
    other = threading.Thread(target=busy.count)
    other.start()
    time.sleep(0.5)
    watcher, out = watcher_for(spark, stall_after_s=1.0)
    with watcher.watching("stage"):
        spark.range(0, 2, 1, 1).count()
    other.join()
    facts = next(line["facts"] for line in lines(out))
    assert facts["running"] == []
    assert "no task of it runs" in facts["next"]


def test_a_terminal_shows_tasks_with_rate_and_time_left(spark: SparkSession) -> None:
    watcher, out = watcher_for(spark, terminal=True, log_format="text")
    with watcher.watching("stage"):
        spark.range(0, 8, 1, 8).mapInArrow(sleeping(dict.fromkeys(range(8), 0.4)), "id long").count()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert re.search(r"stage the permitted faces as Parquet \S+ +4 of 8 tasks +\d+\.\d tasks/s, 0:00:0\d left", text)


def test_jobs_are_described_in_words_in_threads_too(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    warehouse.read(IMAGES)
    warehouse.read(RUNS)
    watcher, _ = watcher_for(spark)
    begin = last_job(spark)
    with watcher.watching("embed/0-3", "embed chunk 1 of 2 (500,000 images)"):
        spark.range(3).count()
        warehouse.side_by_side(lambda spec: warehouse.read(spec).count(), [IMAGES, RUNS])
        with watcher.watching("gate", "ask the gate"):
            spark.range(4).count()
        spark.range(5).count()
    found = descriptions(spark, begin)
    # Delta puts what it does itself before it.
    assert {"night-1: embed chunk 1 of 2 (500,000 images)", "night-1: ask the gate"} <= found
    assert all(text and "night-1: " in text for text in found)
    assert spark.sparkContext.getLocalProperty("spark.jobGroup.id") is None


def test_the_thread_ends_with_the_last_step(spark: SparkSession) -> None:
    watcher, _ = watcher_for(spark)
    with watcher.watching("outer"), watcher.watching("inner"):
        assert [watch.step for watch in watcher.active] == ["outer", "inner"]
        assert any(thread.name == "watch" for thread in threading.enumerate())
    time.sleep(0.3)
    assert not any(thread.name == "watch" for thread in threading.enumerate())


def test_a_step_that_fails_is_not_hidden_by_its_watch(spark: SparkSession) -> None:
    watcher, _ = watcher_for(spark)
    with pytest.raises(ZeroDivisionError), watcher.watching("stage"):
        raise ZeroDivisionError
    assert watcher.active == []


def test_executors_count_what_they_do(spark: SparkSession) -> None:
    counters = Counters(spark.sparkContext)

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            counters.add(batch.num_rows, 1, 2, 100)
            yield batch

    spark.range(0, 10, 1, 5).mapInArrow(work, "id long").count()
    found = {name: value() for name, value in counters.totals().items()}
    assert found == {"images_processed": 10, "images_decoded": 5, "faces_embedded": 10, "image_read_bytes": 500}


def test_a_run_leaves_its_numbers_and_lines(spark: SparkSession, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, f"metrics.file={tmp_path}/{{job}}.prom")
    out = StringIO()
    console = Console(err=RichConsole(file=out, width=160), log_format="json")
    job = JobContext(settings, warehouse_for(spark, settings), console, "night-1", False)
    during = {}

    def work() -> Maintained:
        return Maintained(tables=spark.range(3).count())

    def night() -> None:
        with open_run(job, "reindex") as run:
            run.once(Maintained, work)
            during.update(read(tmp_path / "reindex.prom"))
            run.once(IdCollisionsResolved, lambda: IdCollisionsResolved(faces=1 // 0))

    with pytest.raises(ZeroDivisionError):
        night()
    after = read(tmp_path / "reindex.prom")
    assert (during["run_state", "running"], after["run_state", "failed"]) == (1, 1)
    assert during["step_duration_seconds", "maintain"] > 0
    told = [(line["run_id"], line["step"], line["state"]) for line in lines(out)]
    assert told == [
        ("night-1", "maintain", "started"), ("night-1", "maintain", "done"),
        ("night-1", "resolve-id-collisions", "started"), ("night-1", "resolve-id-collisions", "failed"),
    ]  # fmt: skip
