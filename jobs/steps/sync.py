"""What reaches the live collection between two nights: withdrawals, holds, expiries at once; small additions after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.embedding.faces import PermittedFaces, permitted_faces
from jobs.errors import LeaseLost, MixedFingerprints
from jobs.formatting import counted
from jobs.governance.gate import Gated, gate_warehouse
from jobs.index import staging
from jobs.index.permitted_keys import own_keys, remove_unpermitted
from jobs.index.protocol import VectorIndex
from jobs.runs.history import buckets_of, staged_at
from jobs.runs.record import JobContext, Run, utc_now
from jobs.runs.results import Added, RemovedFromLive
from jobs.runs.stores import about_to_fill, need_all, own_live
from jobs.schemas import BASIS_LINKS, IMAGE_STATUS, IMAGES, PROCESSING_BASIS, SOURCE_BATCHES
from jobs.settings import Settings
from jobs.steps.embed import embed_steps, prepare_model
from jobs.steps.expire import expire_steps
from jobs.steps.gate import gate_step
from jobs.steps.load import purpose_flags
from jobs.tables.store import Warehouse

if TYPE_CHECKING:
    from pyspark.sql import Column

_PAGE = 2_000


def sync_steps(run: Run, index: VectorIndex) -> str:
    """Out of the live collection first; then what is due is destroyed; then what is new comes in. Says what it did."""
    # Nothing is staged, so a run that is resumed need not keep to the images that were there when it began.
    run.images_by = utc_now()
    with run.step(RemovedFromLive) as step:
        step.result = out = remove_unpermitted_live(
            run.warehouse, run.settings, index, lambda: gate_step(run, to_destroy=True)
        )
    expired = expire_steps(run, index, sweep=False)
    live = out.collection
    erased = counted(expired.items.get("image", 0), "image")
    text = f"{counted(out.removed, 'face')} removed, {erased} erased{expired.waiting}"
    if not live:
        return f"nothing is live yet; {text}"
    info = index.info(live)
    if info is None or info.model_fingerprint != prepare_model(run).fingerprint:
        return f"{text}; nothing added: the live collection is of another model than the settings name"
    embed_steps(run, recompute=False, limit=run.settings.sync.max_images)
    with run.step(Added) as adding:
        adding.result = added = add_small(run, index, live, permitted_in(run, index, live))
    return f"{text}, {counted(added.added, 'face')} added" + (
        f", {added.left} left for the night" if added.left else ""
    )


def remove_unpermitted_live(
    warehouse: Warehouse, settings: Settings, index: VectorIndex, decide: Callable[[], Gated]
) -> RemovedFromLive:
    """Take out of the live collection every key that the gate does not permit now; repeating it is harmless.

    It writes no table, so it needs no lease: while a reindex runs for hours, withdrawals still leave the live
    collection. The keys are read before ``decide`` asks the gate: what another run adds meanwhile is not among them.

    Raises:
        SettingsError: the alias points at a collection that is not of this warehouse.
        StoreMissing: it points at none, and collections that were filled are not in this index.
    """
    found = own_live(warehouse, settings, index)
    if found is None:
        need_all(warehouse, settings, index)
        return RemovedFromLive(collection="", removed=0)
    live, info = found
    index.load(live, replicas=settings.milvus.replicas, timeout=settings.milvus.index_timeout_s)
    keys = own_keys(warehouse.spark, index, live, settings, buckets_of(warehouse, live))
    permitted = permitted_faces(warehouse, decide(), info.model_fingerprint).keys
    return RemovedFromLive(collection=live, removed=remove_unpermitted(index, live, keys, permitted))


def remove_without_lease(job_: JobContext, index: VectorIndex) -> int:
    """The same for a job that another run keeps from the tables for hours; returns how many faces were removed.

    Raises:
        SettingsError, StoreMissing: as `remove_unpermitted_live`.
    """

    def decide() -> Gated:
        return gate_warehouse(job_.warehouse, job_.settings, now=job_.clock(), to_destroy=True)

    return remove_unpermitted_live(job_.warehouse, job_.settings, index, decide).removed


def permitted_in(run: Run, index: VectorIndex, live: str) -> PermittedFaces:
    """What the gate permits now of the faces that a collection of this one's model may hold."""
    info = index.info(live)
    assert info is not None  # noqa: S101 - the live collection is one of ours, as `remove_unpermitted_live` found
    return permitted_faces(run.warehouse, gate_step(run), info.model_fingerprint)


