"""What comes due, for who watches: permissions that end soon, and erasures that are still to be carried out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pyspark.sql import functions as F

from jobs.erasure.requests import open_requests
from jobs.reporting.permissions import permissions
from jobs.runs.record import Run
from jobs.runs.results import Outlook


def outlook_step(run: Run) -> None:
    """Count it for `metrics.file`; where there is none nobody asks.

    Before anything is destroyed: a request that cannot be carried out ends the run, and must be seen all the same.
    """
    if not run.settings.metrics.file:
        return
    with run.step(Outlook, words="count what comes due") as step:
        ends = permissions(run.warehouse, run.settings, run.job.clock())
        step.result = Outlook(records=ends.in_force, ending=ends.within_30_days, **_open(run))


def outlook_settled(run: Run) -> None:
    """Look at the erasures once more, where some were open that this run has carried out since."""
    before = run.result(Outlook)
    if before is not None and before.open_requests:
        with run.step(Outlook, words="count erasures that are open") as step:
            step.result = replace(before, **_open(run))


def _open(run: Run) -> dict[str, Any]:
    oldest = F.min("requested_at").cast("double")
    found = open_requests(run.warehouse).agg(F.count("*").alias("open"), oldest.alias("oldest")).first()
    assert found is not None  # noqa: S101 - an aggregate over everything has one row
    return {"open_requests": int(found["open"]), "oldest_request": found["oldest"]}
