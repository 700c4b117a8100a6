"""What was found is written down, with its tombstones, before anything is destroyed (Guarantee 12)."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.erasure.kinds import BEGUN, ITEM_COLUMNS, SHARED, is_of_expiry, is_of_pass, is_of_sweep
from jobs.erasure.requests import note_step
from jobs.governance.tombstones import CONTENT, EXPIRED, FACE, IMAGE, LEFT, LEFT_CONTENT, KeyRing, digests
from jobs.schemas import ERASURE_ITEMS, TOMBSTONES
from jobs.tables.store import Warehouse, materialise


def begin(
    warehouse: Warehouse, targets: DataFrame, found: DataFrame, ring: KeyRing, *, run_id: str, now: datetime
) -> None:
    """Mark the requests of a pass among ``targets`` as begun: what is destroyed in part is not taken back.

    Then its tombstones, which nobody takes back either. A pass that is cut off in between finds the same again, for it
    has destroyed no row.
    """
    passes = targets.where(is_of_pass())
    if passes.isEmpty():
        return
    note_step(warehouse, passes, BEGUN, run_id=run_id, now=now)
    _bar(warehouse, found.where(is_of_pass() & ~F.col("on_hold")), ring, now=now)


def write_down(
    warehouse: Warehouse, targets: DataFrame, found: DataFrame, ring: KeyRing, *, now: datetime
) -> DataFrame:
    """Add what was found, and its tombstones, to the ledger; returns all items of ``targets`` that may go.

    Before anything is destroyed (Guarantee 12): afterwards nothing else could tell what has to be gone. What is on hold
    is found again by its records, which stay; but for the hash of an image that goes now, or that somebody leaves,
    while another of the very bytes is on hold. The tombstones of a pass are written when it begins: what was due may be
    taken back until then, and tombstones may not.
    """
    wanted = found.where(~F.col("on_hold")).select(*ITEM_COLUMNS)
    fresh = materialise(unnoted(warehouse, found))
    _bar(warehouse, wanted.where(~is_of_pass()), ring, now=now)
    if not fresh.isEmpty():
        warehouse.append(fresh, ERASURE_ITEMS)
    return materialise(going_items(warehouse, targets, found))


def unnoted(warehouse: Warehouse, found: DataFrame) -> DataFrame:
    """Items of what was ``found`` that are to be written down, and were not yet: see `write_down`."""
    wanted = found.where(~F.col("on_hold")).select(*ITEM_COLUMNS)
    known = warehouse.read(ERASURE_ITEMS)
    place = F.coalesce("image_id", F.lit("")).alias("place")
    item = ["request_id", "kind", "value", "place"]
    going = wanted.where(F.col("kind").isin(IMAGE, SHARED)).select("image_id")
    hashes = found.where(F.col("on_hold") & (F.col("kind") == CONTENT)).select(*ITEM_COLUMNS)
    noted = wanted.unionByName(hashes.join(going, "image_id", "left_semi").select(*ITEM_COLUMNS))
    noted = noted.select(*ITEM_COLUMNS, place)
    return noted.join(known.select(*item[:3], place), item, "left_anti").drop("place")


def going_items(warehouse: Warehouse, targets: DataFrame, found: DataFrame) -> DataFrame:
    """All items of ``targets`` that may go, there or not any more."""
    # Of a pass that was cut off it may have destroyed all by which it can be found; of others that is among ``found``.
    requests = targets.select("request_id").distinct()
    passes = warehouse.read(ERASURE_ITEMS).where(is_of_pass()).join(requests, "request_id", "left_semi")
    every = found.select(*ITEM_COLUMNS).unionByName(passes.select(*ITEM_COLUMNS))
    every = every.groupBy("request_id", "kind", "value").agg(F.max("image_id").alias("image_id"))
    kept = found.where("on_hold").select("kind", "value").distinct()
    return every.join(kept, ["kind", "value"], "left_anti")


def _bar(warehouse: Warehouse, wanted: DataFrame, ring: KeyRing, *, now: datetime) -> None:
    """Write the tombstones of what goes (request_id, kind, value)."""
    left = F.col("kind").isin(LEFT, LEFT_CONTENT)
    # What came back has its tombstone, or (a face whose picture is gone) was never erased.
    wanted = wanted.where(left | ~is_of_sweep())
    columns = {kind: kind for kind in (IMAGE, CONTENT, FACE, EXPIRED, LEFT, LEFT_CONTENT)}
    pivoted = wanted.where(left | F.col("kind").isin(IMAGE, CONTENT, FACE)).select(
        "request_id",
        *(F.when(F.col("kind") == kind, F.col("value")).alias(kind) for kind in (LEFT, LEFT_CONTENT)),
        *(
            F.when(~is_of_expiry() & (F.col("kind") == kind), F.col("value")).alias(kind)
            for kind in (IMAGE, CONTENT, FACE)
        ),
        F.when(is_of_expiry() & (F.col("kind") == IMAGE), F.col("value")).alias(EXPIRED),
    )
    keyed = digests(pivoted, columns, "request_id", ring, [ring.current]).where("digest IS NOT NULL")
    # One of an expiry is written each time: it bars what was permitted until then.
    rows, stone = keyed.withColumnRenamed("row_key", "request_id"), ["request_id", "kind", "key_id", "digest"]
    # By request: while another one that has barred the same is open, a sweep looks for nothing of it.
    rows = rows.join(warehouse.read(TOMBSTONES).where(F.col("kind") != EXPIRED).select(*stone), stone, "left_anti")
    stones = materialise(rows.withColumn("recorded_at", F.lit(now).cast("timestamp")))
    if not stones.isEmpty():
        warehouse.append(stones, TOMBSTONES)
