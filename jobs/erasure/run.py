"""An erasure from end to end: find, record, destroy in every store, verify, receipt.

Each step may be repeated, and one that was cut off is: requests stay open until a pass has gone through all stores and
found nothing left, so a store out of reach leaves them open (Guarantee 12).

What has to leave a collection is told by the collection's own keys: all that the gate does not permit now, whichever
job deleted their rows before; and those that the requests name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any, TypeVar

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.embedding.faces import permitted_faces
from jobs.erasure import tables as erasure
from jobs.erasure.collections import Pages, erase_keys
from jobs.erasure.waiting import NOBODY, note_waiting, still_waiting
from jobs.errors import SettingsError
from jobs.formatting import counted
from jobs.governance import audit
from jobs.governance.gate import Gated, gate_warehouse
from jobs.governance.tombstones import FACE, IMAGE, key_ring
from jobs.index.collections import belongs_to
from jobs.index.permitted_keys import key_pages, own_keys
from jobs.index.protocol import VectorIndex
from jobs.runs.aliases import has_switched
from jobs.runs.evidence import evidence_path, whole_text
from jobs.runs.history import buckets_of, holds_stage, promoted_collections, promoted_runs
from jobs.runs.record import Run, utc_now
from jobs.runs.results import (
    ErasedIndex,
    ErasedStaging,
    ErasedTables,
    FileImported,
    FoundDue,
    FoundToErase,
    Imported,
    Indexed,
    LedgerPurged,
    Purged,
    RemovedFromCollection,
    SharedSettled,
    Staged,
    Verified,
)
from jobs.runs.staging_paths import staged_folders, unrecorded_staging
from jobs.runs.step_result import StepResult
from jobs.runs.stores import about_to_drop, given_up, need_all, own_collections
from jobs.schemas import (
    AUDIT_EVENTS,
    EMBEDDINGS,
    ERASURE_ITEMS,
    ERASURE_REQUESTS,
    ERASURE_STEPS,
    PROCESSING_BASIS,
    RUN_STEPS,
    TableSpec,
)
from jobs.settings import Settings
from jobs.tables.files import remove_tree, write_text
from jobs.tables.store import Warehouse, materialise

P = TypeVar("P", bound=Purged)
# What a receipt says where the steps of its pass were removed, and an earlier release kept them nowhere else.
_NOT_ON_RECORD = "not on record any more"
# What a receipt says where Milvus's segments were not seen without the rows: the only promise is that of its service.
_STILL_STORED = "no longer served; Milvus was not seen yet to have rewritten its segments without it"
# What a run has to do again when its staged files, or its collection, are gone.
_REDONE: tuple[type[StepResult], ...] = (Staged, Imported, FileImported, Indexed, Verified, RemovedFromCollection)


@dataclass(frozen=True)
class Outcome:
    """Requests that are complete now, and those that stay open, by what they wait for: see `erasure.close`.

    ``items``: what was erased for those that are complete, by kind. ``shared``: pictures of several people of whom
    somebody's faces went, also for one that stays open.
    """

    completed: int
    suspended: int
    items: dict[str, int]
    unknown: int = 0
    again: int = 0
    shared: int = 0

    @property
    def said(self) -> str:
        """What was done and what waits, as a message."""
        images, faces, records = (self.items.get(kind, 0) for kind in (IMAGE, FACE, erasure.RECORD))
        what = ", ".join([counted(images, "image"), counted(faces, "face"), counted(records, "record")])
        done = f"{counted(self.completed, 'request')} complete: {what} erased"
        again = f"; {self.again} were asked for again meanwhile, for the next erasure, sync or reindex to carry out"
        return done + self.waiting + (again if self.again else "")

    @property
    def waiting(self) -> str:
        """What stays open, as the end of a message; empty where nothing does."""
        on_hold = f"; {counted(self.suspended, 'request')} suspended by a legal hold" if self.suspended else ""
        lost = (
            "for there are pictures whose records are not there, or what links them, and nobody can tell whose they "
            "are, or whether a legal hold is on them: ingest the records again; of those that no file has any more "
            "(also of people erased since, where links came from a backup) `erase --lost-records` takes the links, and "
            "the pictures that no other record is for"
        )
        return on_hold + (f"; {counted(self.unknown, 'request')} open still, {lost}" if self.unknown else "")


def erase_pending(run: Run, index: VectorIndex, *, due: DataFrame | None = None, sweep: bool = False) -> Outcome:
    """Carry out every open request, all in one pass over the tables.

    No pass is made where all of them wait, and none could do anything for them: see `jobs.erasure.waiting`.

    ``due``: also destroy this, which has reached its end (kind, value). ``sweep``: also what came back after it was
    erased, and compare every collection with what is permitted, where no request is open.

    Raises:
        NotProvenError: something is left after it was destroyed.
        DependencyUnavailable: a store is out of reach, or not among those of the settings; the requests stay open.
    """
    warehouse, settings = run.warehouse, run.settings
    _request_due(run, due)
    with run.job.watching("erase-find"):
        if sweep:
            _request_leftovers(run)
        targets = materialise(erasure.pending(warehouse))
        waits = NOBODY if targets.isEmpty() else still_waiting(run)
        if waits is not None:
            if sweep:
                _sweep_index(run, index)
                _sweep_staged(run)
            again = _settle(run)
            _finish_physically(run)
            if sweep:
                need_all(warehouse, settings, index)
            return Outcome(0, waits.suspended, {}, waits.unknown, again)
        found = erasure.find(warehouse, targets)
        ring = key_ring(settings)
        found_at = utc_now()
        items = erasure.write_down(warehouse, targets, found, ring, now=found_at)
        leaving = materialise(erasure.leaving_records(targets, found))
    counts, began = _starts(run, items)
    index_did, index_at = _erase_vectors(run, index, items, leaving)
    # After a run that is unfinished knows that what it has loaded is dropped.
    need_all(warehouse, settings, index)
    with run.job.watching("erase-shared"):
        staying = erasure.staying_faces(warehouse, settings, items, leaving, now=run.job.clock())
        erasure.begin(warehouse, targets, found, ring, run_id=run.run_id, now=found_at)
        # Not before: were it taken back, nobody would know any more of what the files are to be purged.
        erasure.forget_removed(warehouse, began)
    with run.step(SharedSettled) as settling:
        settling.result = SharedSettled(images=erasure.settle_shared(warehouse, items, staying))
    with run.step(ErasedTables) as destroying:
        tables = erasure.destroy_rows(warehouse, items)
        destroying.result = tables_did = ErasedTables(tables=tables)
    tables_at = utc_now()
    with run.step(Purged) as purging:
        purging.result = purged = _purge(run)
    pass_did = _told((index_did, index_at.timestamp()), (tables_did, tables_at.timestamp()), purged)
    with run.job.watching("erase-close"):
        now, blind = utc_now(), erasure.is_blind(tables)
        closed = erasure.close(
            warehouse, targets, found, items, ring, blind=blind, run_id=run.run_id, now=now, pass_did=pass_did
        )
        audit.append(warehouse, "erasure-ended", run.run_id, closed._asdict(), now=now)
        shared = counts.get(erasure.SHARED, 0)
        if any(closed[1:]):
            # Of a request that stays open an earlier pass may have told already; its receipt counts everything.
            done = warehouse.read(ERASURE_STEPS).where(F.col("step") == erasure.COMPLETE).select("request_id")
            counts = _by_kind(items.join(done, "request_id", "left_semi"))
        again = closed.again + _settle(run, ended=now)
    _finish_physically(run)
    if closed.suspended or closed.unknown:
        note_waiting(run, targets)
    run.gate.invalidate()
    return Outcome(closed.completed, closed.suspended, counts, closed.unknown, again, shared)


def records_given_up(run: Run) -> DataFrame:
    """What is due (kind, value) where records that links name, and that are not there, are gone for good.

    As the operator says: nobody can tell whose pictures these are.

    Raises:
        SettingsError: there is no record at all, so that every picture would go.
    """
    if run.warehouse.read(PROCESSING_BASIS).isEmpty():
        raise SettingsError(
            "--lost-records: there is no basis record at all, so every picture would go.",
            hint="ingest the records again first.",
        )
    lost = materialise(erasure.lost_records(run.warehouse))
    records = lost.where(F.col("kind") == erasure.RECORD).count()
    audit.append(run.warehouse, "records-lost", run.run_id, {"records": records}, now=utc_now())
    return lost


def _starts(run: Run, items: DataFrame) -> tuple[dict[str, int], datetime]:
    """Put on record what was found, by kind, and that from now on it is destroyed."""
    with run.step(FoundToErase) as finding:
        counts = _by_kind(items)
        finding.result = FoundToErase(items=counts)
    began = utc_now()
    audit.append(run.warehouse, "erasure-started", run.run_id, {"items": counts}, now=began)
    return counts, began


def _erase_vectors(run: Run, index: VectorIndex, items: DataFrame, leaving: DataFrame) -> tuple[ErasedIndex, datetime]:
    """Out of every collection, and out of the staged files; what was done in the former, and until when."""
    with run.step(ErasedIndex) as erasing:
        erasing.result = ErasedIndex(collections=_erase_index(run, index, items, leaving, every=True))
    index_at = utc_now()
    with run.step(ErasedStaging) as clearing:
        clearing.result = ErasedStaging(folders=_erase_staged(run, index))
    return erasing.result, index_at


def _by_kind(items: DataFrame) -> dict[str, int]:
    return {row["kind"]: row["count"] for row in items.groupBy("kind").count().collect()}


def _request_due(run: Run, due: DataFrame | None) -> None:
    """Write down what is ``due`` now; of what an earlier pass found due, and did not begin to destroy, no more."""
    warehouse, ring = run.warehouse, key_ring(run.settings)
    erasure.strike_off(warehouse, run_id=run.run_id, now=utc_now())
    if due is None:
        return
    with run.step(FoundDue) as step:
        asked = erasure.request_all(warehouse, due, ring, kind=erasure.EXPIRY, run_id=run.run_id, now=utc_now())
        step.result = FoundDue(due=asked)


def _decisions(run: Run, settings: Settings) -> Gated:
    """The gate at this instant, computed once: what follows reads it several times."""
    return gate_warehouse(run.warehouse, settings, now=run.job.clock(), to_destroy=True).computed()


def _request_leftovers(run: Run) -> None:
    warehouse, ring = run.warehouse, key_ring(run.settings)
    gated = _decisions(run, run.settings)
    again = erasure.leftovers(warehouse, gated, ring)
    count = erasure.request_all(warehouse, again, ring, kind=erasure.SWEEP, run_id=run.run_id, now=utc_now())
    if count:
        run.job.console.note(f"{count} images, faces and records are here again, or without their picture: they go.")


def _sweep_index(run: Run, index: VectorIndex) -> None:
    nothing = run.job.spark.createDataFrame([], ERASURE_ITEMS.columns)
    nobody = run.job.spark.createDataFrame([], "record_id string")
    with run.step(ErasedIndex) as step:
        step.result = ErasedIndex(collections=_erase_index(run, index, nothing, nobody, every=False))


def _erase_index(
    run: Run, index: VectorIndex, items: DataFrame, leaving: DataFrame, *, every: bool
) -> dict[str, dict[str, int | bool]]:
    """Out of each collection go the faces of ``items``, and all that is not permitted; by collection, in rows.

    ``every``: in a pass, which goes through all stores. Also a collection that is not complete and was never live is
    looked at, and dropped; else it is left to the run that may still complete it, unless that one has to stage anew
    anyhow.
    """
    milvus, warehouse = run.settings.milvus, run.warehouse
    keep = promoted_collections(warehouse)
    names = list(own_collections(warehouse, run.settings, index))
    looked_at = names if every else [n for n in names if index.aliases_of(n) or n in keep or _abandoned(run, index, n)]
    report = erase_keys(
        index,
        looked_at,
        _Going(run, index, items, leaving).out_of,
        keep=keep,
        load_timeout_s=milvus.index_timeout_s,
        compact_timeout_s=run.settings.erasure.compact_timeout_s,
        before_drop=lambda dropped: about_to_drop(run, index, dropped),
        note=run.job.console.note,
    )
    return report | {name: {"lost": True} for name in given_up(run)}


def _abandoned(run: Run, index: VectorIndex, collection: str) -> bool:
    info = index.info(collection)
    return info is not None and info.run_id != run.run_id and not holds_stage(run.warehouse, info.run_id)


class _Going:
    """Which keys leave a collection: asked of the collection itself, against what may be in one of its kind."""

    def __init__(self, run: Run, index: VectorIndex, items: DataFrame, leaving: DataFrame) -> None:
        self._run = run
        self._index = index
        self._leaving = leaving
        self._shared = materialise(erasure.shared_in(items))
        named = items.where(F.col("kind") == FACE).select(F.col("value").cast("bigint").alias("face_id"))
        self._named = materialise(named.distinct())
        self._permitted: dict[tuple[str, tuple[str, ...] | None], DataFrame] = {}

    def out_of(self, collection: str) -> Pages:
        """The keys that leave ``collection``, which is loaded."""
        settings, warehouse = self._run.settings, self._run.warehouse
        keys = own_keys(warehouse.spark, self._index, collection, settings, buckets_of(warehouse, collection))
        named = keys.join(self._named, "face_id", "left_semi")
        gone = keys.join(self._may_stay(collection), "face_id", "left_anti").unionByName(named).distinct()
        gone = materialise(gone)
        return lambda: key_pages(gone)

    def _may_stay(self, collection: str) -> DataFrame:
        """Faces (face_id) that a collection of this one's model and purposes may hold."""
        info = self._index.info(collection)
        assert info is not None  # noqa: S101 - `collections_of` lists those that have it
        ours = belongs_to(self._run.settings.milvus.alias, collection, info)
        purposes = info.purposes or (self._run.settings.governance.purposes if ours else None)
        kind = info.model_fingerprint, purposes
        if kind not in self._permitted:
            self._permitted[kind] = materialise(self._faces(*kind).select("face_id").distinct())
        return self._permitted[kind]

    def _faces(self, fingerprint: str, purposes: tuple[str, ...] | None) -> DataFrame:
        warehouse, settings = self._run.warehouse, self._run.settings
        if purposes is None:
            # Another alias's, of an earlier release: which purposes it serves is not known here, its own jobs know.
            return warehouse.read(EMBEDDINGS).where(F.col("model_fingerprint") == fingerprint)
        allowed = dict.fromkeys((*settings.governance.allowed_purposes, *purposes))
        asked = settings.governance.model_copy(update={"purposes": purposes, "allowed_purposes": tuple(allowed)})
        asked_for = settings.model_copy(update={"governance": asked})
        gated = _decisions(self._run, asked_for)
        staying = erasure.covered_as_before(warehouse, gated, self._shared, self._leaving)
        staying = staying.where(F.col("model_fingerprint") == fingerprint).select("face_id")
        return permitted_faces(warehouse, gated, fingerprint).keys.unionByName(staying)


