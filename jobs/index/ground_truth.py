"""Exact nearest neighbours of a sample, computed by executors over the staged files: what recall is measured by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.index.milvus.vectors import decode, unpacked
from jobs.index.protocol import Keys, Vectors, VectorType
from jobs.index.verification import Neighbours, Sample, exact_neighbours, merge_neighbours
from udfs.arrays import EMBEDDING_DIM

if TYPE_CHECKING:
    import pyarrow as pa

K: Final = 10
_PARTIAL: Final = "ids array<bigint>, scores array<double>"
#: So many executors' tasks merge what the tasks of the scan have found, and so many partials reach the driver.
MERGING_TASKS: Final = 8


def recall_sample(
    staged: DataFrame, removed: DataFrame, *, size: int, k: int = K, vector_type: VectorType = "float32"
) -> Sample:
    """Draw up to ``size`` faces by a hash of their key, and find the exact ``k`` nearest of each by brute force.

    ``staged`` (face_id, embedding) are distinct keys in Parquet files. The sample is drawn from keys alone, and its
    vectors are read from the files that hold them. One pass over all vectors follows: each task keeps the k best of its
    rows, `MERGING_TASKS` tasks merge these, and the driver merges theirs. However many rows and tasks there are, the
    driver sees at most ``size`` keys with their vectors, and ``size`` × ``k`` × `MERGING_TASKS` keys and scores.

    Of a 16-bit ``vector_type`` the vectors are those that the collection stores, rounded, of queries as of neighbours:
    recall says what the index finds of what it holds. What rounding moves is no fault of an index, and bounded
    (docs/operations.md, 16-bit vectors).
    """
    ids, vectors = _drawn(staged, removed, size, vector_type)
    if not len(ids):
        return Sample(
            ids=ids, vectors=vectors, exact_ids=np.empty((0, k), np.int64), exact_scores=np.empty((0, k)),
            vector_type=vector_type,
        )  # fmt: skip
    rows = _without(staged, removed).select("face_id", "embedding")
    found = rows.mapInArrow(_nearest(vectors, k, vector_type), _PARTIAL)
    # A partial is a row, and rows are dealt out in turn.
    merged = found.repartition(MERGING_TASKS).mapInArrow(_merged(len(ids), k), _PARTIAL)
    best = exact_neighbours(vectors, (), k)
    for part in merged.collect():
        keys, scores = np.array(part["ids"], np.int64), np.array(part["scores"])
        best = merge_neighbours(best, Neighbours(keys.reshape(-1, k), scores.reshape(-1, k)), k)
    return Sample(ids=ids, vectors=vectors, exact_ids=best.ids, exact_scores=best.scores, vector_type=vector_type)


def _without(staged: DataFrame, removed: DataFrame) -> DataFrame:
    return staged.join(F.broadcast(removed.select("face_id")), "face_id", "left_anti")


def _drawn(staged: DataFrame, removed: DataFrame, size: int, vector_type: VectorType) -> tuple[Keys, Vectors]:
    """The sample's keys and vectors, in the order of the hash."""
    if not staged.inputFiles():
        return np.empty(0, np.int64), np.empty((0, EMBEDDING_DIM), np.float32)
    file = F.col("_metadata.file_path")
    keys = _without(staged.select("face_id", file.alias("file")), removed)
    # One partition: else each task would send the driver as many keys as are drawn of all.
    drawn = keys.orderBy(F.xxhash64("face_id", F.lit(7)), "face_id").limit(size).coalesce(1).collect()
    ids = [row["face_id"] for row in drawn]
    wanted = staged.sparkSession.createDataFrame([(key,) for key in ids], "face_id bigint")
    # By their names, files without any of the keys are not opened.
    there = staged.where(file.isin(*{row["file"] for row in drawn})).select("face_id", "embedding")
    read = there.join(F.broadcast(wanted), "face_id", "left_semi").collect()
    found = {row["face_id"]: row["embedding"] for row in read}
    return np.array(ids, np.int64), _read([found[key] for key in ids], vector_type)


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
        yield _partial(exact_neighbours(queries, blocks(batches), k))

    return run


def _merged(queries: int, k: int) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Of partials, which hold the k best of each of so many queries, the k best."""

    def side_by_side(partials: pa.Array) -> np.ndarray:
        every = partials.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(every.reshape(-1, queries, k).swapaxes(0, 1).reshape(queries, -1))

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        best = exact_neighbours(np.empty((queries, 0), np.float32), (), k)
        for batch in batches:
            found = Neighbours(side_by_side(batch.column("ids")), side_by_side(batch.column("scores")))
            best = merge_neighbours(best, found, k)
        yield _partial(best)

    return run


def _partial(best: Neighbours) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays(
        [pa.array([best.ids.ravel()]), pa.array([best.scores.ravel()])], names=["ids", "scores"]
    )
