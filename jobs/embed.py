"""Gate the images, then detect and embed the faces of those that a recorded basis permits."""

from __future__ import annotations

import click

from jobs.cli import job
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext, open_run
from jobs.steps.embed import embed_steps, embedded_message
from jobs.steps.gate import dry_run


@job("embed", examples="python -m jobs.embed --config conf/local.yaml")
@click.option("--recompute", is_flag=True, help="Embed again what is unchanged.")
def main(job_: JobContext, recompute: bool) -> Result:
    """Gate the images, then detect and embed the faces of those that a recorded basis permits."""
    if job_.dry_run:
        return dry_run(job_)
    with open_run(job_, "embed") as run:
        embed_steps(run, recompute=recompute)
        return run.end(Result(embedded_message(run)))


if __name__ == "__main__":
    main()
