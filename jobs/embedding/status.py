"""What became of each image: rows of `image_status`, by which it is known what needs no computing."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.governance.gate import Gated
from jobs.schemas import IMAGE_STATUS
from jobs.tables.store import Warehouse, materialise
from udfs.statuses import Status

# Beside those of the pipeline (`Status`): refused by the gate, without any outcome, and left for the next run.
REFUSED: Final = "refused"
MISSING: Final = "missing"
LEFT_FOR_NEXT_RUN: Final = "left_for_next_run"
# Outcomes that another night may change without the image changing; they are tried again by the next run.
RETRIED: Final = (Status.UNREADABLE.value,)
# What an outcome is of: an image, under the content and the records that it had.
INPUT: Final = ("image_id", "input_digest")


def computed(status: DataFrame, fingerprint: str, run_id: str, *, recompute: bool) -> DataFrame:
    """(image_id, input_digest) that need no computing; with ``recompute`` only what this very run has done."""
    mine = F.col("run_id") == run_id
    reusable = F.lit(False) if recompute else ~F.col("status").isin(*RETRIED)
    done = status.where((F.col("model_fingerprint") == fingerprint) & (F.col("status") != REFUSED) & (mine | reusable))
    return done.select(*INPUT).distinct()


def record_refusals(warehouse: Warehouse, gated: Gated, *, run_id: str, now: datetime) -> int:
    """Append a status row for images whose refusal is new or has another reason; returns how many."""
    last = (
        warehouse.read(IMAGE_STATUS)
        .groupBy("image_id")
        .agg(F.max(F.struct("decided_at", "status", "reason")).alias("last"))
        .where(F.col("last.status") == REFUSED)
        .select("image_id", F.col("last.reason").alias("reason"))
    )
    changed = gated.refused.join(last, ["image_id", "reason"], "left_anti")
    rows = materialise(_status_rows(changed.select("image_id", "reason"), run_id, now))
    count = rows.count()
    if count:
        warehouse.append(rows, IMAGE_STATUS)
    return count


def _status_rows(refused: DataFrame, run_id: str, now: datetime) -> DataFrame:
    nothing = F.lit(None)
    return refused.select(
        "image_id",
        nothing.cast("string").alias("input_digest"),
        nothing.cast("string").alias("model_fingerprint"),
        F.lit(REFUSED).alias("status"),
        "reason",
        nothing.cast("int").alias("width"),
        nothing.cast("int").alias("height"),
        nothing.cast("int").alias("faces"),
        nothing.cast("struct<too_small: int, low_confidence: int, over_limit: int, uncovered: int>").alias("dropped"),
        F.lit(run_id).alias("run_id"),
        F.lit(now).cast("timestamp").alias("decided_at"),
    )


def computed_rows(stamped: DataFrame, fingerprint: str, run_id: str, now: datetime) -> DataFrame:
    """One row an image that was computed: read and detected in, or why not."""
    return stamped.select(
        "image_id",
        "input_digest",
        F.lit(fingerprint).alias("model_fingerprint"),
        "status",
        "reason",
        "width",
        "height",
        F.size("faces").alias("faces"),
        "dropped",
        F.lit(run_id).alias("run_id"),
        F.lit(now).cast("timestamp").alias("decided_at"),
    )


def outcomes(gated: Gated, status: DataFrame, fingerprint: str) -> DataFrame:
    """One row for each (status, reason): images. Every image is counted once; `missing` has no outcome at all."""
    latest = (
        status.where((F.col("model_fingerprint") == fingerprint) & (F.col("status") != REFUSED))
        .groupBy(*INPUT)
        .agg(F.max_by(F.struct("status", F.col("reason").alias("why"), "faces"), "decided_at").alias("last"))
    )
    joined = gated.decisions.select(*INPUT, "reason").join(latest, list(INPUT), "left")
    refused = F.col("reason").isNotNull()
    return (
        joined.select(
            F.when(refused, F.lit(REFUSED)).otherwise(F.coalesce("last.status", F.lit(MISSING))).alias("status"),
            F.coalesce("reason", "last.why").alias("reason"),
            F.when(refused, F.lit(0)).otherwise(F.coalesce("last.faces", F.lit(0))).alias("faces"),
        )
        .groupBy("status", "reason")
        .agg(F.count("*").alias("images"), F.sum("faces").alias("faces"))
    )