def _settle(run: Run, *, ended: datetime | None = None) -> int:
    """Clean up behind every request that is over, also of a pass that was cut off before it could; write receipts.

    ``ended``: when this run has closed requests, if it has. Returns how many were asked for again before they were
    closed, unseen: they are asked for anew.
    """
    warehouse = run.warehouse
    over = materialise(erasure.unsettled(warehouse))
    counts = over.agg(F.count("*"), F.count("asked")).first()
    assert counts is not None  # noqa: S101 - an aggregate without groups always has its one row
    count, asked = counts
    again = erasure.ask_again(warehouse, over, asked, run_id=run.run_id, now=utc_now()) if asked else 0
    if again:
        audit.append(warehouse, "erasure-requested", run.run_id, {"requests": again, "again": True}, now=utc_now())
    forgotten = erasure.forget_items(warehouse)
    # Also where an earlier pass has deleted them: it may have been cut off before the files were rewritten.
    if forgotten or count:
        began = utc_now()
        purged = _rewritten(run, [ERASURE_ITEMS], LedgerPurged)
        if not purged.vacuumed:
            # Some time after the tables: what names are in has a day of its own to go.
            run.record_since(began, purged)
    if count:
        _write_receipts(run, over, ended)
        erasure.settle(warehouse, over, run_id=run.run_id, now=utc_now())
    return again


