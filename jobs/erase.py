"""Erase a person, an image or a source batch from every store, and prove it."""

from __future__ import annotations

import click

from jobs.cli import job
from jobs.erasure.asked import asked_for
from jobs.erasure.receipts import receipts
from jobs.formatting import counted
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext
from jobs.steps.erase import dry_run, erase

_EXAMPLES = """
python -m jobs.erase --config conf/local.yaml --subject-file requests.txt
python -m jobs.erase --config conf/local.yaml --subject hmac:… --dry-run --export person.zip
python -m jobs.erase --config conf/local.yaml --batch crm-2025
python -m jobs.erase --config conf/local.yaml --json          (carries out what is still open)
"""


@job("erase", examples=_EXAMPLES)
@click.option(
    "--subject",
    help="A person's pseudonym (hmac:…, hmac2:…, hmac3:…). Names only by --subject-file: arguments are seen.",
)
@click.option("--subject-file", help="A file of pseudonyms, or of names as in a basis CSV's `subject`; one a line.")
@click.option("--image", help="An image_id.")
@click.option("--batch", help="A source batch: it is revoked, and all that descends from it goes.")
@click.option("--export", "export_to", help="With --dry-run and one subject: write that person's copy (zip) here.")
@click.option(
    "--lost", multiple=True, metavar="NAME", help="A collection on record that is gone for good, its index lost."
)
@click.option(
    "--lost-records", is_flag=True, help="Records that pictures are linked to, and that no file has any more."
)
@click.option("--receipts", "receipts_of", metavar="RUN_ID", help="Say the receipts of an earlier erasure again.")
def main(
    job_: JobContext,
    subject: str | None,
    subject_file: str | None,
    image: str | None,
    batch: str | None,
    export_to: str | None,
    lost: tuple[str, ...],
    lost_records: bool,
    receipts_of: str | None,
) -> Result:
    """Erase a person, an image or a source batch from every store, and prove it. Without a target: what is open."""
    if receipts_of:
        found = receipts(job_.warehouse, job_.settings, receipts_of)
        return Result(f"{counted(len(found), 'receipt')} of run {receipts_of}", data={"receipts": found})
    asked = asked_for(job_.settings, subject=subject, subject_file=subject_file, image=image, batch=batch)
    return dry_run(job_, asked, export_to) if job_.dry_run else erase(job_, asked, lost, lost_records)


if __name__ == "__main__":
    main()
