"""Where evidence is written, beside the tables: receipts, and the audit trail's head after each run."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from jobs.errors import BadInput
from jobs.governance.audit import Head
from jobs.tables.files import children, read_text, write_text

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.settings import Settings
    from jobs.tables.store import Warehouse


def evidence_path(warehouse: Warehouse, settings: Settings, *parts: str) -> str:
    """A place below `erasure.evidence_path`, or below `_evidence` in the warehouse."""
    base = settings.erasure.evidence_path or warehouse.path("_evidence")
    return "/".join((base.rstrip("/"), *parts))


def export_head(spark: SparkSession, warehouse: Warehouse, settings: Settings, head: Head) -> None:
    """Write the audit trail's head to a file of its own; nothing where a catalog's warehouse names no place for it."""
    if not warehouse.is_path and not settings.erasure.evidence_path:
        return
    place = evidence_path(warehouse, settings, "audit-heads", f"{head.seq:012d}.json")
    write_text(spark, place, json.dumps(asdict(head)) + "\n")


def last_head(spark: SparkSession, warehouse: Warehouse, settings: Settings) -> Head | None:
    """The last head that was exported.

    Raises:
        BadInput: the file is not one that `export_head` wrote.
    """
    folder = evidence_path(warehouse, settings, "audit-heads")
    names = [name for name in children(spark, folder) if name.endswith(".json")]
    return read_head(spark, f"{folder}/{names[-1]}") if names else None


def read_head(spark: SparkSession, path: str) -> Head:
    """An exported head.

    Raises:
        BadInput: the file is not one that `export_head` wrote.
    """
    text = read_text(spark, path)
    try:
        return Head(**json.loads(text or ""))
    except (ValueError, TypeError, RecursionError):
        raise BadInput(f"{path} is no exported head of the audit trail.") from None
