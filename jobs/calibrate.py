"""Measure an executor with photographs of nothing, for the first plan; no image is read."""

from __future__ import annotations

import click

from jobs.cli import job
from jobs.formatting import digits
from jobs.planning.calibration import calibrate, derived, what_was_measured
from jobs.planning.inputs import faces_rate
from jobs.runs.history import last_fingerprint
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext, open_run
from jobs.runs.results import Calibrated

_EXAMPLES = """
python -m jobs.calibrate --config conf/local.yaml
python -m jobs.calibrate --config conf/cluster.yaml --seconds 120 --set executor.gpus_per_task=0.5
"""


@job("calibrate", examples=_EXAMPLES)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    help="How long to measure; loading the networks comes on top.",
)
def main(job_: JobContext, seconds: float) -> Result:
    """Measure an executor of this cluster with photographs of nothing: the rates that `plan` counts with.

    No image is read, and nothing is written but the run's record. A night that has measured the same comes before it.
    """
    if job_.dry_run:
        told = f"would measure the executors for {seconds:g} s, with photographs that are made for it"
        return Result(f"dry run: {told}")
    with open_run(job_, "calibrate") as run:
        found = run.once(Calibrated, lambda: calibrate(job_.spark, run.settings, job_.console, seconds))
        faces = faces_rate(job_, None, last_fingerprint(run.warehouse, None))
        rates = derived(found, faces.value)
        _show(job_, found, rates)
        job_.console.note(f"With {faces.value:.2f} faces an image ({faces.source}).")
        data = {"measured": found.record(), "rates": rates, "faces_each": faces.value}
        return run.end(Result(f"{what_was_measured(found)}; `plan` counts with it", data=data))


def _show(job_: JobContext, found: Calibrated, rates: dict[str, float]) -> None:
    each = [
        ["decoding and detection", f"{digits(found.images)} images/s"],
        ["decoding alone", f"{digits(found.decoded)} images/s"],
        ["cutting out faces alone", f"{digits(found.cut)} crops/s"],
        ["embedding", f"{digits(found.embedded)} crops/s"],
    ]
    title = f"An executor ({found.tasks} tasks at once; mean of {found.executors})"
    job_.console.table(title, ["part", "does"], each)
    counted = [[name, f"{digits(value)} images/s"] for name, value in rates.items()]
    job_.console.table("What `plan` counts with, a core or a GPU", ["rate (conf/rates.yaml)", "is"], counted)


if __name__ == "__main__":
    main()
