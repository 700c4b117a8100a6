"""Look at Spark, the stores and Milvus before the first night; nothing that is made for it lasts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from jobs.cli import job
from jobs.diagnosis.check import Examination
from jobs.diagnosis.examination import CHECKS
from jobs.diagnosis.found import Found, Level
from jobs.diagnosis.subject import Subject, new_name
from jobs.diagnosis.verdict import verdict
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext

_SUMS: dict[str, Level] = {"ok": "ok", "warnings": "warning", "failures": "failure", "not asked": "not asked"}
_EXAMPLES = """
python -m jobs.doctor --config conf/local.yaml
python -m jobs.doctor --config conf/cluster.yaml --seconds 600 --json
"""


@job("doctor", examples=_EXAMPLES, needs_write=False, starts_spark=False)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=300.0,
    show_default=True,
    help="How long one check may wait for executors or for Milvus.",
)
def main(job_: JobContext, seconds: float) -> Result:
    """Look, before the first night, at Spark, its workers, the stores and Milvus: versions, rights, clocks, limits.

    Three made-up rows are staged, imported, found, deleted and dropped, under names of their own; nothing lasts, and no
    table of the warehouse is read or written. Exit code 2: a setting is wrong; 5: something is not as a night needs it.
    """
    if job_.dry_run:
        told = f"would make {len(CHECKS)} checks ({', '.join(check.name for check in CHECKS)})"
        return Result(f"dry run: {told}")
    examination = Examination(lambda found: _tell(job_, found))
    subject = Subject(job_, seconds, new_name(job_.clock()))
    examination.run(CHECKS, subject)
    data: dict[str, Any] = {"found": [asdict(found) for found in examination.found]}
    if subject.opened is not None and subject.version:
        seen = verdict(subject.opened.features, subject.version, job_.settings)
        for line in seen.lines():
            job_.console.line(line)
        data["milvus"] = seen.record()
    return Result(_sum(examination.found), examination.exit_code, data)


def _tell(job_: JobContext, found: Found) -> None:
    job_.console.line(f"{found.level:<9} {found.check}: {found.what}")
    if found.next_step:
        job_.console.line(f"{'':<9} Next step: {found.next_step}")


def _sum(found: list[Found]) -> str:
    levels = [one.level for one in found]
    told = ", ".join(f"{name} {levels.count(level)}" for name, level in _SUMS.items())
    return f"{told}; {'a night would fail' if 'failure' in levels else 'nothing was found that would stop a night'}"


if __name__ == "__main__":
    main()
