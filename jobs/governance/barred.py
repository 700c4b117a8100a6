"""What must not come back: by tombstones, and by records of which a later version could not be read (Guarantee 13)."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.governance.tombstones import BATCH, CONTENT, IMAGE, LEFT, LEFT_CONTENT, SUBJECT, Stones, key_ring
from jobs.schemas import BASIS_QUARANTINE, SOURCE_BATCHES, TOMBSTONES
from jobs.settings import Settings
from jobs.tables.store import Warehouse


@dataclass(frozen=True)
class Barred:
    """What must not come back: erased images (row_key), persons and batches (row_key, erased_at), unread records.

    ``shared``: images (row_key) that somebody was erased from; without a box no face of them has an owner.
    """

    images: DataFrame | None = None
    shared: DataFrame | None = None
    principals: DataFrame | None = None
    batches: DataFrame | None = None
    records: DataFrame | None = None


def flagged(frame: DataFrame, keys: DataFrame | None, key: str, flag: str) -> DataFrame:
    """``frame`` with a boolean: whether its ``key`` is among ``keys`` (row_key)."""
    if keys is None:
        return frame.withColumn(flag, F.lit(False))
    marked = keys.select(F.col("row_key").alias(key), F.lit(True).alias(flag))
    return frame.join(marked, key, "left").withColumn(flag, F.coalesce(flag, F.lit(False)))


def barred_in(warehouse: Warehouse, settings: Settings, images: DataFrame, basis: DataFrame) -> Barred:
    """What tombstones and the quarantine bar of these images and records (Guarantee 13)."""
    stones = Stones.read(warehouse.read(TOMBSTONES), key_ring(settings))
    keys = images.select("image_id", "content_sha256")
    principals = basis.select("pii_principal_id").dropna().distinct()
    batches = warehouse.read(SOURCE_BATCHES).select("source_batch_id").dropna().distinct()
    return Barred(
        images=stones.barring(keys, {IMAGE: "image_id", CONTENT: "content_sha256"}, "image_id"),
        shared=stones.barring(keys, {LEFT: "image_id", LEFT_CONTENT: "content_sha256"}, "image_id"),
        principals=stones.barring(principals, {SUBJECT: "pii_principal_id"}, "pii_principal_id"),
        batches=stones.barring(batches, {BATCH: "source_batch_id"}, "source_batch_id"),
        records=quarantined(warehouse, basis),
    )


def quarantined(warehouse: Warehouse, basis: DataFrame) -> DataFrame | None:
    """Records of which a later version could not be read: what it said is unknown, and so it permits nothing."""
    unread = warehouse.read(BASIS_QUARANTINE).where(F.col("record_id").isNotNull())
    if unread.isEmpty():
        return None
    newest = basis.groupBy("record_id").agg(F.max("recorded_at").alias("readable_at"))
    last = unread.groupBy("record_id").agg(F.max("recorded_at").alias("unread_at")).join(newest, "record_id")
    return last.where("readable_at <= unread_at").select(F.col("record_id").alias("row_key"))
