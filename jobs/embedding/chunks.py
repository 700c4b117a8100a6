"""From accepted images to rows of `embeddings` and `image_status`, chunk by chunk.

A chunk is a range of `images.part`. A run that was killed between its two appends finds the faces of the first by its
own name on them, and does not write them twice. What is done is known by (image_id, input_digest,
model_fingerprint) in `image_status`; the vectors themselves are never read to find out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.errors import MixedFingerprints
from jobs.schemas import EMBEDDINGS, IMAGE_STATUS, IMAGES, REMOVED_FACES
from jobs.settings import Settings
from jobs.tables.store import Warehouse, materialise, reading_images
from udfs.spark import RESULT_SCHEMA, Counted, EmbedSpec, embed_arrow

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.governance.gate import Gated

REFUSED: Final = "refused"
# Outcomes that another night may change without the image changing; they are tried again by the next run.
RETRIED: Final = ("unreadable",)
_INPUT: Final = ("image_id", "input_digest")


@dataclass(frozen=True)
class Chunk:
    """Parts ``first``…``last``, embedded and committed together, and how many images there are to embed in them."""

    first: int
    last: int
    images: int = 0

    @property
    def name(self) -> str:
        """Part of the name of its step."""
        return f"{self.first}-{self.last}"


def computed(status: DataFrame, fingerprint: str, run_id: str, *, recompute: bool) -> DataFrame:
    """(image_id, input_digest) that need no computing; with ``recompute`` only what this very run has done."""
    mine = F.col("run_id") == run_id
    reusable = F.lit(False) if recompute else ~F.col("status").isin(*RETRIED)
    done = status.where((F.col("model_fingerprint") == fingerprint) & (F.col("status") != REFUSED) & (mine | reusable))
    return done.select(*_INPUT).distinct()


def withdraw_stale(warehouse: Warehouse, gated: Gated, *, now: datetime) -> int:
    """Delete every face, of any model, whose image or coverage is no longer accepted; returns the faces deleted.

    A revoked batch, an ended consent, a changed or deleted image: all end here (Guarantee 6). A legal hold suspends
    destruction as well as serving (Guarantee 7): what it covers stays in the table, and out of every index. Keys are
    written down before their rows go: an erasure that follows tells by them whose faces collections may hold still.
    """
    permitted = gated.accepted.select(*_INPUT)
    held = gated.refused.where("held").select("image_id")

    def stale_in(rows: DataFrame) -> DataFrame:
        gone = rows.join(permitted, list(_INPUT), "left_anti")
        return materialise(gone.join(held, "image_id", "left_anti"))

    stale = stale_in(warehouse.read(EMBEDDINGS).select(*_INPUT, "face_id", "basis_record_ids"))
    faces = stale.count()
    outdated = stale_in(warehouse.read(IMAGE_STATUS).where(F.col("status") != REFUSED).select(*_INPUT))
    if faces:
        stamped = stale.withColumn("recorded_at", F.lit(now).cast("timestamp"))
        warehouse.append(stamped, REMOVED_FACES)
        warehouse.delete_matching(EMBEDDINGS, stale, _INPUT)
    if not outdated.isEmpty():
        warehouse.delete_matching(IMAGE_STATUS, outdated, _INPUT)
    return faces


def record_refusals(warehouse: Warehouse, gated: Gated, *, run_id: str, now: datetime) -> int:
    """Append a status row for images whose refusal is new or has another reason; returns how many."""
    last = (
        warehouse.read(IMAGE_STATUS)
        .groupBy("image_id")
        .agg(F.max(F.struct("decided_at", "status", "reason")).alias("last"))
        .where(F.col("last.status") == REFUSED)
        .select("image_id", F.col("last.reason").alias("reason"))
    )
    changed = gated.refused.join(last, ["image_id", "reason"], "left_anti")
    rows = materialise(_status_rows(changed.select("image_id", "reason"), run_id, now))
    count = rows.count()
    if count:
        warehouse.append(rows, IMAGE_STATUS)
    return count


def _status_rows(refused: DataFrame, run_id: str, now: datetime) -> DataFrame:
    nothing = F.lit(None)
    return refused.select(
        "image_id",
        nothing.cast("string").alias("input_digest"),
        nothing.cast("string").alias("model_fingerprint"),
        F.lit(REFUSED).alias("status"),
        "reason",
        nothing.cast("int").alias("width"),
        nothing.cast("int").alias("height"),
        nothing.cast("int").alias("faces"),
        nothing.cast("struct<too_small: int, low_confidence: int, over_limit: int, uncovered: int>").alias("dropped"),
        F.lit(run_id).alias("run_id"),
        F.lit(now).cast("timestamp").alias("decided_at"),
    )


def plan_chunks(worklist: DataFrame, chunk_images: int) -> list[Chunk]:
    """Cut the parts that have work into ranges of about ``chunk_images`` images each."""
    sizes = worklist.groupBy("part").count().orderBy("part").collect()
    chunks: list[Chunk] = []
    first, size = None, 0
    for row in sizes:
        first = row["part"] if first is None else first
        size += row["count"]
        if size >= chunk_images:
            chunks.append(Chunk(first, row["part"], size))
            first, size = None, 0
    if first is not None:
        chunks.append(Chunk(first, sizes[-1]["part"], size))
    return chunks


def embed_chunk(
    warehouse: Warehouse,
    worklist: DataFrame,
    chunk: Chunk,
    spec: EmbedSpec,
    settings: Settings,
    *,
    run_id: str,
    now: datetime,
    recompute: bool,
    counted: Counted | None = None,
) -> dict[str, Any]:
    """Detect, embed and commit one chunk; returns counts.

    ``counted`` is told, on the executors, of each batch that is done.
    """
    work = worklist.where(F.col("part").between(chunk.first, chunk.last))
    results = _results(warehouse, work, chunk, spec, settings, counted).persist(StorageLevel.DISK_ONLY)
    try:
        # This pass does the work; what follows reads its outcome.
        with reading_images(warehouse.spark):
            totals = _totals(results)
        # The left side's ids are the right side's: an inner join of equals, broadcast, so no vector is shuffled.
        stamped = results.join(F.broadcast(work.select(*_INPUT)), "image_id")
        if recompute:
            # Only what another run computed: this run's own rows may stem from before a kill.
            for table in (EMBEDDINGS, IMAGE_STATUS):
                _delete_former(warehouse, table, work, spec.fingerprint, run_id)
        faces = face_rows(stamped, spec.fingerprint, run_id)
        written = _written(warehouse, work, spec.fingerprint, run_id)
        if not written.isEmpty():
            faces = faces.join(F.broadcast(written), list(_INPUT), "left_anti")
        warehouse.append(faces, EMBEDDINGS)
        warehouse.append(_computed_rows(stamped, spec.fingerprint, run_id, now), IMAGE_STATUS)
    finally:
        results.unpersist()
    return totals


def _written(warehouse: Warehouse, work: DataFrame, fingerprint: str, run_id: str) -> DataFrame:
    """Inputs of ``work`` whose faces this very run has appended, and was killed before it appended their status."""
    mine = warehouse.read(EMBEDDINGS).where((F.col("model_fingerprint") == fingerprint) & (F.col("run_id") == run_id))
    return materialise(mine.select(*_INPUT).join(F.broadcast(work.select(*_INPUT)), list(_INPUT), "left_semi"))


def _totals(results: DataFrame) -> dict[str, Any]:
    """Images and faces, images by status, and how much of its workers' time was spent in the networks, on what."""
    rows = (
        results.groupBy("status", "device")
        .agg(
            F.count("*").alias("images"),
            F.sum(F.size("faces")).alias("faces"),
            F.sum("network_s").alias("network_s"),
            F.sum("elapsed_s").alias("elapsed_s"),
        )
        .collect()
    )
    statuses: dict[str, int] = {}
    for row in rows:
        statuses[row["status"]] = statuses.get(row["status"], 0) + row["images"]
    return {
        "images": sum(row["images"] for row in rows),
        "faces": sum(row["faces"] for row in rows),
        "statuses": statuses,
        "device": {
            "names": sorted({row["device"] for row in rows}),
            "network_s": round(sum(row["network_s"] for row in rows), 3),
            "elapsed_s": round(sum(row["elapsed_s"] for row in rows), 3),
        },
    }