def _sweep_staged(run: Run) -> None:
    """Remove staged files that are on no record: what a run wrote that had been replaced by another."""
    for place in unrecorded_staging(run):
        remove_tree(run.job.spark, place)


def _erase_staged(run: Run, index: VectorIndex) -> int:
    """Remove the staged files of every run of this warehouse, wherever it staged: each may hold the vector, and none is
    needed. Returns how many folders that were.

    All other runs have ended. One that is resumed stages anew; so does this one, which may be a reindex that was killed
    and has not loaded anything since. Whose collection readers see has nothing left to load.
    """
    removed = staged_folders(run)
    for base, name in removed:
        remove_tree(run.job.spark, f"{base}/{name}")
    if not has_switched(run, index):
        run.forget(*_REDONE)
    _forget_unpromoted(run, index)
    return len(removed)


def _forget_unpromoted(run: Run, index: VectorIndex) -> None:
    """Runs that did not come to their end stage and load anew when they are resumed."""
    steps = run.warehouse.read(RUN_STEPS)
    here = own_collections(run.warehouse, run.settings, index)
    promoted = promoted_runs(run.warehouse, [name for name in here if index.aliases_of(name)])
    started = steps.where(reduce(or_, (kind.of_step() for kind in _REDONE)))
    latest = started.groupBy("run_id", "step").agg(F.max_by("state", "ended_at").alias("state"))
    open_ones = latest.where((F.col("state") == "done") & (F.col("run_id") != run.run_id))
    open_ones = open_ones.join(promoted, "run_id", "left_anti")
    now = F.lit(utc_now()).cast("timestamp")
    rows = open_ones.select(
        "run_id",
        "step",
        F.lit("forgotten").alias("state"),
        now.alias("started_at"),
        now.alias("ended_at"),
        F.lit(0.0).alias("seconds"),
        F.lit("{}").alias("result"),
        F.lit(run.lease.token).alias("fencing_token"),
    )
    rows = materialise(rows)
    if not rows.isEmpty():
        run.warehouse.append(rows, RUN_STEPS)


