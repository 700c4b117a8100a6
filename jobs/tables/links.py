"""Links from images to basis records: each holds for the bytes that it was given for.

A link whose image is there names that image's content. One that comes before its image waits (AWAITED), and is bound to
the first content that an ingestion brings under the id. Bytes that come later in its place have no link until one is
given for them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.schemas import AWAITED, BASIS_LINKS, IMAGES
from jobs.tables.store import Warehouse, looked_up, materialise
from udfs.reading import UNREAD_PREFIX

#: What a content's digest begins with where there was nothing to read.
NOT_READ: Final = UNREAD_PREFIX
_KEYS = ["image_id", "record_id"]


def waiting_links(warehouse: Warehouse, given: DataFrame) -> DataFrame:
    """Of ``given`` (image_id, record_id), new links to images that are not there, or not read, yet."""
    return awaiting(warehouse, given.join(contents(warehouse).select("image_id"), "image_id", "left_anti"))


def awaiting(warehouse: Warehouse, given: DataFrame) -> DataFrame:
    """Links of those of ``given`` (image_id, record_id) that have none yet, for what is to come."""
    known = warehouse.read(BASIS_LINKS).select(*_KEYS)
    return given.join(known, _KEYS, "left_anti").select(*_KEYS, F.lit(AWAITED).alias("content_sha256"))


def links_to_content(warehouse: Warehouse, given: DataFrame) -> DataFrame:
    """Of ``given`` (image_id, record_id), those to images that are there, with their content, and not yet known."""
    there = given.join(contents(warehouse), "image_id").select(*_KEYS, "content_sha256")
    known = warehouse.read(BASIS_LINKS).select(*_KEYS, "content_sha256")
    return there.join(known, [*_KEYS, "content_sha256"], "left_anti")


def append_links(warehouse: Warehouse, links: DataFrame, *, now: datetime) -> int:
    """Append links; returns how many there are to append, also where nothing is written."""
    rows = materialise(links)
    count = rows.count()
    if count and not warehouse.read_only:
        warehouse.append(rows.withColumn("recorded_at", F.lit(now).cast("timestamp")), BASIS_LINKS)
    return count


def content_of_link() -> Column:
    """The hash of what a link was given for; null: of nothing yet."""
    return F.nullif(F.col("content_sha256"), F.lit(AWAITED)).alias("content_sha256")


def _awaits() -> Column:
    """Of some links: whether each is for what an ingestion is to bring."""
    return F.bool_and(F.col("content_sha256").eqNullSafe(AWAITED)).alias("awaits")


def by_record(links: DataFrame, *more: Column) -> DataFrame:
    """What each record was given for, by image: image_id, record_id, `contents`, and `awaits`; and ``more`` of them.

    ``links``: image_id, record_id, content_sha256. `contents`: the hashes that they name. `awaits`: each of them is for
    what an ingestion is to bring, and so for nothing that was there.
    """
    return links.groupBy(*_KEYS).agg(
        F.collect_set(content_of_link()).alias("contents"),
        _awaits(),
        *more,
    )


def bind_waiting(warehouse: Warehouse, images: DataFrame, *, now: datetime) -> int:
    """Bind the links that wait for ``images`` (image_id) to their first content.

    From then on a link holds for these bytes, also where the table of images is lost and filled anew. Returns how many
    AWAITED ones stay unbound although their image is here: its bytes came in place of others, and whether it was given
    for the one or the other nobody can tell.
    """
    waiting = _waiting_for(warehouse, images, content_of_link())
    if waiting is None:
        return 0
    there = materialise(waiting.join(contents(warehouse), "image_id"))
    _bind(warehouse, there, now=now)
    return there.where("changed_at IS NOT NULL AND awaits").count()


def bind_before_they_go(warehouse: Warehouse, images: DataFrame, *, now: datetime) -> None:
    """Bind the links of earlier releases that wait for ``images`` (image_id): other bytes are about to come in place.

    One that is AWAITED was not given for what is there, and was not ingested since.
    """
    waiting = _waiting_for(warehouse, images, F.col("content_sha256"))
    if waiting is not None:
        _bind(warehouse, waiting.join(contents(warehouse), "image_id"), now=now)


def _waiting_for(warehouse: Warehouse, images: DataFrame, content: Column) -> DataFrame | None:
    """Links (image_id, record_id, `awaits`) of ``images`` none of which has a ``content``; None: there are no links."""
    links = warehouse.read(BASIS_LINKS)
    if links.isEmpty():
        return None
    mine = links.join(looked_up(images.select("image_id").distinct()), "image_id", "left_semi")
    return mine.groupBy(*_KEYS).agg(F.count(content).alias("bound"), _awaits()).where("bound = 0").drop("bound")


def _bind(warehouse: Warehouse, waiting: DataFrame, *, now: datetime) -> None:
    first = waiting.where("changed_at IS NULL").select(*_KEYS, "content_sha256")
    append_links(warehouse, first, now=now)


def without_link(warehouse: Warehouse, under: DataFrame, images: DataFrame) -> DataFrame:
    """What stands ``under`` a record (image_id, record_id, …) that no link of its image names, for whatever bytes.

    ``images``: at least those of it (image_id), as a side of a join; all links are not shuffled.
    """
    links = warehouse.read(BASIS_LINKS).select(*_KEYS).join(images, "image_id", "left_semi")
    return under.join(links, _KEYS, "left_anti")


def contents(warehouse: Warehouse) -> DataFrame:
    """What images hold now. Bytes that nobody could read yet are none that a permission could be given for."""
    read = ~F.col("content_sha256").startswith(NOT_READ)
    return warehouse.read(IMAGES).where(read).select("image_id", "content_sha256", "changed_at")
