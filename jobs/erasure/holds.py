"""What a legal hold keeps as it is, or may: records, their images, and all that leads to these (Guarantee 7)."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.erasure.kinds import LINK, RECORD, SHARED
from jobs.governance.holds import held_records, images_under, leading_to
from jobs.governance.tombstones import CONTENT, FACE, IMAGE, LEFT, LEFT_CONTENT
from jobs.schemas import BASIS_LINKS, IMAGES
from jobs.tables.faces import known_faces
from jobs.tables.links import NOT_READ, content_of_link
from jobs.tables.store import Warehouse, materialise


def that_were_read(images: DataFrame) -> DataFrame:
    """Those of the ``images`` whose bytes could be read."""
    return images.where(~F.col("content_sha256").startswith(NOT_READ))


def kept_records(warehouse: Warehouse, records: DataFrame, images: DataFrame) -> DataFrame:
    """Records (record_id) that stay while ``records`` and their ``images`` are on hold.

    Also those that name an image on hold, whoever they are about: without them nobody could tell, when the hold ends,
    what an erasure that waited was about.
    """
    of_images = leading_to(warehouse).join(images, "image_id", "left_semi").select("record_id")
    return records.unionByName(of_images).distinct()


def kept_on_hold(warehouse: Warehouse) -> DataFrame | None:
    """What a legal hold keeps as it is, as (kind, kept_by, unknown): images, their content, all their records.

    See `_kept_by`; ``unknown``: nobody can tell whether it does, see `held_records`. None: nothing is kept.
    """
    held = materialise(held_records(warehouse))
    kept = [
        _kept_with(warehouse, records).withColumn("unknown", F.lit(unknown))
        for unknown in (False, True)
        if not (records := held.where(F.col("unknown") == unknown).select("record_id")).isEmpty()
    ]
    return reduce(DataFrame.unionByName, kept) if kept else None


def _kept_with(warehouse: Warehouse, held: DataFrame) -> DataFrame:
    """What stays, as (kind, kept_by), because of these records (record_id)."""
    images = materialise(images_under(warehouse, held))
    records = kept_records(warehouse, held, images)
    content = that_were_read(warehouse.read(IMAGES).select("image_id", "content_sha256")).join(images, "image_id")
    links = warehouse.read(BASIS_LINKS).select("image_id", content_of_link()).dropna().join(images, "image_id")
    # As `_hashes`: of one whose row is missing, or was not read.
    content = content.unionByName(links.join(content.select("image_id"), "image_id", "left_anti"))
    faces = known_faces(warehouse).join(images, "image_id")
    parts = [
        records.select(F.lit(RECORD).alias("kind"), F.col("record_id").alias("kept_by")),
        *(
            images.select(F.lit(kind).alias("kind"), F.col("image_id").alias("kept_by"))
            for kind in (IMAGE, SHARED, LEFT, LEFT_CONTENT)
        ),
        content.select(F.lit(CONTENT).alias("kind"), F.col("content_sha256").alias("kept_by")),
        links.select(F.lit(LINK).alias("kind"), F.col("content_sha256").alias("kept_by")),
        faces.select(F.lit(FACE).alias("kind"), F.col("face_id").cast("string").alias("kept_by")),
    ]
    return reduce(DataFrame.unionByName, parts).distinct()
