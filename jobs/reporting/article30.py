"""The record of processing activities (GDPR article 30), made from what was recorded: nothing in it is typed in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.formatting import counted
from jobs.governance.gate import Gated
from jobs.governance.records import current_records
from jobs.runs.history import recent
from jobs.schemas import BASIS_LINKS, ERASURE_REQUESTS, PROCESSING_BASIS, SOURCE_BATCHES, TOMBSTONES
from jobs.tables.store import materialise, utc_text

if TYPE_CHECKING:
    from jobs.settings import Settings
    from jobs.tables.store import Warehouse

_LISTED = 100


def processing_record(warehouse: Warehouse, settings: Settings, gated: Gated) -> str:
    """Markdown, with counts as they are now; names no person."""
    records = current_records(warehouse.read(PROCESSING_BASIS))
    linked = warehouse.read(BASIS_LINKS).select("record_id").distinct()
    used = materialise(records.join(linked, "record_id", "left_semi").select("processing.*", "parties"))
    ends = gated.accepted.agg(
        utc_text(F.min("valid_until")).alias("first"), utc_text(F.max("valid_until")).alias("last")
    ).first()
    assert ends is not None  # noqa: S101 - an aggregate without groups always has its one row
    last = recent(warehouse, 1)
    governance, erasure = settings.governance, settings.erasure
    lines = [
        "# Record of processing activities (GDPR, article 30(1))", "",
        "Made by `status --processing` from the tables of this warehouse. It lists what was recorded; whether that is "
        "complete and true is for the controller to say.", "",
        "## (a) Controllers and other parties", "", *_listed(used.select(F.explode("pii_controllers").alias("name"))),
        *_listed(used.select(F.explode("parties").alias("p")).select(F.concat_ws(": ", "p.role", "p.party_id"))),
        "", "## (b) Purposes", "", *[f"- {purpose}" for purpose in governance.purposes],
        "", "Lawful bases of the records in use:", "",
        *_listed(used.select(F.concat_ws(" + ", "lawful_basis", "special_category_condition"))),
        "", "## (c) Categories of persons and of data", "",
        "- Persons: those whom the records name by a keyed pseudonym. Other people in a picture are not embedded.",
        "- Data: images or their addresses, face boxes, face embeddings (biometric data, article 9), basis records.",
        f"- Now: {counted(gated.accepted.count(), 'image')} permitted, {gated.refused.count()} refused.",
        "", "Sources, by how they were collected:", "",
        *_listed(warehouse.read(SOURCE_BATCHES).select(F.concat_ws(", ", "collection_method", "state"))),
        "", "## (d) Recipients", "",
        f"- The vector index, alias `{settings.milvus.alias}`: keys, vectors, purpose flags, expiry; no image, no "
        "pseudonym.",
        "", "## (e) Transfers to third countries", "", "- None by this program. Jurisdictions of the records:", "",
        *_listed(used.select("jurisdiction")),
        "", "## (f) Time limits for erasure", "",
        f"- Permissions in force end between {ends['first']} and {ends['last']}; `expire` destroys what ended."
        if ends["first"] else "- No permission is in force; `expire` destroys what ended.",
        f"- Former table files: {erasure.vacuum_hours} h. Milvus segments: {erasure.milvus_gc_hours:g} h, queue: "
        f"{erasure.milvus_queue_hours:g} h. Backups: {erasure.backup_days} days.",
        f"- Erasures so far: {counted(warehouse.read(ERASURE_REQUESTS).count(), 'request')}, "
        f"{counted(warehouse.read(TOMBSTONES).count(), 'tombstone')}.",
        "", "## (g) Security measures", "",
        "- Default deny at a gate before any image is read; keyed pseudonyms; secrets from the environment only; TLS "
        "and roles of least privilege for the index; a hash-chained audit trail.",
        f"- Last run: {last[0]['run_id']} ({last[0]['job']}, {last[0]['state']}), policy {last[0]['policy_digest']}."
        if last else "- No run yet.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _listed(values: DataFrame) -> list[str]:
    named = values.toDF("name").where("name != ''")
    counted = named.groupBy("name").count().orderBy(F.col("count").desc(), "name")
    rows = counted.limit(_LISTED + 1).collect()
    lines = [f"- {row[0]} ({row['count']:,})" for row in rows[:_LISTED]]
    return [*lines, "- and others"] if len(rows) > _LISTED else lines
