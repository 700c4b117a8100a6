"""Exact nearest neighbours of a sample, computed by executors over the staged files: what recall is measured by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.index.milvus.vectors import decode, unpacked
from jobs.index.protocol import Vectors, VectorType
from jobs.index.verification import Neighbours, Sample, exact_neighbours, merge_neighbours
from udfs.arrays import EMBEDDING_DIM

if TYPE_CHECKING:
    import pyarrow as pa

K: Final = 10
_PARTIAL: Final = "ids array<bigint>, scores array<double>"


def recall_sample(
    staged: DataFrame, removed: DataFrame, *, size: int, k: int = K, vector_type: VectorType = "float32"
) -> Sample:
    """Draw up to ``size`` faces by a hash of their key, and find the exact ``k`` nearest of each by brute force.

    One pass over ``staged`` (face_id, embedding): each task keeps the k best of its rows, the driver merges them; it
    sees size × k × tasks scores and no vectors but the sample's own.

    Of a 16-bit ``vector_type`` the vectors are those that the collection stores, rounded, of queries as of neighbours:
    recall says what the index finds of what it holds. What rounding moves is no fault of an index, and bounded
    (docs/operations.md, 16-bit vectors).
    """
    rows = staged.join(F.broadcast(removed.select("face_id")), "face_id", "left_anti")
    rows = rows.select("face_id", "embedding")
    drawn = rows.orderBy(F.xxhash64("face_id", F.lit(7)), "face_id").limit(size).collect()
    ids = np.array([r["face_id"] for r in drawn], np.int64)
    vectors = _read([r["embedding"] for r in drawn], vector_type)
    if not len(ids):
        return Sample(
            ids=ids, vectors=vectors, exact_ids=np.empty((0, k), np.int64), exact_scores=np.empty((0, k)),
            vector_type=vector_type,
        )  # fmt: skip
    best = exact_neighbours(vectors, (), k)
    for part in rows.mapInArrow(_nearest(vectors, k, vector_type), _PARTIAL).collect():
        keys, scores = np.array(part["ids"], np.int64), np.array(part["scores"])
        best = merge_neighbours(best, Neighbours(keys.reshape(-1, k), scores.reshape(-1, k)), k)
    return Sample(ids=ids, vectors=vectors, exact_ids=best.ids, exact_scores=best.scores, vector_type=vector_type)


def _read(rows: list[Any], vector_type: VectorType) -> Vectors:
    if vector_type == "float32":
        return np.array(rows, np.float32).reshape(-1, EMBEDDING_DIM)
    return decode(b"".join(rows), vector_type, EMBEDDING_DIM)


def _nearest(
    queries: np.ndarray, k: int, vector_type: VectorType
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def blocks(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in batches:
            yield batch.column("face_id").to_numpy(), unpacked(batch.column("embedding"), vector_type, queries.shape[1])

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        best = exact_neighbours(queries, blocks(batches), k)
        yield pa.RecordBatch.from_arrays(
            [pa.array([best.ids.ravel()]), pa.array([best.scores.ravel()])], names=["ids", "scores"]
        )

    return run
