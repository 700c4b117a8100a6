"""What the report of one run shows, collected from the tables: aggregates only, and a bounded number of rows.

It names no image, no person and no record, and holds no vector: counts, times, codes of our own, and the messages that
runs ended with.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.errors import BadInput, SettingsError
from jobs.reporting import flow, timings
from jobs.reporting.drift import Drift, drift
from jobs.reporting.permissions import Permissions, permissions
from jobs.runs.history import last_states
from jobs.runs.results import Imported, Indexed, Planned, Promoted, RemovedFromCollection, Screened, Staged, Verified
from jobs.runs.step_result import StepResult
from jobs.schemas import IMAGE_STATUS, RUN_STEPS, RUNS
from jobs.settings import Settings
from jobs.tables.store import Warehouse, materialise

if TYPE_CHECKING:
    from pyspark.sql import Row

# Small results, read whole. Those of chunks, files and the manifest grow with the data and are added up by Spark.
_WHOLE: Final[tuple[type[StepResult], ...]] = (Screened, Imported, Indexed, Verified, Promoted)
R = TypeVar("R", bound=StepResult)
_DROPPED: Final = ("too_small", "low_confidence", "over_limit", "uncovered")
_RESTARTS: Final = 1_000


@dataclass(frozen=True)
class RunFacts:
    """The run itself. Times are seconds since 1970; ``ended`` is None while it runs, or after a kill."""

    run_id: str
    job: str
    state: str
    exit_code: int | None
    started: float
    ended: float | None
    last_sign: float
    starts: int
    last_step: str
    message: str
    next_step: str
    weights: str
    fingerprint: str
    collection: str
    settings_digest: str
    policy_digest: str
    inputs: dict[str, int]

    @property
    def untrained(self) -> bool:
        """Whether the networks' weights were random, so that distances mean nothing."""
        return "UNTRAINED" in self.weights


@dataclass(frozen=True)
class Report:
    """One run, ready to be shown."""

    made_at: float
    run: RunFacts
    recorded: flow.Recorded
    links: list[flow.Link]
    checks: list[flow.Check]
    dropped: dict[str, int]
    step_timings: list[timings.StepTiming]
    throughput: list[timings.Throughput]
    drift: Drift | None
    permissions: Permissions
    data_nodes: int | None  # as the settings say, where they are those of the run
    recall_floor: float | None

    @property
    def reconciles(self) -> bool:
        """Whether every sum agrees."""
        return all(check.agrees for check in self.checks)


def collect(warehouse: Warehouse, settings: Settings, run_id: str | None, now: datetime) -> Report:
    """The report of ``run_id``, or of the last reindex that has ended, well or not.

    Raises:
        SettingsError: there is no run of this id.
        BadInput: no reindex has ended yet.
    """
    run_id = run_id or _last_reindex(warehouse)
    history = warehouse.read(RUNS).where(F.col("run_id") == run_id)
    states = _states(history)
    if not states:
        raise SettingsError(f"--run-id: there is no run '{run_id}'.", hint="`status` lists the runs.")
    steps = materialise(warehouse.read(RUN_STEPS).where(F.col("run_id") == run_id))
    # Side by side: small tables cost waiting rather than work.
    with ThreadPoolExecutor(4) as pool:
        dropped = pool.submit(_dropped, warehouse, run_id)
        over_time = pool.submit(lambda: timings.throughput(timings.chunks_of(steps)))
        stands = pool.submit(permissions, warehouse, settings, now)
        timing = pool.submit(timings.step_timings, steps, history.where("state = 'running'"))
        recorded = _recorded(steps)
        run = _facts(states, recorded, timing.result())
        at = datetime.fromtimestamp(run.started, now.tzinfo)
        drifted = drift(warehouse, run_id, run.fingerprint, at) if run.fingerprint else None
    same_settings = run.settings_digest == settings.digest()
    return Report(
        made_at=now.timestamp(),
        run=run,
        recorded=recorded,
        links=flow.links(recorded),
        checks=flow.checks(recorded),
        dropped=dropped.result(),
        step_timings=timing.result(),
        throughput=over_time.result(),
        drift=drifted,
        permissions=stands.result(),
        data_nodes=settings.milvus.data_nodes if same_settings and not settings.embedded else None,
        recall_floor=settings.verify.recall_floor if same_settings else None,
    )


