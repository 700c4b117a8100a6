"""Which faces of an image there may be anywhere."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.schemas import EMBEDDINGS, REMOVED_FACES
from jobs.tables.store import Warehouse


def known_faces(warehouse: Warehouse) -> DataFrame:
    """Faces that stand in `embeddings`, and those that were removed from there and may be in a collection still."""
    columns = ("face_id", "image_id", "basis_record_ids")
    return warehouse.read(EMBEDDINGS).select(*columns).unionByName(warehouse.read(REMOVED_FACES).select(*columns))


def faces_under_records(warehouse: Warehouse) -> DataFrame:
    """Known faces, once for each record that they stand under: face_id, image_id, record_id."""
    return known_faces(warehouse).select("face_id", "image_id", F.explode("basis_record_ids").alias("record_id"))
