"""Whether what permits and bars has changed."""

from __future__ import annotations

from datetime import datetime
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.schemas import (
    AUDIT_EVENTS,
    BASIS_LINKS,
    BASIS_QUARANTINE,
    ERASURE_REQUESTS,
    PROCESSING_BASIS,
    SOURCE_BATCHES,
    TOMBSTONES,
)
from jobs.tables.store import Warehouse


def changed_since(warehouse: Warehouse, at: datetime) -> bool:
    """Whether anything that permits or bars was recorded after ``at``."""
    tables = (PROCESSING_BASIS, BASIS_LINKS, SOURCE_BATCHES, BASIS_QUARANTINE, TOMBSTONES)
    times = [warehouse.read(spec).select("recorded_at") for spec in tables]
    # The tombstone of whoever's consent is dated ahead is so, too: it may be new, or have been there for long. When it
    # was asked for tells the request; and the audit trail, where that was open already.
    times.append(warehouse.read(ERASURE_REQUESTS).select("requested_at"))
    times.append(warehouse.read(AUDIT_EVENTS).where("kind = 'erasure-requested'").select("at"))
    known = reduce(DataFrame.union, times).toDF("at").where(F.col("at") <= F.current_timestamp())
    return not known.where(F.col("at") > F.lit(at).cast("timestamp")).isEmpty()
