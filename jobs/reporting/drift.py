"""How a run's new faces differ from those of the last run of the same model: counts, confidence, norms, centroid.

Only these two runs' faces are read: files of others are skipped, for `run_id` has statistics. No vector and no centroid
reaches the driver: executors add vectors up, Spark adds the sums up, and one cosine comes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.reporting.timings import chunks_of
from jobs.runs.history import last_states
from jobs.schemas import EMBEDDINGS, RUN_STEPS
from jobs.tables.store import Warehouse

if TYPE_CHECKING:
    import pyarrow as pa

#: The mean of a few embeddings is close to each of them, and so personal data. Below this, none is computed.
LEAST_FACES: Final = 30
_QUANTILES: Final = (0.05, 0.5, 0.95)
_SUMS: Final = "run_id string, total array<double>"


@dataclass(frozen=True)
class NewFaces:
    """The faces that one run embedded and that are still there; ``confidence`` is 5 %, median, 95 %."""

    run_id: str
    images: int
    faces: int
    confidence: tuple[float, float, float]
    norm_low: float
    norm_mean: float
    norm_high: float

    @property
    def faces_an_image(self) -> float:
        """Faces for each image that the run computed, with a face or without."""
        return self.faces / max(1, self.images)


@dataclass(frozen=True)
class Drift:
    """This run's new faces, the last run's, and the cosine of their centroids; ``note`` says what is left out, why."""

    this: NewFaces | None
    last: NewFaces | None
    cosine: float | None
    note: str


def drift(warehouse: Warehouse, run_id: str, fingerprint: str, started_at: datetime) -> Drift:
    """Compare a run with the last one before it that embedded faces with the same model."""
    images = _computed(warehouse, fingerprint, started_at, run_id)
    earlier = [name for name in images if name != run_id]
    if run_id not in images:
        return Drift(None, None, None, "This run embedded no new face, so there is nothing to compare.")
    pair = [run_id, *earlier[:1]]
    faces = warehouse.read(EMBEDDINGS).where((F.col("model_fingerprint") == fingerprint) & F.col("run_id").isin(*pair))
    found = _statistics(faces, images)
    this, last = found.get(run_id), found.get(earlier[0]) if earlier else None
    if this is None:
        return Drift(None, last, None, "The faces that this run embedded have been replaced or destroyed since.")
    if last is None:
        why = "has none of its faces left" if earlier else "is on record"
        return Drift(this, None, None, f"No earlier run of this model {why}, so there is nothing to compare with.")
    if min(this.faces, last.faces) < LEAST_FACES:
        return Drift(this, last, None, f"Centroids are not compared where a run has fewer than {LEAST_FACES} faces.")
    return Drift(this, last, _cosine(faces, this.run_id, last.run_id), "")


def _computed(warehouse: Warehouse, fingerprint: str, started_at: datetime, run_id: str) -> dict[str, int]:
    """Images computed by this run and by the one before it that found faces with this model; newest first."""
    chunks = (
        chunks_of(warehouse.read(RUN_STEPS))
        .groupBy("run_id")
        .agg(F.sum("images").alias("images"), F.sum("faces").alias("faces"))
        .where("faces > 0")
    )
    mine = F.col("run_id") == run_id
    before = F.col("started_at") < F.lit(started_at).cast("timestamp")
    runs = last_states(warehouse).where(F.col("model_fingerprint") == fingerprint).where(mine | before)
    rows = runs.join(chunks, "run_id").orderBy(F.col("started_at").desc()).select("run_id", "images").limit(2)
    return {row["run_id"]: row["images"] for row in rows.collect()}


def _statistics(faces: DataFrame, images: dict[str, int]) -> dict[str, NewFaces]:
    norm = F.sqrt(F.aggregate("embedding", F.lit(0.0), lambda total, x: total + x.cast("double") * x))
    rows = (
        faces.select("run_id", "confidence", norm.alias("norm"))
        .groupBy("run_id")
        .agg(
            F.count("*").alias("faces"),
            F.percentile_approx("confidence", _QUANTILES).alias("confidence"),
            F.min("norm").alias("low"),
            F.avg("norm").alias("mean"),
            F.max("norm").alias("high"),
        )
        .collect()
    )
    return {
        row["run_id"]: NewFaces(
            row["run_id"],
            images[row["run_id"]],
            row["faces"],
            tuple(row["confidence"]),
            row["low"],
            row["mean"],
            row["high"],
        )
        for row in rows
    }


def _cosine(faces: DataFrame, this: str, last: str) -> float:
    sums = faces.select("run_id", "embedding").mapInArrow(_add_up, _SUMS)
    dimensions = sums.select("run_id", F.posexplode("total").alias("dimension", "value")).groupBy("dimension")
    a, b = (
        F.sum(F.when(F.col("run_id") == run_id, F.col("value"))).alias(n) for run_id, n in ((this, "a"), (last, "b"))
    )
    cosine = F.sum(F.col("a") * F.col("b")) / F.sqrt(F.sum(F.col("a") * F.col("a")) * F.sum(F.col("b") * F.col("b")))
    row = dimensions.agg(a, b).agg(cosine.alias("cosine")).first()
    assert row is not None  # noqa: S101 - an aggregate without groups always has its one row
    return float(row["cosine"])


def _add_up(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """For each batch and run, the sum of the vectors: the direction of sums is that of means."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    for batch in batches:
        runs = pc.unique(batch.column("run_id"))
        totals = []
        for run_id in runs:
            vectors = batch.filter(pc.equal(batch.column("run_id"), run_id)).column("embedding")
            block = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(vectors), -1)
            totals.append(block.sum(axis=0, dtype=np.float64))
        yield pa.RecordBatch.from_arrays(
            [runs, pa.array([total.tolist() for total in totals], pa.list_(pa.float64()))], names=["run_id", "total"]
        )
