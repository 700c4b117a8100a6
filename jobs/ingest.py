"""Bring images, basis records and the assessment of their source into the warehouse."""

from __future__ import annotations

import click

from jobs.cli import job
from jobs.errors import SettingsError
from jobs.governance.batch_file import assessment_of, is_batch_file
from jobs.governance.blanks import is_plain
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext, open_run
from jobs.steps.ingest import bring, template
from jobs.tables.sources import open_source

_EXAMPLES = """
python -m jobs.ingest --config conf/local.yaml --source photos/ --batch staff-2026 --basis-template basis.csv
python -m jobs.ingest --config conf/local.yaml --source photos/ --batch basis.batch.yaml --basis basis.csv
spark-submit --properties-file conf/spark-yarn.conf jobs/ingest.py --source delta:lake.photos --batch crm --by-uri \
    --set 'sources.roots=[s3://bucket/photos]'
"""


@job("ingest", examples=_EXAMPLES)
@click.option("--source", help="folder:, parquet:, webdataset: or delta: and a place; or a place alone.")
@click.option("--batch", help="The source batch: its id, or a YAML file that assesses (or revokes) it.")
@click.option("--basis", help="Basis records: JSON lines, CSV, or delta: and a table.")
@click.option("--basis-template", help="Write a CSV (and batch YAML) for this source, to be completed by a person.")
@click.option("--by-uri", is_flag=True, help="Keep addresses and not bytes: originals stay where they are.")
def main(
    job_: JobContext, source: str | None, batch: str | None, basis: str | None, basis_template: str | None, by_uri: bool
) -> Result:
    """Bring images, basis records and the assessment of their source into the warehouse. Repeating changes nothing."""
    if not batch or not (source or basis or is_batch_file(batch)):
        missing = "what to bring in (--source or --basis)" if batch else "--batch: which source batch this belongs to"
        raise SettingsError(f"ingest needs {missing}.", hint="see `ingest --help` for examples.")
    assessment = assessment_of(batch)
    batch_id = str(assessment["source_batch_id"]) if assessment else batch
    if not is_plain(batch_id):
        raise SettingsError("--batch: the id has white space about it, or characters that do not show.")
    job_.check_keys()
    opened = open_source(job_.spark, source, batch_id, job_.settings) if source else None
    if basis_template:
        return template(opened, batch_id, assessment, basis_template)
    if job_.dry_run:
        return bring(job_, opened, batch_id, assessment, basis, by_uri)
    with open_run(job_, "ingest") as run:
        done = bring(job_, opened, batch_id, assessment, basis, by_uri)
        run.facts["counts"] = done.data["counts"]
        return run.end(done)


if __name__ == "__main__":
    main()
