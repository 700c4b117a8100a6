"""An erasure from end to end: find, record, destroy in every store, verify, receipt.

Each step may be repeated, and one that was cut off is: requests stay open until a pass has gone through all stores and
found nothing left, so a store out of reach leaves them open (Guarantee 12).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.erasure.closing import close, lost_records
from jobs.erasure.find import find
from jobs.erasure.kinds import COMPLETE, EXPIRY, RECORD, SHARED, SWEEP, count_by_kind
from jobs.erasure.ledger import begin, write_down
from jobs.erasure.leftovers import leftovers
from jobs.erasure.purging import finish_physically, purge, rewritten
from jobs.erasure.receipts import told_of_pass, write_receipts
from jobs.erasure.requests import ask_again, forget_items, pending, request_all, settle, strike_off, unsettled
from jobs.erasure.rows import destroy_rows, forget_removed, is_blind
from jobs.erasure.shared import leaving_records, left_by_pass, settle_shared, staying_faces
from jobs.erasure.vectors import decisions, erase_vectors, sweep_index, sweep_staged
from jobs.erasure.waiting import NOBODY, note_waiting, still_waiting
from jobs.errors import SettingsError
from jobs.formatting import counted
from jobs.governance import audit
from jobs.governance.tombstones import FACE, IMAGE, key_ring
from jobs.index.protocol import VectorIndex
from jobs.runs.record import Run, utc_now
from jobs.runs.results import ErasedTables, FoundDue, FoundToErase, LedgerPurged, Purged, SharedSettled
from jobs.runs.stores import need_all
from jobs.schemas import ERASURE_ITEMS, ERASURE_STEPS, PROCESSING_BASIS
from jobs.tables.store import materialise


@dataclass(frozen=True)
class Outcome:
    """Requests that are complete now, and those that stay open, by what they wait for: see `close`.

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
        images, faces, records = (self.items.get(kind, 0) for kind in (IMAGE, FACE, RECORD))
        what = ", ".join([counted(images, "image"), counted(faces, "face"), counted(records, "record")])
        done = f"{counted(self.completed, 'request')} complete: {what} erased"
        again = f"; {self.again} were asked for again meanwhile, for the next erasure, sync or reindex to carry out"
        return done + self.waiting + (again if self.again else "")

    @property
    def waiting(self) -> str:
        """What stays open, as the end of a message; empty where nothing does."""
        on_hold = f"; {counted(self.suspended, 'request')} suspended by a legal hold" if self.suspended else ""
        lost = (
            "for there are pictures whose records are not there, or could not be read, or what links them, and nobody "
            "can tell whose they are, or whether a legal hold is on them: ingest the records again; of those that no "
            "file has any more (also of people erased since, where links came from a backup) `erase --lost-records` "
            "takes the links, and the pictures that no other record is for"
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
        targets = materialise(pending(warehouse))
        waits = NOBODY if targets.isEmpty() else still_waiting(run)
        if waits is not None:
            if sweep:
                sweep_index(run, index)
                sweep_staged(run)
            again = _settle(run)
            finish_physically(run)
            if sweep:
                need_all(warehouse, settings, index)
            return Outcome(0, waits.suspended, {}, waits.unknown, again)
        found = find(warehouse, targets)
        ring = key_ring(settings)
        found_at = utc_now()
        items = write_down(warehouse, targets, found, ring, now=found_at)
        leaving, left = materialise(leaving_records(targets, found)), left_by_pass(warehouse, found)
    counts, began = _starts(run, items)
    index_did, index_at = erase_vectors(run, index, items, leaving, left)
    # After a run that is unfinished knows that what it has loaded is dropped.
    need_all(warehouse, settings, index)
    with run.job.watching("erase-shared"):
        staying = staying_faces(warehouse, settings, items, leaving, left, now=run.job.clock())
        begin(warehouse, targets, found, ring, run_id=run.run_id, now=found_at)
        # Not before: were it taken back, nobody would know any more of what the files are to be purged.
        forget_removed(warehouse, began)
    with run.step(SharedSettled) as settling:
        settling.result = SharedSettled(images=settle_shared(warehouse, items, staying))
    with run.step(ErasedTables) as destroying:
        tables = destroy_rows(warehouse, items)
        destroying.result = tables_did = ErasedTables(tables=tables)
    tables_at = utc_now()
    with run.step(Purged) as purging:
        purging.result = purged = purge(run)
    pass_did = told_of_pass((index_did, index_at.timestamp()), (tables_did, tables_at.timestamp()), purged)
    with run.job.watching("erase-close"):
        now, blind = utc_now(), is_blind(tables)
        closed = close(
            warehouse, targets, found, items, ring, blind=blind, run_id=run.run_id, now=now, pass_did=pass_did
        )
        audit.append(warehouse, "erasure-ended", run.run_id, closed._asdict(), now=now)
        shared = counts.get(SHARED, 0)
        if any(closed[1:]):
            # Of a request that stays open an earlier pass may have told already; its receipt counts everything.
            done = warehouse.read(ERASURE_STEPS).where(F.col("step") == COMPLETE).select("request_id")
            counts = count_by_kind(items.join(done, "request_id", "left_semi"))
        again = closed.again + _settle(run, ended=now)
    finish_physically(run)
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
    lost = materialise(lost_records(run.warehouse))
    records = lost.where(F.col("kind") == RECORD).count()
    audit.append(run.warehouse, "records-lost", run.run_id, {"records": records}, now=utc_now())
    return lost


def _starts(run: Run, items: DataFrame) -> tuple[dict[str, int], datetime]:
    """Put on record what was found, by kind, and that from now on it is destroyed."""
    with run.step(FoundToErase) as finding:
        counts = count_by_kind(items)
        finding.result = FoundToErase(items=counts)
    began = utc_now()
    audit.append(run.warehouse, "erasure-started", run.run_id, {"items": counts}, now=began)
    return counts, began


def _request_due(run: Run, due: DataFrame | None) -> None:
    """Write down what is ``due`` now; of what an earlier pass found due, and did not begin to destroy, no more."""
    warehouse, ring = run.warehouse, key_ring(run.settings)
    strike_off(warehouse, run_id=run.run_id, now=utc_now())
    if due is None:
        return
    with run.step(FoundDue) as step:
        asked = request_all(warehouse, due, ring, kind=EXPIRY, run_id=run.run_id, now=utc_now())
        step.result = FoundDue(due=asked)


def _request_leftovers(run: Run) -> None:
    warehouse, ring = run.warehouse, key_ring(run.settings)
    gated = decisions(run, run.settings)
    again = leftovers(warehouse, gated, ring)
    count = request_all(warehouse, again, ring, kind=SWEEP, run_id=run.run_id, now=utc_now())
    if count:
        run.job.console.note(f"{count} images, faces and records are here again, or without their picture: they go.")


def _settle(run: Run, *, ended: datetime | None = None) -> int:
    """Clean up behind every request that is over, also of a pass that was cut off before it could; write receipts.

    ``ended``: when this run has closed requests, if it has. Returns how many were asked for again before they were
    closed, unseen: they are asked for anew.
    """
    warehouse = run.warehouse
    over = materialise(unsettled(warehouse))
    counts = over.agg(F.count("*"), F.count("asked")).first()
    assert counts is not None  # noqa: S101 - an aggregate without groups always has its one row
    count, asked = counts
    again = ask_again(warehouse, over, asked, run_id=run.run_id, now=utc_now()) if asked else 0
    if again:
        audit.append(warehouse, "erasure-requested", run.run_id, {"requests": again, "again": True}, now=utc_now())
    forgotten = forget_items(warehouse)
    # Also where an earlier pass has deleted them: it may have been cut off before the files were rewritten.
    if forgotten or count:
        began = utc_now()
        purged = rewritten(run, [ERASURE_ITEMS], LedgerPurged)
        if not purged.vacuumed:
            # Some time after the tables: what names are in has a day of its own to go.
            run.record_since(began, purged)
    if count:
        write_receipts(run, over, ended)
        settle(warehouse, over, run_id=run.run_id, now=utc_now())
    return again
