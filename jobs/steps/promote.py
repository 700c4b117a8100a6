"""The switch of the alias to a proven collection."""

from __future__ import annotations

from jobs.embedding.faces import permitted_faces
from jobs.errors import NotProvenError
from jobs.index.promotion import AliasWatch, Promotion, promote
from jobs.index.protocol import VectorIndex
from jobs.index.verification import Proof
from jobs.runs.aliases import has_switched, switching
from jobs.runs.history import live_runs, proven_collections
from jobs.runs.record import Run
from jobs.runs.results import Promoted, Verified
from jobs.runs.staging_paths import clear_staging
from jobs.runs.stores import about_to_drop
from jobs.steps.gate import gate_step
from jobs.steps.load import ensure_loaded, known_fingerprint
from jobs.steps.verify import remove_unpermitted_loaded
from jobs.tables.store import materialise


def promote_steps(run: Run, index: VectorIndex) -> Promotion:
    """Gate once more, take out what is not permitted any more, switch the alias, drop what is too old.

    Of a run that was killed behind the switch, in the watch, the collection is live since: what is not permitted
    any more leaves it by `sync`, `erase` and `expire`, and the files that it was loaded from may be gone. It is only
    watched again.

    Raises:
        NotProvenError: the run has no passed proof, or rows are missing after the last removal.
    """
    verified = last_verified(run)
    proof, collection = verified.proof, verified.collection
    fingerprint = known_fingerprint(run)
    if not has_switched(run, index):
        _remove_last(run, index, collection, fingerprint)
    with run.step(Promoted) as step:
        done = _switch(run, index, proof, collection, fingerprint)
        step.result = Promoted(
            alias=run.settings.milvus.alias,
            current=done.current,
            previous=done.previous,
            dropped=done.dropped,
            watched=done.watched,
        )
    clear_staging(run)
    return done


def _remove_last(run: Run, index: VectorIndex, collection: str, fingerprint: str) -> None:
    """Take out of the collection what is not permitted any more, and see that all that is permitted is there."""
    ensure_loaded(run, index, collection)
    with run.job.watching("promote", "list the faces that are permitted"):
        permitted = materialise(permitted_faces(run.warehouse, gate_step(run), fingerprint).keys)
    remove_unpermitted_loaded(run, index, collection, permitted)
    expected, found = permitted.count(), index.count(collection)
    if expected != found:
        raise NotProvenError(
            f"Collection {collection} holds {found} rows where {expected} are permitted; not promoted.",
            hint="run `verify` again with the same --run-id.",
        )


def _switch(run: Run, index: VectorIndex, proof: Proof, collection: str, fingerprint: str) -> Promotion:
    milvus = run.settings.milvus
    with switching(run, index, collection):
        return promote(
            index,
            milvus.alias,
            collection,
            proof=proof,
            proven=[collection, *(c for c in proven_collections(run.warehouse) if c != collection)],
            keep=milvus.keep_collections,
            protected=live_runs(run.warehouse, milvus.alias),
            fingerprint=fingerprint,
            replicas=milvus.replicas,
            timeout=milvus.index_timeout_s,
            # An embedded index has no readers but this process.
            watch=None if run.settings.embedded else AliasWatch(milvus.watch_s, milvus.watch_p99_ms),
            before_drop=lambda names: about_to_drop(run, index, names),
        )


def last_verified(run: Run) -> Verified:
    """The passed proof on record.

    Raises:
        NotProvenError: there is none, or it failed.
    """
    verified = run.result(Verified)
    if verified is None or not verified.is_proven:
        raise NotProvenError(f"Run {run.run_id} has no passed proof.", hint="run `verify --run-id` for it first.")
    return verified
