"""The `images` table: what is new is found without reading a byte of what is old."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.errors import BadInput
from jobs.schemas import IMAGES
from jobs.tables.sources import IMAGES_A_TASK, Source
from jobs.tables.store import Warehouse, materialise


@dataclass(frozen=True)
class Ingested:
    """What an ingestion found and did, in images. ``barred``: not taken, for they were erased (Guarantee 13)."""

    listed: int
    new: int
    changed: int
    unchanged: int
    barred: int = 0


#: Of rows with image_id and content_sha256, those that may be taken; the second frame's rows have no content yet.
Admit = Callable[[DataFrame], DataFrame]


def ingest_images(
    warehouse: Warehouse,
    source: Source,
    *,
    inline: bool,
    now: datetime,
    images_a_part: int,
    dry_run: bool = False,
    admit: Admit | None = None,
) -> Ingested:
    """Bring a source into `images`; a second time changes nothing.

    Bytes are read once for images whose id is new, and (as a hash only) for those whose id is known. A changed
    image replaces its former row; the deletion comes first, so that a run killed in between only has to add again.
    ``admit`` keeps out what was erased: by its id before it is read, by its bytes before it is written.

    Raises:
        BadInput: an id stands twice in the source.
    """
    listing = materialise(source.listing())
    listed = _unique_ids(listing, source.location)
    if admit is not None:
        listing = materialise(admit(listing))
    barred = listed - listing.count() if admit is not None else 0
    known = warehouse.read(IMAGES).select("image_id", "content_sha256")
    new = materialise(listing.join(known, "image_id", "left_anti"))
    added = new.count()
    taken = listed - barred
    # Where nothing is known, as at a first ingestion, nothing needs to be read to compare it.
    altered = materialise(_changed(source, listing, known)) if added < taken else new.limit(0)
    changed = altered.count() if added < taken else 0
    unchanged = taken - added - changed
    if not dry_run:
        remaining = known.count() - changed
        if changed:
            warehouse.delete_matching(IMAGES, altered, ["image_id"])
        for wanted, count in ((new, added), (listing.join(altered, "image_id", "left_semi"), changed)):
            if count:
                _append(warehouse, source, wanted, inline=inline, now=now, images_a_part=images_a_part, admit=admit)
        # What was kept out by its bytes is known only now.
        kept_out = remaining + added + changed - warehouse.read(IMAGES).count()
        added, barred = added - kept_out, barred + kept_out
    return Ingested(listed, added, changed, unchanged, barred)


def _unique_ids(listing: DataFrame, location: str) -> int:
    row = listing.agg(F.count("*").alias("rows"), F.count_distinct("image_id").alias("distinct")).first()
    assert row is not None  # noqa: S101 - an aggregate without groups always has its one row
    if row["distinct"] != row["rows"]:
        raise BadInput(
            f"{location}: {row['rows'] - row['distinct']} image ids stand more than once; nothing was ingested.",
            hint="make image_id unique in the source.",
        )
    return int(row["rows"])


def _changed(source: Source, listing: DataFrame, known: DataFrame) -> DataFrame:
    candidates = listing.join(known.select("image_id"), "image_id", "left_semi")
    hashes = source.read(candidates, keep_bytes=False)
    found = hashes[0].select("image_id", "content_sha256")
    for part in hashes[1:]:
        found = found.unionByName(part.select("image_id", "content_sha256"))
    return found.join(known, ["image_id", "content_sha256"], "left_anti").select("image_id").distinct()


def _append(
    warehouse: Warehouse,
    source: Source,
    wanted: DataFrame,
    *,
    inline: bool,
    now: datetime,
    images_a_part: int,
    admit: Admit | None,
) -> None:
    last = warehouse.read(IMAGES).agg(F.max("part")).first()
    base = 0 if last is None or last[0] is None else int(last[0]) + 1
    tasks_a_part = max(1, images_a_part // IMAGES_A_TASK)
    for rows in source.read(wanted, keep_bytes=True):
        # A WebDataset member has no address that could be read again, so it is always kept inline.
        keep = inline or source.kind == "webdataset"
        content = F.col("content") if keep else F.when(F.col("uri").isNull(), F.col("content"))
        frame = rows.select(
            # A task writes one file into one part: no shuffle of bytes, no small files.
            (F.lit(base) + F.floor(F.spark_partition_id() / tasks_a_part)).cast("int").alias("part"),
            "image_id",
            content.alias("content"),
            "uri",
            "content_sha256",
            "byte_size",
            F.lit(source.batch_id).alias("source_batch_id"),
            F.lit(now).cast("timestamp").alias("ingested_at"),
            content.isNull().alias("by_uri"),
        )
        warehouse.append(frame if admit is None else admit(frame), IMAGES)
        base = int(warehouse.read(IMAGES).agg(F.max("part")).first()[0]) + 1  # type: ignore[index]