def _purge(run: Run) -> Purged:
    """Rewrite what holds deleted rows, and remove former files as far as the settings allow at once."""
    # With what receipts count on: they stay the same when the settings change.
    purged = _rewritten(run, erasure.TABLES, Purged, _elsewhere(run.settings))
    if purged.vacuumed:
        run.job.console.note("time travel to before this erasure is gone: the former files are removed.")
    else:
        run.job.console.note(
            f"former files stay for {purged.vacuum_hours} h of time travel and hold the erased rows until then; run "
            f"`expire` after {purged.physically_gone_at}."
        )
    return purged


def _elsewhere(settings: Settings) -> dict[str, float]:
    """How long what this program cannot remove stays: with Milvus (hours), in backups (days)."""
    limits = settings.erasure
    return {
        "milvus_gc_hours": limits.milvus_gc_hours,
        "milvus_queue_hours": limits.milvus_queue_hours,
        "backup_days": limits.backup_days,
    }


def _rewritten(run: Run, specs: Sequence[TableSpec], kind: type[P], elsewhere: dict[str, float] | None = None) -> P:
    """Rewrite tables without their deleted rows; says when the former files go."""
    hours = run.settings.erasure.vacuum_hours
    run.warehouse.purge(specs)
    run.warehouse.vacuum(specs, hours)
    due = utc_now() + timedelta(hours=hours)
    gone = _stamp(due.timestamp())
    return kind(vacuum_hours=hours, physically_gone_at=gone, vacuumed=not hours, elsewhere=elsewhere)


