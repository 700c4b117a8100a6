"""The `images` table: what is new is found without reading a byte of what is old."""

from __future__ import annotations

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
    """What an ingestion found and did, in images."""

    listed: int
    new: int
    changed: int
    unchanged: int


def ingest_images(
    warehouse: Warehouse, source: Source, *, inline: bool, now: datetime, images_a_part: int, dry_run: bool = False
) -> Ingested:
    """Bring a source into `images`; a second time changes nothing.

    Bytes are read once for images whose id is new, and (as a hash only) for those whose id is known. A changed
    image replaces its former row; the deletion comes first, so that a run killed in between only has to add again.

    Raises:
        BadInput: an id stands twice in the source.
    """
    listing = materialise(source.listing())
    _refuse_duplicates(listing, source.location)
    known = warehouse.read(IMAGES).select("image_id", "content_sha256")
    new = materialise(listing.join(known, "image_id", "left_anti"))
    changed = materialise(_changed(source, listing, known))
    counts = (listing.count(), new.count(), changed.count())
    if not dry_run:
        if counts[2]:
            warehouse.delete_matching(IMAGES, changed, ["image_id"])
        for wanted, count in ((new, counts[1]), (listing.join(changed, "image_id", "left_semi"), counts[2])):
            if count:
                _append(warehouse, source, wanted, inline=inline, now=now, images_a_part=images_a_part)
    return Ingested(counts[0], counts[1], counts[2], counts[0] - counts[1] - counts[2])


def _refuse_duplicates(listing: DataFrame, location: str) -> None:
    twice = listing.groupBy("image_id").count().where("count > 1").count()
    if twice:
        raise BadInput(
            f"{location}: {twice} image ids stand more than once; nothing was ingested.",
            hint="make image_id unique in the source.",
        )


def _changed(source: Source, listing: DataFrame, known: DataFrame) -> DataFrame:
    candidates = listing.join(known.select("image_id"), "image_id", "left_semi")
    hashes = source.read(candidates, keep_bytes=False)
    found = hashes[0].select("image_id", "content_sha256")
    for part in hashes[1:]:
        found = found.unionByName(part.select("image_id", "content_sha256"))
    return found.join(known, ["image_id", "content_sha256"], "left_anti").select("image_id").distinct()


def _append(
    warehouse: Warehouse, source: Source, wanted: DataFrame, *, inline: bool, now: datetime, images_a_part: int
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
        )
        warehouse.append(frame, IMAGES)
        base = int(warehouse.read(IMAGES).agg(F.max("part")).first()[0]) + 1  # type: ignore[index]
