"""Destroy what has reached its end: ended consent, validity and retention, revoked sources."""

from __future__ import annotations

from contextlib import closing

from jobs.cli import Result, job
from jobs.embed import gate_step
from jobs.erasure.run import Outcome, erase_pending
from jobs.governance import retention
from jobs.governance.gate import gate_warehouse
from jobs.index.milvus.connect import connect
from jobs.index.protocol import VectorIndex
from jobs.runs.aliases import settle_alias
from jobs.runs.record import Job, Run, open_run, utc_now
from jobs.runs.stores import own_live


def expire_steps(run: Run, index: VectorIndex, *, sweep: bool) -> Outcome:
    """Destroy what is due, and carry out every open erasure (of holds that were lifted, too).

    ``sweep``: see `erase_pending`.
    """
    due = retention.due(run.warehouse, run.settings, gate_step(run, to_destroy=True), now=run.job.clock())
    return erase_pending(run, index, due=due, sweep=sweep)


def due_now(job_: Job) -> dict[str, int]:
    """What would be destroyed, in numbers by kind."""
    gated = gate_warehouse(job_.warehouse, job_.settings, now=job_.clock(), to_destroy=True)
    due = retention.due(job_.warehouse, job_.settings, gated, now=job_.clock())
    return {row["kind"]: row["count"] for row in due.groupBy("kind").count().collect()}


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