def _finish_physically(run: Run) -> None:
    """Remove the former files of earlier erasures whose time has come."""
    hours = vacuum_due(run.warehouse, utc_now())
    if hours is None:
        return
    hours = min(hours, run.settings.erasure.vacuum_hours)

    with run.step(Purged) as step:
        run.warehouse.vacuum([*erasure.TABLES, ERASURE_ITEMS], hours)
        gone = _stamp(utc_now().timestamp())
        step.result = Purged(vacuum_hours=hours, physically_gone_at=gone, vacuumed=True)


def vacuum_due(warehouse: Warehouse, now: datetime) -> float | None:
    """The least hours of history that erasures were promised to go after, of those whose time has come; None: of none.

    Whose files a later VACUUM has removed is not among them. Each `erase-purge` ends with one of all tables: it removes
    what was rewritten by its beginning less the history that it leaves.
    """
    told = F.from_json("result", Purged.ddl()).alias("said")
    of_tables, of_ledger = Purged.of_step(), LedgerPurged.of_step()
    steps = warehouse.read(RUN_STEPS).where((of_tables | of_ledger) & (F.col("state") == "done"))
    steps = steps.select("step", F.unix_timestamp("started_at").alias("at"), told).select("step", "at", "said.*")
    gone = F.unix_timestamp(F.to_timestamp("physically_gone_at"))
    reach = F.max(F.when(of_tables, F.col("at") - 3600 * F.col("vacuum_hours")))
    # A second more, for the date is cut to whole ones.
    promised = steps.where(~F.col("vacuumed") & (gone < int(now.timestamp())))
    promised = promised.select("vacuum_hours", (gone - 3600 * F.col("vacuum_hours")).alias("rewritten"))
    waiting = promised.crossJoin(steps.agg(reach.alias("reach"))).where("reach IS NULL OR rewritten > reach")
    row = waiting.agg(F.min("vacuum_hours").alias("hours")).first()
    return None if row is None else row["hours"]


