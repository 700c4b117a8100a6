"""Import jobs: what is refused at once, what fails later, what is told of a job, and when it is forgotten."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tests.milvus.servers.clock import Clock
from tests.milvus.servers.faults import FAIL, FAIL_HALF, FAIL_SHOWN, SHORT, STALL, STALL_SHOWN, Faults
from tests.milvus.servers.parquet import FileFault, read_rows
from tests.milvus.servers.profiles import Profile
from tests.milvus.servers.store import Collection, Columns, Refused, Segment, Store, join

MAX_FILES, MAX_JOBS, MAX_BYTES = 1024, 1024, 16 * 2**30
KEY_S, KEY_BYTES = 86_400.0, 256
CLEAN_UP_S = 300.0
ENDED = ("Completed", "Failed")
ABORTED = "aborted by user"
OWN_FOLDERS = {"insert_log", "delta_log", "stats_log", "index_files"}
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:h|ms|m|s|us|ns))+\Z")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@dataclass
class Pace:
    """Seconds of the server that each stage of a job takes."""

    pending: float = 1.0
    preimport: float = 2.0
    importing: float = 4.0
    indexing: float = 2.0
    committing: float = 1.0


@dataclass
class Job:
    """One import."""

    number: int
    there: Collection
    files: list[list[str]]
    auto_commit: bool
    deadline: float
    created: float
    fault: str
    state: str = "Pending"  # the stage, of which `shown` is what is told
    since: float = 0.0
    reason: str = ""
    parts: list[Columns] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows of all files; 0 until they have been read."""
        return sum(len(next(iter(part.values()))) for part in self.parts)

    @property
    def shown(self) -> str:
        """The state as it is told: pre-import and indexes are Importing, and so are phases of a job without them."""
        if self.state in ("Pending", *ENDED):
            return self.state
        return self.state if self.state in ("Uncommitted", "Committing") and not self.auto_commit else "Importing"


