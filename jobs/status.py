"""The runs so far, and what the alias points at."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from time import sleep

import click
from pyspark.errors import AnalysisException

from jobs.cli import Result, job
from jobs.errors import FaceReindexError, SettingsError
from jobs.governance.gate import gate_warehouse
from jobs.index.milvus.connect import connect
from jobs.reporting.article30 import processing_record
from jobs.runs.history import last_outcomes, last_step, proven_collections, recent, run_state
from jobs.runs.record import Job
from jobs.schemas import RUNS
from jobs.tables.store import materialise

_EXAMPLES = """
python -m jobs.status --config conf/local.yaml
python -m jobs.status --config conf/local.yaml --run-id nightly-2026-01-31 --wait
python -m jobs.status --config conf/local.yaml --outcomes outcomes/
"""
_NEXT = {
    "running": "it is running, or was killed a moment ago",
    "silent": "it stopped without a word: start it again by its id",
    "unknown": "nothing on record: it has not begun, or ended before it could take the lease",
}
_ASK_EVERY_S = 15.0


@job("status", examples=_EXAMPLES, needs_write=False)
@click.option("--limit", default=10, show_default=True, help="How many runs.")
@click.option("--processing", help="Write the record of processing activities (GDPR article 30) to this file.")
@click.option("--wait", is_flag=True, help="With --run-id: return when that run has ended or was lost.")
@click.option("--outcomes", help="Write what became of each image, and why, to this new folder, as CSV.")
def main(job_: Job, limit: int, processing: str | None, wait: bool, outcomes: str | None) -> Result:
    """The runs so far, and what the alias points at. With --run-id that run alone: the exit code is then the run's.

    Of a run that has not ended it is 5; the state says whether it is running, silent (killed), or unknown.
    """
    if job_.run_id:
        return _one_run(job_, job_.run_id, wait)
    if wait:
        raise SettingsError("--wait: which run?", hint="name it with --run-id.")
    if outcomes:
        return _outcomes(job_, outcomes)
    if processing:
        gated = gate_warehouse(job_.warehouse, job_.settings, now=job_.clock())
        text = processing_record(job_.warehouse, job_.settings, gated)
        Path(processing).write_text(text, encoding="utf-8")
        return {"file": processing, "message": f"record of processing activities written to {processing}"}
    if not job_.warehouse.exists(RUNS):
        message = f"there is no warehouse at {job_.settings.warehouse} yet; `ingest` makes it"
        return {"runs": [], "alias": job_.settings.milvus.alias, "live": "", "proven": [], "message": message}
    runs = recent(job_.warehouse, limit)
    rows = []
    for run in runs:
        counts = json.loads(run["counts"] or "{}")
        images = counts.get("images", "")
        rows.append(
            [
                run["run_id"],
                run["job"],
                run["state"],
                f"{run['started_at']:%Y-%m-%d %H:%M}",
                str(images["listed"] if isinstance(images, dict) else images),  # of a source, by `ingest`
                str(counts.get("faces", "")),
            ]
        )
    job_.console.table("Runs", ["run", "job", "state", "started (UTC)", "images", "faces"], rows)
    for run in runs:
        if run["message"]:
            job_.console.line(f"{run['run_id']}: {run['message']}")
    alias = job_.settings.milvus.alias
    live = _live(job_, alias)
    proven = proven_collections(job_.warehouse)
    return {
        "runs": [{k: run[k] for k in ("run_id", "job", "state", "exit_code", "message", "collection")} for run in runs],
        "alias": alias,
        "live": live,
        "proven": proven,
        "message": f"{len(runs)} runs; alias {alias} → {live}",
    }


def _one_run(job_: Job, run_id: str, wait: bool) -> Result:
    now = run_state(job_.warehouse, run_id, job_.clock())
    while wait and now.state == "running":
        sleep(_ASK_EVERY_S)
        now = run_state(job_.warehouse, run_id, job_.clock())
    text = now.message or _NEXT.get(now.state, "")
    last = ""
    if now.state in ("running", "silent"):
        last = last_step(job_.warehouse, run_id)
        text += f"; last step done: {last}"
    if now.lease_until:
        text += (
            f"; its lease holds until {now.lease_until:%H:%M:%S} UTC and is renewed while it runs. If its process is "
            "dead, start it again by its id, now or later"
        )
    return {
        "run": {**asdict(now), "last_step": last},
        "exit_code": now.exit_code,
        "message": f"{run_id}: {now.state}; {text}",
    }


def _outcomes(job_: Job, folder: str) -> Result:
    found = materialise(last_outcomes(job_.warehouse))
    try:
        found.write.csv(folder, header=True)
    except AnalysisException as error:
        if error.getCondition() != "PATH_ALREADY_EXISTS":
            raise
        raise SettingsError(f"--outcomes: {folder} exists already.", hint="name a new folder.") from None
    counts = {row["status"]: row["count"] for row in found.groupBy("status").count().collect()}
    text = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    return {"folder": folder, "counts": counts, "message": f"{text}: which is which stands in {folder}"}


def _live(job_: Job, alias: str) -> str:
    try:
        return connect(job_.settings).alias_target(alias) or "nothing yet"
    except FaceReindexError as error:
        # The runs are worth seeing while Milvus is away; the line says so instead of failing.
        return f"unknown ({error})"


if __name__ == "__main__":
    main()
