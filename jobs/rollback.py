"""Point the alias back at the collection before the live one."""

from __future__ import annotations

from jobs.cli import job
from jobs.embedding.faces import permitted_faces
from jobs.errors import NotProvenError
from jobs.governance.gate import gate_warehouse
from jobs.index.collections import belongs_to
from jobs.index.milvus.connect import connect
from jobs.index.permitted_keys import own_keys, remove_unpermitted
from jobs.index.promotion import rollback
from jobs.index.protocol import VectorIndex
from jobs.runs.aliases import settle_alias, switching
from jobs.runs.history import buckets_of, proven_collections
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext, open_run
from jobs.runs.results import RemovedFromCollection
from jobs.tables.store import materialise


@job("rollback", examples="python -m jobs.rollback --config conf/local.yaml")
def main(job_: JobContext) -> Result:
    """Point the alias back at the proven collection before the live one, without what is not permitted any more."""
    with connect(job_.settings) as index:
        return _back(job_, index)


def _back(job_: JobContext, index: VectorIndex) -> Result:
    alias = job_.settings.milvus.alias
    there = [name for name in proven_collections(job_.warehouse) if index.exists(name)]
    # A warehouse may serve several aliases; another one's collection may be of another model.
    proven = [name for name in there if belongs_to(alias, name, index.info(name))]
    live = index.alias_target(alias)
    older = proven[proven.index(live) + 1 :] if live in proven else []
    if not older:
        raise NotProvenError(
            f"Alias {alias} has no earlier proven collection to go back to.", hint="`status` lists the collections."
        )
    if job_.dry_run:
        return Result(f"dry run: alias {alias} would go from {live} back to {older[0]}")
    with open_run(job_, "rollback") as run:
        settle_alias(run, index)
        info = index.info(older[0])
        assert info is not None  # noqa: S101 - every collection of ours carries its info from creation
        with job_.watching("rollback", "list the faces that are permitted"):
            gated = gate_warehouse(run.warehouse, run.settings, now=job_.clock(), ingested_by=run.started_at)
            permitted = materialise(permitted_faces(run.warehouse, gated, info.model_fingerprint).keys)
        index.load(older[0], replicas=run.settings.milvus.replicas, timeout=run.settings.milvus.index_timeout_s)
        buckets = buckets_of(run.warehouse, older[0])
        with run.step(RemovedFromCollection, words="compare the collection's keys with what is permitted") as step:
            keys = own_keys(job_.spark, index, older[0], run.settings, buckets)
            removed = remove_unpermitted(index, older[0], keys, permitted)
            step.result = RemovedFromCollection(faces=removed)
        with switching(run, index, older[0]):
            done = rollback(index, alias, proven=proven)
        run.facts.update(collection=done.current)
        message = f"alias {alias} → {done.current} (before: {done.previous})"
        return run.end(Result(message, data={"current": done.current, "removed": removed}))


if __name__ == "__main__":
    main()