def add_small(run: Run, index: VectorIndex, live: str, faces: PermittedFaces) -> Added:
    """Bring ``faces`` that are missing into the live collection, if they are few; counts.

    Looked for among the images of which something changed since the collection was staged: embedded later, or with a
    record, link or batch that was recorded later or has begun to hold.

    Raises:
        MixedFingerprints: the collection holds another model's embeddings.
    """
    warehouse, settings = run.warehouse, run.settings
    info = index.info(live)
    assert info is not None  # noqa: S101 - as in `permitted_in`
    if info.model_fingerprint != faces.fingerprint:
        raise MixedFingerprints(f"'{live}' holds embeddings of another model than these; nothing was added.")
    since = staged_at(warehouse, info.run_id)
    if since is None:
        return Added(added=0, left=0)
    changed = _changed_since(warehouse, F.timestamp_micros(F.lit(int(since * 1e6))))
    rows = faces.rows.join(changed, "image_id", "left_semi").select("face_id", "embedding", "valid_until")
    wanted = rows.count()
    if wanted > settings.sync.max_faces:
        run.job.console.note(f"{counted(wanted, 'face')} new or back: more than sync.max_faces, left for `reindex`.")
        return Added(added=0, left=wanted)
    shaped = staging.rows_of(rows, buckets_of(warehouse, live), purpose_flags(settings))
    index.load(live, replicas=settings.milvus.replicas, timeout=settings.milvus.index_timeout_s)
    added = sum(_insert_missing(run, index, live, page) for page in _pages(shaped))
    if added:
        index.flush(live, timeout=settings.milvus.ready_timeout_s)
    return Added(added=added, left=0)


def _changed_since(warehouse: Warehouse, at: Column) -> DataFrame:
    links = warehouse.read(BASIS_LINKS).select("image_id", "record_id", "recorded_at")
    basis, late = warehouse.read(PROCESSING_BASIS), F.col("recorded_at") > at
    begun = F.exists("events", lambda event: event["event_time"] > at)
    disclosed = F.coalesce(F.col("authority_disclosed_at") + F.expr("INTERVAL 1 YEAR") > at, F.lit(False))
    records = basis.where(late | F.coalesce(begun, F.lit(False)) | disclosed).select("record_id").distinct()
    batches = warehouse.read(SOURCE_BATCHES).where(late).select("source_batch_id").distinct()
    parts = [
        warehouse.read(IMAGE_STATUS).where(F.col("decided_at") > at).select("image_id"),
        links.where(late).select("image_id"),
        links.join(records, "record_id", "left_semi").select("image_id"),
        warehouse.read(IMAGES).join(batches, "source_batch_id", "left_semi").select("image_id"),
    ]
    return reduce(DataFrame.unionByName, parts).distinct()


def _pages(rows: DataFrame) -> Iterator[list[Any]]:
    there = iter(rows.toLocalIterator())
    while page := list(islice(there, _PAGE)):
        yield page


def _insert_missing(run: Run, index: VectorIndex, live: str, page: list[Any]) -> int:
    # A server would keep an inserted key beside the one that is there.
    there = set(index.fetch(live, [row["face_id"] for row in page])[0].tolist())
    missing = [row.asDict() for row in page if row["face_id"] not in there]
    if missing:
        schema = pa.schema(
            [("face_id", pa.int64()), ("embedding", pa.list_(pa.float32())), ("bucket", pa.int64()),
             ("purposes", pa.int64()), ("expires_at", pa.int64())]
        )  # fmt: skip
        about_to_fill(run, live)
        index.insert(live, pa.Table.from_pylist(missing, schema=schema))
        try:
            run.lease.check()
        except LeaseLost:
            # A later run may have erased one of them, and Milvus fences nothing.
            index.delete(live, [row["face_id"] for row in missing])
            index.flush(live, timeout=run.settings.milvus.ready_timeout_s)
            raise
    return len(missing)
