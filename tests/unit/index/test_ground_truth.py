"""Exact neighbours, as tasks find them and other tasks merge them, without Spark between them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from jobs.index.ground_truth import _merged, _nearest
from jobs.index.milvus.vectors import unpacked
from jobs.index.protocol import VectorType
from jobs.index.verification import Neighbours, exact_neighbours, merge_neighbours
from tests.milvus.rows import DIM, make_keys, make_vectors, stored_table

pytestmark = pytest.mark.unit

K = 5
TYPES = pytest.mark.parametrize("vector_type", ["float32", "float16", "bfloat16"])


def found(rows: pa.RecordBatch, parts: int, queries: np.ndarray, vector_type: VectorType) -> list[pa.RecordBatch]:
    """What so many tasks of about equally many rows find, two batches each; one more has none."""
    tasks = [
        [rows.slice(start, middle - start), rows.slice(middle, end - middle)]
        for start, middle, end in (
            (
                number * len(rows) // parts,
                (2 * number + 1) * len(rows) // (2 * parts),
                (number + 1) * len(rows) // parts,
            )
            for number in range(parts)
        )
    ]
    return [next(iter(_nearest(queries, K, vector_type)(iter(task)))) for task in [*tasks, []]]


def merged(partials: list[pa.RecordBatch], tasks: int, queries: int) -> list[Neighbours]:
    """What so many tasks make of partials that are dealt out to them, in batches of three."""
    best = []
    for number in range(tasks):
        mine = pa.Table.from_batches(partials[number::tasks], schema=partials[0].schema).combine_chunks()
        (last,) = _merged(queries, K)(iter(mine.to_batches(max_chunksize=3)))
        ids, scores = (last.column(name).flatten().to_numpy().reshape(-1, K) for name in ("ids", "scores"))
        best.append(Neighbours(ids, scores))
    return best


@TYPES
@pytest.mark.parametrize(("rows", "parts", "tasks"), [(240, 40, 8), (240, 1, 8), (60, 60, 1), (4, 7, 2)])
def test_neighbours_that_are_merged_twice_are_those_of_all_rows_at_once(
    vector_type: VectorType, rows: int, parts: int, tasks: int
) -> None:
    """Among ties, of fewer rows than k, and where tasks have none: whichever task comes first."""
    keys, vectors = make_keys(rows), np.tile(make_vectors(rows // 4), (4, 1))
    (batch,) = stored_table(keys, vectors, vector_type).select(["face_id", "embedding"]).to_batches()
    stored = unpacked(batch.column("embedding"), vector_type, DIM)
    queries = stored[:8]
    exact = exact_neighbours(queries, [(keys, stored)], K)
    partials = found(batch, parts, queries, vector_type)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(partials))
        best = exact_neighbours(queries, (), K)
        for task in merged([partials[number] for number in order], tasks, len(queries)):
            best = merge_neighbours(best, task, K)
        np.testing.assert_array_equal(best.ids, exact.ids)
        np.testing.assert_array_equal(best.scores, exact.scores)
