"""The run record: what a run did, on what, and how it ended. A run is resumed by its id."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from jobs.errors import FaceReindexError, LeaseLost, SettingsError
from jobs.governance import audit, persons
from jobs.governance.gate import RunGate
from jobs.governance.jurisdictions import policy_digest
from jobs.run_ids import checked_run_id
from jobs.runs.console import Console
from jobs.runs.error_messages import explained
from jobs.runs.evidence import export_head, heads_place
from jobs.runs.job_result import Result
from jobs.runs.lease import Lease
from jobs.runs.lineage import emit
from jobs.runs.metrics import RunMetrics
from jobs.runs.results import present_name
from jobs.runs.step_result import StepResult
from jobs.runs.step_watcher import ActiveStep, StepWatcher
from jobs.schemas import BASIS_LINKS, EMBEDDINGS, IMAGES, PROCESSING_BASIS, RUN_STEPS, RUNS, SOURCE_BATCHES
from jobs.settings import Settings
from jobs.tables.store import Warehouse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from pyspark.sql import SparkSession

R = TypeVar("R", bound=StepResult)
#: A step's result as it is on record: `StepResult.record`.
Record = Mapping[str, Any]
_INPUTS = (IMAGES, PROCESSING_BASIS, BASIS_LINKS, SOURCE_BATCHES, EMBEDDINGS)


def utc_now() -> datetime:
    """The current instant, timezone-aware."""
    return datetime.now(UTC)


def new_run_id() -> str:
    """A run id that sorts by time: 20260131T020000-1a2b3c."""
    return f"{utc_now():%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"


@dataclass
class JobContext:
    """Everything a job needs, handed to its entry point by `jobs.cli`."""

    settings: Settings
    warehouse: Warehouse
    console: Console
    run_id: str | None
    dry_run: bool
    clock: Callable[[], datetime] = utc_now
    _watcher: StepWatcher | None = None
    _keys_checked: bool = False

    @property
    def spark(self) -> SparkSession:
        """The session, opened where it was not yet."""
        return self.warehouse.spark

    @property
    def watcher(self) -> StepWatcher:
        """What follows the Spark jobs of the steps."""
        if self._watcher is None:
            self._watcher = StepWatcher(self.spark, self.console, stall_after_s=self.settings.logging.stall_after_s)
        return self._watcher

    def watching(
        self, step: str, words: str = "", on_look: Callable[[], None] | None = None
    ) -> AbstractContextManager[ActiveStep]:
        """Follow the Spark jobs of a part of the work: see `StepWatcher.watching`."""
        return self.watcher.watching(step, words, on_look)

    def check_keys(self) -> None:
        """See, once a job, that no key is taken into use that can be guessed: `persons.check_keys`.

        Raises:
            SettingsError: the current key of a ring is too short, and nothing was keyed with it yet.
        """
        if not self._keys_checked:
            persons.check_keys(self.warehouse, self.settings, self.console.note)
            self._keys_checked = True


class Step(Generic[R]):
    """A step that runs: its ``result`` is set before the `with` of it ends."""

    def __init__(self) -> None:
        self._result: R | None = None

    @property
    def result(self) -> R:
        """What it did.

        Raises:
            RuntimeError: nobody has said so.
        """
        if self._result is None:
            raise RuntimeError("a step has ended without a result")
        return self._result

    @result.setter
    def result(self, result: R) -> None:
        self._result = result


@dataclass
class Run:
    """One run that holds the lease. ``started_at`` is the first start's, also after a resume.

    ``images_by``: it decides the images that were ingested by then; None: by its start. ``ended``: as its record says,
    where it ends well (`end`).
    """

    job: JobContext
    run_id: str
    lease: Lease
    started_at: datetime
    metrics: RunMetrics
    facts: dict[str, Any] = field(default_factory=dict)
    images_by: datetime | None = None
    ended: Result = field(default_factory=lambda: Result(""))
    _gate: RunGate | None = None
    # As they are on record, until one is asked for.
    _done: dict[str, Record | StepResult] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """The settings of this run."""
        return self.job.settings

    @property
    def warehouse(self) -> Warehouse:
        """The tables."""
        return self.job.warehouse

    @property
    def gate(self) -> RunGate:
        """Its gate, over the images that it decides; it decides anew only where something has changed."""
        if self._gate is None:
            by = self.images_by or self.started_at
            self._gate = RunGate(self.warehouse, self.settings, clock=self.job.clock, ingested_by=by)
        return self._gate

    @property
    def trained(self) -> bool:
        """Whether the weights that it embedded with are trained ones, as their label says."""
        return "UNTRAINED" not in str(self.facts.get("weights"))

    def end(self, result: Result) -> Result:
        """Let the record say that the run ends so; the same with the run's id, for who has started it."""
        self.ended = result
        return replace(result, data={"run_id": self.run_id, **result.data})

    def result(self, kind: type[R], part: str = "") -> R | None:
        """What a step did that this run has completed, in this process or before a kill."""
        name = kind.name(part)
        return self._read(kind, name) if name in self._done else None

    def parts(self, kind: type[R]) -> dict[str, R]:
        """What the completed steps of a kind did of which there are many, by their parts."""
        names = [name for name in self._done if kind.is_name(name)]
        return {name.removeprefix(kind.STEP): self._read(kind, name) for name in names}

    def _read(self, kind: type[R], name: str) -> R:
        found = self._done[name]
        if not isinstance(found, kind):
            assert isinstance(found, Mapping)  # noqa: S101 - a step of this name is of this kind
            self._done[name] = found = kind.of_record(found)
        return found

    def forget(self, *kinds: type[StepResult]) -> None:
        """Forget completed steps, because what they made is gone and has to be made again."""
        names = [name for kind in kinds for name in self._done if kind.is_name(name)]
        if names:
            self._append({name: {} for name in names}, utc_now(), 0.0, state="forgotten")
        for name in names:
            del self._done[name]

    @contextmanager
    def step(
        self, kind: type[R], part: str = "", *, words: str = "", on_look: Callable[[], None] | None = None
    ) -> Iterator[Step[R]]:
        """Around the work of a step, which gives it its result; then that is on record.

        ``words`` say in Spark's UI and beside the bar what its jobs are for; ``on_look`` is called while they run.
        """
        name = kind.name(part)
        self.job.console.step(name, "started")
        at, clock, step = utc_now(), time.monotonic(), Step[R]()

        def seconds() -> float:
            return time.monotonic() - clock

        with self.job.watching(name, words, on_look):
            try:
                yield step
                record = step.result.record()
            except BaseException as error:
                self.job.console.step(name, "failed", seconds=seconds(), error=type(error).__name__)
                raise
            self._append({name: record}, at, took := seconds())
        self.job.console.step(name, "done", seconds=took, **_scalars(record))
        self.metrics.step_done(name, record, took)
        self.write_metrics()

    def once(
        self,
        kind: type[R],
        make: Callable[[], R],
        part: str = "",
        *,
        words: str = "",
        on_look: Callable[[], None] | None = None,
    ) -> R:
        """A step that is not done again where this run has completed it; its result, of now or of then."""
        if (done := self.result(kind, part)) is not None:
            self.job.console.step(kind.name(part), "already done")
            return done
        with self.step(kind, part, words=words, on_look=on_look) as step:
            step.result = make()
        return step.result

    def write_metrics(self) -> None:
        """Bring the metrics file up to date; that it cannot be written is said, and ends no run."""
        if fault := self.metrics.write():
            self.job.console.note(fault)

    def record(self, result: StepResult) -> None:
        """Put on record what takes no time: what is about to be done, or is so from now on."""
        self._append({result.name(): result.record()}, utc_now(), 0.0)

    def record_parts(self, results: Mapping[str, StepResult]) -> None:
        """The same of several parts of a kind in one commit: all of them, or none."""
        self._append({result.name(part): result.record() for part, result in results.items()}, utc_now(), 0.0)

    def record_since(self, began: datetime, result: StepResult) -> None:
        """Put on record what was done since it ``began``, and is no step of its own for whoever looks on."""
        self._append({result.name(): result.record()}, began, (utc_now() - began).total_seconds())

    def _append(self, results: Mapping[str, Record], started: datetime, seconds: float, *, state: str = "done") -> None:
        """Append the outcomes of steps in one commit, under the lease."""
        now, token = utc_now(), self.lease.token
        rows = [(self.run_id, n, state, started, now, seconds, json.dumps(r), token) for n, r in results.items()]
        self.warehouse.append(rows, RUN_STEPS)
        self._done.update(results)


