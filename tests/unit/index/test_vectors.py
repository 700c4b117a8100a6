"""Vectors of 16-bit numbers: the bytes that torch has for them, back exactly, and no more lost than their last bit."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.faces import pictures
from jobs.index import ground_truth, staging
from jobs.index.distances import usable
from jobs.index.milvus.vectors import ROUNDING, decode, encode, lists, packed, unpacked
from jobs.index.protocol import VectorType
from jobs.index.staged_files import read_batches
from jobs.index.verification import exact_neighbours
from tests.milvus.rows import DIM, make_keys, make_table, make_vectors, stage_files, stored_table

pytestmark = pytest.mark.unit

HALF = pytest.mark.parametrize("vector_type", ["float16", "bfloat16"])


def rounded(vectors: np.ndarray, vector_type: VectorType) -> np.ndarray:
    return decode(b"".join(encode(vectors, vector_type)), vector_type, vectors.shape[1])


@HALF
@settings(deadline=None)
@given(numbers=st.lists(st.floats(-1, 1, width=32), min_size=DIM, max_size=DIM))
def test_bytes_are_those_that_torch_rounds_to(vector_type: VectorType, numbers: list[float]) -> None:
    vectors = np.array([numbers], np.float32)
    theirs = torch.from_numpy(vectors).to(getattr(torch, vector_type))
    (ours,) = encode(vectors, vector_type)
    assert ours == theirs.view(torch.int16).numpy().astype("<i2").tobytes()
    back = decode(ours, vector_type, DIM)
    assert np.array_equal(back, theirs.float().numpy())
    # What is representable is not moved again, so that rows can be read and written as often as one likes.
    assert encode(back, vector_type) == [ours]


@HALF
def test_half_way_goes_to_the_even_neighbour(vector_type: VectorType) -> None:
    unit = 2 * ROUNDING[vector_type]
    vectors = np.array([[1 + unit / 2, 1 + 1.5 * unit]], np.float32)
    assert rounded(vectors, vector_type).tolist() == [[1.0, 1 + 2 * unit]]


@HALF
def test_what_is_no_row_of_float32_or_none_of_the_types_numbers_is_refused(vector_type: VectorType) -> None:
    wrongs: tuple[np.ndarray, ...] = (
        make_vectors(2).astype(np.float64),
        make_vectors(2)[0],
        np.full((1, DIM), np.nan, np.float32),
        np.full((1, DIM), np.inf, np.float32),
        np.full((1, DIM), 3.4e38 if vector_type == "bfloat16" else 65_520, np.float32),
    )
    for wrong in wrongs:
        with pytest.raises(ValueError, match=vector_type):
            encode(wrong, vector_type)
        with pytest.raises(ValueError, match=vector_type):
            packed(wrong, vector_type)
    with pytest.raises(ValueError, match="no rows to be made float32"):
        encode(make_vectors(2), "float32")
    with pytest.raises(ValueError, match="unequal length"):
        decode(b"\0" * (2 * DIM + 2), vector_type, DIM)


@HALF
def test_a_column_is_read_as_the_type_it_was_made_of_and_as_no_other(vector_type: VectorType) -> None:
    vectors = make_vectors(7)
    column = packed(vectors, vector_type)
    assert {len(value) for value in column.to_pylist()} == {2 * DIM}
    assert np.array_equal(unpacked(column, vector_type, DIM), rounded(vectors, vector_type))
    # A part of a column, as a batch of Spark's may be.
    assert np.array_equal(unpacked(column.slice(2, 3), vector_type, DIM), rounded(vectors[2:5], vector_type))
    assert np.array_equal(unpacked(lists(vectors).slice(1, 4), "float32", DIM), vectors[1:5])
    assert packed(vectors[:0], vector_type).to_pylist() == []
    uneven = pa.array([b"\0" * (2 * DIM + 2), b"\0" * (2 * DIM - 2)])
    for wrong in (lists(vectors), uneven, pa.array([b"\0" * 2 * DIM, None])):
        with pytest.raises(ValueError, match=r"bytes|unequal"):
            unpacked(wrong, vector_type, DIM)
    with pytest.raises(ValueError, match="lists"):
        unpacked(column, "float32", DIM)
    with pytest.raises(ValueError, match="unequal"):
        unpacked(lists(vectors), "float32", DIM + 1)


@HALF
def test_a_staged_file_is_half_as_large_and_read_as_float32(vector_type: VectorType) -> None:
    keys, vectors = make_keys(500), make_vectors(500, 512)

    def size(table: pa.Table) -> int:
        stream = io.BytesIO()
        options = {"compression": "none", "use_dictionary": False, "write_statistics": False, "store_schema": False}
        pq.write_table(table, stream, **options)
        return len(stream.getvalue())

    whole, half = (size(stored_table(keys, vectors, each)) for each in ("float32", vector_type))
    assert half / whole == pytest.approx(0.51, abs=0.01)
    # What Milvus reads as well, and what would not have been worth it.
    as_lists = pa.array(np.frombuffer(b"".join(encode(vectors, vector_type)), np.uint8).reshape(500, -1).tolist())
    table = stored_table(keys, vectors, vector_type).set_column(1, "embedding", as_lists.cast(pa.list_(pa.uint8())))
    assert size(table) > 1.9 * whole


@HALF
def test_what_a_task_stages_is_what_the_sample_is_looked_for_in(vector_type: VectorType) -> None:
    """What executors do to a batch, without them; tests/spark/test_tables.py has the whole."""
    keys, vectors = make_keys(60), pictures(np.arange(60), 2)
    batch = make_table(keys, vectors).combine_chunks().to_batches()[0]
    assert staging._stored(batch, "float32") is batch
    half = staging._stored(batch, vector_type)
    assert staging._stored(batch.slice(0, 0), vector_type).schema == half.schema
    assert half.drop_columns(["embedding"]) == batch.drop_columns(["embedding"])
    stored = rounded(vectors, vector_type)
    assert np.array_equal(unpacked(half.column("embedding"), vector_type, 512), stored)
    (best,) = ground_truth._nearest(stored[:5], 4, vector_type)(iter([half.slice(0, 25), half.slice(25)]))
    exact = exact_neighbours(stored[:5], [(keys, stored)], 4)
    (ids,), (scores,) = best.column("ids").to_pylist(), best.column("scores").to_pylist()
    assert ids == exact.ids.ravel().tolist()
    assert scores == pytest.approx(exact.scores.ravel().tolist(), abs=1e-9)
    assert np.array_equal(ground_truth._read(half.column("embedding").to_pylist(), vector_type), stored)


@HALF
def test_rows_of_a_staged_file_are_inserted_as_float32(vector_type: VectorType, tmp_path: Path) -> None:
    keys, vectors = make_keys(9), make_vectors(9)
    (file,) = stage_files(tmp_path, keys, vectors, 1, vector_type)
    (batch,) = read_batches(file, vector_type)
    assert batch.column("face_id").to_pylist() == keys.tolist()
    assert np.array_equal(unpacked(batch.column("embedding"), "float32", DIM), rounded(vectors, vector_type))


@HALF
def test_rounding_moves_few_neighbours_and_no_cosine_by_more_than_its_bound(vector_type: VectorType) -> None:
    """On vectors of a trained network's shape; docs/operations.md, 16-bit vectors, has the figures for more of them."""
    vectors = pictures(np.arange(6_000), 1)
    stored = rounded(vectors, vector_type)
    keys = np.arange(len(vectors))
    before, after = (exact_neighbours(each[:100], [(keys, each)], 10) for each in (vectors, stored))
    kept = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(before.ids, after.ids, strict=True)])
    assert kept >= 0.99
    bound = 2 * ROUNDING[vector_type]
    assert np.abs(before.scores - after.scores).max() <= bound
    # A length changes by no more than a number does, and is so judged.
    lengths = np.linalg.norm(stored.astype(np.float64), axis=1)
    assert np.abs(lengths - 1).max() <= ROUNDING[vector_type]
    assert usable(stored, ROUNDING[vector_type]).all()


def test_a_vector_that_rounding_makes_shorter_than_the_table_may_have_it_is_of_unit_length_all_the_same() -> None:
    # 300 equal numbers, each of which lies half a unit of bfloat16's last bit away from the next.
    vectors = np.zeros((1, 512), np.float32)
    vectors[0, :300] = 1 / np.sqrt(300)
    stored = rounded(vectors, "bfloat16")
    assert not usable(stored).all()
    assert usable(stored, ROUNDING["bfloat16"]).all()
