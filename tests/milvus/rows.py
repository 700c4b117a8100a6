"""Rows and staged files in the shape that Spark writes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.index.loader import StagedFile
from jobs.index.milvus.vectors import packed
from jobs.index.protocol import CollectionInfo, VectorType

DIM = 16
BUCKETS = 4

INFO = CollectionInfo(
    model_fingerprint="f" * 64,
    run_id="r1",
    trained=False,
    label="random (UNTRAINED) ünïcode",
    created_at="2026-01-31T02:00:00+00:00",
)

SPARK_SCHEMA = pa.schema(
    [
        pa.field("face_id", pa.int64()),
        pa.field("embedding", pa.list_(pa.field("element", pa.float32()))),
        pa.field("bucket", pa.int64()),
        pa.field("purposes", pa.int64()),
        pa.field("expires_at", pa.int64()),
    ]
)


def make_keys(n: int, seed: int = 0) -> np.ndarray:
    """Distinct keys all over int64, in random order, negative ones among them."""
    rng = np.random.default_rng(seed)
    keys = np.unique(rng.integers(-(2**63) + 1, 2**63 - 2, size=2 * n, dtype=np.int64))
    return rng.permutation(keys)[:n]


def make_vectors(n: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def bucket_of(keys: np.ndarray) -> np.ndarray:
    return np.asarray(keys % BUCKETS, np.int64)


def make_table(keys: np.ndarray, vectors: np.ndarray) -> pa.Table:
    flat = pa.array(np.asarray(vectors, np.float32).ravel())
    offsets = pa.array(np.arange(0, flat.__len__() + 1, vectors.shape[1] or 1, dtype=np.int32))
    lists = pa.ListArray.from_arrays(offsets, flat)
    columns = [
        pa.array(np.asarray(keys, np.int64)),
        lists.cast(SPARK_SCHEMA.field("embedding").type),
        pa.array(bucket_of(keys)),
        pa.array(np.ones(len(keys), np.int64)),
        pa.array(np.zeros(len(keys), np.int64)),
    ]
    return pa.Table.from_arrays(columns, schema=SPARK_SCHEMA)


def stored_table(keys: np.ndarray, vectors: np.ndarray, vector_type: VectorType) -> pa.Table:
    """A table as it is staged for a collection of a type."""
    table = make_table(keys, vectors)
    if vector_type == "float32":
        return table
    return table.set_column(1, "embedding", packed(np.asarray(vectors, np.float32), vector_type))


def stage_files(
    folder: Path, keys: np.ndarray, vectors: np.ndarray, files: int, vector_type: VectorType = "float32"
) -> list[StagedFile]:
    """Write ``files`` Parquet files (snappy, as Spark does) and return their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    staged = []
    for number, rows in enumerate(np.array_split(np.arange(len(keys)), files)):
        path = folder / f"part-{number:05d}.snappy.parquet"
        pq.write_table(stored_table(keys[rows], vectors[rows], vector_type), path, compression="snappy")
        data = path.read_bytes()
        staged.append(StagedFile(str(path), len(rows), len(data), hashlib.sha256(data).hexdigest(), number))
    return staged
