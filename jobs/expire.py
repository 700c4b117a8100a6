"""Destroy what has reached its end: ended consent, validity and retention, revoked sources."""

from __future__ import annotations

from contextlib import closing

from jobs.cli import Result, job
from jobs.index.milvus.connect import connect
from jobs.runs.aliases import settle_alias
from jobs.runs.record import Job, open_run, utc_now
from jobs.runs.stores import own_live
from jobs.steps.expire import due_now, expire_steps


@job("expire", examples="python -m jobs.expire --config conf/local.yaml")
def main(job_: Job) -> Result:
    """Destroy what has reached its end, in every store; and finish erasures whose time has come."""
    if job_.dry_run:
        due = due_now(job_)
        return {"due": due, "message": f"dry run: {due.get('image', 0)} images have reached their end"}
    with closing(connect(job_.settings)) as index, open_run(job_, "expire") as run:
        settle_alias(run, index)
        own_live(run.warehouse, run.settings, index)
        # Also where it is resumed: what came in meanwhile and is due is no less due.
        run.images_by = utc_now()
        outcome = expire_steps(run, index, sweep=True)
        run.facts["message"] = message = (
            f"{outcome.items.get('image', 0)} images and {outcome.items.get('face', 0)} faces erased{outcome.waiting}"
        )
        return {"run_id": run.run_id, "message": message}


if __name__ == "__main__":
    main()
