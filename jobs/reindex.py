"""The nightly job: gate → embed → stage → import → verify → promote. Resumes by --run-id."""

from __future__ import annotations

from dataclasses import asdict

import click

from jobs.cli import Result, job
from jobs.embed import dry_run, embed_steps, embedded_message, gate_step
from jobs.erasure.run import Outcome, erase_pending
from jobs.errors import StoreMissing
from jobs.index.milvus.connect import connect
from jobs.index.protocol import VectorIndex
from jobs.load import load_steps
from jobs.promote import last_proof, promote_steps
from jobs.runs.aliases import has_switched, settle_alias
from jobs.runs.record import Job, Run, open_run
from jobs.runs.staging_paths import clear_staging
from jobs.steps.maintain import maintain
from jobs.steps.sync import add_small
from jobs.verify import verify_steps

_EXAMPLES = """
spark-submit --properties-file conf/spark-local.conf jobs/reindex.py --config conf/local.yaml
python -m jobs.reindex --config conf/local.yaml --run-id nightly-2026-01-31
"""


def night_steps(run: Run, index: VectorIndex, *, recompute: bool) -> None:
    """From gated images to a proven collection behind the alias.

    A run that is resumed behind its switch did all of it, but for the watch that it may have been killed in: its staged
    files are gone, and another import would bring every row into the live collection twice.
    """
    if has_switched(run, index):
        if not run.result("promote"):
            promote_steps(run, index)
        clear_staging(run)
        return
    embed_steps(run, recompute=recompute)
    load_steps(run, index)
    verify_steps(run, index)
    promote_steps(run, index)


def erase_open(run: Run, index: VectorIndex) -> Outcome | None:
    """Carry out the erasures that are open; None: they stay so, for a collection on record is not in this index.

    That ends no night: what was asked to be erased is refused by its gate, and leaves the collections that are here. An
    index that was lost, or is another one now, is built anew by it.
    """
    try:
        return erase_pending(run, index)
    except StoreMissing as missing:
        run.job.console.note(str(missing))
        return None


def erase_meanwhile(run: Run, index: VectorIndex, live: str) -> str:
    """Carry out the erasures that were asked for during the night; what is to be said of it, where they stay open.

    A picture that an erased person shares with others was refused whole while it was unsettled, so the others' faces
    may be missing from the new collection: they come back now.
    """
    outcome = erase_open(run, index)
    if outcome is None:
        return "; erasures stay open, for a collection on record is not in this index"
    if outcome.shared:
        run.step("bring-back", lambda: add_small(run, index, live, gate_step(run)), once=False)
    return ""


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
        erase_open(run, index)
        night_steps(run, index, recompute=recompute)
        proof, collection = last_proof(run)
        run.facts["counts"] = counts = (run.result("verify") or {})["counts"]
        waits = erase_meanwhile(run, index, collection)
        maintain(run)
        run.facts["message"] = message = (
            f"alias {run.settings.milvus.alias} → {collection}: {counts['faces']} faces of "
            f"{counts['images']} images, recall@10 {proof.recall:.3f}; {embedded_message(run)}{waits}"
        )
        return {"run_id": run.run_id, "message": message, "counts": counts, "proof": asdict(proof)}


if __name__ == "__main__":
    main()
