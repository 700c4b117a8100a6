"""What came back after it was erased: found by tombstones, for a request of its own (Guarantee 13)."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.erasure.holds import kept_records
from jobs.erasure.kinds import COMPLETE, LINK, ORPHAN, RECORD
from jobs.governance.batches import not_assessed_since
from jobs.governance.decide import Reason
from jobs.governance.gate import Gated
from jobs.governance.holds import held_records, images_under
from jobs.governance.tombstones import BATCH, CONTENT, FACE, IMAGE, SUBJECT, KeyRing, Stones, given_since, last_given
from jobs.schemas import (
    BASIS_LINKS,
    EMBEDDINGS,
    ERASURE_STEPS,
    IMAGE_STATUS,
    IMAGES,
    PROCESSING_BASIS,
    REMOVED_FACES,
    TOMBSTONES,
)
from jobs.tables.store import Warehouse, materialise


def leftovers(warehouse: Warehouse, gated: Gated, ring: KeyRing) -> DataFrame:
    """What came back after it was erased, or was left without its picture, as (kind, value): nobody has to ask for it.

    A restored table, a write that came late, rows of an image that is not there. Tombstones of open requests do not
    count, for those have a pass of their own; nor does a face that is permitted now, by a record given since; nor what
    a legal hold covers, or may.
    """
    complete = warehouse.read(ERASURE_STEPS).where(F.col("step") == COMPLETE).select("request_id")
    stones = Stones.read(materialise(warehouse.read(TOMBSTONES).join(complete, "request_id", "left_semi")), ring)
    images = warehouse.read(IMAGES).select("image_id")
    rows = [warehouse.read(spec).select("image_id") for spec in (EMBEDDINGS, REMOVED_FACES, IMAGE_STATUS)]
    orphans = reduce(DataFrame.unionByName, rows).join(images, "image_id", "left_anti")
    under_hold = materialise(held_records(warehouse).select("record_id"))
    on_hold = materialise(images_under(warehouse, under_hold))
    orphans = orphans.join(on_hold, "image_id", "left_anti")
    found = [orphans.select(F.lit(ORPHAN).alias("kind"), F.col("image_id").alias("value"))]
    if stones.counts:
        found += [
            _images_again(gated, stones, on_hold),
            _faces_again(warehouse, gated, stones, on_hold),
            _records_again(warehouse, stones).join(
                kept_records(warehouse, under_hold, on_hold), F.col("value") == F.col("record_id"), "left_anti"
            ),
            *_links_again(warehouse, stones, on_hold),
        ]
    return reduce(DataFrame.unionByName, found).distinct()


def _images_again(gated: Gated, stones: Stones, on_hold: DataFrame) -> DataFrame:
    # What is refused by the tombstone of an open request, its person's for one, is not among them.
    erased = gated.refused.where(F.col("reason") == Reason.ERASED.value).join(on_hold, "image_id", "left_anti")
    again = stones.matching(erased, {IMAGE: "image_id", CONTENT: "content_sha256"}, "image_id")
    return again.select(F.lit(IMAGE).alias("kind"), F.col("row_key").alias("value"))


def _faces_again(warehouse: Warehouse, gated: Gated, stones: Stones, on_hold: DataFrame) -> DataFrame:
    settled = ["image_id", "input_digest"]
    there = warehouse.read(EMBEDDINGS).select("face_id", *settled)
    faces = there.join(gated.accepted.select(*settled), settled, "left_anti").select("face_id", "image_id")
    removed = warehouse.read(REMOVED_FACES).select("face_id", "image_id").join(there, "face_id", "left_anti")
    faces = faces.unionByName(removed).join(on_hold, "image_id", "left_anti")
    again = stones.matching(faces, {FACE: "face_id"}, "face_id")
    return again.select(F.lit(FACE).alias("kind"), F.col("row_key").alias("value"))


def _records_again(warehouse: Warehouse, stones: Stones) -> DataFrame:
    """Records of erased people that give nothing since, and of erased batches that nobody has assessed since."""
    basis = warehouse.read(PROCESSING_BASIS)
    records = last_given(basis).withColumnRenamed("pii_principal_id", "row_key")
    erased = stones.matching(records.select("row_key").distinct(), {SUBJECT: "row_key"}, "row_key")
    old = records.join(erased, "row_key").where(~given_since(F.col("given_at")))
    batch = F.max_by("source_batch_id", F.struct("recorded_at", "content_digest")).alias("row_key")
    newest = basis.groupBy("record_id").agg(batch)
    erased = stones.matching(newest.select("row_key").distinct(), {BATCH: "row_key"}, "row_key")
    of_batch = newest.join(F.broadcast(not_assessed_since(warehouse, erased)), "row_key")
    found = old.select("record_id").unionByName(of_batch.select("record_id"))
    return found.select(F.lit(RECORD).alias("kind"), F.col("record_id").alias("value"))


def _links_again(warehouse: Warehouse, stones: Stones, on_hold: DataFrame) -> list[DataFrame]:
    """Links that name an erased image, or erased bytes, where no row of `images` does: the gate sees none of them."""
    images = warehouse.read(IMAGES).select("image_id", "content_sha256")
    links = warehouse.read(BASIS_LINKS).select(*images.columns).join(on_hold, "image_id", "left_anti")
    loose = materialise(links.join(images, images.columns, "left_anti").distinct())
    if loose.isEmpty():
        return []
    gone = loose.select("image_id").join(images, "image_id", "left_anti")
    return [
        stones.matching(rows, {kind: column}, column).select(F.lit(item).alias("kind"), F.col("row_key").alias("value"))
        for rows, kind, column, item in ((gone, IMAGE, "image_id", IMAGE), (loose, CONTENT, "content_sha256", LINK))
    ]
