"""Source batches as they stand: which are assessed, which are revoked, and which were assessed since an erasure."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.governance.decide import BATCH_ASSESSED, BATCH_REVOKED
from jobs.schemas import SOURCE_BATCHES
from jobs.tables.store import Warehouse


def current_batches(batches: DataFrame, erased: DataFrame | None = None) -> DataFrame:
    """The state of each batch: source_batch_id, batch_state, batch_collection. Few rows; ``erased``: `with_void_until`.

    It is the last recorded one. Of several at one instant nobody can say which was the last: a revocation wins, else
    none of them is in force. What was revoked stays so, until an assessment of later is recorded.
    """
    at_last = F.rank().over(Window.partitionBy("source_batch_id").orderBy(F.col("recorded_at").desc()))
    said = F.struct("state", "collection_method")
    one = F.count_distinct(F.to_json(said)) == 1
    # An assessment without its date is no later one.
    later = F.col("void_until").isNull() | F.coalesce(F.col("assessed_at") > F.col("void_until"), F.lit(False))
    revoked = (F.col("state") == BATCH_REVOKED) | ((F.col("state") == BATCH_ASSESSED) & ~later)
    return (
        with_void_until(batches, erased)
        .withColumn("_rank", at_last)
        .where("_rank = 1")
        .groupBy("source_batch_id")
        .agg(
            F.when(F.max(revoked), F.lit(BATCH_REVOKED)).when(one, F.max("state")).alias("batch_state"),
            F.when(one, F.max("collection_method")).alias("batch_collection"),
        )
        .withColumn("batch_found", F.lit(True))
    )


def with_void_until(batches: DataFrame, erased: DataFrame | None = None) -> DataFrame:
    """``batches`` with `void_until`: up to when an assessment of this batch counts no more (null: never revoked).

    That is the last revocation, or the date of an assessment that stood by then: its clock may have been ahead. Or, of
    an ``erased`` one (row_key, erased_at), the erasure, which is also known where this table was lost.
    """
    of_batch = Window.partitionBy("source_batch_id")
    revoked_at = F.max(F.when(F.col("state") == BATCH_REVOKED, F.col("recorded_at"))).over(of_batch)
    dated_by_then = F.max(F.when(F.col("recorded_at") <= F.col("_revoked_at"), F.col("assessed_at"))).over(of_batch)
    marked = batches.withColumn("_revoked_at", revoked_at)
    marked = marked.withColumn("void_until", F.greatest("_revoked_at", dated_by_then)).drop("_revoked_at")
    if erased is None:
        return marked
    erasures = F.broadcast(erased.select(F.col("row_key").alias("source_batch_id"), "erased_at"))
    marked = marked.join(erasures, "source_batch_id", "left")
    return marked.withColumn("void_until", F.greatest("void_until", "erased_at")).drop("erased_at")


def assessed_since(warehouse: Warehouse, erased: DataFrame) -> DataFrame:
    """``erased`` batches (row_key, erased_at) by each assessment that counts, with when it was recorded (again_at).

    As `with_void_until` has it, so that it is in force again by one of these, or not at all: dated later than the
    erasure, and than the last revocation.
    """
    assessed = with_void_until(warehouse.read(SOURCE_BATCHES)).where(F.col("state") == BATCH_ASSESSED)
    assessed = assessed.select(
        F.col("source_batch_id").alias("row_key"), "assessed_at", "void_until", F.col("recorded_at").alias("again_at")
    )
    since = erased.join(assessed, "row_key").where("assessed_at > greatest(erased_at, void_until)")
    return since.drop("assessed_at", "void_until")


def not_assessed_since(warehouse: Warehouse, erased: DataFrame) -> DataFrame:
    """Those of the ``erased`` batches (row_key, erased_at) that nobody has assessed since: row_key."""
    return erased.select("row_key").join(assessed_since(warehouse, erased), "row_key", "left_anti")