def _scalars(record: Record) -> dict[str, Any]:
    return {k: v for k, v in record.items() if isinstance(v, int | float | str | bool)}


@contextmanager
def open_run(job: JobContext, name: str, facts: Mapping[str, Any] | None = None) -> Iterator[Run]:
    """Take the lease, load what an earlier start of the same run did, and record how it ends.

    ``facts``: what its record says from its start on (`Run.facts`).

    Raises:
        SettingsError: the run id exists with other settings, and resuming it would mix two configurations; or a key
            can be guessed, under which this run, as any, may write pseudonyms or tombstones.
        LeaseHeld: another run is writing.
    """
    run_id = checked_run_id(job.run_id or new_run_id())
    job.check_keys()
    lease = Lease(job.warehouse, run_id, job.settings.lease.ttl_s)
    job.console.begins(run_id)
    with job.watching("lease", "take the lease"):
        lease.acquire()
    job.warehouse.fence = lease
    lease.keep()
    metrics = RunMetrics(job.settings.metrics.file, name, run_id, active=lambda: job.watcher.active)
    run = Run(job, run_id, lease, utc_now(), metrics, dict(facts or {}))
    clean = True
    try:
        with job.watching("record", "read what this run has done"):
            _resume(run)
            _record(run, name, "running", None, "")
        job.watcher.tick = run.write_metrics
        yield run
        # Nothing may be said to be done that a table has skipped.
        lease.check()
    except BaseException as error:
        # First of all, for the warehouse may be what is out of reach.
        run.metrics.ended("failed")
        run.write_metrics()
        # Whoever cuts in leaves the JVM at what it was doing.
        clean = isinstance(error, Exception)
        with job.watching("record", "record how the run ended"):
            if isinstance(error, LeaseLost):
                _lost(run, name)
            else:
                _record(run, name, "failed", *_reason(error, job.settings))
        raise
    else:
        with job.watching("record", "record how the run ended"):
            _record(run, name, "done", run.ended.exit_code, run.ended.message)
        run.metrics.ended("done")
        run.write_metrics()
    finally:
        job.watcher.tick = None
        job.warehouse.fence = None
        with job.watching("lease", "give the lease back"):
            lease.release(clean=clean)


