"""Files without what was erased: tables are rewritten, former files go when the settings let them (Guarantee 10)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from pyspark.sql import functions as F

from jobs.erasure.receipts import goes_later, utc_stamp
from jobs.erasure.rows import TABLES
from jobs.runs.record import Run, utc_now
from jobs.runs.results import LedgerPurged, Purged
from jobs.schemas import ERASURE_ITEMS, RUN_STEPS, TableSpec
from jobs.tables.store import Warehouse

P = TypeVar("P", bound=Purged)


def purge(run: Run) -> Purged:
    """Rewrite what holds deleted rows, and remove former files as far as the settings allow at once."""
    # With what receipts count on: they stay the same when the settings change.
    purged = rewritten(run, TABLES, Purged, goes_later(run.settings))
    if purged.vacuumed:
        run.job.console.note("time travel to before this erasure is gone: the former files are removed.")
    else:
        run.job.console.note(
            f"former files stay for {purged.vacuum_hours} h of time travel and hold the erased rows until then; run "
            f"`expire` after {purged.physically_gone_at}."
        )
    return purged


def rewritten(run: Run, specs: Sequence[TableSpec], kind: type[P], elsewhere: dict[str, float] | None = None) -> P:
    """Rewrite tables without their deleted rows; says when the former files go."""
    hours = run.settings.erasure.vacuum_hours
    run.warehouse.purge(specs)
    run.warehouse.vacuum(specs, hours)
    due = utc_now() + timedelta(hours=hours)
    gone = utc_stamp(due.timestamp())
    return kind(vacuum_hours=hours, physically_gone_at=gone, vacuumed=not hours, elsewhere=elsewhere)


def finish_physically(run: Run) -> None:
    """Remove the former files of earlier erasures whose time has come."""
    hours = vacuum_due(run.warehouse, utc_now())
    if hours is None:
        return
    hours = min(hours, run.settings.erasure.vacuum_hours)

    with run.step(Purged) as step:
        run.warehouse.vacuum([*TABLES, ERASURE_ITEMS], hours)
        gone = utc_stamp(utc_now().timestamp())
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
