"""Which fields a record lacks that the gate refuses as FIELD_MISSING: for people who are to fill them."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

from jobs.governance.blanks import FILLED
from jobs.governance.decide import REQUIRED_FIELDS


def missing_fields() -> Column:
    """Of records: an array of the names of their empty fields; none where the rule finds none missing."""
    empty = {name: _empty_list(F.col(f"processing.{name}")) for name in ("purposes", "pii_controllers")}
    empty["source_batch_id"] = _blank(F.col("source_batch_id"))
    empty |= {name: _blank(F.col(f"processing.{name}")) for name in REQUIRED_FIELDS}
    # What is null is empty, as for the gate.
    named = [F.when(F.coalesce(found, F.lit(True)), F.lit(name)) for name, found in empty.items()]
    return F.array_compact(F.array(*named))


def _blank(value: Column) -> Column:
    return ~value.rlike(FILLED)


def _empty_list(values: Column) -> Column:
    return (F.size(values) <= 0) | F.exists(values, lambda value: F.coalesce(_blank(value), F.lit(True)))