def _last_reindex(warehouse: Warehouse) -> str:
    ended = last_states(warehouse).where("job = 'reindex' AND state != 'running'")
    row = ended.orderBy(F.col("started_at").desc()).select("run_id").first()
    if row is None:
        raise BadInput("No reindex has ended yet.", hint="run `reindex`, or name another run with --run-id.")
    return str(row["run_id"])


def _states(history: DataFrame) -> list[Row]:
    """The states that a run went through, the last first."""
    moments = [F.unix_micros(name).alias(name) for name in ("started_at", "ended_at", "recorded_at")]
    others = [name for name in history.columns if not name.endswith("_at")]
    newest = history.select(*others, *moments).orderBy(F.col("recorded_at").desc())
    return newest.limit(_RESTARTS).collect()


def _recorded(steps: DataFrame) -> flow.Recorded:
    whole = timings.last_done(steps.where(reduce(or_, (kind.of_step() for kind in _WHOLE)))).select("step", "result")
    results: dict[str, Any] = {row["step"]: json.loads(row["result"]) for row in whole.collect()}

    def found(kind: type[R]) -> R | None:
        return kind.of_record(results[kind.name()]) if kind.name() in results else None

    # Of these two only their sums: they list chunks and files.
    sums = {Planned.name(): Planned.column("images"), Staged.name(): Staged.column("rows")}
    listing = timings.last_done(steps.where(Planned.of_step() | Staged.of_step()))
    counts = {
        row["step"]: row[row["step"]]
        for row in listing.select("step", *(column.alias(name) for name, column in sums.items())).collect()
    }
    return flow.Recorded(
        screened=found(Screened),
        planned=counts.get(Planned.name()),
        staged=(counts[Staged.name()] or 0) if Staged.name() in counts else None,
        imported=found(Imported),
        indexed=found(Indexed),
        verified=found(Verified),
        promoted=found(Promoted),
        computed=timings.computed(timings.chunks_of(steps)),
        imports=timings.import_totals(steps),
        removed=_removed_before_proof(steps),
    )


def _removed_before_proof(steps: DataFrame) -> int:
    """Staged faces that had been taken out of the collection when it was proven (each record counts all of them)."""
    done = steps.where("state = 'done'")
    proven = done.where(Verified.of_step()).agg(F.max("ended_at").alias("proven_at"))
    before = done.where(RemovedFromCollection.of_step()).crossJoin(proven).where("ended_at <= proven_at")
    row = before.orderBy(F.col("ended_at").desc()).select(RemovedFromCollection.column("faces")).first()
    return 0 if row is None else int(row[0])


def _facts(states: list[Row], recorded: flow.Recorded, timed: list[timings.StepTiming]) -> RunFacts:
    last = states[0]
    message, _, next_step = (last["message"] or "").partition(" Next step: ")
    final = max(timed, key=lambda step: step.end, default=None)
    signs = [last["recorded_at"] / 1e6, *(step.end for step in timed)]
    known = {
        name: next((row[name] for row in states if row[name]), "")
        for name in ("weights", "model_fingerprint", "collection")
    }
    gate = recorded.screened or Screened()
    return RunFacts(
        run_id=last["run_id"],
        job=last["job"],
        state=last["state"],
        exit_code=last["exit_code"],
        started=last["started_at"] / 1e6,
        ended=None if last["ended_at"] is None else last["ended_at"] / 1e6,
        last_sign=max(signs),
        starts=sum(row["state"] == "running" for row in states),
        last_step=final.name if final else "",
        message=message,
        next_step=next_step,
        # While a run goes on they stand in its steps only.
        weights=known["weights"] or gate.weights or "",
        fingerprint=known["model_fingerprint"] or gate.fingerprint or "",
        collection=known["collection"],
        settings_digest=last["settings_digest"] or "",
        policy_digest=last["policy_digest"] or "",
        inputs=next((json.loads(row["inputs"]) for row in states if row["state"] == "running" and row["inputs"]), {}),
    )


def _dropped(warehouse: Warehouse, run_id: str) -> dict[str, int]:
    """Detected faces that this run did not embed, by reason."""
    rows = warehouse.read(IMAGE_STATUS).where((F.col("run_id") == run_id) & F.col("dropped").isNotNull())
    totals = rows.agg(*(F.coalesce(F.sum(f"dropped.{name}"), F.lit(0)).alias(name) for name in _DROPPED)).first()
    return {} if totals is None else {name: totals[name] for name in _DROPPED}
