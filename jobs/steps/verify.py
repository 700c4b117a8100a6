"""The proof of a loaded collection: counts, keys, recall, and that every image is accounted for."""

from __future__ import annotations

from functools import reduce
from typing import Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.embedding.faces import permitted_faces
from jobs.embedding.status import LEFT_FOR_NEXT_RUN, MISSING, outcomes
from jobs.errors import NotProvenError
from jobs.formatting import counted
from jobs.governance.changes import changed_since
from jobs.governance.gate import Gated
from jobs.governance.tombstones import FACE
from jobs.index.ground_truth import recall_sample
from jobs.index.permitted_keys import compare_keys, not_permitted, remove_keys
from jobs.index.protocol import VectorIndex
from jobs.index.verification import Proof, prove
from jobs.runs.machines import cluster_resources
from jobs.runs.record import Run
from jobs.runs.results import Imported, Reconciled, RemovedFromCollection, Verified
from jobs.runs.step_result import record_of
from jobs.schemas import ERASURE_ITEMS, IMAGE_STATUS, REMOVED_FACES
from jobs.steps.gate import gate_step
from jobs.steps.load import ensure_loaded, known_fingerprint, staged_files
from jobs.tables.store import looked_up, materialise

# Of faces that are gone the proof asks for up to so many by their keys, whatever buckets say.
_CANARIES: Final = 1_000
_AGAIN: Final = "run the same command with the same --run-id, or a new reindex; `status` shows the counts."
_IMPLAUSIBLE: Final = (
    "look at model.weights; `evaluate` says whether they tell people apart. Once they do, start a new reindex. If the "
    "index is right all the same, start one with --set verify.sanity=false: nothing is embedded twice."
)


def verify_steps(run: Run, index: VectorIndex) -> Proof:
    """Gate a last time, take out what is not permitted any more, prove the collection, reconcile the images.

    Raises:
        NotProvenError: anything is missing, unexpected or twice; the recall is below its floor; an image has no
            outcome; the faces of the images are not the rows of the collection; or no trained network can have made
            the vectors.
    """
    imported = run.result(Imported)
    if imported is None:
        raise NotProvenError(f"Run {run.run_id} has loaded nothing yet.", hint="run `load --run-id` for it first.")
    collection, fingerprint = imported.collection, known_fingerprint(run)
    with run.step(Verified) as step:
        ensure_loaded(run, index, collection)
        gated = gate_step(run)
        with run.job.watching("verify", "list the faces that are permitted"):
            permitted = materialise(permitted_faces(run.warehouse, gated, fingerprint).keys)
        removed = remove_unpermitted_loaded(run, index, collection, permitted)
        with run.job.watching("verify", "compare all keys and measure recall"):
            proof = _prove(run, index, collection, permitted, removed)
        with run.job.watching("verify", "count what became of every image"):
            counts = _reconcile(run, gated, fingerprint, proof)
        run.facts["counts"] = record_of(counts)
        machines = cluster_resources(run.job.spark, run.settings)
        step.result = Verified(collection=collection, proof=proof, counts=counts, machines=machines)
    if faults := step.result.faults:
        raise NotProvenError(
            f"Collection {collection} is not proven: {'; '.join(faults)}. The alias was not switched.",
            hint=hint_for(proof),
        )
    return proof


def hint_for(proof: Proof) -> str:
    """What helps where a collection is not proven: vectors that no network can have made come again."""
    return _IMPLAUSIBLE if proof.implausible else _AGAIN


def remove_unpermitted_loaded(run: Run, index: VectorIndex, collection: str, permitted: DataFrame) -> DataFrame:
    """Delete from the collection what was staged and is not permitted any more; returns those rows."""
    with run.step(RemovedFromCollection) as step:
        with run.job.watching("remove-unpermitted-loaded", "look for staged faces that are not permitted any more"):
            removed = materialise(not_permitted(staged_files(run).read(run.job.spark), permitted))
        step.result = RemovedFromCollection(faces=remove_keys(index, collection, removed))
    return removed


def _prove(run: Run, index: VectorIndex, collection: str, permitted: DataFrame, removed: DataFrame) -> Proof:
    staged, settings, spark = staged_files(run), run.settings.verify, run.job.spark
    rows = staged.read(spark)
    sample = recall_sample(rows, removed, size=settings.recall_sample, vector_type=staged.vector_type)
    expected = rows.select("face_id", "bucket").join(looked_up(removed.select("face_id")), "face_id", "left_anti")
    return prove(
        index,
        collection,
        expected_rows=permitted.count(),
        compared=compare_keys(spark, index, collection, run.settings, expected, staged.buckets),
        sample=sample,
        recall_floor=settings.recall_floor,
        canaries_absent=_gone(run, removed, permitted),
        trained=settings.sanity and run.trained,
    )


def _gone(run: Run, removed: DataFrame, permitted: DataFrame) -> list[int]:
    """Keys of faces that are gone and must not be found, up to `_CANARIES` of them: those ``removed`` since they were
    staged, those that left the table, those that open requests name. (Of complete ones nobody has the keys any more.)

    Not of one that is ``permitted`` now, for its person came back with the same picture.
    """
    warehouse = run.warehouse
    named = warehouse.read(ERASURE_ITEMS).where(F.col("kind") == FACE)
    frames = [
        removed.select("face_id"),
        warehouse.read(REMOVED_FACES).select("face_id"),
        named.select(F.col("value").cast("bigint").alias("face_id")),
    ]
    gone = reduce(DataFrame.unionByName, frames).distinct().join(permitted.select("face_id"), "face_id", "left_anti")
    # Others each night, and the same where a run is resumed.
    drawn = gone.orderBy(F.xxhash64("face_id", F.lit(run.run_id)), "face_id").limit(_CANARIES)
    return [row["face_id"] for row in drawn.collect()]


def _reconcile(run: Run, gated: Gated, fingerprint: str, proof: Proof) -> Reconciled:
    rows = outcomes(gated, run.warehouse.read(IMAGE_STATUS), fingerprint).collect()
    statuses: dict[str, int] = {}
    for row in rows:
        statuses[row["status"]] = statuses.get(row["status"], 0) + row["images"]
    total = gated.decisions.count()
    faces = sum(row["faces"] for row in rows)
    faults = []
    if sum(statuses.values()) != total:
        faults.append(f"{counted(total, 'image')}, but {counted(sum(statuses.values()), 'outcome')}")
    if statuses.get(MISSING) and not changed_since(run.warehouse, run.started_at):
        faults.append(f"{statuses[MISSING]} accepted images have no outcome")
    if faces != proof.rows_found:
        faults.append(f"{counted(faces, 'face')} of images, but {counted(proof.rows_found, 'row')} in the collection")
    if MISSING in statuses:
        # Permitted (or covered differently) only since this run gated them; the next run embeds them.
        statuses[LEFT_FOR_NEXT_RUN] = statuses.pop(MISSING)
    reasons = {f"{r['status']}:{r['reason']}": r["images"] for r in rows if r["reason"]}
    return Reconciled(images=total, statuses=statuses, reasons=reasons, faces=faces, faults=tuple(faults))
