"""What a legal hold is on, or may be: records, and the images that these lead to, which are not destroyed.

Of a record whose newest line could not be read nobody knows whether that line put it on hold. What leads to it stays as
it is, too, until a later version is read.
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.governance.barred import flagged, quarantined
from jobs.governance.records import current_records
from jobs.schemas import BASIS_LINKS, PROCESSING_BASIS
from jobs.tables.faces import faces_under_records
from jobs.tables.store import Warehouse, materialise


def held_records(warehouse: Warehouse) -> DataFrame:
    """Records (record_id) on which a legal hold is recorded, or may be (`unknown`)."""
    basis = warehouse.read(PROCESSING_BASIS)
    records = flagged(current_records(basis), quarantined(warehouse, basis), "record_id", "unread")
    held = F.col("legal_hold_ref").isNotNull()
    return records.where(held | F.col("unread")).select("record_id", (~held).alias("unknown"))


def images_on_hold(warehouse: Warehouse, given: DataFrame | None = None) -> DataFrame:
    """Images (image_id) that a legal hold on one of their records keeps as they are, or may.

    ``given``: also what is about to be linked (image_id, record_id), as where links were lost and come in again.
    """
    records = materialise(held_records(warehouse))
    if records.isEmpty():
        # Nearly always: neither links nor faces are read.
        return warehouse.spark.createDataFrame([], "image_id string")
    on_hold = images_under(warehouse, records)
    if given is None:
        return on_hold
    return on_hold.unionByName(given.join(records, "record_id", "left_semi").select("image_id")).distinct()


def images_under(warehouse: Warehouse, records: DataFrame) -> DataFrame:
    """Images (image_id) of ``records``: by links, and by faces, which tell of one where its link is lost."""
    return leading_to(warehouse).join(records, "record_id", "left_semi").select("image_id").distinct()


def leading_to(warehouse: Warehouse) -> DataFrame:
    """What leads from records to images (image_id, record_id): links and faces."""
    links = warehouse.read(BASIS_LINKS).select("image_id", "record_id")
    return links.unionByName(faces_under_records(warehouse).select("image_id", "record_id"))
