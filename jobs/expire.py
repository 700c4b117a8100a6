"""Destroy what has reached its end: ended consent, validity and retention, revoked sources."""

from __future__ import annotations

from jobs.cli import job
from jobs.formatting import counted
from jobs.index.milvus.connect import connect
from jobs.runs.aliases import settle_alias
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext, open_run, utc_now
from jobs.runs.stores import own_live
from jobs.steps.expire import due_now, expire_steps
from jobs.steps.outlook import outlook_settled, outlook_step


@job("expire", examples="python -m jobs.expire --config conf/local.yaml")
def main(job_: JobContext) -> Result:
    """Destroy what has reached its end, in every store; and finish erasures whose time has come."""
    if job_.dry_run:
        due = due_now(job_)
        return Result(f"dry run: {counted(due.get('image', 0), 'image')} reached the end", data={"due": due})
    with connect(job_.settings) as index, open_run(job_, "expire") as run:
        settle_alias(run, index)
        own_live(run.warehouse, run.settings, index)
        # Also where it is resumed: what came in meanwhile and is due is no less due.
        run.images_by = utc_now()
        outlook_step(run)
        outcome = expire_steps(run, index, sweep=True)
        outlook_settled(run)
        images, faces = (outcome.items.get(kind, 0) for kind in ("image", "face"))
        return run.end(Result(f"{counted(images, 'image')} and {counted(faces, 'face')} erased{outcome.waiting}"))


if __name__ == "__main__":
    main()
