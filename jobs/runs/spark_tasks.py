"""What Spark's own bookkeeping says of the tasks of a job: how many are done, and where the others run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection

    from pyspark import SparkContext, StatusTracker

_NAMED: Final = 5
_WAITS: Final = (
    "no task of it runs: see in the cluster manager whether executors with what it asks for (GPU, memory) are to be had"
)
_HANGS: Final = (
    "see these executors' logs, and their thread dumps in Spark's UI; a worker that hangs is ended with its executor, "
    "and its partition is tried again"
)


@dataclass(frozen=True)
class SparkStage:
    """One stage: its tasks, and how many of them are done or have failed."""

    number: int
    attempt: int
    tasks: int
    done: int
    failed: int


def active_stages(tracker: StatusTracker) -> frozenset[int]:
    """Stages that have been submitted and have not ended."""
    return frozenset(tracker.getActiveStageIds())


def stages_of_spark_job(
    tracker: StatusTracker, spark_job: int, active: Collection[int]
) -> tuple[bool, list[SparkStage]]:
    """Whether a job has ended, and its stages so far.

    Those not begun are left out: most of them never will be, for their output is there (Spark calls them skipped).
    """
    info = tracker.getJobInfo(spark_job)
    if info is None:
        return True, []
    found = [tracker.getStageInfo(number) for number in info.stageIds]
    stages = [
        SparkStage(s.stageId, s.currentAttemptId, s.numTasks, s.numCompletedTasks, s.numFailedTasks)
        for s in found
        if s is not None and (s.stageId in active or s.numCompletedTasks)
    ]
    return info.status != "RUNNING", stages


def unfinished(context: SparkContext, stage: SparkStage) -> dict[str, Any]:
    """A stage that does not get on, as facts: which partitions run, for how long and where, and what to look at.

    From the store behind Spark's UI, which is there also where the UI is off. It has no public name in Python.
    """
    jvm: Any = context._jvm
    api = jvm.org.apache.spark.status.api.v1
    statuses = jvm.java.util.ArrayList()
    statuses.add(api.TaskStatus.RUNNING)
    store = context._jsc.sc().statusStore()
    # The longest-running are those with the lowest ids.
    found = store.taskList(stage.number, stage.attempt, 0, _NAMED, api.TaskSorting.ID, statuses)
    now = time.time() * 1e3
    running = [
        f"partition {task.partitionId()} on {task.host()} (executor {task.executorId()}, "
        f"{(now - task.launchTime().getTime()) / 1e3:.0f} s)"
        for task in (found.apply(number) for number in range(found.size()))
    ]
    return {
        "stage": stage.number,
        "tasks": f"{stage.done} of {stage.tasks}",
        "failed": stage.failed,
        "running": running,
        "next": _HANGS if running else _WAITS,
    }