def _lost(run: Run, job: str) -> None:
    """The end of a run that was fenced off: in the audit trail alone, for the table of runs is another's to write."""
    facts = {"job": job, "token": run.lease.token}
    export_head(
        run.job.spark,
        run.warehouse,
        run.settings,
        audit.append(run.warehouse, "run-fenced-off", run.run_id, facts, now=utc_now()),
    )


def _reason(error: BaseException, settings: Settings) -> tuple[int, str]:
    known = error if isinstance(error, FaceReindexError) else explained(error, settings)
    return (1, type(error).__name__) if known is None else (known.exit_code, str(known))


def _resume(run: Run) -> None:
    token = run.warehouse.rows(RUN_STEPS, "max(fencing_token) AS token")
    if token and (token[0]["token"] or 0) > run.lease.token:
        # `leases` was brought back from a copy: tables would skip what we write with a token that has been.
        run.lease.acquire(above=token[0]["token"])
    # The last word on a step counts.
    mine, order = "run_id = {run_id}", "ended_at, step, state, result"
    for row in run.warehouse.rows(RUN_STEPS, "step, state, result", where=mine, order_by=order, run_id=run.run_id):
        step = present_name(row["step"])
        run._done[step] = json.loads(row["result"])
        if row["state"] == "forgotten":
            del run._done[step]
    for step, result in run._done.items():
        assert isinstance(result, Mapping)  # noqa: S101 - nothing has been asked for
        run.metrics.step_done(step, result)
    first = _its_rows(run.warehouse, run.run_id)
    if not first:
        return
    run.started_at = first[0]["started_at"]
    _same_settings(run.run_id, first[0]["settings_digest"], run.settings)
    for row in first:
        run.facts.update({k: row[k] for k in ("model_fingerprint", "weights", "collection") if row[k]})


def _its_rows(warehouse: Warehouse, run_id: str) -> list[dict[str, Any]]:
    """What is on record of a run, from its first start on."""
    columns = "started_at, settings_digest, model_fingerprint, weights, collection"
    return warehouse.rows(RUNS, columns, where="run_id = {run_id}", order_by="recorded_at", run_id=run_id)


def check_may_begin(job: JobContext) -> None:
    """For what a job writes down before its run begins: that the run may begin.

    Raises:
        SettingsError: `--run-id` is of a run with other settings; or a key can be guessed (`JobContext.check_keys`).
    """
    job.check_keys()
    if job.run_id and (mine := _its_rows(job.warehouse, job.run_id)):
        _same_settings(job.run_id, mine[0]["settings_digest"], job.settings)


def _same_settings(run_id: str, digest: str, settings: Settings) -> None:
    if digest != settings.digest():
        raise SettingsError(
            f"Run {run_id} was started with other settings.",
            hint="resume it with the settings it had, or start a new run without --run-id.",
        )


def _record(run: Run, job: str, state: str, exit_code: int | None, message: str) -> None:
    inputs = run.warehouse.versions(_INPUTS) if state == "running" else {}
    now = utc_now()
    row = (
        run.run_id,
        job,
        state,
        exit_code,
        run.started_at,
        None if state == "running" else now,
        run.settings.digest(),
        run.facts.get("model_fingerprint"),
        run.facts.get("weights"),
        run.facts.get("collection"),
        json.dumps(inputs),
        json.dumps(run.facts.get("counts", {})),
        message,
        now,
        policy_digest(run.settings.governance.jurisdictions, run.settings.governance.coverage),
    )
    run.warehouse.append([row], RUNS)
    facts = {"job": job, "exit_code": exit_code, "settings": row[6], "policy": row[-1], "inputs": inputs}
    facts |= {"heads": heads_place(run.warehouse, run.settings)} if state != "running" else {}
    last = audit.append(run.warehouse, f"run-{state}", run.run_id, facts, now=now)
    emit(run.settings, job, run.run_id, state, now=now, inputs=inputs, policy=row[-1])
    if state != "running" and (fault := export_head(run.job.spark, run.warehouse, run.settings, last)):
        run.job.console.note(fault)
