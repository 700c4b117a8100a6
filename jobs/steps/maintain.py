"""OPTIMIZE and VACUUM after a run, as the settings say."""

from __future__ import annotations

from jobs.runs.record import Run
from jobs.runs.results import Maintained
from jobs.schemas import ALL_TABLES, IMAGES


def maintain(run: Run) -> None:
    """Maintain every table of the warehouse; `images` is only vacuumed, for compacting it would rewrite pictures."""
    tables = run.settings.tables
    if not tables.optimize and tables.vacuum_hours is None:
        return

    with run.step(Maintained) as step:
        present = [spec for spec in ALL_TABLES if run.warehouse.exists(spec)]
        for spec in present:
            run.warehouse.maintain(
                spec, optimize=tables.optimize and spec is not IMAGES, vacuum_hours=tables.vacuum_hours
            )
        step.result = Maintained(tables=len(present))
