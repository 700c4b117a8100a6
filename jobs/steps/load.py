"""The steps between permitted faces and a loaded collection, each recorded in the run: stage, import, index."""

from __future__ import annotations

from dataclasses import asdict
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.errors import MixedFingerprints, NotProvenError
from jobs.index import staging
from jobs.index.collections import default_index
from jobs.index.load_plan import imports, plan_load
from jobs.index.loader import RebuildNeeded, StagedFile, load_files
from jobs.index.protocol import DIM, CollectionInfo, VectorIndex
from jobs.runs.aliases import has_switched
from jobs.runs.machines import workers
from jobs.runs.record import Run, utc_now
from jobs.runs.stores import drop, staging_base, staging_bases
from jobs.schemas import AUDIT_EVENTS, RUN_STEPS, RUNS
from jobs.settings import Settings
from jobs.steps.import_recorder import RunImportRecorder
from jobs.tables.files import children, remove_tree


def staging_path(run: Run) -> str:
    """Where this run writes its files: in a folder of its token, so that another start of it writes elsewhere."""
    return f"{staging_base(run.warehouse, run.settings)}/{run.run_id}/{run.lease.token}"


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
    steps = run.warehouse.read(RUN_STEPS).where((F.col("step") == "stage") & F.col("run_id").isin(ids))
    last = steps.groupBy("run_id").agg(F.max_by(F.struct("state", "result", "ended_at"), "ended_at").alias("last"))
    removed = run.warehouse.read(RUN_STEPS).where("step = 'erase-staged' AND state = 'done'")
    last = last.crossJoin(removed.agg(F.max("ended_at").alias("removed_at")))
    last = last.where("removed_at IS NULL OR last.ended_at > removed_at")
    path = F.get_json_object("last.result", "$.path").alias("path")
    kept = {row["path"] for row in last.where("last.state = 'done'").select(path).collect()}
    found = []
    for folder in (f"{base}/{run_id}" for base, run_id in folders):
        places = [f"{folder}/{name}" for name in children(spark, folder)]
        gone = [place for place in places if place not in kept]
        # An earlier release staged into the run's own folder.
        if folder not in kept:
            found += [folder] if gone == places else gone
    return found


def staged_files(run: Run) -> staging.Staged:
    """The manifest of this run, from the run record."""
    result = run.result("stage")
    if result is None:
        raise NotProvenError(f"Run {run.run_id} has staged nothing yet.", hint="run `load --run-id` for it first.")
    return staging.Staged(result["path"], tuple(StagedFile(**f) for f in result["files"]), result["buckets"])


def stage_faces(run: Run, index: VectorIndex, faces: DataFrame) -> dict[str, Any]:
    """Write ``faces`` (face_id, embedding, valid_until) where Milvus reads; the manifest, for the run record."""
    clear_staging(run)
    staged = staging.stage(
        faces,
        staging_path(run),
        purpose_flags=purpose_flags(run.settings),
        files_for=lambda rows: plan_load(rows, run.settings, index.features).files,
    )
    files = [asdict(f) for f in staged.files]
    told = workers(run.job.spark, run.settings)
    apart = run.settings.staging.path is not None
    return {"path": staged.path, "apart": apart, "rows": staged.rows, "buckets": staged.buckets, "files": files, **told}


def purpose_flags(settings: Settings) -> int:
    """The purposes of a run as bits, by their place in the allow-list."""
    governance = settings.governance
    return sum(1 << governance.allowed_purposes.index(purpose) for purpose in governance.purposes)


def import_staged(
    run: Run, index: VectorIndex, collection: str, staged: staging.Staged, fingerprint: str
) -> dict[str, Any]:
    """Bring every staged row into the collection exactly once; one that is left in doubt is built anew.

    So is one that is there while no import into it is on record: what it holds would be in it twice, for Milvus keeps
    both rows of a key.

    Raises:
        MixedFingerprints: the collection holds another model's embeddings.
        NotProvenError: readers see the collection.
        RebuildNeeded: still in doubt after `milvus.import_attempts` collections (a ``NotProvenError``).
    """
    # Milvus would take rows from a run that has lost its lease as well.
    run.lease.check()
    there = index.info(collection)
    if there is not None and there.model_fingerprint != fingerprint:
        raise MixedFingerprints(
            f"Collection {collection} holds embeddings of another model than this run's; nothing was imported.",
            hint="start a new run without --run-id.",
        )
    check_not_seen(run, index, collection)
    if there is not None and not run.done_like("import/"):
        drop(run, index, collection)
    attempts = run.settings.milvus.import_attempts
    for attempt in range(1, attempts + 1):
        if not index.exists(collection):
            run.forget("import/")
            _create(run, index, collection, fingerprint)
        try:
            _load_files(run, index, collection, staged)
            break
        except RebuildNeeded as doubt:
            if attempt == attempts:
                raise
            run.job.console.step("import", "in doubt, so the collection is built anew", reason=doubt)
            drop(run, index, collection)
    return {"collection": collection, "rows": staged.rows, **_nodes(run, index)}


def check_not_seen(run: Run, index: VectorIndex, collection: str) -> None:
    """Make sure that the run may fill its ``collection``, or drop it: no alias leads readers there.

    Raises:
        NotProvenError: one does.
    """
    if index.exists(collection) and (index.aliases_of(collection) or has_switched(run, index)):
        raise NotProvenError(
            f"Collection {collection} of run {run.run_id} is live, and no import into it is on record; nothing was "
            "imported, for each row would be there twice.",
            hint="start a new run without --run-id.",
        )


def _nodes(run: Run, index: VectorIndex) -> dict[str, Any]:
    """What did the work, for the rates of a plan."""
    by_import = imports(run.settings, index.features)
    return {"by_import": by_import, "data_nodes": run.settings.milvus.data_nodes if by_import else 1}


def _create(run: Run, index: VectorIndex, collection: str, fingerprint: str) -> None:
    info = CollectionInfo(
        model_fingerprint=fingerprint,
        run_id=run.run_id,
        trained=run.trained,
        label=str(run.facts.get("weights")),
        created_at=utc_now().isoformat(timespec="seconds"),
        warehouse=run.warehouse.identity,
        purposes=run.settings.governance.purposes,
    )
    index.create(collection, dim=DIM, shards=run.settings.milvus.shards, properties=info)


def _load_files(run: Run, index: VectorIndex, collection: str, staged: staging.Staged) -> None:
    with run.job.console.meter("import", "rows") as progress:
        load_files(
            index,
            collection,
            staged.files,
            run.settings,
            recorder=RunImportRecorder(run, collection),
            digest=staging.digests(run.job.spark, staged.files),
            on_progress=progress,
        )


def build_and_load(run: Run, index: VectorIndex, collection: str, rows: int) -> dict[str, Any]:
    """Index the collection and load it into memory."""
    milvus = run.settings.milvus
    spec = default_index(run.settings, rows, embedded=run.settings.embedded)
    with run.job.console.meter("index", "rows") as progress:
        index.build_index(collection, spec, timeout=milvus.index_timeout_s, on_progress=progress)
    ensure_loaded(run, index, collection)
    return {"index": spec.index_type, "rows": rows, **_nodes(run, index)}


def ensure_loaded(run: Run, index: VectorIndex, collection: str) -> None:
    """Load a collection if it is not loaded: a process that opens an embedded index finds all of them released."""
    milvus = run.settings.milvus
    index.load(collection, replicas=milvus.replicas, timeout=milvus.index_timeout_s)
