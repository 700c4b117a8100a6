"""The nightly job: gate → embed → stage → import → verify → promote. Resumes by --run-id."""

from __future__ import annotations

from dataclasses import asdict

import click

from jobs.cli import Result, job
from jobs.embed import dry_run, embed_steps, embedded_message, gate_step
from jobs.errors import StoreMissing
from jobs.index.milvus import VectorIndex, connect
from jobs.load import load_steps
from jobs.promote import promote_steps
from jobs.runs.aliases import settle_alias
from jobs.runs.erasing import erase_pending
from jobs.runs.maintenance import maintain
from jobs.runs.record import Job, Run, open_run
from jobs.runs.syncing import add_small
from jobs.verify import verify_steps

_EXAMPLES = """
spark-submit --properties-file conf/spark-local.conf jobs/reindex.py --config conf/local.yaml
python -m jobs.reindex --config conf/local.yaml --run-id nightly-2026-01-31
"""


def erase_meanwhile(run: Run, index: VectorIndex, live: str) -> None:
    """Carry out the erasures that were asked for during the night.

    A picture that an erased person shares with others was refused whole while it was unsettled, so the others' faces
    may be missing from the new collection: they come back now.
    """
    if erase_pending(run, index).shared:
        run.step("bring-back", lambda: add_small(run, index, live, gate_step(run)), once=False)


@job("reindex", examples=_EXAMPLES)
@click.option("--recompute", is_flag=True, help="Embed again what is unchanged.")
def main(job_: Job, recompute: bool) -> Result:
    """The nightly job: from gated images to a proven collection behind the alias. Resumes by --run-id."""
    if job_.dry_run:
        return dry_run(job_)
    with open_run(job_, "reindex") as run:
        # Known before the first image is embedded: a night must not end at a Milvus that was never there.
        index = connect(run.settings)
        settle_alias(run, index)
        # What was asked for since, or was cut off, goes first; what comes in meanwhile goes at the end.
        try:
            erase_pending(run, index)
        except StoreMissing as missing:
            # An index that was lost is built anew by this; the end of the night asks again.
            run.job.console.note(str(missing))
        embed_steps(run, recompute=recompute)
        load_steps(run, index)
        proof = verify_steps(run, index)
        promotion = promote_steps(run, index)
        erase_meanwhile(run, index, promotion.current)
        maintain(run)
        counts = run.facts["counts"]
        run.facts["message"] = message = (
            f"alias {run.settings.milvus.alias} → {promotion.current}: {counts['faces']} faces of "
            f"{counts['images']} images, recall@10 {proof.recall:.3f}; {embedded_message(run)}"
        )
        return {"run_id": run.run_id, "message": message, "counts": counts, "proof": asdict(proof)}


if __name__ == "__main__":
    main()