class Imports:
    """All jobs that the server knows."""

    def __init__(self, store: Store, profile: Profile, faults: Faults, clock: Clock, bucket: Path | None) -> None:
        self._store, self._profile, self._faults, self._clock = store, profile, faults, clock
        self._bucket = bucket
        self.pace = Pace()
        self.max_bytes, self.max_jobs = MAX_BYTES, MAX_JOBS
        self.replicating = self.allowed_when_replicating = False
        self.jobs: dict[int, Job] = {}
        self._keys: dict[tuple[int, str], tuple[int, float]] = {}

    # -- what is asked for -----------------------------------------------------------------------------------------

    def create(self, there: Collection, files: Sequence[Sequence[str]], options: Mapping[str, str], key: str) -> int:
        """Start a job; with a key that is remembered, the job that it was first used for."""
        now = self._clock.now()
        self._check_files(files)
        key = key if self._profile.has("key-header") else ""
        if key and (known := self._of_key(there, key, now)):
            return known
        deadline = now + _seconds(options["timeout"]) if "timeout" in options else float("inf")
        auto_commit = not (self._profile.has("two-phases") and options.get("auto_commit", "").lower() == "false")
        self._check_cluster(auto_commit)
        words = [self._faults.take(what) for what in ("job", *(path for entry in files for path in entry))]
        job = Job(self._store.number(), there, [list(f) for f in files], auto_commit, deadline, now,
                  next(filter(None, words), ""), since=now)  # fmt: skip
        self.jobs[job.number] = job
        if key:
            self._keys[there.number, key] = (job.number, now)
        return job.number

    def get(self, number: int) -> Job:
        """A job that is known."""
        if number not in self.jobs:
            raise Refused(
                self._profile.unknown_job, f"import job does not exist, jobID={number}: importing data failed"
            )
        return self.jobs[number]

    def commit(self, number: int) -> None:
        """Make an Uncommitted job's rows visible, soon."""
        job = self._for_phases(number)
        if job.state in ("Committing", "Completed"):
            return
        if job.state != "Uncommitted":
            raise Refused(2100, f"job {number} is in state {job.state}, expected Uncommitted: importing data failed")
        self._refuse_auto_commit(job)
        job.state, job.since = "Committing", self._clock.now()

    def abort(self, number: int) -> None:
        """Discard a job that is not committed."""
        job = self._for_phases(number)
        if job.state == "Failed" and job.reason == ABORTED:
            return
        if job.state in ("Committing", "Completed"):
            raise Refused(2100, f"job {number} is in terminal/committed state {job.state}, abort not allowed")
        self._refuse_auto_commit(job)
        if job.state != "Failed":
            self._fail(job, ABORTED)

    def _for_phases(self, number: int) -> Job:
        if number not in self.jobs:
            raise Refused(2101, f"job {number} not found: importing data failed on server side")
        return self.jobs[number]

    @staticmethod
    def _refuse_auto_commit(job: Job) -> None:
        if job.auto_commit:
            raise Refused(2100, f"job {job.number} is auto-commit, manual commit/abort not allowed")

    # -- what is refused at once -----------------------------------------------------------------------------------

    def _check_files(self, files: Sequence[Sequence[str]]) -> None:
        given = [entry for entry in files if entry]
        if not given:
            raise Refused(1100, "import request is empty: invalid parameter")
        if len(given) > MAX_FILES:
            raise Refused(2100, f"The max number of import files should not exceed {MAX_FILES}, but got {len(given)}")
        for entry in given:
            if PurePosixPath(entry[0]).suffix != ".parquet":
                raise Refused(2100, f"unexpected file type, files={entry}: importing data failed")
            if len(entry) != 1:
                raise Refused(2100, "for Parquet import, accepts only one file: importing data failed")
            self._check_path(entry[0])

    def _check_path(self, path: str) -> None:
        if not self._profile.has("paths-confined"):
            return
        if self._bucket is None and not path.startswith("/"):
            raise Refused(2100, "path of local storage must be absolute: importing data failed")
        if OWN_FOLDERS & set(PurePosixPath(path).parts):
            raise Refused(2100, "path points into an internal storage directory: importing data failed")

    def _check_cluster(self, auto_commit: bool) -> None:
        running = sum(job.state not in ENDED for job in self.jobs.values())
        if self._profile.has("jobs-at-once") and running >= self.max_jobs:
            raise Refused(
                self._profile.unknown_job, "The number of jobs has reached the limit, please try again later."
            )
        if not (self.replicating and self._profile.has("no-import-under-replication")):
            return
        if not (self.allowed_when_replicating and self._profile.has("no-auto-commit-under-replication")):
            raise Refused(3000, "import in replicating cluster is not supported yet: unsupported operation")
        if auto_commit:
            raise Refused(3000, "auto_commit=true import in replicating cluster is not supported")

    def _of_key(self, there: Collection, key: str, now: float) -> int:
        if len(key) > KEY_BYTES or not (key.isascii() and key.isprintable()):
            raise Refused(1100, "idempotency key: invalid parameter")
        number, used = self._keys.get((there.number, key), (0, now))
        if not number or now - used > KEY_S:
            return 0
        if number not in self.jobs:
            raise Refused(2101, f"the job {number} of this key is past its retention: importing data failed")
        return number

    # -- what happens by itself --------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let every job come as far as its time has."""
        now = self._clock.now()
        alive = {there.number for there in self._store.all()}
        for job in list(self.jobs.values()):
            if job.there.number not in alive and job.state not in ENDED:
                self._fail(job, f"collection {job.there.number} dropped")
            self._advance(job, now)
            retention = self._profile.retention_s
            over = job.state in ENDED and not self._profile.has("deadline-fails-completed")
            # One that was forgotten before its deadline has none any more; one that has failed by it fails again at
            # each look, and so is never forgotten.
            if now > job.deadline and not over and job.deadline - job.since <= retention:
                self._fail(job, "import timeout")
            if self._profile.has("failed-tasks-cleaned") and job.state == "Failed" and now - job.since > CLEAN_UP_S:
                self._drop_segments(job)
            since = job.created if self._profile.has("tasks-forgotten") else job.since
            if job.state in ENDED and now - since > retention:
                del self.jobs[job.number]

    def _advance(self, job: Job, now: float) -> None:
        """From stage to stage; each begins when the one before it was due to end."""
        lasts = {
            "Pending": self.pace.pending,
            "PreImporting": self.pace.preimport,
            "Importing": self.pace.importing,
            "IndexBuilding": self.pace.indexing,
            "Committing": self.pace.committing,
        }
        while job.state in lasts or (job.state == "Uncommitted" and job.auto_commit):
            ends = job.since + lasts.get(job.state, 0.0)
            # What was due only after the deadline does not happen before it.
            if now < ends or ends > job.deadline or (job.fault, job.state) in _STUCK:
                return
            self._end_stage(job)
            job.since = ends

    def _end_stage(self, job: Job) -> None:
        match job.state:
            case "Pending":
                job.state = "PreImporting"
            case "PreImporting":
                self._read(job)
            case "Importing" if job.fault == FAIL:
                self._fail(job, "failed to import: disk quota exceeded")
            case "Importing":
                self._write(job)
                job.state = "IndexBuilding"
            case "IndexBuilding" if job.fault in _SHOWN_EARLY:
                # Only tasks of 2.3 can: no later server shows rows of a job that is not Completed.
                assert self._profile.has("rows-before-completed")
                job.state, job.reason = "Failed", "task marked failed as service restarted"
            case "IndexBuilding":
                job.state = "Uncommitted" if self._profile.has("two-phases") else "Completed"
            case "Uncommitted":
                job.state = "Committing"
            case "Committing":
                job.state = "Completed"
        if job.state == "Completed":
            for segment in job.segments:
                segment.visible = True

    def _write(self, job: Job) -> None:
        """Rows as segments, which nobody sees yet; two of them, where one is to be seen alone."""
        rows = join(job.parts, job.there.schema)
        halves = (slice(job.rows // 2), slice(job.rows // 2, None)) if job.fault == FAIL_HALF else (slice(None),)
        for half in halves:
            part = {name: column[half] for name, column in rows.items()}
            job.segments.append(self._store.write(job.there, part, flushed=True, visible=False))
        if job.fault in (FAIL_SHOWN, FAIL_HALF, STALL_SHOWN):
            job.segments[0].visible = True

    def _read(self, job: Job) -> None:
        read = []
        for (path,) in job.files:
            try:
                read.append(read_rows(self._find(path), job.there.schema, self._profile, self.max_bytes))
            except FileFault as fault:
                self._fail(job, f"error: {fault}, file: {path}")
                return
        # Only now is anything told of files and rows.
        job.sizes, job.parts = [size for size, _ in read], [columns for _, columns in read]
        job.state = "Importing"

    def _find(self, path: str) -> Path:
        return Path(path) if self._bucket is None else self._bucket / path.lstrip("/")

    def _fail(self, job: Job, reason: str) -> None:
        job.state, job.reason, job.since = "Failed", reason, self._clock.now()
        self._drop_segments(job)

    @staticmethod
    def _drop_segments(job: Job) -> None:
        job.there.segments = [s for s in job.there.segments if s not in job.segments]
        job.segments.clear()

    # -- what is told of a job -------------------------------------------------------------------------------------

    def progress(self, job: Job) -> tuple[int, int]:
        """Percent, and rows that are in."""
        percent, rows = self._progress(job)
        return percent, max(0, rows - (job.fault == SHORT))

    def _progress(self, job: Job) -> tuple[int, int]:
        share = min(
            1.0, (self._clock.now() - job.since) / max(getattr(self.pace, _STAGES.get(job.state, ""), 1.0), 1e-9)
        )
        match job.state:
            case "Pending":
                return int(10 * share), 0
            case "PreImporting":
                return 10 + int(30 * share), 0
            case "Importing":
                # One that is stuck is stuck at a row.
                share = 0.5 if job.fault == STALL else share
                return 40 + int(30 * share), int(job.rows * share)
            case "IndexBuilding":
                return 70 + int(20 * share), job.rows
            case "Completed":
                return 100, job.rows
            case "Failed":
                return 0, 0
        return 99, job.rows

    def describe(self, job: Job) -> dict[str, Any]:
        """What ``describe`` says."""
        percent, rows = self.progress(job)
        told: dict[str, Any] = {
            "jobId": str(job.number),
            "collectionName": job.there.name,
            "state": job.shown,
            "progress": percent,
            "importedRows": rows,
            "totalRows": job.rows if job.state != "Failed" else 0,
            "details": [],
        }
        if job.reason:
            told["reason"] = job.reason
        for (path,), size, part in zip(job.files, job.sizes, job.parts, strict=False):
            of_file = len(next(iter(part.values())))
            told["details"].append(
                {"fileName": f"[{path}]", "fileSize": size, "progress": percent, "state": job.shown,
                 "importedRows": of_file * rows // max(job.rows, 1), "totalRows": of_file}
            )  # fmt: skip
        told["fileSize"] = sum(job.sizes)
        return told

    def summary(self, job: Job) -> dict[str, Any]:
        """What ``list`` says: no files."""
        told = {key: value for key, value in self.describe(job).items() if key in ("jobId", "collectionName", "state")}
        return told | {"progress": self.progress(job)[0]} | ({"reason": job.reason} if job.reason else {})


_STUCK = {(STALL, "Importing"), (STALL_SHOWN, "IndexBuilding")}
_SHOWN_EARLY = (FAIL_SHOWN, FAIL_HALF)
_STAGES = {"Pending": "pending", "PreImporting": "preimport", "Importing": "importing", "IndexBuilding": "indexing"}


def _seconds(duration: str) -> float:
    """Seconds of a duration as Go writes it."""
    if not _DURATION.match(duration):
        raise Refused(2100, f'parse timeout failed, err=time: invalid duration "{duration}": importing data failed')
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)(h|ms|m|s|us|ns)", duration))
