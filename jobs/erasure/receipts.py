"""Receipts of erasures that are complete: from the ledger alone, so that they regenerate identically (Guarantee 14)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.erasure.closing import found_something
from jobs.erasure.kinds import CARRIED_OUT, COMPLETE, ERASED, ERASED_BEFORE, NOT_FOUND
from jobs.governance import audit
from jobs.runs.evidence import evidence_path, whole_text
from jobs.runs.record import Run, utc_now
from jobs.runs.results import ErasedIndex, ErasedTables, Purged
from jobs.schemas import AUDIT_EVENTS, ERASURE_REQUESTS, ERASURE_STEPS, RUN_STEPS
from jobs.settings import Settings
from jobs.tables.files import write_text
from jobs.tables.store import Warehouse

# What a receipt says where the steps of its pass were removed, and an earlier release kept them nowhere else.
_NOT_ON_RECORD = "not on record any more"
# What a receipt says where Milvus's segments were not seen without the rows: the only promise is that of its service.
_STILL_STORED = "no longer served; Milvus was not seen yet to have rewritten its segments without it"


def goes_later(settings: Settings) -> dict[str, float]:
    """How long what this program cannot remove stays: with Milvus (hours), in backups (days)."""
    limits = settings.erasure
    return {
        "milvus_gc_hours": limits.milvus_gc_hours,
        "milvus_queue_hours": limits.milvus_queue_hours,
        "backup_days": limits.backup_days,
    }


def receipts(warehouse: Warehouse, settings: Any, run_id: str | None = None) -> list[dict[str, Any]]:
    """The receipts of complete requests (of one pass), from the ledger alone: the same each time (Guarantee 14).

    A request that found nothing says so: what it names was erased by an earlier request, or is not known here.
    """
    return [receipt for _, receipt in _receipts(warehouse, settings, _complete(warehouse, run_id))]


def _complete(warehouse: Warehouse, run_id: str | None) -> DataFrame:
    requests = warehouse.read(ERASURE_REQUESTS).withColumnRenamed("run_id", "asked_by")
    steps, on = warehouse.read(ERASURE_STEPS), ["run_id", "recorded_at"]
    told = steps.where(F.col("step") == CARRIED_OUT).select(*on, F.col("result").alias("told"))
    complete = steps.where(F.col("step") == COMPLETE).join(requests, "request_id").join(told, on, "left")
    complete = complete.withColumn("outcome", _outcome())
    return complete if run_id is None else complete.where(F.col("run_id") == run_id)


def _receipts(warehouse: Warehouse, settings: Any, complete: DataFrame) -> Iterator[tuple[int, dict[str, Any]]]:
    """Receipts, each with the time (µs) that its pass was closed at: a run may have several."""
    passes: dict[tuple[str, int], dict[str, Any]] = {}
    for row in complete.orderBy("request_id").select(
        "outcome", "request_id", "kind", "target", "key_id", "run_id", "result", "told",
        F.date_format("requested_at", "yyyy-MM-dd'T'HH:mm:ss'Z'").alias("requested_at"),
        F.date_format("recorded_at", "yyyy-MM-dd'T'HH:mm:ss'Z'").alias("completed_at"),
        F.unix_micros("recorded_at").alias("closed"),
    ).toLocalIterator():  # fmt: skip
        facts = row.asDict()
        key, told = (facts["run_id"], facts.pop("closed")), facts.pop("told")
        if key not in passes:
            # A pass of an earlier release has left what it did among the steps of its run.
            passes[key] = _pass(json.loads(told) if told else _told_by_run(warehouse, *key), settings)
        counts = json.loads(facts.pop("result"))
        # Recorded with them: how it ended is told first of all, and how often it was asked for is the ledger's own.
        for name in ("outcome", "asked"):
            counts.pop(name, None)
        yield key[1], {**facts, "erased": counts, **passes[key]}


def _outcome() -> Column:
    """As it was recorded; of a request that an earlier release has closed, by requests for the very same target."""
    found = found_something()
    earlier = Window.partitionBy("key_id", "target").orderBy("recorded_at").rowsBetween(Window.unboundedPreceding, -1)
    before = F.coalesce(F.max(found).over(earlier), F.lit(False))
    said = F.when(found, ERASED).when(before, ERASED_BEFORE).otherwise(NOT_FOUND)
    return F.coalesce(F.get_json_object("result", "$.outcome"), said)


def told_of_pass(
    index: tuple[ErasedIndex, float | None], tables: tuple[ErasedTables, float | None], purged: Purged | None
) -> dict[str, Any]:
    """What a pass did, for its receipts: results of steps, and when (seconds since 1970; None: not on record)."""
    (index_did, index_at), (tables_did, tables_at) = index, tables
    return {
        "collections": index_did.collections,
        "tables": tables_did.tables,
        "index_at": index_at,
        "tables_at": tables_at,
        "physically_gone_at": None if purged is None else purged.physically_gone_at,
        "elsewhere": None if purged is None else purged.elsewhere,
    }


def _told_by_run(warehouse: Warehouse, run_id: str, closed: int) -> dict[str, Any]:
    """The same by the steps of a run, of its pass that was ``closed`` then (µs)."""
    rows = (
        warehouse.read(RUN_STEPS)
        .where((F.col("run_id") == run_id) & F.col("step").startswith("erase-") & (F.col("state") == "done"))
        .where(F.unix_micros("ended_at") <= closed)
        .groupBy("step")
        .agg(F.max_by("result", "ended_at").alias("result"), F.unix_timestamp(F.max("ended_at")).alias("at"))
        .collect()
    )
    did = {row["step"]: json.loads(row["result"]) for row in rows}
    at = {row["step"]: row["at"] for row in rows}
    index, tables, purge = ErasedIndex.name(), ErasedTables.name(), Purged.name()
    return told_of_pass(
        (ErasedIndex.of_record(did.get(index, {})), at.get(index)),
        (ErasedTables.of_record(did.get(tables, {})), at.get(tables)),
        Purged.of_record(did[purge]) if purge in did else None,
    )


def _pass(did: dict[str, Any], settings: Any) -> dict[str, Any]:
    """What a pass did in each store, and when what it left behind goes, as a receipt says it."""
    # Of a pass of an earlier release: what the settings say now.
    stays = did["elsewhere"] or goes_later(settings)

    still_stored = any(of.get("compacted") is False for of in (did["collections"] or {}).values())

    def at(step: str, later: float = 0.0) -> str:
        return _NOT_ON_RECORD if did[step] is None else utc_stamp(did[step] + later)

    return {
        "stores": {place: _NOT_ON_RECORD if did[place] is None else did[place] for place in ("collections", "tables")},
        "no_longer_served_at": at("index_at"),
        "logically_gone_at": at("tables_at"),
        "physically_gone": {
            "tables": did["physically_gone_at"] or _NOT_ON_RECORD,
            "staged_files": at("tables_at"),
            "milvus_segments_by": _STILL_STORED if still_stored else at("index_at", 3600 * stays["milvus_gc_hours"]),
            "milvus_queue_by": at("index_at", 3600 * stays["milvus_queue_hours"]),
            "backups_by": at("tables_at", 86400 * stays["backup_days"]),
        },
    }


def utc_stamp(seconds: float) -> str:
    """Seconds since 1970 as a text in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def write_receipts(run: Run, over: DataFrame, ended: datetime | None) -> None:
    """Write the receipts of every pass among those ``over`` that has no file of them; a file is not written again.

    Of a pass that was cut off before (no file, and not the one that has just ``ended``) the audit trail may have no end
    yet.
    """
    warehouse, complete = run.warehouse, F.col("step") == COMPLETE
    ids = over.where(complete).select("run_id").distinct()
    closed = F.sort_array(F.collect_set(F.unix_micros("recorded_at"))).alias("closed")
    steps = warehouse.read(ERASURE_STEPS).where(complete).join(ids, "run_id", "left_semi")
    for row in steps.groupBy("run_id").agg(closed).orderBy("run_id").toLocalIterator():
        for number, at in enumerate(row["closed"], start=1):
            # No run id has brackets.
            name = row["run_id"] + (f"({number})" if number > 1 else "")
            place = evidence_path(warehouse, run.settings, "receipts", f"{name}.jsonl")
            if whole_text(run.job.spark, place) is not None:
                continue
            found = _receipts(warehouse, run.settings, _complete(warehouse, row["run_id"]))
            lines = [json.dumps(receipt) for closed_at, receipt in found if closed_at == at]
            just_ended = ended is not None and (row["run_id"], at) == (run.run_id, _micros(ended))
            if not just_ended and not _has_end(warehouse, row["run_id"], at):
                facts = {"completed": len(lines), "closed": at}
                audit.append(warehouse, "erasure-ended", row["run_id"], facts, now=utc_now())
            write_text(run.job.spark, place, "\n".join(lines) + "\n")
            run.job.console.note(f"receipts: {place}")


def _has_end(warehouse: Warehouse, run_id: str, closed: int) -> bool:
    """Whether the trail has the end of the pass that was ``closed`` then (µs): at that instant, or added later."""
    ends = warehouse.read(AUDIT_EVENTS).where((F.col("kind") == "erasure-ended") & (F.col("run_id") == run_id))
    later = F.get_json_object("facts", "$.closed") == str(closed)
    return not ends.where((F.unix_micros("at") == closed) | F.coalesce(later, F.lit(False))).isEmpty()


def _micros(at: datetime) -> int:
    return round((at - datetime.fromtimestamp(0, UTC)) / timedelta(microseconds=1))
