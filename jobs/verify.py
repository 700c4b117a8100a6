"""Prove a loaded collection: counts, keys, recall, and that every image is accounted for."""

from __future__ import annotations

from dataclasses import asdict

import click

from jobs.cli import job
from jobs.erasure.verify import prove_erased
from jobs.formatting import counted
from jobs.index.milvus.connect import connect
from jobs.runs.evidence import prove_audit
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext, open_run
from jobs.steps.verify import verify_steps

_EXAMPLES = """
python -m jobs.verify --config conf/local.yaml --run-id ID
python -m jobs.verify --config conf/local.yaml --erased --place s3a://milvus-bucket/files
python -m jobs.verify --config conf/local.yaml --audit --head /worm/audit-heads/000000000042.json
"""


@job("verify", examples=_EXAMPLES)
@click.option("--erased", is_flag=True, help="Look for what was erased, in every file and every collection.")
@click.option(
    "--place",
    "places",
    multiple=True,
    help="With --erased: one more folder or prefix to search, which holds files; repeatable.",
)
@click.option("--canaries", help="With --erased: a JSON file of names and hexadecimal bytes to look for as well.")
@click.option("--audit", "audit_", is_flag=True, help="Check the audit trail's chain against all its exported heads.")
@click.option("--head", help="With --audit: a head that was kept elsewhere, to check against as well.")
def main(
    job_: JobContext, erased: bool, places: tuple[str, ...], canaries: str | None, audit_: bool, head: str | None
) -> Result:
    """Prove a run's collection: exact counts, all keys, recall@10, and an outcome for every image."""
    if erased:
        return prove_erased(job_, places, canaries)
    if audit_:
        return prove_audit(job_.warehouse, job_.settings, head)
    if job_.dry_run:
        return Result(f"dry run: would verify the collection of run {job_.run_id or '(none given)'}")
    with open_run(job_, "verify") as run, connect(run.settings) as index:
        proof = verify_steps(run, index)
        message = f"proven: {counted(proof.rows_found, 'face')}, recall@10 {proof.recall:.3f}"
        return run.end(Result(message, data={"proof": asdict(proof)}))


if __name__ == "__main__":
    main()
