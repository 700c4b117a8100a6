"""What was permitted when it was staged and is no longer: found by keys, taken out of a collection.

Guarantee 8: a withdrawal that is committed before the last gate reads its tables never goes live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.index.milvus import VectorIndex, connect
from jobs.index.verification import KeyComparison, compare_all, compare_bucket
from jobs.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

_DELETE_BATCH = 10_000


def not_permitted(staged: DataFrame, permitted: DataFrame) -> DataFrame:
    """Staged rows (face_id, bucket) whose face is not among ``permitted`` (a frame with face_id)."""
    return staged.select("face_id", "bucket").join(permitted.select("face_id"), "face_id", "left_anti")


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


def compare_keys(
    spark: SparkSession,
    index: VectorIndex,
    collection: str,
    settings: Settings,
    expected: DataFrame,
    buckets: int,
) -> KeyComparison:
    """Compare all keys of a collection with ``expected`` (face_id, bucket), bucket by bucket.

    On a server by executors, each of which asks for whole buckets itself: one shuffle of the keys, and nothing but
    sums reaches the driver. An embedded index is open in the driver alone, which then does it.
    """
    if settings.embedded:
        return compare_all(index, collection, lambda bucket: _collected(expected, bucket), range(buckets))
    # One row more for each bucket, so that those are looked at too which should be empty.
    marks = spark.range(buckets).selectExpr("CAST(0 AS BIGINT) AS face_id", "id AS bucket", "false AS counts")
    rows = expected.select("face_id", F.col("bucket").cast("bigint"), F.lit(True).alias("counts")).unionByName(marks)

    def compare(table: pa.Table) -> pa.Table:
        import pyarrow as pa

        bucket = table.column("bucket")[0].as_py()
        keys = table.filter(table.column("counts")).column("face_id").to_numpy()
        there = connect(settings)
        try:
            found = compare_bucket(there, collection, bucket, keys)
        finally:
            there.close()
        return pa.table({name: pa.array([value], pa.int64()) for name, value in asdict(found).items()})

    names = [field.name for field in fields(KeyComparison)]
    answers = rows.groupBy("bucket").applyInArrow(compare, ", ".join(f"{name} bigint" for name in names))
    total = answers.agg(*(F.coalesce(F.sum(name), F.lit(0)).alias(name) for name in names)).first()
    assert total is not None  # noqa: S101 - an aggregate without groups always has its one row
    return KeyComparison(**total.asDict())


def _collected(expected: DataFrame, bucket: int) -> np.ndarray:
    wanted: Any = expected.where(F.col("bucket") == bucket).select("face_id").toPandas()
    return np.sort(wanted["face_id"].to_numpy(dtype=np.int64))
