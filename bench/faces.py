"""Invented faces: unit vectors around a thousand centres, as embeddings of a thousand people would be.

Random vectors are all equally far from each other, and recall on them says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

CENTRES, SPREAD, DIM = 1_000, 0.7, 512


def invented_faces(spark: SparkSession, rows: int, seed: int, *, parts: int = 8) -> DataFrame:
    """``rows`` faces (face_id, embedding, valid_until), the same for the same arguments."""
    from pyspark.sql import functions as F

    def vectors(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        centres = centres_of(seed)
        for batch in batches:
            ids = batch.column("id").to_numpy()
            # By the thousand, so that a vector does not depend on how Spark cuts its batches.
            block = np.concatenate([_thousand(centres, seed, number, ids) for number in np.unique(ids // 1_000)])
            flat = pa.array(block.ravel())
            offsets = pa.array(np.arange(0, len(flat) + 1, DIM, dtype=np.int32))
            yield pa.RecordBatch.from_arrays(
                [batch.column("id"), pa.ListArray.from_arrays(offsets, flat)], names=["id", "embedding"]
            )

    shaped = spark.range(0, rows, 1, parts).mapInArrow(vectors, "id bigint, embedding array<float>")
    return shaped.select(
        F.xxhash64("id").alias("face_id"), "embedding", F.lit(None).cast("timestamp").alias("valid_until")
    )


def centres_of(seed: int) -> NDArray[Any]:
    """The people, [centres, 512]."""
    return unit(np.random.default_rng(seed).standard_normal((CENTRES, DIM)))


def _thousand(centres: NDArray[Any], seed: int, number: int, ids: NDArray[Any]) -> NDArray[Any]:
    rng = np.random.default_rng([seed, int(number)])
    block = unit(centres[rng.integers(0, CENTRES, 1_000)] + SPREAD * unit(rng.standard_normal((1_000, DIM))))
    return np.asarray(block[ids[ids // 1_000 == number] % 1_000], np.float32)


def unit(vectors: NDArray[Any]) -> NDArray[Any]:
    """Rows at length one."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