def receipts(warehouse: Warehouse, settings: Any, run_id: str | None = None) -> list[dict[str, Any]]:
    """The receipts of complete requests (of one pass), from the ledger alone: the same each time (Guarantee 14).

    A request that found nothing says so: what it names was erased by an earlier request, or is not known here.
    """
    return [receipt for _, receipt in _receipts(warehouse, settings, _complete(warehouse, run_id))]


def _complete(warehouse: Warehouse, run_id: str | None) -> DataFrame:
    requests = warehouse.read(ERASURE_REQUESTS).withColumnRenamed("run_id", "asked_by")
    steps, on = warehouse.read(ERASURE_STEPS), ["run_id", "recorded_at"]
    told = steps.where(F.col("step") == erasure.CARRIED_OUT).select(*on, F.col("result").alias("told"))
    complete = steps.where(F.col("step") == erasure.COMPLETE).join(requests, "request_id").join(told, on, "left")
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
    found = erasure.found_something()
    earlier = Window.partitionBy("key_id", "target").orderBy("recorded_at").rowsBetween(Window.unboundedPreceding, -1)
    before = F.coalesce(F.max(found).over(earlier), F.lit(False))
    said = F.when(found, erasure.ERASED).when(before, erasure.ERASED_BEFORE).otherwise(erasure.NOT_FOUND)
    return F.coalesce(F.get_json_object("result", "$.outcome"), said)


def _told(
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
    return _told(
        (ErasedIndex.of_record(did.get(index, {})), at.get(index)),
        (ErasedTables.of_record(did.get(tables, {})), at.get(tables)),
        Purged.of_record(did[purge]) if purge in did else None,
    )


def _pass(did: dict[str, Any], settings: Any) -> dict[str, Any]:
    """What a pass did in each store, and when what it left behind goes, as a receipt says it."""
    # Of a pass of an earlier release: what the settings say now.
    stays = did["elsewhere"] or _elsewhere(settings)

    still_stored = any(of.get("compacted") is False for of in (did["collections"] or {}).values())

    def at(step: str, later: float = 0.0) -> str:
        return _NOT_ON_RECORD if did[step] is None else _stamp(did[step] + later)

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


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _write_receipts(run: Run, over: DataFrame, ended: datetime | None) -> None:
    """Write the receipts of every pass among those ``over`` that has no file of them; a file is not written again.

    Of a pass that was cut off before (no file, and not the one that has just ``ended``) the audit trail may have no end
    yet.
    """
    warehouse, complete = run.warehouse, F.col("step") == erasure.COMPLETE
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
