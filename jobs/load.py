"""Stage the permitted faces as Parquet and load them into a new Milvus collection."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from jobs.cli import Result, job
from jobs.embed import gate_step
from jobs.errors import MixedFingerprints, NotProvenError
from jobs.governance.gate import Gated
from jobs.index import staging
from jobs.index.collections import collection_name, default_index
from jobs.index.loader import StagedFile, load_files
from jobs.index.milvus import CollectionInfo, VectorIndex, connect
from jobs.index.regate import not_permitted
from jobs.runs.imports import RunImportRecorder
from jobs.runs.record import Job, Run, open_run, utc_now
from jobs.tables.embeddings import permitted_faces, resalt


def load_steps(run: Run, index: VectorIndex) -> str:
    """Gate again, stage, gate again, import, index, load; returns the collection's name."""
    collection = collection_name(run.settings.milvus.alias, run.run_id)
    run.facts["collection"] = collection
    fingerprint = known_fingerprint(run)
    run.step("resalt", lambda: {"faces": resalt(run.warehouse, fingerprint)}, once=False)
    gated = None if run.result("stage") else gate_step(run)
    run.step("stage", lambda: _stage(run, gate_step(run), fingerprint))
    if not run.result("import") and _withdrawn_since(run, gated, fingerprint):
        # The files hold what is no longer permitted: they go, and a collection begun with them.
        index.drop(collection)
        run.forget("import")
        run.step("stage", lambda: _stage(run, gate_step(run), fingerprint), once=False)
    staged = staged_files(run)
    run.step("import", lambda: _import(run, index, collection, staged, fingerprint))
    run.step("index", lambda: _index(run, index, collection, staged.rows))
    return collection


def known_fingerprint(run: Run) -> str:
    """The model that the run embedded with.

    Raises:
        NotProvenError: the run has embedded nothing.
    """
    fingerprint = (run.result("gate") or {}).get("fingerprint")
    if not fingerprint:
        raise NotProvenError(
            f"Run {run.run_id} has not embedded anything yet.", hint="give the --run-id of a run of `embed`."
        )
    run.facts.update(model_fingerprint=fingerprint, weights=(run.result("gate") or {}).get("weights"))
    return str(fingerprint)


def staging_path(run: Run) -> str:
    """Where this run's files lie."""
    base = run.settings.staging.path or run.warehouse.path("_staging")
    return f"{base.rstrip('/')}/{run.run_id}"


def staged_files(run: Run) -> staging.Staged:
    """The manifest of this run, from the run record."""
    result = run.result("stage")
    if result is None:
        raise NotProvenError(f"Run {run.run_id} has staged nothing yet.", hint="run `load --run-id` for it first.")
    return staging.Staged(result["path"], tuple(StagedFile(**f) for f in result["files"]), result["buckets"])


def _stage(run: Run, gated: Gated, fingerprint: str) -> dict[str, Any]:
    faces = permitted_faces(run.warehouse, gated, fingerprint)
    governance = run.settings.governance
    flags = sum(1 << governance.allowed_purposes.index(p) for p in governance.purposes)
    rows_per_file = run.settings.staging.rows_per_file
    staged = staging.stage(faces, staging_path(run), purpose_flags=flags, rows_per_file=rows_per_file)
    files = [asdict(f) for f in staged.files]
    return {"path": staged.path, "rows": staged.rows, "buckets": staged.buckets, "files": files}


def _withdrawn_since(run: Run, staged_under: Gated | None, fingerprint: str) -> bool:
    gated = gate_step(run)
    if gated is staged_under:
        return False
    permitted = permitted_faces(run.warehouse, gated, fingerprint)
    return not not_permitted(run.job.spark, staged_files(run).path, permitted).isEmpty()


def _import(run: Run, index: VectorIndex, collection: str, staged: staging.Staged, fingerprint: str) -> dict[str, Any]:
    there = index.info(collection)
    if there is not None and there.model_fingerprint != fingerprint:
        raise MixedFingerprints(
            f"Collection {collection} holds embeddings of another model than this run's; nothing was imported.",
            hint="start a new run without --run-id.",
        )
    if not index.exists(collection):
        run.forget("import/")
        info = CollectionInfo(
            model_fingerprint=fingerprint,
            run_id=run.run_id,
            trained="UNTRAINED" not in str(run.facts.get("weights")),
            label=str(run.facts.get("weights")),
            created_at=utc_now().isoformat(timespec="seconds"),
        )
        index.create(collection, dim=staging.DIM, shards=run.settings.milvus.shards, properties=info)
    load_files(index, collection, staged.files, run.settings, recorder=RunImportRecorder(run))
    return {"collection": collection, "rows": staged.rows}


def _index(run: Run, index: VectorIndex, collection: str, rows: int) -> dict[str, Any]:
    milvus = run.settings.milvus
    spec = default_index(run.settings, rows, embedded=run.settings.embedded)
    index.build_index(collection, spec, timeout=milvus.ready_timeout_s)
    ensure_loaded(run, index, collection)
    return {"index": spec.index_type}


def ensure_loaded(run: Run, index: VectorIndex, collection: str) -> None:
    """Load a collection if it is not loaded: a process that opens an embedded index finds all of them released."""
    milvus = run.settings.milvus
    index.load(collection, replicas=milvus.replicas, timeout=milvus.ready_timeout_s)


@job("load", examples="python -m jobs.load --config conf/local.yaml --run-id ID_OF_AN_EMBED_RUN")
def main(job_: Job) -> Result:
    """Stage the permitted faces of a run as Parquet and load them into a new Milvus collection."""
    if job_.dry_run:
        return {"message": f"dry run: would load the faces of run {job_.run_id or '(new)'}"}
    with open_run(job_, "load") as run:
        collection = load_steps(run, connect(run.settings))
        run.facts["message"] = message = f"{staged_files(run).rows} faces loaded into {collection}; not yet verified"
        return {"run_id": run.run_id, "collection": collection, "message": message}


if __name__ == "__main__":
    main()
