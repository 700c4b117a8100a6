"""How well the configured weights tell pairs of one person from pairs of two: accuracy, ROC, TAR at FAR."""

from __future__ import annotations

import json
from pathlib import Path

import click

from jobs.cli import job
from jobs.errors import GovernanceError, SettingsError
from jobs.evaluation.embed import evaluate
from jobs.evaluation.pairs import read_pairs
from jobs.evaluation.roc_plot import can_draw, draw_roc
from jobs.evaluation.summary import counts, result_of
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext

_EXAMPLES = """
python -m jobs.evaluate --config conf/local.yaml --pairs pairs.txt --images lfw/ --out lfw-report --dry-run
python -m jobs.evaluate --config conf/local.yaml --pairs staff.csv --images photos/ --out staff-report \\
  --lawful-basis "consent of all who are shown, for testing; register no. 12" --floor 0.99
"""


@job("evaluate", examples=_EXAMPLES, needs_write=False)
@click.option("--pairs", "pairs_file", help="LFW's pairs.txt, or CSV with left, right, same (docs/evaluation.md).")
@click.option("--images", help="The folder or s3a:// prefix that the pairs' pictures lie below.")
@click.option("--out", help="Folder for evaluation.json, roc.png and roc.svg; made where it is missing.")
@click.option(
    "--lawful-basis", metavar="TEXT", help="What permits you to embed these faces; stands in evaluation.json."
)
@click.option(
    "--floor", type=click.FloatRange(0, 1), help="Least accuracy, failures counted as wrong; else exit code 4."
)
def main(
    job_: JobContext,
    pairs_file: str | None,
    images: str | None,
    out: str | None,
    lawful_basis: str | None,
    floor: float | None,
) -> Result:
    """How well the configured weights tell pairs of one person from pairs of two. Only aggregates come out."""
    if not (pairs_file and images and out):
        raise SettingsError("evaluate needs --pairs, --images and --out.", hint="see `evaluate --help` for examples.")
    pairs = read_pairs(pairs_file)
    if job_.dry_run:
        told = f"{len(pairs):,} pairs of {len(pairs.images):,} pictures"
        return Result(f"dry run: would compare {told}; no picture was opened", data={"pairs": counts(pairs)})
    if not (lawful_basis or "").strip():
        # These pictures have no basis records to ask; somebody has to answer for them all the same.
        raise GovernanceError(
            "evaluate embeds the faces of people, if only in memory, and nobody has said what permits it.",
            hint="state it with --lawful-basis TEXT; it is written into evaluation.json.",
        )
    folder = _made(out)
    evaluation = {"lawful_basis": lawful_basis, **evaluate(job_, pairs, images)}
    text = json.dumps(evaluation, indent=2, allow_nan=False)
    (folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
    drawn = draw_roc(evaluation, folder) if can_draw() else []
    if not drawn:
        job_.console.note("No plots: matplotlib is not installed (pip install 'face-reindex[plots]').")
    return result_of(evaluation, ["evaluation.json", *drawn], out, floor)


def _made(out: str) -> Path:
    """The folder, before hours are spent on what goes into it."""
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--out: the folder cannot be made ({error.strerror}).") from None
    return Path(out)


if __name__ == "__main__":
    main()
