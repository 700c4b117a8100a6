"""What a legal hold is on: records, and the images that these lead to, which are neither served nor destroyed."""

from __future__ import annotations

from pyspark.sql import DataFrame

from jobs.governance.records import current_records
from jobs.schemas import BASIS_LINKS, PROCESSING_BASIS
from jobs.tables.faces import faces_under_records
from jobs.tables.store import Warehouse, materialise


def held_records(warehouse: Warehouse) -> DataFrame:
    """Records (record_id) on which a legal hold is recorded."""
    return current_records(warehouse.read(PROCESSING_BASIS)).where("legal_hold_ref IS NOT NULL").select("record_id")


def images_on_hold(warehouse: Warehouse, given: DataFrame | None = None) -> DataFrame:
    """Images (image_id) that a legal hold on one of their records keeps as they are.

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
