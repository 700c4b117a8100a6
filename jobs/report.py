"""One run as a self-contained HTML page: where its images went, what it took, and whether the sums agree."""

from __future__ import annotations

from pathlib import Path

import click

from jobs.cli import job
from jobs.errors import BadInput
from jobs.reporting.collect import collect
from jobs.reporting.html import render
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext

_EXAMPLES = """
python -m jobs.report --config conf/local.yaml
python -m jobs.report --config conf/local.yaml --run-id nightly-2026-01-31 --out report.html
"""


@job("report", examples=_EXAMPLES, needs_write=False)
@click.option("--out", type=click.Path(dir_okay=False), help="The page [default: report-RUN.html in this folder].")
def main(job_: JobContext, out: str | None) -> Result:
    """One run as a self-contained HTML page. Without --run-id: the last reindex that has ended, well or not."""
    report = collect(job_.warehouse, job_.settings, job_.run_id, job_.clock())
    run_id = report.run.run_id
    target = Path(out or f"report-{run_id}.html")
    data = {"run_id": run_id, "state": report.run.state, "reconciles": report.reconciles, "file": str(target)}
    if job_.dry_run:
        return Result(f"dry run: would write the report of {run_id} to {target}", data=data)
    try:
        target.write_text(render(report), encoding="utf-8")
    except OSError as error:
        hint = "name another place with --out."
        raise BadInput(f"{target}: cannot be written ({error.strerror}).", hint=hint) from None
    sums = "all sums agree" if report.reconciles else "SUMS DO NOT AGREE"
    return Result(f"{run_id} ({report.run.state}, {sums}): {target.absolute().as_uri()}", data=data)


if __name__ == "__main__":
    main()
