"""Between two nights: withdrawals, holds, expiries and small additions reach the live collection within minutes."""

from __future__ import annotations

from contextlib import closing

from jobs.cli import Result, job
from jobs.embed import embed_steps, gate_step
from jobs.embedding.model import prepare_model
from jobs.errors import LeaseHeld
from jobs.expire import due_now, expire_steps
from jobs.governance.gate import Gated, gate_warehouse
from jobs.index.milvus.connect import connect
from jobs.index.protocol import VectorIndex
from jobs.runs.aliases import settle_alias
from jobs.runs.record import Job, Run, open_run, utc_now
from jobs.steps.sync import add_small, withdraw_live


def sync_steps(run: Run, index: VectorIndex) -> str:
    """Out of the live collection first; then what is due is destroyed; then what is new comes in. Says what it did."""
    # Nothing is staged, so a run that is resumed need not keep to the images that were there when it began.
    run.images_by = utc_now()
    out = run.step(
        "sync-withdraw",
        lambda: withdraw_live(run.warehouse, run.settings, index, lambda: gate_step(run, to_destroy=True)),
        once=False,
    )
    expired = expire_steps(run, index, sweep=False)
    live = str(out["collection"])
    text = f"{out['removed']} faces withdrawn, {expired.items.get('image', 0)} images erased"
    if not live:
        return f"nothing is live yet; {text}"
    info = index.info(live)
    if info is None or info.model_fingerprint != prepare_model(run).fingerprint:
        return f"{text}; nothing added: the live collection is of another model than the settings name"
    embed_steps(run, recompute=False, limit=run.settings.sync.max_images)
    added = run.step("sync-add", lambda: add_small(run, index, live, gate_step(run)), once=False)
    return f"{text}, {added['added']} faces added" + (f", {added['left']} left for the night" if added["left"] else "")


@job("sync", examples="python -m jobs.sync --config conf/local.yaml")
def main(job_: Job) -> Result:
    """Withdrawals, holds, expiries and small additions reach the live collection between two nights.

    What has reached its end (withdrawn, expired, revoked) is destroyed in every store, as `expire` does.
    """
    if job_.dry_run:
        due = due_now(job_)
        return {
            "due": due,
            "message": f"dry run: would destroy {due.get('image', 0)} images that have reached their end, take out of "
            "the live collection what is not permitted now, and add what is new",
        }
    with closing(connect(job_.settings)) as index:
        return _sync(job_, index)


def _sync(job_: Job, index: VectorIndex) -> Result:
    try:
        with open_run(job_, "sync") as run:
            settle_alias(run, index)
            run.facts["message"] = message = sync_steps(run, index)
            return {"run_id": run.run_id, "message": message}
    except LeaseHeld:
        # A reindex writes the tables for hours; what is withdrawn must not wait for it.
        def decide() -> Gated:
            return gate_warehouse(job_.warehouse, job_.settings, now=job_.clock(), to_destroy=True)

        removed = withdraw_live(job_.warehouse, job_.settings, index, decide)["removed"]
        return {"message": f"{removed} faces withdrawn; another run is writing, so the rest waits for it"}


if __name__ == "__main__":
    main()
