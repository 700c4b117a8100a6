"""What was permitted when it was staged and is no longer: found by keys, taken out of a collection.

Guarantee 8: a withdrawal that is committed before the last gate reads its tables never goes live.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.index.milvus.connect import connect
from jobs.index.protocol import FLUSH_TIMEOUT_S, Keys, VectorIndex
from jobs.index.verification import KeyComparison, compare_all, compare_bucket
from jobs.settings import Settings
from jobs.tables.store import materialise

if TYPE_CHECKING:
    import pyarrow as pa

_PAGE = 10_000


def not_permitted(staged: DataFrame, permitted: DataFrame) -> DataFrame:
    """Staged rows (face_id, bucket) whose face is not among ``permitted`` (a frame with face_id)."""
    return staged.select("face_id", "bucket").join(permitted.select("face_id"), "face_id", "left_anti")


def key_pages(rows: DataFrame, size: int = _PAGE) -> Iterator[Keys]:
    """The keys of ``rows`` (face_id) a page at a time; the driver holds one partition of them."""
    keys = (row["face_id"] for row in rows.select("face_id").toLocalIterator())
    while page := list(islice(keys, size)):
        yield np.array(page, np.int64)


def remove_keys(index: VectorIndex, collection: str, rows: DataFrame) -> int:
    """Delete the keys of ``rows`` from a collection; returns how many. Repeating it is harmless."""
    removed = 0
    for page in key_pages(rows):
        index.delete(collection, page)
        removed += len(page)
    if removed:
        # Once: Milvus permits a flush in ten seconds.
        index.flush(collection, timeout=FLUSH_TIMEOUT_S)
    return removed


def keys_in(spark: SparkSession, index: VectorIndex, collection: str, settings: Settings, buckets: int) -> DataFrame:
    """The distinct keys of a loaded collection, as a frame with face_id.

    On a server executors ask for a bucket each, and no key reaches the driver. An embedded index is open in the driver
    alone, which reads it whole. ``buckets`` 0: unknown, so one task reads the whole collection.
    """
    if settings.embedded:
        import pandas as pd

        pages = list(index.keys(collection))
        keys = np.concatenate(pages) if pages else np.empty(0, np.int64)
        return spark.createDataFrame(pd.DataFrame({"face_id": keys}), "face_id bigint")

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        with connect(settings) as there:
            for batch in batches:
                for bucket in batch.column("id").to_pylist():
                    for page in there.keys(collection, bucket if buckets else None):
                        yield pa.RecordBatch.from_arrays([pa.array(page, pa.int64())], names=["face_id"])

    return spark.range(0, max(1, buckets), 1, max(1, buckets)).mapInArrow(read, "face_id bigint")


def own_keys(spark: SparkSession, index: VectorIndex, collection: str, settings: Settings, buckets: int) -> DataFrame:
    """All distinct keys of a loaded collection (face_id), computed once.

    Rows outside of the known buckets, which only somebody else could have put there, cost a second reading without
    them. (So do rows that repeat a key.)
    """
    keys = materialise(keys_in(spark, index, collection, settings, buckets))
    if buckets and not settings.embedded and keys.count() < index.count(collection):
        return materialise(keys_in(spark, index, collection, settings, 0))
    return keys


def remove_unpermitted(index: VectorIndex, collection: str, keys: DataFrame, permitted: DataFrame) -> int:
    """Delete those of a collection's own ``keys`` that are not ``permitted`` (frames with face_id); returns how many.

    What a collection holds is asked of the collection itself: rows of the tables by which it could be told may be gone.
    """
    return remove_keys(index, collection, materialise(keys.join(permitted.select("face_id"), "face_id", "left_anti")))


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
        with connect(settings) as there:
            found = compare_bucket(there, collection, bucket, keys)
        return pa.table({name: pa.array([value], pa.int64()) for name, value in asdict(found).items()})

    names = [field.name for field in fields(KeyComparison)]
    answers = rows.groupBy("bucket").applyInArrow(compare, ", ".join(f"{name} bigint" for name in names))
    total = answers.agg(*(F.coalesce(F.sum(name), F.lit(0)).alias(name) for name in names)).first()
    assert total is not None  # noqa: S101 - an aggregate without groups always has its one row
    return KeyComparison(**total.asDict())


def _collected(expected: DataFrame, bucket: int) -> np.ndarray:
    wanted: Any = expected.where(F.col("bucket") == bucket).select("face_id").toPandas()
    return np.sort(wanted["face_id"].to_numpy(dtype=np.int64))
