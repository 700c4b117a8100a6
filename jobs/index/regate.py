"""What was permitted when it was staged and is no longer: found by keys, taken out of a collection.

Guarantee 8: a withdrawal that is committed before the last gate reads its tables never goes live.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.index.milvus import VectorIndex

_DELETE_BATCH = 10_000


def not_permitted(spark: SparkSession, staged_path: str, permitted: DataFrame) -> DataFrame:
    """Staged rows (face_id, bucket) whose face is not among ``permitted`` (a frame with face_id)."""
    staged = spark.read.parquet(staged_path).select("face_id", "bucket")
    return staged.join(permitted.select("face_id"), "face_id", "left_anti")


def remove_keys(index: VectorIndex, collection: str, rows: DataFrame) -> int:
    """Delete the keys of ``rows`` from a collection; returns how many. Repeating it is harmless."""
    keys = [int(row["face_id"]) for row in rows.select("face_id").toLocalIterator()]
    for start in range(0, len(keys), _DELETE_BATCH):
        index.delete(collection, keys[start : start + _DELETE_BATCH])
    return len(keys)


def remove_unpermitted(
    spark: SparkSession, index: VectorIndex, collection: str, permitted: DataFrame, buckets: Sequence[int]
) -> int:
    """Compare a collection's own keys with ``permitted``, bucket by bucket, and delete the rest.

    For a collection whose staged files are gone (a rollback's target).
    """
    allowed = permitted.select("face_id")
    removed = 0
    for bucket in buckets:
        pages = list(index.keys(collection, bucket))
        keys = np.concatenate(pages) if pages else np.empty(0, np.int64)
        frame = spark.createDataFrame([(int(k),) for k in keys], "face_id bigint")
        removed += remove_keys(index, collection, frame.join(allowed, "face_id", "left_anti"))
    return removed


def bucket_keys(spark: SparkSession, staged_path: str, bucket: int, removed: DataFrame) -> np.ndarray:
    """The keys of one bucket that the collection must hold, sorted: int64 [n]."""
    rows = spark.read.parquet(staged_path).where(F.col("bucket") == bucket).select("face_id")
    wanted: Any = rows.join(F.broadcast(removed.select("face_id")), "face_id", "left_anti").toPandas()
    return np.sort(wanted["face_id"].to_numpy(dtype=np.int64))
