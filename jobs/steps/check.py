"""What the gate will say to a basis file, before anything of it is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from jobs.errors import SettingsError
from jobs.formatting import counted
from jobs.governance.barred import barred_in
from jobs.governance.basis import import_basis, link_images, named_images, with_absent
from jobs.governance.decide import Reason
from jobs.governance.gate import gate_warehouse, policy_of
from jobs.governance.missing import missing_fields
from jobs.governance.pseudonyms import pseudonyms_of
from jobs.governance.records import current_records, record_decisions
from jobs.governance.tombstones import admission, key_ring
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext, utc_now
from jobs.schemas import IMAGES, PROCESSING_BASIS
from jobs.steps.ingest import Given, ids_apart, naming_for, read_records, settle_batch
from jobs.steps.ingest_messages import said_of_records
from jobs.tables.images import to_come
from jobs.tables.supposed import SupposedWarehouse

if TYPE_CHECKING:
    from datetime import datetime

    from pyspark.sql import DataFrame

    from jobs.tables.sources import Source

#: In place of a reason.
PERMITTED = "permitted"


def check_basis(job_: JobContext, source: Source | None, given: Given) -> Result:
    """Suppose that the records, and the images of the source, were here, and ask the gate, now and by these settings.

    Nothing is stored and no picture is read: of images that are here already the bytes are taken to be the same.

    Raises:
        SettingsError: there is no file to check, or it is as `read_records` says.
        GovernanceError: no purpose is asked for (`gate_warehouse`).
    """
    if given.basis is None:
        raise SettingsError("--check is for a file of basis records.", hint="name it with --basis.")
    supposed, settings, said = SupposedWarehouse(job_.warehouse), job_.settings, list[str]()
    names, ring, now = pseudonyms_of(settings), key_ring(settings), utc_now()
    ids_apart(job_.warehouse, source)
    records = read_records(job_, supposed, source, given, said)
    assert records is not None  # noqa: S101 - a file was given
    code = int(settle_batch(supposed, given, ring, said, now=now))
    naming = naming_for(job_.warehouse, source, given, records)
    image_ids = naming.image_id
    with job_.watching("check", f"ask the gate about basis records of batch {given.batch_id}"):
        done = import_basis(supposed, records, image_ids, ring=ring, names=names, now=now, before_images=bool(source))
        images = named_images(records, image_ids).select("image_id").distinct()
        if source:
            images = _suppose_images(job_, supposed, source, now)
            link_images(supposed, records, image_ids, ring=ring, names=names, now=now)
        done = with_absent(supposed, done)
        by_record, lacking = _records_by_reason(job_, supposed, records.records.select("record_id"), now)
        by_image = _images_by_reason(job_, supposed, images, now)
    said += said_of_records(done, None if source else naming.words)[1:]
    fields = ", ".join(f"{name} in {count}" for name, count in lacking.items())
    said.append(f"{_told(by_record, 'basis record')}{f' (empty: {fields})' if fields else ''}")
    said.append(_told(by_image, "image"))
    data = {"records": by_record, "missing": lacking, "images": by_image}
    message = f"check: {'; '.join(said)}. Nothing was stored, and no picture was read"
    return Result(message, code or int(done.nameless > 0), data)


def _suppose_images(job_: JobContext, supposed: SupposedWarehouse, source: Source, now: datetime) -> DataFrame:
    """Images that the source would bring, as if they were here, each with bytes of its own; all that it has."""
    taken, new = to_come(supposed, source, admission(supposed, job_.settings))
    nothing = [F.lit(None).alias(name) for name in ("content", "uri", "changed_at", "root")]
    supposed.append(
        new.select(
            "image_id",
            *nothing,
            F.lit(0).alias("part"),
            F.concat(F.lit("supposed:"), "image_id").alias("content_sha256"),
            F.lit(0).alias("byte_size"),
            F.lit(source.batch_id).alias("source_batch_id"),
            F.lit(now).cast("timestamp").alias("ingested_at"),
            F.lit(False).alias("by_uri"),
        ),
        IMAGES,
    )
    return taken


def _records_by_reason(
    job_: JobContext, supposed: SupposedWarehouse, ids: DataFrame, now: datetime
) -> tuple[dict[str, int], dict[str, int]]:
    """The file's records by what the gate says of each alone; and in how many of them which fields are empty."""
    basis = supposed.read(PROCESSING_BASIS).join(ids.distinct(), "record_id", "left_semi")
    barred = barred_in(supposed, job_.settings, supposed.read(IMAGES), basis)
    decided = record_decisions(basis, policy=policy_of(job_.settings), now=now, barred=barred)
    lacking = decided.where(F.col("reason") == Reason.FIELD_MISSING.value).select("record_id")
    names = current_records(basis).join(lacking, "record_id", "left_semi")
    return _by_reason(decided), _counts(names.select(F.explode(missing_fields()).alias("key")))


def _images_by_reason(
    job_: JobContext, supposed: SupposedWarehouse, images: DataFrame, now: datetime
) -> dict[str, int]:
    # Without a record the gate has its word as well: each image is refused.
    gated = gate_warehouse(supposed, job_.settings, now=now, to_destroy=True)
    return _by_reason(gated.decisions.join(images, "image_id", "left_semi"))


def _by_reason(decided: DataFrame) -> dict[str, int]:
    return _counts(decided.select(F.coalesce("reason", F.lit(PERMITTED)).alias("key")))


def _counts(keys: DataFrame) -> dict[str, int]:
    """So many of each `key`, the most first. There are few: reasons, or names of fields."""
    counts = {str(row["key"]): int(row["count"]) for row in keys.groupBy("key").count().collect()}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _told(counts: dict[str, int], noun: str) -> str:
    parts = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return f"{counted(sum(counts.values()), noun)}{f': {parts}' if parts else ''}"
