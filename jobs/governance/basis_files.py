"""Files of basis records, read strictly; what cannot be read is set aside with a reason, never guessed.

Formats: JSON lines (one record a line, names of ISO/IEC TS 27560; docs/basis-record.schema.json), CSV (one event a
row, flat names; rows of one record_id are one record), and a Delta table with the columns of the JSON records. A field
that is absent stays absent: the gate refuses what lacks it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from jobs.errors import BadInput, SettingsError
from jobs.tables.store import materialise

_JSON_SCHEMA: Final = (
    "record_id string, schema_version string, pii_principal_id string, "
    "processing struct<purposes: array<string>, lawful_basis: string, special_category_condition: string, "
    "pii_controllers: array<string>, collection_method: string, retention_period: string, jurisdiction: string, "
    "withdrawal_method: string, impact_assessment: string, privacy_notice: string>, "
    "parties array<struct<party_id: string, role: string>>, "
    "events array<struct<event_time: timestamp, validity_duration: string, event_type: string, event_state: string>>, "
    "source_batch_id string, face struct<box: array<float>>, images array<string>, last_interaction_at timestamp, "
    "expires_at timestamp, written_release_ref string, authority_disclosure_ref string, "
    "authority_disclosed_at timestamp, legal_hold_ref string"
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
_TIMES: Final = ("last_interaction_at", "expires_at", "authority_disclosed_at")
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
    "authority_disclosed_at",
    "schema_version",
)
_UNREAD: Final = ("record_id", "file", "reason", "line_digest")


@dataclass(frozen=True)
class BasisFile:
    """What a file holds: ``records`` (one row a record, `images` as the file names them), and what was ``unread``.

    Columns of ``unread``: record_id (null where the line does not tell), file, reason, line_digest. Not the text of
    the line, which may hold a name.
    """

    records: DataFrame
    unread: DataFrame


def read_basis(spark: SparkSession, path: str, hmac_key: str | None) -> BasisFile:
    """Read basis records from JSON lines, CSV (`….csv`) or a Delta table (`delta:` and its path or name).

    Raises:
        BadInput: a CSV's header or a table's columns are not of the form.
        SettingsError: the file has a `subject` column and no key to pseudonymise it with.
    """
    if path.startswith("delta:"):
        return _read_table(spark, path.removeprefix("delta:"))
    if path.lower().endswith(".csv"):
        return _read_csv(spark, path, hmac_key)
    return _read_json(spark, path)


def _read_json(spark: SparkSession, path: str) -> BasisFile:
    known = cast(StructType, StructType.fromDDL(_JSON_SCHEMA))
    options = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": "_unread"}
    lines = spark.read.text(path).where("trim(value) != ''")
    parsed = lines.select("value", F.from_json("value", f"{_JSON_SCHEMA}, _unread string", options).alias("r"))
    names = F.array(*(F.lit(name) for name in known.fieldNames()))
    reason = (
        F.when(F.json_object_keys("value").isNull(), "NO_JSON_OBJECT")
        .when(F.col("r._unread").isNotNull(), "VALUE_OF_ANOTHER_TYPE")
        .when(F.size(F.array_except(F.json_object_keys("value"), names)) > 0, "UNKNOWN_FIELD")
        .when(F.coalesce(F.trim("r.record_id"), F.lit("")) == "", "NO_RECORD_ID")
    )
    judged = materialise(parsed.withColumn("reason", reason))
    # A line with a value of another type gives no field at all; its name is asked for alone.
    named = F.nullif(F.trim(F.get_json_object("value", "$.record_id")), F.lit(""))
    unread = judged.where("reason IS NOT NULL").select(
        named.alias("record_id"), F.lit(path).alias("file"), "reason", F.sha2("value", 256).alias("line_digest")
    )
    records = judged.where("reason IS NULL").select("r.*").drop("_unread")
    return BasisFile(records.withColumn("face_box", F.col("face.box")).drop("face"), unread)


def _read_table(spark: SparkSession, place: str) -> BasisFile:
    reader = spark.read.format("delta")
    frame = reader.load(place) if "/" in place else reader.table(place)
    known = cast(StructType, StructType.fromDDL(_JSON_SCHEMA))
    unknown = sorted(set(frame.columns) - set(known.fieldNames()))
    if unknown or "record_id" not in frame.columns:
        raise BadInput(
            f"delta:{place}: the table has unknown columns {unknown} or lacks record_id; nothing was imported.",
            hint="rename them in a view; docs/basis-record.md has the columns.",
        )
    columns = [
        (F.col(field.name) if field.name in frame.columns else F.lit(None)).cast(field.dataType).alias(field.name)
        for field in known
    ]
    typed = frame.select(*columns).withColumn("face_box", F.col("face.box")).drop("face")
    nameless = F.coalesce(F.trim("record_id"), F.lit("")) == ""
    text = F.to_json(F.struct(*typed.columns))
    unread = typed.where(nameless).select(
        F.lit(None).cast("string").alias("record_id"),
        F.lit(f"delta:{place}").alias("file"),
        F.lit("NO_RECORD_ID").alias("reason"),
        F.sha2(text, 256).alias("line_digest"),
    )
    return BasisFile(typed.where(~nameless), unread)


def pseudonym(subject: str, key: str) -> str:
    """Keyed pseudonym of a person: `hmac:` and 64 hex digits (HMAC-SHA-256, RFC 2104)."""
    return "hmac:" + hmac.new(key.encode(), subject.strip().encode(), hashlib.sha256).hexdigest()


def _read_csv(spark: SparkSession, path: str, hmac_key: str | None) -> BasisFile:
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
    # A record is one or several rows: where one of them cannot be read, none of them is.
    nameless = F.coalesce(F.trim("record_id"), F.lit("")) == ""
    reason = F.when(nameless, "NO_RECORD_ID").when(_unreadable_cells(), "VALUE_OF_ANOTHER_TYPE")
    judged = materialise(rows.withColumn("reason", reason))
    text = F.to_json(F.struct(*CSV_COLUMNS))
    unread = judged.where("reason IS NOT NULL").select(
        F.when(~nameless, F.trim("record_id")).alias("record_id"),
        F.lit(path).alias("file"),
        "reason",
        F.sha2(text, 256).alias("line_digest"),
    )
    broken = unread.where("record_id IS NOT NULL").select("record_id").distinct()
    whole = judged.where("reason IS NULL").drop("reason").join(F.broadcast(broken), "record_id", "left_anti")
    whole = _with_pseudonyms(whole, path, hmac_key)
    return BasisFile(whole.groupBy("record_id").agg(*_csv_record()), unread)


def _unreadable_cells() -> Column:
    broken: Any = F.lit(False)
    for name in ("event_time", *_TIMES):
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
    yield from (F.max(name).cast("timestamp").alias(name) for name in _TIMES)
    yield F.lit(None).cast("array<struct<party_id: string, role: string>>").alias("parties")
