"""Basis records and source batches: appended to their tables; and templates for a person to complete."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.errors import BadInput
from jobs.governance.basis_files import CSV_COLUMNS, BasisFile
from jobs.governance.decide import COLLECTION_METHODS
from jobs.governance.tombstones import SUBJECT, KeyRing, erased_in
from jobs.schemas import BASIS_LINKS, BASIS_QUARANTINE, PROCESSING_BASIS, SOURCE_BATCHES
from jobs.tables.store import Warehouse, materialise

TEMPLATE_ROWS: Final = 10_000


@dataclass(frozen=True)
class BasisImported:
    """What an import of basis records found and did.

    ``nameless``: unread lines that do not even tell their record. ``barred``: records of erased people, not stored.
    """

    records: int
    new_versions: int
    new_links: int
    quarantined: int = 0
    nameless: int = 0
    barred: int = 0


def import_basis(
    warehouse: Warehouse, file: BasisFile, image_id: Callable[[Column], Column], *, ring: KeyRing, now: datetime
) -> BasisImported:
    """Append the records whose content is new, the links from images to them, and what could not be read.

    A record with an unread version is refused by the gate until a later one is read: what it said may have been a
    withdrawal. A record of an erased person that says nothing since the erasure is not stored again (Guarantee 13).

    Raises:
        GovernanceError: there are tombstones under a key that is not in ``ring``.
    """
    every = file.records
    records = _not_erased(warehouse, every, ring)
    digest = F.sha2(F.to_json(F.struct(*sorted(c for c in records.columns if c != "images"))), 256)
    versions = records.withColumn("content_digest", digest).withColumn("recorded_at", F.lit(now).cast("timestamp"))
    known = warehouse.read(PROCESSING_BASIS).select("record_id", "content_digest")
    fresh = materialise(versions.join(known, ["record_id", "content_digest"], "left_anti"))
    links = materialise(
        records.select("record_id", F.explode("images").alias("key"))
        .select(image_id(F.col("key")).alias("image_id"), "record_id")
        .distinct()
        .join(warehouse.read(BASIS_LINKS).select("image_id", "record_id"), ["image_id", "record_id"], "left_anti")
        .withColumn("recorded_at", F.lit(now).cast("timestamp"))
    )
    seen = warehouse.read(BASIS_QUARANTINE).select("line_digest")
    unread = materialise(file.unread.withColumn("recorded_at", F.lit(now).cast("timestamp")))
    new_unread = materialise(unread.join(seen, "line_digest", "left_anti"))
    read = every.count()
    taken = read if records is every else records.count()
    nameless = unread.where("record_id IS NULL").count()
    counts = BasisImported(read, fresh.count(), links.count(), unread.count(), nameless, barred=read - taken)
    if not warehouse.read_only:
        if not new_unread.isEmpty():
            warehouse.append(new_unread, BASIS_QUARANTINE)
        # Records before links: a link to a record that is not there yet is refused, which is the safe order.
        if counts.new_versions:
            warehouse.append(fresh, PROCESSING_BASIS)
        if counts.new_links:
            warehouse.append(links, BASIS_LINKS)
    return counts


def _not_erased(warehouse: Warehouse, records: DataFrame, ring: KeyRing) -> DataFrame:
    """``records`` without those of erased people whose last event is no later than the erasure.

    A record that is stored stays open to new versions: a legal hold that suspends its erasure ends by one.
    """
    people = records.select("pii_principal_id").distinct()
    erased = erased_in(warehouse, people, {SUBJECT: "pii_principal_id"}, "pii_principal_id", ring)
    if erased is None:
        return records
    marked = records.join(
        F.broadcast(erased.withColumnRenamed("row_key", "pii_principal_id")), "pii_principal_id", "left"
    )
    last = F.array_max(F.transform("events", lambda event: event["event_time"]))
    gone = F.col("erased_at").isNotNull() & F.coalesce(last <= F.col("erased_at"), F.lit(True))
    stored = warehouse.read(PROCESSING_BASIS).select("record_id").distinct().withColumn("_stored", F.lit(True))
    kept = marked.join(stored, "record_id", "left").where(~gone | F.col("_stored"))
    return kept.select(*records.columns)


def read_batch(path: str) -> dict[str, Any]:
    """Read a source batch's assessment (YAML, as `--basis-template` writes it).

    Raises:
        BadInput: a key is missing, unknown or empty.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BadInput(f"--batch {path}: cannot be read ({type(error).__name__}).") from None
    keys = {"source_batch_id", "supplier", "collection_method", "assessment_ref", "assessed_at", "state"}
    if not isinstance(data, Mapping) or set(data) != keys:
        raise BadInput(f"--batch {path}: expected exactly the keys {sorted(keys)}.")
    if data["state"] not in {"unassessed", "assessed", "revoked"}:
        raise BadInput(f"--batch {path}: state must be unassessed, assessed or revoked.")
    if data["state"] == "assessed" and not all(data[k] for k in keys):
        raise BadInput(f"--batch {path}: an assessed batch needs every field.", hint="complete the file.")
    if data["collection_method"] and data["collection_method"] not in COLLECTION_METHODS:
        raise BadInput(f"--batch {path}: collection_method must be one of {list(COLLECTION_METHODS)}.")
    return dict(data)


