"""Exact nearest neighbours of a sample, computed by executors over the staged files: what recall is measured by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.index.staging import DIM
from jobs.index.verification import Sample

if TYPE_CHECKING:
    import pyarrow as pa

K: Final = 10
_PARTIAL: Final = "query int, face_id bigint, score double"


def recall_sample(spark: SparkSession, staged_path: str, removed: DataFrame, *, size: int, k: int = K) -> Sample:
    """Draw up to ``size`` faces by a hash of their key, and find the exact ``k`` nearest of each by brute force.

    One pass over the staged files: each task keeps the k best of its rows, the driver merges them; it sees
    size × k × tasks scores and no vectors but the sample's own.
    """
    rows = spark.read.parquet(staged_path).join(F.broadcast(removed.select("face_id")), "face_id", "left_anti")
    rows = rows.select("face_id", "embedding")
    drawn = rows.orderBy(F.xxhash64("face_id", F.lit(7)), "face_id").limit(size).collect()
    ids = np.array([r["face_id"] for r in drawn], np.int64)
    vectors = np.array([r["embedding"] for r in drawn], np.float32).reshape(-1, DIM)
    if not len(ids):
        return Sample(ids=ids, vectors=vectors, exact_ids=np.empty((0, k), np.int64), exact_scores=np.empty((0, k)))
    partial: Any = rows.mapInArrow(_nearest(vectors, k), _PARTIAL).toPandas()
    partial = partial.sort_values(["query", "score", "face_id"], ascending=[True, False, True])
    exact_ids = np.full((len(ids), k), -1, np.int64)
    exact_scores = np.full((len(ids), k), -np.inf)
    for query, group in partial.groupby("query", sort=False):
        best = group.head(k)
        exact_ids[query, : len(best)] = best["face_id"]
        exact_scores[query, : len(best)] = best["score"]
    return Sample(ids=ids, vectors=vectors, exact_ids=exact_ids, exact_scores=exact_scores)


def _nearest(queries: np.ndarray, k: int) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        best_ids = np.empty((len(queries), 0), np.int64)
        best = np.empty((len(queries), 0), np.float64)
        for batch in batches:
            keys = batch.column("face_id").to_numpy()
            matrix = batch.column("embedding").flatten().to_numpy(zero_copy_only=False).reshape(len(keys), -1)
            scores = queries.astype(np.float64) @ matrix.astype(np.float64).T
            best = np.concatenate([best, scores], axis=1)
            best_ids = np.concatenate([best_ids, np.broadcast_to(keys, scores.shape)], axis=1)
            order = np.argsort(-best, axis=1, kind="stable")[:, :k]
            best, best_ids = np.take_along_axis(best, order, 1), np.take_along_axis(best_ids, order, 1)
        query = np.repeat(np.arange(len(queries), dtype=np.int32), best.shape[1])
        yield pa.RecordBatch.from_arrays(
            [pa.array(query), pa.array(best_ids.ravel()), pa.array(best.ravel())], names=["query", "face_id", "score"]
        )

    return run
