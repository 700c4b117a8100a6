"""Stage the permitted faces as Parquet and load them into a new Milvus collection."""

from __future__ import annotations

from dataclasses import asdict

from jobs.cli import Result, job
from jobs.embed import gate_step
from jobs.embedding.faces import permitted_faces, resalt
from jobs.errors import LeaseLost, NotProvenError
from jobs.governance.gate import Gated, gate_warehouse
from jobs.index.collections import collection_name
from jobs.index.load_plan import plan_load
from jobs.index.milvus.connect import connect
from jobs.index.permitted_keys import not_permitted
from jobs.index.protocol import EMBEDDED, VectorIndex
from jobs.runs.history import last_fingerprint, staged_under
from jobs.runs.record import Job, Run, open_run
from jobs.runs.staging_paths import staging_path
from jobs.runs.stores import drop
from jobs.steps.load import build_and_load, check_not_seen, import_staged, stage_faces, staged_files
from jobs.tables.files import remove_tree


def load_steps(run: Run, index: VectorIndex) -> str:
    """Gate again, stage, gate again, import, index, load; returns the collection's name."""
    collection = collection_name(run.settings.milvus.alias, run.run_id)
    run.facts["collection"] = collection
    fingerprint = known_fingerprint(run)
    if not run.result("import"):
        # Before the files are staged: it may take hours, and one that readers see is neither filled nor dropped.
        check_not_seen(run, index, collection)
    run.step("resalt", lambda: {"faces": resalt(run.warehouse, fingerprint)}, once=False)
    gated = None if run.result("stage") else gate_step(run)
    _stage(run, index, fingerprint, once=True)
    if not run.result("import") and _withdrawn_since(run, gated, fingerprint):
        # The files hold what is no longer permitted: they go, and a collection begun with them.
        drop(run, index, collection)
        run.forget("import")
        _stage(run, index, fingerprint, once=False)
    staged = staged_files(run)
    run.step("import", lambda: import_staged(run, index, collection, staged, fingerprint))
    run.step("index", lambda: build_and_load(run, index, collection, staged.rows))
    return collection


def _stage(run: Run, index: VectorIndex, fingerprint: str, *, once: bool) -> None:
    """Stage what the gate permits at this moment. Without the lease, nothing of it stays."""
    try:
        run.step(
            "stage",
            lambda: stage_faces(run, index, permitted_faces(run.warehouse, gate_step(run), fingerprint)),
            once=once,
        )
    except LeaseLost:
        if not staged_under(run.warehouse, run.run_id, run.lease.token):
            remove_tree(run.job.spark, staging_path(run))
        raise


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


def _withdrawn_since(run: Run, staged_under: Gated | None, fingerprint: str) -> bool:
    gated = gate_step(run)
    if gated is staged_under:
        return False
    permitted = permitted_faces(run.warehouse, gated, fingerprint)
    return not not_permitted(staged_files(run).read(run.job.spark), permitted).isEmpty()


def dry_run(job_: Job) -> Result:
    """The plan of a load of what the gate permits now, of one model; nothing is written.

    Raises:
        NotProvenError: no run has embedded anything with a model.
    """
    fingerprint = last_fingerprint(job_.warehouse, job_.run_id)
    if fingerprint is None:
        raise NotProvenError("Nothing has been embedded yet.", hint="run `embed` first; `reindex` does all of it.")
    gated = gate_warehouse(job_.warehouse, job_.settings, now=job_.clock())
    rows = permitted_faces(job_.warehouse, gated, fingerprint).count()
    # An embedded index is not opened, for opening makes it.
    features = EMBEDDED if job_.settings.embedded else connect(job_.settings).features
    plan = plan_load(rows, job_.settings, features)
    first, *others = plan.lines()
    for line in others:
        job_.console.note(line)
    return {"plan": {**asdict(plan), "index": plan.index.index_type}, "message": f"dry run: {first}"}


@job("load", examples="python -m jobs.load --config conf/local.yaml --run-id ID_OF_AN_EMBED_RUN")
def main(job_: Job) -> Result:
    """Stage the permitted faces of a run as Parquet and load them into a new Milvus collection."""
    if job_.dry_run:
        return dry_run(job_)
    with open_run(job_, "load") as run:
        collection = load_steps(run, connect(run.settings))
        run.facts["message"] = message = f"{staged_files(run).rows} faces loaded into {collection}; not yet verified"
        return {"run_id": run.run_id, "collection": collection, "message": message}


if __name__ == "__main__":
    main()
