"""What earlier runs left: proven collections, runs that are still going, the list for `status`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.errors import DependencyUnavailable
from jobs.governance.decide import Reason
from jobs.governance.missing import missing_fields
from jobs.governance.records import current_records
from jobs.index.collections import collection_name
from jobs.runs.lease import last_act
from jobs.runs.results import AliasSet, FileImported, Imported, Promoted, Staged, Verified, present_name
from jobs.runs.step_result import StepResult
from jobs.schemas import BASIS_LINKS, IMAGE_STATUS, IMAGES, PROCESSING_BASIS, RUN_STEPS, RUNS
from jobs.tables.naming import namings_on_record
from jobs.tables.source_keys import source_key
from jobs.tables.store import Warehouse

R = TypeVar("R", bound=StepResult)
# More than anybody asks about.
_LOOKED_BACK: Final = 1000


def proven_collections(warehouse: Warehouse) -> list[str]:
    """Collections whose last proof passed, newest first."""
    found: dict[str, bool] = {}
    for _, result in _last(warehouse, Verified):
        found.setdefault(result.collection, result.is_proven)
    return [name for name, passed in found.items() if passed]


def _last(warehouse: Warehouse, *kinds: type[R], run_id: str = "", limit: int = _LOOKED_BACK) -> list[tuple[str, R]]:
    """The last steps of these kinds that were done (by a run), newest first: by which run, and its result."""
    of_kind = " OR ".join(kind.condition() for kind in kinds)
    of_run = "AND run_id = {run_id}" if run_id else ""
    rows = warehouse.rows(
        RUN_STEPS,
        "run_id, step, result",
        where=f"({of_kind}) {of_run} AND state = 'done'",
        order_by="ended_at DESC",
        limit=limit,
        run_id=run_id,
    )
    of_name = [next(kind for kind in kinds if kind.is_name(row["step"])) for row in rows]
    return [(r["run_id"], kind.of_record(json.loads(r["result"]))) for r, kind in zip(rows, of_name, strict=True)]


def _done(warehouse: Warehouse, kind: Column) -> DataFrame:
    return warehouse.read(RUN_STEPS).where(kind & (F.col("state") == "done"))


def promoted_collections(warehouse: Warehouse) -> list[str]:
    """Collections that an alias has pointed at, newest first: those that a rollback may go back to."""
    steps: list[tuple[str, Promoted | AliasSet]] = _last(warehouse, Promoted, AliasSet)
    names = [step.current if isinstance(step, Promoted) else step.collection for _, step in steps]
    return list(dict.fromkeys(name for name in names if name is not None))


def _promoted(warehouse: Warehouse) -> DataFrame:
    """Collections (name, ended_at) that an alias has pointed at.

    Also by what is recorded of the alias itself: the step comes behind the watch, in which a run may be killed.
    """
    steps = _done(warehouse, Promoted.of_step() | AliasSet.of_step())
    name = F.coalesce(Promoted.column("current"), AliasSet.column("collection"))
    return steps.select(name.alias("name"), "ended_at").where("name IS NOT NULL")


def promoted_runs(warehouse: Warehouse, live: Sequence[str]) -> DataFrame:
    """Runs (run_id) whose collection an alias has pointed at, or is among the ``live`` ones: these need no other."""
    own = _done(warehouse, Imported.of_step() | FileImported.of_step())
    own = own.select("run_id", Imported.column("collection").alias("name"))
    seen = warehouse.spark.createDataFrame([(name,) for name in live], "name string")
    built = own.join(seen.unionByName(_promoted(warehouse).select("name")), "name", "left_semi").select("run_id")
    return _done(warehouse, Promoted.of_step()).select("run_id").unionByName(built)


def staged_at(warehouse: Warehouse, run_id: str) -> float | None:
    """When a run last began to stage (seconds since 1970): what came later is not in its collection."""
    rows = warehouse.rows(
        RUN_STEPS,
        "max(started_at) AS at",
        where=f"run_id = {{run_id}} AND {Staged.condition()} AND state = 'done'",
        run_id=run_id,
    )
    at = rows[0]["at"] if rows else None
    return None if at is None else at.timestamp()


def holds_stage(warehouse: Warehouse, run_id: str) -> bool:
    """Whether a run's staged files are on record: else it never staged, or has to do it again."""
    rows = warehouse.rows(
        RUN_STEPS,
        "state",
        where=f"run_id = {{run_id}} AND {Staged.condition()}",
        order_by="ended_at DESC",
        limit=1,
        run_id=run_id,
    )
    return bool(rows) and rows[0]["state"] == "done"


def staged_under(warehouse: Warehouse, run_id: str, token: int) -> bool:
    """Whether a run has put on record what it staged under this token of the lease."""
    of_run = f"run_id = {{run_id}} AND {Staged.condition()} AND fencing_token = {{token}}"
    return bool(warehouse.rows(RUN_STEPS, "step", where=of_run, limit=1, run_id=run_id, token=token))


def buckets_of(warehouse: Warehouse, collection: str) -> int:
    """Over how many buckets the keys of a collection are spread; 0 where its run is not on record."""
    for run_id, loaded in _last(warehouse, Imported):
        if loaded.collection == collection and (staged := _last(warehouse, Staged, run_id=run_id, limit=1)):
            return staged[0][1].buckets
    return 0


def last_states(warehouse: Warehouse) -> DataFrame:
    """The last recorded state of each run."""
    names = [c for c in warehouse.read(RUNS).columns if c != "run_id"]
    newest = F.max_by(F.struct(*names), "recorded_at").alias("last")
    return warehouse.read(RUNS).groupBy("run_id").agg(newest).select("run_id", "last.*")


