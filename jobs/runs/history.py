"""What earlier runs left: proven collections, runs that are still going, the list for `status`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.errors import DependencyUnavailable
from jobs.index.collections import collection_name
from jobs.runs.lease import last_act
from jobs.runs.results import AliasSet, FileImported, Imported, Promoted, Staged, Verified
from jobs.schemas import IMAGE_STATUS, IMAGES, RUN_STEPS, RUNS
from jobs.tables.store import Warehouse


def proven_collections(warehouse: Warehouse) -> list[str]:
    """Collections whose last proof passed, newest first."""
    verified = _done(warehouse, Verified.of_step()).orderBy(F.col("ended_at").desc())
    found: dict[str, bool] = {}
    for row in verified.select("result").limit(1000).collect():
        result = Verified.of_record(json.loads(row["result"]))
        found.setdefault(result.collection, result.is_proven)
    return [name for name, passed in found.items() if passed]


def _done(warehouse: Warehouse, kind: Column) -> DataFrame:
    return warehouse.read(RUN_STEPS).where(kind & (F.col("state") == "done"))


def promoted_collections(warehouse: Warehouse) -> list[str]:
    """Collections that an alias has pointed at, newest first: those that a rollback may go back to."""
    rows = _promoted(warehouse).orderBy(F.col("ended_at").desc()).select("name").limit(1000).collect()
    return list(dict.fromkeys(row["name"] for row in rows))


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
    steps = _done(warehouse, Staged.of_step()).where(F.col("run_id") == run_id)
    row = steps.agg(F.max(F.unix_micros("started_at")).alias("at")).first()
    return None if row is None or row["at"] is None else row["at"] / 1e6


def holds_stage(warehouse: Warehouse, run_id: str) -> bool:
    """Whether a run's staged files are on record: else it never staged, or has to do it again."""
    steps = warehouse.read(RUN_STEPS).where((F.col("run_id") == run_id) & Staged.of_step())
    row = steps.agg(F.max_by("state", "ended_at").alias("state")).first()
    return row is not None and row["state"] == "done"


def staged_under(warehouse: Warehouse, run_id: str, token: int) -> bool:
    """Whether a run has put on record what it staged under this token of the lease."""
    mine = (F.col("run_id") == run_id) & Staged.of_step() & (F.col("fencing_token") == token)
    return not warehouse.read(RUN_STEPS).where(mine).isEmpty()


def buckets_of(warehouse: Warehouse, collection: str) -> int:
    """Over how many buckets the keys of a collection are spread; 0 where its run is not on record."""
    staged = _done(warehouse, Staged.of_step()).alias("s")
    loaded = _done(warehouse, Imported.of_step()).alias("i")
    wanted = Imported.column("collection", of="i.result") == collection
    rows = loaded.where(wanted).join(staged, "run_id").orderBy(F.col("s.ended_at").desc()).limit(1)
    row = rows.select(Staged.column("buckets", of="s.result").alias("buckets")).first()
    return int(row["buckets"]) if row else 0


def last_states(warehouse: Warehouse) -> DataFrame:
    """The last recorded state of each run."""
    names = [c for c in warehouse.read(RUNS).columns if c != "run_id"]
    newest = F.max_by(F.struct(*names), "recorded_at").alias("last")
    return warehouse.read(RUNS).groupBy("run_id").agg(newest).select("run_id", "last.*")


def last_fingerprint(warehouse: Warehouse, run_id: str | None) -> str | None:
    """The model that a run embedded with, or the last run that embedded; None where there is none."""
    rows = last_states(warehouse).where("model_fingerprint IS NOT NULL").orderBy(F.col("started_at").desc())
    row = (rows if run_id is None else rows.where(F.col("run_id") == run_id)).select("model_fingerprint").first()
    return None if row is None else str(row["model_fingerprint"])


def live_runs(warehouse: Warehouse, alias: str) -> list[str]:
    """Collections of runs that have not ended: theirs to drop, nobody else's, for a week in which they may resume."""
    recent_ones = F.col("recorded_at") > F.current_timestamp() - F.expr("INTERVAL 7 DAYS")
    rows = last_states(warehouse).where("state = 'running'").where(recent_ones).select("run_id").limit(1000).collect()
    return [collection_name(alias, row["run_id"]) for row in rows]


def recent(warehouse: Warehouse, limit: int) -> list[dict[str, Any]]:
    """The last runs, newest first."""
    rows = last_states(warehouse).orderBy(F.col("started_at").desc()).limit(limit).collect()
    return [row.asDict() for row in rows]


def last_outcomes(warehouse: Warehouse) -> DataFrame:
    """Each image with where it came from, and the last that became of it; `undecided` where no run has met it."""
    names = ("status", "reason", "faces", "run_id", "decided_at")
    last = warehouse.read(IMAGE_STATUS).groupBy("image_id").agg(F.max_by(F.struct(*names), "decided_at").alias("last"))
    images = warehouse.read(IMAGES).select("image_id", "uri", "source_batch_id")
    found = images.join(last.select("image_id", "last.*"), "image_id", "left")
    return found.withColumn("status", F.coalesce("status", F.lit("undecided")))


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
    steps = warehouse.read(RUN_STEPS).where(F.col("run_id") == run_id).where("state = 'done'")
    row = steps.orderBy(F.col("ended_at").desc()).select("step", F.unix_timestamp("ended_at").alias("at")).first()
    return f"{row['step']} at {datetime.fromtimestamp(row['at'], UTC):%Y-%m-%d %H:%M:%S} UTC" if row else "none"


def run_state(warehouse: Warehouse, run_id: str, now: datetime) -> RunState:
    """Where the run of this id stands at ``now``."""
    row = last_states(warehouse).where(F.col("run_id") == run_id).first()
    if row is None:
        return RunState(run_id, "unknown")
    if row["state"] == "running":
        held = last_act(warehouse)
        until = held.until if held is not None and held.run_id == run_id and held.holds(now) else None
        return RunState(
            run_id,
            "running" if until else "silent",
            job=row["job"],
            lease_until=until,
        )
    return RunState(run_id, row["state"], int(row["exit_code"]), row["job"], row["message"] or "")
