"""What `status` shows: the runs so far, one run, what became of each image."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from time import sleep

from pyspark.errors import AnalysisException

from jobs.errors import FaceReindexError, SettingsError
from jobs.formatting import counted
from jobs.index.milvus.connect import connect
from jobs.runs.history import last_outcomes, last_step, proven_collections, recent, run_state
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext
from jobs.tables.store import materialise

_NEXT = {
    "running": "it is running, or was killed a moment ago",
    "silent": "it stopped without a word: start it again by its id",
    "unknown": "nothing on record: it has not begun, or ended before it could take the lease",
}
_ASK_EVERY_S = 15.0


def runs_shown(job_: JobContext, limit: int) -> Result:
    """The last runs as a table, and what the alias points at."""
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
                # Of what an `ingest` met, the images.
                str(images["listed"] - sum(images.get("refused", {}).values()) if isinstance(images, dict) else images),
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
    data = {
        "runs": [{k: run[k] for k in ("run_id", "job", "state", "exit_code", "message", "collection")} for run in runs],
        "alias": alias,
        "live": live,
        "proven": proven,
    }
    return Result(f"{counted(len(runs), 'run')}; alias {alias} → {live}", data=data)


def one_run(job_: JobContext, run_id: str, wait: bool, since: datetime | None = None) -> Result:
    """Where one run stands, by what was recorded ``since``; with ``wait`` once it has ended, or was lost."""
    now = run_state(job_.warehouse, run_id, job_.clock(), since)
    while wait and now.state == "running":
        sleep(_ASK_EVERY_S)
        now = run_state(job_.warehouse, run_id, job_.clock(), since)
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
    return Result(f"{run_id}: {now.state}; {text}", now.exit_code, {"run": {**asdict(now), "last_step": last}})


def write_outcomes(job_: JobContext, folder: str) -> Result:
    """What became of each image, and why, as CSV in a new folder."""
    found = materialise(last_outcomes(job_.warehouse))
    try:
        # A quote in a cell is doubled, as every reader of CSV expects it: Spark's own way is a backslash.
        found.write.csv(folder, header=True, escape='"')
    except AnalysisException as error:
        if error.getCondition() != "PATH_ALREADY_EXISTS":
            raise
        raise SettingsError(f"--outcomes: {folder} exists already.", hint="name a new folder.") from None
    counts = {row["status"]: row["count"] for row in found.groupBy("status").count().collect()}
    text = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    return Result(f"{text}: which is which stands in {folder}", data={"folder": folder, "counts": counts})


def _live(job_: JobContext, alias: str) -> str:
    try:
        with connect(job_.settings) as index:
            return index.alias_target(alias) or "nothing yet"
    except FaceReindexError as error:
        # The runs are worth seeing while Milvus is away; the line says so instead of failing.
        return f"unknown ({error})"
