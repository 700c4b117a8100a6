"""Basis records and source batches: read, checked for form, appended; and templates for a person to complete.

Formats: JSON lines (one record a line, names of ISO/IEC TS 27560) and CSV (one event a row, flat names; rows of
one record_id are one record). A field that is absent stays absent: the gate refuses what lacks it.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.errors import BadInput, SettingsError
from jobs.governance.decide import COLLECTION_METHODS
from jobs.schemas import BASIS_LINKS, PROCESSING_BASIS, SOURCE_BATCHES
from jobs.tables.store import Warehouse, materialise

_JSON_SCHEMA: Final = (
    "record_id string, schema_version string, pii_principal_id string, "
    "processing struct<purposes: array<string>, lawful_basis: string, special_category_condition: string, "
    "pii_controllers: array<string>, collection_method: string, retention_period: string, jurisdiction: string, "
    "withdrawal_method: string, impact_assessment: string, privacy_notice: string>, "
    "parties array<struct<party_id: string, role: string>>, "
    "events array<struct<event_time: timestamp, validity_duration: string, event_type: string, event_state: string>>, "
    "source_batch_id string, face struct<box: array<float>>, images array<string>, last_interaction_at timestamp, "
    "expires_at timestamp, written_release_ref string, authority_disclosure_ref string, legal_hold_ref string, "
    "_corrupt_record string"
)
_PROCESSING_TEXT: Final = (
    "lawful_basis",
    "special_category_condition",
    "collection_method",
    "retention_period",
    "jurisdiction",
    "withdrawal_method",
    "impact_assessment",
    "privacy_notice",
)
# In the table's order: Spark casts structs by position.
_PROCESSING_FIELDS: Final = (
    "purposes",
    "lawful_basis",
    "special_category_condition",
    "pii_controllers",
    *_PROCESSING_TEXT[2:],
)
_REFERENCES: Final = ("written_release_ref", "authority_disclosure_ref", "legal_hold_ref")
CSV_COLUMNS: Final = (
    "record_id",
    "images",
    "source_batch_id",
    "subject",
    "pii_principal_id",
    "purposes",
    "pii_controllers",
    *_PROCESSING_TEXT,
    "event_time",
    "validity_duration",
    "event_type",
    "event_state",
    "face_box",
    "last_interaction_at",
    "expires_at",
    *_REFERENCES,
    "schema_version",
)
TEMPLATE_ROWS: Final = 10_000


@dataclass(frozen=True)
class BasisImported:
    """What an import of basis records found and did."""

    records: int
    new_versions: int
    new_links: int


def read_basis(spark: SparkSession, path: str, hmac_key: str | None) -> DataFrame:
    """Read basis records from JSON lines or CSV; one row a record, with `images` as the file names them.

    Raises:
        BadInput: lines are not valid. Nothing is imported then, for a lost withdrawal would be worse than a stop.
        SettingsError: the file has a `subject` column and no key to pseudonymise it with.
    """
    if path.lower().endswith(".csv"):
        frame = _read_csv(spark, path, hmac_key)
    else:
        frame = materialise(spark.read.schema(_JSON_SCHEMA).option("mode", "PERMISSIVE").json(path))
        broken = frame.where("_corrupt_record IS NOT NULL OR record_id IS NULL OR record_id = ''").count()
        if broken:
            raise BadInput(
                f"{path}: {broken} lines are no valid basis record (JSON of docs/basis-record.md with a record_id); "
                "nothing was imported.",
                hint="mend them and run the same command again.",
            )
        frame = frame.withColumn("face_box", F.col("face.box")).drop("face", "_corrupt_record")
    return frame


def import_basis(
    warehouse: Warehouse, records: DataFrame, image_id: Callable[[Column], Column], *, now: datetime
) -> BasisImported:
    """Append the records whose content is new, and the links from images to them."""
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
    counts = BasisImported(records.count(), fresh.count(), links.count())
    if not warehouse.read_only:
        # Records before links: a link to a record that is not there yet is refused, which is the safe order.
        if counts.new_versions:
            warehouse.append(fresh, PROCESSING_BASIS)
        if counts.new_links:
            warehouse.append(links, BASIS_LINKS)
    return counts


def pseudonym(subject: str, key: str) -> str:
    """Keyed pseudonym of a person: `hmac:` and 64 hex digits (HMAC-SHA-256, RFC 2104)."""
    return "hmac:" + hmac.new(key.encode(), subject.strip().encode(), hashlib.sha256).hexdigest()


def _read_csv(spark: SparkSession, path: str, hmac_key: str | None) -> DataFrame:
    rows = spark.read.option("header", "true").option("multiLine", "true").option("escape", '"').csv(path)
    unknown = sorted(set(rows.columns) - set(CSV_COLUMNS))
    if unknown or "record_id" not in rows.columns:
        raise BadInput(
            f"{path}: the header has unknown columns {unknown} or lacks record_id; nothing was imported.",
            hint="start from `ingest --basis-template FILE.csv`.",
        )
    for name in CSV_COLUMNS:
        if name not in rows.columns:
            rows = rows.withColumn(name, F.lit(None).cast("string"))
    bad = rows.where(_unreadable_cells()).count()
    if bad:
        raise BadInput(
            f"{path}: {bad} rows have no record_id, or a time or box that cannot be read; nothing was imported.",
            hint="times look like 2026-01-31T12:00:00Z, boxes like `10 20 110 140` (x1 y1 x2 y2 in pixels).",
        )
    rows = _with_pseudonyms(rows, path, hmac_key)
    return rows.groupBy("record_id").agg(*_csv_record())


def _unreadable_cells() -> Column:
    broken: Any = F.coalesce(F.trim("record_id"), F.lit("")) == ""
    for name in ("event_time", "last_interaction_at", "expires_at"):
        broken = broken | (F.col(name).isNotNull() & F.expr(f"try_cast({name} AS timestamp)").isNull())
    box = F.expr("try_cast(split(trim(face_box), '[ ;]+') AS array<float>)")
    whole: Column = broken | (F.col("face_box").isNotNull() & (box.isNull() | F.exists(box, lambda x: x.isNull())))
    return whole


def _with_pseudonyms(rows: DataFrame, path: str, hmac_key: str | None) -> DataFrame:
    if rows.where("coalesce(trim(subject), '') != ''").isEmpty():
        return rows
    if not hmac_key:
        raise SettingsError(
            f"{path}: the column `subject` names persons, and there is no key to pseudonymise them with.",
            hint="set FACE_REINDEX_HMAC_KEY in the environment (keep it safe: it links records to persons).",
        )
    key = hmac_key

    keyed = F.udf(lambda name: pseudonym(name, key) if name and name.strip() else None, "string")
    return rows.withColumn("pii_principal_id", F.coalesce(keyed("subject"), "pii_principal_id"))


def _split(cell: Column) -> Column:
    # A lambda of its own: F.trim alone would take the element's index for the characters to trim.
    return F.filter(F.transform(F.split(cell, ";"), lambda part: F.trim(part)), lambda part: part != "")  # noqa: PLW0108


def _csv_record() -> Iterator[Column]:
    def only(name: str) -> Column:
        return F.max(name).alias(name)

    def listed(name: str) -> Column:
        return _split(F.max(name)).alias(name)

    yield from (only(name) for name in ("schema_version", "pii_principal_id", "source_batch_id", *_REFERENCES))
    text = {name: only(name) for name in _PROCESSING_TEXT}
    lists = {name: listed(name) for name in ("purposes", "pii_controllers")}
    yield F.struct(*({**text, **lists}[name] for name in _PROCESSING_FIELDS)).alias("processing")
    yield F.array_distinct(F.flatten(F.collect_list(_split(F.col("images"))))).alias("images")
    event = F.struct(
        F.col("event_time").cast("timestamp").alias("event_time"), "validity_duration", "event_type", "event_state"
    )
    yield F.collect_list(F.when(F.col("event_state").isNotNull(), event)).alias("events")
    yield F.split(F.trim(F.max("face_box")), "[ ;]+").cast("array<float>").alias("face_box")
    yield from (F.max(name).cast("timestamp").alias(name) for name in ("last_interaction_at", "expires_at"))
    yield F.lit(None).cast("array<struct<party_id: string, role: string>>").alias("parties")


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
