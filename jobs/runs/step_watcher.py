"""Follows the Spark jobs of a step: described in Spark's UI, with a bar or lines, and named where nothing moves.

One daemon thread of the driver asks Spark's own bookkeeping, once a second where somebody looks on and every five
seconds else; it ends with the last step. It never fails a run: what it cannot find out, it does not tell.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from jobs.runs.console import Console, Show
from jobs.runs.spark_tasks import SparkStage, active_stages, stages_of_spark_job, unfinished

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_LOOK_S: Final = 1.0
_LOOK_UNSEEN_S: Final = 5.0
_TICK_S: Final = 30.0
_numbers = itertools.count(1)

#: What a step does, in words: beside its bar, and as the description of its jobs in Spark's UI.
WORDS: Final = {
    "gate": "record the gate's decisions",
    "remove-unpermitted": "remove faces that are not permitted any more",
    "plan": "cut the images to embed into chunks",
    "resolve-id-collisions": "look for faces that share a key",
    "stage": "stage the permitted faces as Parquet",
    "import": "import the staged files into Milvus",
    "index": "build the index and load the collection",
    "remove-unpermitted-loaded": "take out what is not permitted any more",
    "verify": "prove the collection",
    "promote": "switch the alias",
    "maintain": "compact and vacuum the tables",
    "sync-remove": "take what is not permitted any more out of the live collection",
    "sync-add": "add the new faces to the live collection",
    "expire-due": "look for what has reached its end",
    "erase-find": "find everything that is to be erased",
    "erase-index": "erase from the collections",
    "erase-staged": "erase staged files",
    "erase-tables": "erase rows from the tables",
    "erase-shared": "settle pictures that others share",
    "erase-purge": "rewrite files that held erased rows",
    "erase-close": "check that nothing is left, and close the requests",
    "calibrate": "measure an executor with photographs of nothing",
    "verify-erased": "search every file for what was erased",
}


@dataclass
class ActiveStep:
    """A step that runs, and what has been seen of its tasks."""

    step: str
    words: str
    group: str
    moved: float
    on_look: Callable[[], None] | None = None
    done: int = 0
    total: int = 0
    stalled: bool = False
    _ended_spark_jobs: set[int] = field(default_factory=set)
    _stages: dict[int, tuple[int, int]] = field(default_factory=dict)
    _show: Show | None = None
    _told: float = 0.0
    bars: ExitStack = field(default_factory=ExitStack)
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: bool = False

    def look(self, watcher: StepWatcher) -> None:
        """See what has finished since; tell it, and what has not."""
        tracker, now = watcher.spark.sparkContext.statusTracker(), watcher.clock()
        active = active_stages(tracker)
        running: list[SparkStage] = []
        for spark_job in tracker.getJobIdsForGroup(self.group):
            if spark_job not in self._ended_spark_jobs:
                ended, stages = stages_of_spark_job(tracker, spark_job, active)
                self._stages.update({stage.number: (stage.done, stage.tasks) for stage in stages})
                running += [stage for stage in stages if stage.number in active]
                if ended:
                    self._ended_spark_jobs.add(spark_job)
        done = sum(done for done, _ in self._stages.values())
        if done > self.done or not running:
            self.moved, self._told, self.stalled = now, 0.0, False
        self.done, self.total = done, sum(tasks for _, tasks in self._stages.values())
        if running:
            self._tell(watcher.console)
        if self.on_look is not None:
            self.on_look()
        if now - max(self.moved, self._told) >= watcher.stall_after_s:
            self._told, self.stalled = now, True
            for stage in running:
                facts = unfinished(watcher.spark.sparkContext, stage)
                watcher.console.step(self.step, "stalled", seconds=round(now - self.moved), **facts)

    def _tell(self, console: Console) -> None:
        if self._show is None:
            self._show = self.bars.enter_context(console.meter(self.step, "tasks", words=self.words))
        self._show(self.done, self.total)


class StepWatcher:
    """The steps that run, and the thread that follows them. ``tick`` is called about every half minute.

    A step inside another has jobs, a description and a bar of its own; the outer one's come back when it ends.
    """

    def __init__(
        self,
        spark: SparkSession,
        console: Console,
        *,
        stall_after_s: float,
        look_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spark = spark
        self.console = console
        self.stall_after_s = stall_after_s
        self.clock = clock
        self.tick: Callable[[], None] | None = None
        self._look_s = look_s or (_LOOK_S if console.draws else _LOOK_UNSEEN_S)
        self._active: list[ActiveStep] = []
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def active(self) -> list[ActiveStep]:
        """The steps that run, the outermost first."""
        with self._lock:
            return list(self._active)

    @contextmanager
    def watching(self, step: str, words: str = "", on_look: Callable[[], None] | None = None) -> Iterator[ActiveStep]:
        """Follow the Spark jobs that this thread starts meanwhile; Spark's UI shows ``words`` beside each.

        ``on_look`` is called by the thread that follows them, whenever it has looked.
        """
        context = self.spark.sparkContext
        run = f"{self.console.run_id}: " if self.console.run_id else ""
        before = {key: context.getLocalProperty(key) for key in ("spark.jobGroup.id", "spark.job.description")}
        words = words or WORDS.get(step, step)
        active = ActiveStep(step, words, f"face-reindex/{next(_numbers)}/{step}", self.clock(), on_look)
        context.setLocalProperty("spark.jobGroup.id", active.group)
        context.setJobDescription(f"{run}{words}")
        self._begin(active)
        try:
            yield active
        finally:
            self._end(active)
            for key, value in before.items():
                context.setLocalProperty(key, value)  # type: ignore[arg-type]  # None takes it away

    def _begin(self, active: ActiveStep) -> None:
        with self._lock:
            self._active.append(active)
            if self._thread is None:
                self._changed = threading.Event()
                self._thread = threading.Thread(target=self._follow, args=(self._changed,), name="watch", daemon=True)
                self._thread.start()

    def _end(self, active: ActiveStep) -> None:
        with self._lock:
            self._active.remove(active)
            if not self._active:
                self._thread = None
                self._changed.set()
        with active.lock:
            active.over = True
            active.bars.close()

    def _follow(self, ended: threading.Event) -> None:
        ticked = self.clock()
        while not ended.wait(self._look_s):
            for active in self.active:
                self._look(active)
            if self.tick is not None and self.clock() - ticked >= _TICK_S:
                ticked = self.clock()
                self.tick()

    def _look(self, active: ActiveStep) -> None:
        with active.lock:
            if active.over:
                return
            try:
                active.look(self)
            except Exception:
                return
