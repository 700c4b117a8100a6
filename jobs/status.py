"""The runs so far, and what the alias points at."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from jobs.cli import job
from jobs.errors import SettingsError
from jobs.governance.gate import gate_warehouse
from jobs.reporting.article30 import processing_record
from jobs.reporting.status import one_run, runs_shown, write_outcomes
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext
from jobs.schemas import RUNS

_EXAMPLES = """
python -m jobs.status --config conf/local.yaml
python -m jobs.status --config conf/local.yaml --run-id nightly-2026-01-31 --wait
python -m jobs.status --config conf/local.yaml --outcomes outcomes/
"""


@job("status", examples=_EXAMPLES, needs_write=False, starts_spark=False)
@click.option("--limit", default=10, show_default=True, help="How many runs.")
@click.option("--processing", help="Write the record of processing activities (GDPR article 30) to this file.")
@click.option("--wait", is_flag=True, help="With --run-id: return when that run has ended or was lost.")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%S%z"]),
    help="With --run-id: what was recorded before this instant is another attempt's (2026-01-31T02:00:00Z).",
)
@click.option("--outcomes", help="Write what became of each image, and why, to this new folder, as CSV.")
def main(
    job_: JobContext, limit: int, processing: str | None, wait: bool, since: datetime | None, outcomes: str | None
) -> Result:
    """The runs so far, and what the alias points at. With --run-id that run alone: the exit code is then the run's.

    Of a run that has not ended it is 5; the state says whether it is running, silent (killed), or unknown.
    """
    if job_.run_id:
        return one_run(job_, job_.run_id, wait, since)
    if wait or since:
        raise SettingsError(f"{'--wait' if wait else '--since'}: which run?", hint="name it with --run-id.")
    if outcomes:
        return write_outcomes(job_, outcomes)
    if processing:
        gated = gate_warehouse(job_.warehouse, job_.settings, now=job_.clock())
        text = processing_record(job_.warehouse, job_.settings, gated)
        Path(processing).write_text(text, encoding="utf-8")
        return Result(f"record of processing activities written to {processing}", data={"file": processing})
    if not job_.warehouse.exists(RUNS):
        message = f"there is no warehouse at {job_.settings.warehouse} yet; `ingest` makes it"
        return Result(message, data={"runs": [], "alias": job_.settings.milvus.alias, "live": "", "proven": []})
    return runs_shown(job_, limit)


if __name__ == "__main__":
    main()
