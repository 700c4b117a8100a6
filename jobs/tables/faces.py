"""Which faces of an image there may be anywhere."""

from __future__ import annotations

from pyspark.sql import DataFrame

from jobs.schemas import EMBEDDINGS, REMOVED_FACES
from jobs.tables.store import Warehouse


def known_faces(warehouse: Warehouse) -> DataFrame:
    """Faces that stand in `embeddings`, and those that were removed from there and may be in a collection still."""
    columns = ("face_id", "image_id", "basis_record_ids")
    return warehouse.read(EMBEDDINGS).select(*columns).unionByName(warehouse.read(REMOVED_FACES).select(*columns))