def _last_states(warehouse: Warehouse, limit: int, where: str = "", run_id: str = "") -> list[dict[str, Any]]:
    """The same of the runs that started last, newest first; of rows ``where`` something holds."""
    back = "ROW_NUMBER() OVER (PARTITION BY run_id ORDER BY recorded_at DESC) AS back"
    newest = "back, started_at DESC"
    rows = warehouse.rows(RUNS, f"*, {back}", where=where, order_by=newest, limit=limit, run_id=run_id)
    return [row for row in rows if row.pop("back") == 1]


def last_fingerprint(warehouse: Warehouse, run_id: str | None) -> str | None:
    """The model that a run embedded with, or the last run that embedded; None where there is none."""
    of_run = "AND run_id = {run_id}" if run_id else ""
    rows = _last_states(warehouse, 1, f"model_fingerprint IS NOT NULL {of_run}", run_id or "")
    return str(rows[0]["model_fingerprint"]) if rows else None


def live_runs(warehouse: Warehouse, alias: str) -> list[str]:
    """Collections of runs that have not ended: theirs to drop, nobody else's, for a week in which they may resume."""
    recent_ones = F.col("recorded_at") > F.current_timestamp() - F.expr("INTERVAL 7 DAYS")
    rows = last_states(warehouse).where("state = 'running'").where(recent_ones).select("run_id").limit(1000).collect()
    return [collection_name(alias, row["run_id"]) for row in rows]


def recent(warehouse: Warehouse, limit: int) -> list[dict[str, Any]]:
    """The last runs, newest first."""
    return _last_states(warehouse, limit)


def last_outcomes(warehouse: Warehouse) -> DataFrame:
    """Each image with where it came from, and the last that became of it; `undecided` where no run has met it.

    `source_key` is what the source calls it, as basis files do; `missing`: of one that is refused as FIELD_MISSING, the
    fields that are empty now in the records linked to it, with `;` between them.
    """
    names = ("status", "reason", "faces", "run_id", "decided_at")
    last = warehouse.read(IMAGE_STATUS).groupBy("image_id").agg(F.max_by(F.struct(*names), "decided_at").alias("last"))
    images, prefixes = _with_prefixes(warehouse, warehouse.read(IMAGES))
    images = images.select(
        "image_id", source_key(prefixes).alias("source_key"), "uri", F.col("root").alias("source"), "source_batch_id"
    )
    found = images.join(last.select("image_id", "last.*"), "image_id", "left")
    lacking = _missing(warehouse, found.where(F.col("reason") == Reason.FIELD_MISSING.value).select("image_id"))
    named = found.join(lacking, "image_id", "left")
    return named.withColumn("status", F.coalesce("status", F.lit("undecided")))


def _with_prefixes(warehouse: Warehouse, images: DataFrame) -> tuple[DataFrame, Column | None]:
    """``images`` with the prefixes of table ids of their batches, and these; None: no table came in with one."""
    ways = {batch: sorted(way for way in of if way is not None) for batch, of in namings_on_record(warehouse).items()}
    known = [(batch, prefixes) for batch, prefixes in ways.items() if any(prefixes)]
    if not known:
        return images, None
    of_batch = warehouse.spark.createDataFrame(known, "source_batch_id string, prefixes array<string>")
    return images.join(F.broadcast(of_batch), "source_batch_id", "left"), F.col("prefixes")


def _missing(warehouse: Warehouse, images: DataFrame) -> DataFrame:
    """Of ``images`` (image_id): what their records lack, as `missing`."""
    links = warehouse.read(BASIS_LINKS).select("image_id", "record_id").join(images, "image_id", "left_semi")
    basis = warehouse.read(PROCESSING_BASIS).join(links, "record_id", "left_semi")
    lacking = current_records(basis).select("record_id", missing_fields().alias("names"))
    every = F.array_sort(F.array_distinct(F.flatten(F.collect_list("names"))))
    return links.join(lacking, "record_id").groupBy("image_id").agg(F.array_join(every, ";").alias("missing"))


@dataclass(frozen=True)
class RunState:
    """Where one run stands: ``done``, ``failed``, ``running``, ``silent`` or ``unknown``.

    ``silent`` says that it is running and holds no lease: it was killed. ``exit_code`` is its own where it has ended;
    else 5, for asking again, or starting it again by its id, can help.
    """

    run_id: str
    state: str
    exit_code: int = DependencyUnavailable.exit_code
    job: str | None = None
    message: str = ""
    lease_until: datetime | None = None


def last_step(warehouse: Warehouse, run_id: str) -> str:
    """The last step that a run has done, and when."""
    done = "run_id = {run_id} AND state = 'done'"
    rows = warehouse.rows(RUN_STEPS, "step, ended_at", where=done, order_by="ended_at DESC", limit=1, run_id=run_id)
    return f"{present_name(rows[0]['step'])} at {rows[0]['ended_at']:%Y-%m-%d %H:%M:%S} UTC" if rows else "none"


def run_state(warehouse: Warehouse, run_id: str, now: datetime, since: datetime | None = None) -> RunState:
    """Where the run of this id stands at ``now``; with ``since`` by what was recorded from then on."""
    rows = _last_states(warehouse, 1, "run_id = {run_id}", run_id)
    if not rows or (since is not None and rows[0]["recorded_at"] < since):
        return RunState(run_id, "unknown")
    row = rows[0]
    if row["state"] == "running":
        lease = last_act(warehouse)
        until = lease.until if lease is not None and lease.run_id == run_id and lease.holds(now) else None
        return RunState(
            run_id,
            "running" if until else "silent",
            job=row["job"],
            lease_until=until,
        )
    return RunState(run_id, row["state"], int(row["exit_code"]), row["job"], row["message"] or "")
