"""Point the alias at a proven collection."""

from __future__ import annotations

from jobs.cli import job
from jobs.index.milvus.connect import connect
from jobs.runs.aliases import settle_alias
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext, open_run
from jobs.steps.promote import promote_steps


@job("promote", examples="python -m jobs.promote --config conf/local.yaml --run-id ID")
def main(job_: JobContext) -> Result:
    """Point the alias at a run's proven collection."""
    if job_.dry_run:
        return Result(f"dry run: would promote the collection of run {job_.run_id or '(none given)'}")
    with open_run(job_, "promote") as run, connect(run.settings) as index:
        settle_alias(run, index)
        done = promote_steps(run, index)
        message = f"alias {run.settings.milvus.alias} → {done.current} (before: {done.previous})"
        return run.end(Result(message, data={"current": done.current, "previous": done.previous}))


if __name__ == "__main__":
    main()