def _results(
    warehouse: Warehouse, work: DataFrame, chunk: Chunk, spec: EmbedSpec, settings: Settings, counted: Counted | None
) -> DataFrame:
    wanted = chunk_input(warehouse, work, chunk, settings.executor.partition_images)
    profile = gpu_profile(warehouse.spark, settings)
    return wanted.mapInArrow(embed_arrow(spec, counted), RESULT_SCHEMA, profile=profile)


def chunk_input(warehouse: Warehouse, work: DataFrame, chunk: Chunk, partition_images: int) -> DataFrame:
    """The images of one chunk, as `embed_arrow` wants them, cut into tasks of bounded work.

    Stored bytes stay where they are: tasks are cut by size, and so are about equally long. Rows of addresses are small,
    and a task cut by size would hold a hundred thousand: they are spread at random, which also separates huge pictures
    that were ingested side by side.
    """
    images = warehouse.read(IMAGES).where(F.col("part").between(chunk.first, chunk.last))
    columns = ["image_id", "content", "uri", "content_sha256", "root"]
    by_uri = F.coalesce("by_uri", F.lit(False))
    tasks = max(1, -(-work.count() // partition_images))
    spread = images.where(by_uri).select(*columns).repartition(tasks)
    rows = (
        images.where(~by_uri)
        .select(*columns)
        .unionByName(spread)
        .join(F.broadcast(work.select("image_id", "content_sha256", "covered")), ["image_id", "content_sha256"])
    )
    return rows.select("image_id", "content", "uri", "content_sha256", "covered", "root")


def gpu_profile(spark: SparkSession, settings: Settings) -> Any:
    """The embedding stage's resources: with dynamic allocation executors of its own, else only its tasks' share."""
    wanted = settings.executor
    if not wanted.gpus_per_task:
        return None
    from pyspark.resource import ExecutorResourceRequests, ResourceProfileBuilder, TaskResourceRequests

    profile = ResourceProfileBuilder().require(TaskResourceRequests().cpus(1).resource("gpu", wanted.gpus_per_task))
    if spark.conf.get("spark.dynamicAllocation.enabled", "false") == "true":
        # The vendor makes it nvidia.com/gpu in a pod; Kubernetes needs it, and the others do not look.
        executors = ExecutorResourceRequests().resource(
            "gpu", wanted.gpus_per_executor, wanted.gpu_discovery_script or "", "nvidia.com"
        )
        profile = profile.require(executors)
    return profile.build


def _delete_former(warehouse: Warehouse, table: Any, work: DataFrame, fingerprint: str, run_id: str) -> None:
    former = warehouse.read(table).where((F.col("model_fingerprint") == fingerprint) & (F.col("run_id") != run_id))
    keys = former.select(*_INPUT, "run_id").join(work.select(*_INPUT), list(_INPUT), "left_semi")
    warehouse.delete_matching(table, keys, [*_INPUT, "run_id"])


def face_rows(stamped: DataFrame, fingerprint: str, run_id: str) -> DataFrame:
    """One row a face, with its id."""
    faces = stamped.select("image_id", "input_digest", F.explode("faces").alias("face"))
    return faces.select(
        F.lit(fingerprint).alias("model_fingerprint"),
        "image_id",
        "input_digest",
        "face.*",
        F.lit(run_id).alias("run_id"),
    ).withColumn("face_id", face_id())


def face_id(salt: Column | int = 0, *, bits: int = 64) -> Column:
    """A face's key: the first ``bits`` of a SHA-256 over what it was computed from, as a signed 64-bit integer.

    At 3 × 10⁹ faces two of 64 bits collide with probability 0.2 (birthday bound), so `resalt` looks for it.
    """
    salted = F.lit(salt) if isinstance(salt, int) else salt
    text = F.concat_ws("|", "model_fingerprint", "image_id", "input_digest", "face_index", salted)
    digest = F.sha2(text, 256)
    high = F.conv(F.substring(digest, 1, 8), 16, 10).cast("bigint")
    low = F.conv(F.substring(digest, 9, 8), 16, 10).cast("bigint")
    whole = F.shiftleft(high, 32).bitwiseOR(low)
    return whole if bits == 64 else F.shiftrightunsigned(whole, 64 - bits)


def _computed_rows(stamped: DataFrame, fingerprint: str, run_id: str, now: datetime) -> DataFrame:
    return stamped.select(
        "image_id",
        "input_digest",
        F.lit(fingerprint).alias("model_fingerprint"),
        "status",
        "reason",
        "width",
        "height",
        F.size("faces").alias("faces"),
        "dropped",
        F.lit(run_id).alias("run_id"),
        F.lit(now).cast("timestamp").alias("decided_at"),
    )


def permitted_faces(warehouse: Warehouse, gated: Gated, fingerprint: str) -> DataFrame:
    """Faces of one model that the gate permits now: rows of `embeddings` with `valid_until`.

    A face needs its own records: every one that it was embedded under must still be among those that cover the
    image, which equality of `input_digest` says.
    """
    accepted = gated.accepted.select(*_INPUT, "valid_until")
    faces = warehouse.read(EMBEDDINGS).where(F.col("model_fingerprint") == fingerprint)
    return faces.join(accepted, list(_INPUT))


def resalt(warehouse: Warehouse, fingerprint: str, *, bits: int = 64) -> int:
    """Find faces of different images that got one id, and give all but the first a salted one; returns how many.

    Deterministic: the order is that of image_id and face_index. The table keeps the new id, so later runs see it.

    Raises:
        MixedFingerprints: one and the same face stands twice, which no salt can mend.
    """
    key = ["model_fingerprint", "image_id", "input_digest", "face_index"]
    moved = 0
    for salt in range(1, 9):
        faces = warehouse.read(EMBEDDINGS).where(F.col("model_fingerprint") == fingerprint).select("face_id", *key)
        # Not cached: Spark finds a cached Delta query by the table's path, whatever its version, and an erasure's
        # VACUUM may have removed the files that an earlier run's was computed from.
        shared = materialise(faces.groupBy("face_id").count().where("count > 1").select("face_id"))
        if shared.isEmpty():
            return moved
        clashing = materialise(faces.join(F.broadcast(shared), "face_id"))
        if clashing.groupBy(*key).count().where("count > 1").count():
            raise MixedFingerprints(
                "embeddings: a face stands twice under one key.", hint="run `reindex --recompute` with a new run id."
            )
        first = clashing.groupBy("face_id").agg(F.min(F.struct(*key[1:])).alias("first"))
        later = clashing.join(first, "face_id").where(F.struct(*key[1:]) != F.col("first"))
        fresh = materialise(later.select(*key, face_id(salt, bits=bits).alias("fresh")))
        moved += warehouse.update_matching(EMBEDDINGS, fresh, key, {"face_id": "k.fresh"})
    raise MixedFingerprints("embeddings: ids still collide after eight salts.", hint="report this; it is a defect.")


def outcomes(gated: Gated, status: DataFrame, fingerprint: str) -> DataFrame:
    """One row for each (status, reason): images. Every image is counted once; `missing` has no outcome at all."""
    latest = (
        status.where((F.col("model_fingerprint") == fingerprint) & (F.col("status") != REFUSED))
        .groupBy(*_INPUT)
        .agg(F.max_by(F.struct("status", F.col("reason").alias("why"), "faces"), "decided_at").alias("last"))
    )
    joined = gated.decisions.select(*_INPUT, "reason").join(latest, list(_INPUT), "left")
    refused = F.col("reason").isNotNull()
    return (
        joined.select(
            F.when(refused, F.lit(REFUSED)).otherwise(F.coalesce("last.status", F.lit("missing"))).alias("status"),
            F.coalesce("reason", "last.why").alias("reason"),
            F.when(refused, F.lit(0)).otherwise(F.coalesce("last.faces", F.lit(0))).alias("faces"),
        )
        .groupBy("status", "reason")
        .agg(F.count("*").alias("images"), F.sum("faces").alias("faces"))
    )
