"""`face-reindex NAME …` and `python -m jobs NAME …` run a job as `python -m jobs.NAME …` does; without a name they list
the jobs. There is none that identifies a face (Guarantee 15), and a test pins the list.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

JOBS = {
    "ingest": "Bring images, basis records and the assessment of their source into the warehouse.",
    "reindex": "The nightly job: gate, embed, stage, import, verify, promote. Resumes by --run-id.",
    "embed": "Gate the images, then detect and embed the faces that a recorded basis permits.",
    "load": "Stage the faces of a run as Parquet and load them into a new Milvus collection.",
    "verify": "Prove a run's collection: counts, keys, recall, an outcome for every image.",
    "promote": "Point the alias at a run's proven collection.",
    "rollback": "Point the alias back at the proven collection before the live one.",
    "sync": "Withdrawals, holds and small additions reach the live collection between two nights.",
    "erase": "Erase a person, an image or a source batch from every store, with a receipt.",
    "expire": "Destroy what has reached its end: consent, validity, retention, revoked sources.",
    "doctor": "Look at Spark, the stores and Milvus before the first night: versions, rights, clocks, limits.",
    "calibrate": "Measure an executor of this cluster with photographs of nothing: the rates that `plan` counts with.",
    "plan": "What a night would take, need and cost, what limits it, and what would make it fit.",
    "evaluate": "How well the configured weights tell labelled pairs of pictures apart: accuracy, ROC, TAR at FAR.",
    "status": "The runs so far, and what the alias points at.",
    "report": "One run as a self-contained HTML page: where its images went, and whether the sums agree.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job that is named first, and load no other; one line a job where none is named, 2 where it is none."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # They are told as they were called.
    called = "face-reindex " if Path(sys.argv[0]).stem == "face-reindex" else "python -m jobs."
    first = arguments[0] if arguments else "--help"
    if first in JOBS:
        return int(import_module(f"jobs.{first}").main.main(args=list(arguments[1:]), prog_name=f"{called}{first}"))
    lines = ["Face Reindex: run one of", ""]
    lines += [f"  {called}{name:<9} {text}" for name, text in JOBS.items()]
    lines += ["", "Each has --help with examples; settings are in docs/settings.md."]
    print("\n".join(lines))  # noqa: T201
    if not set(arguments) - {"--help", "-h"}:
        return 0
    meant = [name for name in arguments if name in JOBS] or get_close_matches(first, JOBS, n=1) or ["reindex"]
    print(f"\nNothing was run. Did you mean: {called}{meant[0]} --help", file=sys.stderr)  # noqa: T201
    return 2


if __name__ == "__main__":
    sys.exit(main())
