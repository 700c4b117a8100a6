"""The nightly job: gate → embed → stage → import → verify → promote. Resumes by --run-id."""

from __future__ import annotations

from dataclasses import asdict

import click

from jobs.cli import job
from jobs.formatting import counted
from jobs.index.milvus.connect import connect
from jobs.runs.aliases import settle_alias
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext, open_run
from jobs.runs.step_result import record_of
from jobs.steps.embed import embedded_message
from jobs.steps.gate import dry_run
from jobs.steps.maintain import maintain
from jobs.steps.night import erase_meanwhile, erase_open, night_steps
from jobs.steps.promote import last_verified

_EXAMPLES = """
spark-submit --properties-file conf/spark-local.conf jobs/reindex.py --config conf/local.yaml
python -m jobs.reindex --config conf/local.yaml --run-id nightly-2026-01-31
"""


@job("reindex", examples=_EXAMPLES)
@click.option("--recompute", is_flag=True, help="Embed again what is unchanged.")
def main(job_: JobContext, recompute: bool) -> Result:
    """The nightly job: from gated images to a proven collection behind the alias. Resumes by --run-id."""
    if job_.dry_run:
        return dry_run(job_)
    # Known before the first image is embedded: a night must not end at a Milvus that was never there.
    with open_run(job_, "reindex") as run, connect(run.settings) as index:
        settle_alias(run, index)
        # What was asked for since, or was cut off, goes first; what comes in meanwhile goes at the end.
        erase_open(run, index)
        night_steps(run, index, recompute=recompute)
        verified = last_verified(run)
        proof, collection, counts = verified.proof, verified.collection, verified.counts
        run.facts["counts"] = told = record_of(counts)
        waits = erase_meanwhile(run, index, collection)
        maintain(run)
        message = (
            f"alias {run.settings.milvus.alias} → {collection}: {counted(counts.faces, 'face')} of "
            f"{counted(counts.images, 'image')}, recall@10 {proof.recall:.3f}; {embedded_message(run)}{waits}"
        )
        return run.end(Result(message, data={"counts": told, "proof": asdict(proof)}))


if __name__ == "__main__":
    main()
