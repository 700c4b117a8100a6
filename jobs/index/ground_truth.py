"""Exact nearest neighbours of a sample, computed by executors over the staged files: what recall is measured by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.index.verification import Neighbours, Sample, exact_neighbours, merge_neighbours
from udfs.arrays import EMBEDDING_DIM

if TYPE_CHECKING:
    import pyarrow as pa

K: Final = 10
_PARTIAL: Final = "ids array<bigint>, scores array<double>"


def recall_sample(staged: DataFrame, removed: DataFrame, *, size: int, k: int = K) -> Sample:
    """Draw up to ``size`` faces by a hash of their key, and find the exact ``k`` nearest of each by brute force.

    One pass over ``staged`` (face_id, embedding): each task keeps the k best of its rows, the driver merges them; it
    sees size × k × tasks scores and no vectors but the sample's own.
    """
    rows = staged.join(F.broadcast(removed.select("face_id")), "face_id", "left_anti")
    rows = rows.select("face_id", "embedding")
    drawn = rows.orderBy(F.xxhash64("face_id", F.lit(7)), "face_id").limit(size).collect()
    ids = np.array([r["face_id"] for r in drawn], np.int64)
    vectors = np.array([r["embedding"] for r in drawn], np.float32).reshape(-1, EMBEDDING_DIM)
    if not len(ids):
        return Sample(ids=ids, vectors=vectors, exact_ids=np.empty((0, k), np.int64), exact_scores=np.empty((0, k)))
    best = exact_neighbours(vectors, (), k)
    for part in rows.mapInArrow(_nearest(vectors, k), _PARTIAL).collect():
        keys, scores = np.array(part["ids"], np.int64), np.array(part["scores"])
        best = merge_neighbours(best, Neighbours(keys.reshape(-1, k), scores.reshape(-1, k)), k)
    return Sample(ids=ids, vectors=vectors, exact_ids=best.ids, exact_scores=best.scores)


def _nearest(queries: np.ndarray, k: int) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def blocks(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in batches:
            matrix = batch.column("embedding").flatten().to_numpy(zero_copy_only=False)
            yield batch.column("face_id").to_numpy(), matrix.reshape(len(batch), -1)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        best = exact_neighbours(queries, blocks(batches), k)
        yield pa.RecordBatch.from_arrays(
            [pa.array([best.ids.ravel()]), pa.array([best.scores.ravel()])], names=["ids", "scores"]
        )

    return run
