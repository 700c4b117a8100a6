"""Stage the permitted faces as Parquet and load them into a new Milvus collection."""

from __future__ import annotations

from dataclasses import asdict

from jobs.cli import job
from jobs.embedding.faces import permitted_faces
from jobs.errors import NotProvenError
from jobs.formatting import counted
from jobs.governance.gate import gate_warehouse
from jobs.index.load_plan import plan_load
from jobs.index.milvus.connect import connect
from jobs.index.protocol import EMBEDDED, Features
from jobs.runs.history import last_fingerprint
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext, open_run
from jobs.steps.load import load_steps, staged_files


def dry_run(job_: JobContext) -> Result:
    """The plan of a load of what the gate permits now, of one model; nothing is written.

    Raises:
        NotProvenError: no run has embedded anything with a model.
    """
    fingerprint = last_fingerprint(job_.warehouse, job_.run_id)
    if fingerprint is None:
        raise NotProvenError("Nothing has been embedded yet.", hint="run `embed` first; `reindex` does all of it.")
    gated = gate_warehouse(job_.warehouse, job_.settings, now=job_.clock())
    rows = permitted_faces(job_.warehouse, gated, fingerprint).rows.count()
    plan = plan_load(rows, job_.settings, _features(job_))
    first, *others = plan.lines()
    for line in others:
        job_.console.note(line)
    return Result(f"dry run: {first}", data={"plan": {**asdict(plan), "index": plan.index.index_type}})


def _features(job_: JobContext) -> Features:
    if job_.settings.embedded:
        # It is not opened, for opening makes it.
        return EMBEDDED
    with connect(job_.settings) as index:
        return index.features


@job("load", examples="python -m jobs.load --config conf/local.yaml --run-id ID_OF_AN_EMBED_RUN")
def main(job_: JobContext) -> Result:
    """Stage the permitted faces of a run as Parquet and load them into a new Milvus collection."""
    if job_.dry_run:
        return dry_run(job_)
    with open_run(job_, "load") as run, connect(run.settings) as index:
        collection = load_steps(run, index)
        message = f"{counted(staged_files(run).rows, 'face')} loaded into {collection}; not yet verified"
        return run.end(Result(message, data={"collection": collection}))


if __name__ == "__main__":
    main()
