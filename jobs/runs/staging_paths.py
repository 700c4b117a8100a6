"""Where runs stage their files, and what lies there."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.runs.record import Run
from jobs.runs.results import ErasedStaging, Staged
from jobs.schemas import AUDIT_EVENTS, RUN_STEPS, RUNS
from jobs.settings import Settings
from jobs.tables.files import children, remove_tree
from jobs.tables.store import Warehouse


def staging_path(run: Run) -> str:
    """Where this run writes its files: in a folder of its token, so that another start of it writes elsewhere."""
    return f"{staging_base(run.warehouse, run.settings)}/{run.run_id}/{run.lease.token}"


def staging_base(warehouse: Warehouse, settings: Settings) -> str:
    """Where the files of all runs lie by the settings, each in a folder of its run id."""
    place = (settings.staging.path or warehouse.path("_staging")).rstrip("/")
    # On record whole, for it to be found by a job that is started in another folder.
    return place if "://" in place else str(Path(place).absolute())


def staging_bases(warehouse: Warehouse, settings: Settings) -> list[str]:
    """Where staged files lie, each run's in a folder of its id: the place of the settings, and those on record."""
    inside = {warehouse.path("_staging")} if warehouse.is_path else set()
    return sorted(recorded_bases(warehouse) | inside | {staging_base(warehouse, settings)})


def recorded_bases(warehouse: Warehouse) -> set[str]:
    """Places outside of the warehouse where runs have staged files, whatever the settings say now.

    Not the folder in the warehouse itself: on the record of one that was copied that is the original's.
    """
    staged = warehouse.read(RUN_STEPS).where(Staged.of_step()).where("state = 'done'")
    steps = staged.select("run_id", Staged.column("path").alias("path"), Staged.column("apart").alias("apart"))
    # base/run/token; an earlier release staged into the run's own folder.
    in_token = F.expr(r"path RLIKE concat('/\\Q', run_id, '\\E/[0-9]+$')")
    run_folder = F.when(in_token, F.regexp_replace("path", "/[0-9]+$", "")).otherwise(F.col("path"))
    base = F.regexp_replace(run_folder, "/[^/]*$", "")
    # Of an earlier release only the name tells.
    apart = F.coalesce("apart", ~base.endswith("/_staging"))
    return {row["base"] for row in steps.where(apart).select(base.alias("base")).distinct().collect() if row["base"]}


def clear_staging(run: Run) -> None:
    """Remove what this run, and earlier starts of it, have staged. A later start's folder stays."""
    spark, folder = run.job.spark, f"{staging_base(run.warehouse, run.settings)}/{run.run_id}"
    there = children(spark, folder)
    # Files without a token's folder are of a release before there was one.
    gone = [name for name in there if not name.isdigit() or int(name) <= run.lease.token]
    for place in [folder] if gone == there else [f"{folder}/{name}" for name in gone]:
        remove_tree(spark, place)


def staged_folders(run: Run) -> list[tuple[str, str]]:
    """Folders of this warehouse's runs wherever any of them has staged: the place, and the run id below it.

    A place outside of the warehouse may be others' as well, whose runs are not on record here. The trail is asked, too,
    for the tables of runs may have been removed.
    """
    warehouse, bases = run.warehouse, staging_bases(run.warehouse, run.settings)
    there = [(base, name) for base in bases for name in children(run.job.spark, base)]
    ids = [warehouse.read(spec).select("run_id") for spec in (RUNS, RUN_STEPS, AUDIT_EVENTS)]
    known = reduce(DataFrame.unionByName, ids).where(F.col("run_id").isin([name for _, name in there]))
    ours = {row["run_id"] for row in known.distinct().collect()}
    return [(base, name) for base, name in there if name in ours or base.startswith(f"{warehouse.location}/")]


def unrecorded_staging(run: Run) -> list[str]:
    """Staged files of this warehouse that are on no run's record: of one that was cut off, or had lost its lease.

    Nor is a record good that is older than an erasure's removal of all of them: those files came from a backup.
    """
    spark = run.job.spark
    folders = staged_folders(run)
    ids = [run_id for _, run_id in folders]
    steps = run.warehouse.read(RUN_STEPS).where(Staged.of_step() & F.col("run_id").isin(ids))
    last = steps.groupBy("run_id").agg(F.max_by(F.struct("state", "result", "ended_at"), "ended_at").alias("last"))
    removed = run.warehouse.read(RUN_STEPS).where(ErasedStaging.of_step()).where("state = 'done'")
    last = last.crossJoin(removed.agg(F.max("ended_at").alias("removed_at")))
    last = last.where("removed_at IS NULL OR last.ended_at > removed_at")
    path = Staged.column("path", of="last.result").alias("path")
    kept = {row["path"] for row in last.where("last.state = 'done'").select(path).collect()}
    found = []
    for folder in (f"{base}/{run_id}" for base, run_id in folders):
        places = [f"{folder}/{name}" for name in children(spark, folder)]
        gone = [place for place in places if place not in kept]
        # An earlier release staged into the run's own folder.
        if folder not in kept:
            found += [folder] if gone == places else gone
    return found
