"""Between two nights: withdrawals, holds, expiries and small additions reach the live collection within minutes."""

from __future__ import annotations

from jobs.cli import job
from jobs.errors import LeaseHeld
from jobs.formatting import counted
from jobs.index.milvus.connect import connect
from jobs.index.protocol import VectorIndex
from jobs.runs.aliases import settle_alias
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext, open_run
from jobs.steps.expire import due_now
from jobs.steps.sync import remove_without_lease, sync_steps


@job("sync", examples="python -m jobs.sync --config conf/local.yaml")
def main(job_: JobContext) -> Result:
    """Withdrawals, holds, expiries and small additions reach the live collection between two nights.

    What has reached its end (withdrawn, expired, revoked) is destroyed in every store, as `expire` does.
    """
    if job_.dry_run:
        due = due_now(job_)
        return Result(
            f"dry run: would destroy {counted(due.get('image', 0), 'image')} that reached the end, take out of the "
            "live collection what is not permitted now, and add what is new",
            data={"due": due},
        )
    with connect(job_.settings) as index:
        return _sync(job_, index)


def _sync(job_: JobContext, index: VectorIndex) -> Result:
    try:
        with open_run(job_, "sync") as run:
            settle_alias(run, index)
            return run.end(Result(sync_steps(run, index)))
    except LeaseHeld:
        # A reindex writes the tables for hours; what is withdrawn must not wait for it.
        removed = remove_without_lease(job_, index)
        return Result(f"{counted(removed, 'face')} removed; another run is writing, so the rest waits for it")


if __name__ == "__main__":
    main()
