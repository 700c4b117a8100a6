"""Bring images, basis records and the assessment of their source into the warehouse."""

from __future__ import annotations

import click

from jobs.cli import job
from jobs.errors import SettingsError
from jobs.governance.batch_file import assessment_of, is_batch_file, refuse_unplain
from jobs.runs.error_messages import told_of
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext, open_run
from jobs.steps.check import check_basis
from jobs.steps.ingest import Given, bring, counts_at_start, template
from jobs.tables.naming import said_naming
from jobs.tables.sources import open_source

_EXAMPLES = """
python -m jobs.ingest --config conf/local.yaml --source photos/ --batch staff-2026 --basis-template basis.csv
python -m jobs.ingest --config conf/local.yaml --source photos/ --batch basis.batch.yaml --basis basis.csv
python -m jobs.ingest --config conf/local.yaml --source photos/ --batch basis.batch.yaml --basis people.csv \\
    --terms terms.yaml --check
spark-submit --properties-file conf/spark-yarn.conf jobs/ingest.py --source delta:lake.photos --batch crm --by-uri \
    --set 'sources.roots=[s3://bucket/photos]'
"""


@job("ingest", examples=_EXAMPLES)
@click.option("--source", help="folder:, parquet:, webdataset: or delta: and a place; or a place alone.")
@click.option("--batch", help="The source batch: its id, or a YAML file that assesses (or revokes) it.")
@click.option("--basis", help="Basis records: JSON lines, CSV, or delta: and a table.")
@click.option("--terms", help="YAML of what all lines of --basis (a CSV of image, subject, given_at) have in common.")
@click.option("--expanded", help="With --terms: write the whole records that they make to this new folder, as CSV.")
@click.option("--check", is_flag=True, help="Say by reason what the gate will say to --basis; store nothing.")
@click.option("--basis-template", help="Write a CSV (and batch YAML) for this source, to be completed by a person.")
@click.option("--id-prefix", default="", help="What stands before the ids of this table here, as others have the same.")
@click.option("--ids-of", type=click.Choice(["files", "table"]), help="Without --source: whose names --basis gives.")
@click.option("--by-uri", is_flag=True, help="Keep addresses and not bytes: originals stay where they are.")
def main(
    job_: JobContext,
    source: str | None,
    batch: str | None,
    basis: str | None,
    terms: str | None,
    expanded: str | None,
    check: bool,
    basis_template: str | None,
    id_prefix: str,
    ids_of: str | None,
    by_uri: bool,
) -> Result:
    """Bring images, basis records and the assessment of their source into the warehouse. Repeating changes nothing."""
    if not batch or not (source or basis or is_batch_file(batch)):
        needs = "what to bring in (--source or --basis), and --batch: which source batch this belongs to"
        raise SettingsError(f"ingest needs {needs}.", hint="see `ingest --help` for examples.")
    assessment = assessment_of(batch)
    batch_id = str(assessment["source_batch_id"]) if assessment else batch
    refuse_unplain({"--batch": batch_id, "--id-prefix": id_prefix})
    naming = said_naming(batch_id, ids_of, id_prefix, source=bool(source), basis=bool(basis))
    if check:
        job_.warehouse.read_only = job_.dry_run = True
    job_.check_keys()
    given = Given(batch_id, assessment, basis, by_uri, terms, expanded, naming)
    brought = {"--source": source, "--basis": basis}
    with told_of(job_.settings, brought):
        opened = open_source(job_.spark, source, batch_id, job_.settings, id_prefix=id_prefix) if source else None
        if basis_template:
            return template(opened, batch_id, assessment, basis_template)
        if check:
            return check_basis(job_, opened, given)
        if job_.dry_run:
            return bring(job_, opened, given)
    with open_run(job_, "ingest", {"counts": counts_at_start(opened)}) as run, told_of(job_.settings, brought):
        done = bring(job_, opened, given, run.facts)
        run.facts["counts"] = done.data["counts"]
        return run.end(done)


if __name__ == "__main__":
    main()