def record_batch(warehouse: Warehouse, batch: Mapping[str, Any], *, now: datetime) -> bool:
    """Append a batch's state if it differs from the last one; says whether it did."""
    spark = warehouse.spark
    row = {k: batch.get(k) for k in ("source_batch_id", "supplier", "collection_method", "assessment_ref", "state")}
    frame = spark.createDataFrame([tuple(row.values())], ", ".join(f"{name} string" for name in row)).select(
        "*", F.lit(batch.get("assessed_at")).cast("timestamp").alias("assessed_at")
    )
    newest = (
        warehouse.read(SOURCE_BATCHES)
        .where(F.col("source_batch_id") == F.lit(row["source_batch_id"]))
        .orderBy(F.col("recorded_at").desc())
        .limit(1)
        .selectExpr(*row)
    )
    same = [tuple(r) for r in newest.collect()] == [tuple(row.values())]
    if not same and not warehouse.read_only:
        warehouse.append(frame.withColumn("recorded_at", F.lit(now).cast("timestamp")), SOURCE_BATCHES)
    return not same


def write_template(listing: DataFrame, batch_id: str, path: str) -> int:
    """Write a CSV of basis records and a YAML of the batch, for a person to complete; returns the rows written.

    What only the person knows is left empty, so an uncompleted template permits nothing. At most
    ``TEMPLATE_ROWS`` images are written out: beyond that, records come from a system and not from a person's hand.
    """
    keys = [
        row["source_key"] for row in listing.select("source_key").orderBy("source_key").limit(TEMPLATE_ROWS).collect()
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS)
    writer.writeheader()
    for number, key in enumerate(keys, start=1):
        row = {"record_id": f"{batch_id}-{number:06d}", "images": key, "source_batch_id": batch_id}
        writer.writerow({**row, "schema_version": "1.0"})
    target = Path(path)
    target.write_text(out.getvalue(), encoding="utf-8")
    target.with_suffix(".batch.yaml").write_text(_BATCH_TEMPLATE.format(batch_id=batch_id), encoding="utf-8")
    return len(keys)


_BATCH_TEMPLATE = """\
# The assessment of one source. A batch is unusable until a person has assessed it and set `state: assessed`.
source_batch_id: {batch_id}
supplier:              # who supplied the pictures
collection_method:     # uploaded_by_subject, provided_by_controller, partner_transfer or public_web
assessment_ref:        # where the assessment is kept (a document's number)
assessed_at:           # 2026-01-31T12:00:00Z
state: unassessed      # unassessed, assessed or revoked
"""
