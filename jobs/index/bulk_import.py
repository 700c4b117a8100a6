"""Bulk import of many files: several jobs in flight, polled, timed out, retried, and never a file twice.

Milvus never removes duplicates of an import, so a second import of a file whose first one *may* have worked is the
one thing that must not happen. A job that the server runs and nobody follows (the answer to its request was lost) is
followed to its end. After a failed, stalled or forgotten job, the file's own keys are looked for: all of them once, and
it counts as loaded; none, and it is imported again; anything else, and the collection is to be rebuilt.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import tenacity

from jobs.errors import DependencyUnavailable, FaceReindexError
from jobs.index.collections import default_index
from jobs.index.import_records import DONE, FAILED, LAG_S, STARTED, ImportRecorder, LoadResult
from jobs.index.protocol import ImportState, VectorIndex
from jobs.index.staged_files import REBUILD, RebuildNeeded, StagedFile, check_file, check_rows, import_path, read_keys
from jobs.settings import Settings

T = TypeVar("T")

POLL_S = 0.3
OUTAGE_POLL_S = 1.0
STRAY_POLL_S = 3.0
#: So many seconds after a job has failed nothing is there any more of what it has brought, where rows of such a job can
#: be seen at all: 2.3 drops them at a look every 300 s (internal/rootcoord/import_manager.go cleanupLoop).
CLEAN_UP_S = 360.0
#: So many files at most, where jobs take fewer, are noted together before jobs are started for them: after a kill the
#: keys are looked for of those that were not.
NOTED_FILES = 64


@dataclass
class Pulse:
    """Whether a load goes on: by all its jobs together, for a job may wait for others on the same data node.

    A job that falls back was begun anew by the server. It is given time for that too, as often as ``restarts``: a data
    node that runs out of memory over a file begins it for ever.
    """

    timeout_s: float
    restarts: int
    moved_at: float = field(default_factory=time.monotonic)
    seen: dict[str, tuple[int, int, bool]] = field(default_factory=dict)
    fallen: dict[str, int] = field(default_factory=dict)

    def begin(self, job_id: str) -> None:
        """A job is followed from now on."""
        self.moved_at = time.monotonic()
        self.seen[job_id] = (0, 0, False)

    def percent(self, job_id: str) -> int:
        """How far a job has come."""
        return self.seen.get(job_id, (0, 0, False))[0]

    def look(self, state: ImportState) -> str:
        """Note where a job stands; says what is wrong where it has stalled, and nothing else."""
        now = (state.progress, state.rows, state.finished)
        before = self.seen.get(state.job_id, (0, 0, False))
        if now != before:
            self.seen[state.job_id] = now
            self.moved_at = time.monotonic()
            if now < before and not state.finished:
                self.fallen[state.job_id] = self.fallen.get(state.job_id, 0) + 1
        if self.fallen.get(state.job_id, 0) > self.restarts:
            return f"its import was begun anew by the server {self.fallen[state.job_id]} times"
        if time.monotonic() - self.moved_at > self.timeout_s:
            return f"its import stalled at {state.progress} % and {state.rows} rows"
        return ""


@dataclass
class Importer:
    """One bulk load: a file waits, runs in a job, and is done, or it is doubtful until its keys have been looked for.

    A job takes ``files_per_job`` files, and ``in_flight`` jobs run at once. As many (of `NOTED_FILES` at the most) are
    put on record together before the first of them is started (``next_jobs``).
    """

    index: VectorIndex
    collection: str
    files: Sequence[StagedFile]
    settings: Settings
    recorder: ImportRecorder
    digest: Callable[[str], str]
    on_progress: Callable[[int, int], None] | None
    in_flight: int = 1
    files_per_job: int = 1
    waiting: deque[StagedFile] = field(default_factory=deque)
    next_jobs: deque[list[StagedFile]] = field(default_factory=deque)
    running: dict[str, list[StagedFile]] = field(default_factory=dict)
    pulse: Pulse = field(init=False)
    given_up: set[str] = field(default_factory=set)
    doubtful: dict[int, tuple[StagedFile, str]] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    why: dict[int, str] = field(default_factory=dict)
    adopted: int = 0
    retried: int = 0

    def __post_init__(self) -> None:
        milvus = self.settings.milvus
        self.pulse = Pulse(milvus.import_timeout_s, milvus.import_attempts)

    def run(self) -> LoadResult:
        """Load all files."""
        skipped = self._resume()
        if self.doubtful:
            # Before anything new is started: see `_resume` on what may have been started and not recorded.
            self._follow_all()
            self.waiting.extendleft(reversed(self._remove_doubt()))
        for attempt in range(1, self.settings.milvus.import_attempts + 1):
            self._drain()
            if not self.doubtful:
                break
            again = self._remove_doubt()
            if again and attempt == self.settings.milvus.import_attempts:
                self._give_up(again)
            self.retried += len(again)
            self.waiting.extend(again)
        self._check_every_file_once()
        rows = sum(file.rows for file in self.files)
        return LoadResult(rows, len(self.files), skipped=skipped, adopted=self.adopted, retried=self.retried)

    # -- a restarted run ---------------------------------------------------------------------------------------------

    def _resume(self) -> int:
        """Sort the files by what is on record, here and on the server; returns how many were done before.

        Whatever may have been started is on record, with its job or, where a kill came first, without. (If the server
        still knows it, it is adopted.) Earlier releases recorded a job only after they had started it: so at most one
        was started without being on record, that of the first files that are not.
        """
        known = self.recorder.known()
        jobs = {job.job_id: job for job in self._jobs()}
        by_path = {path: job for job in jobs.values() if job.state != "failed" for path in job.files}
        adopted: dict[str, list[StagedFile]] = {}
        unrecorded: dict[str, list[int]] = {}
        perhaps_started = self.files_per_job if known or jobs else 0
        for file in self.files:
            job_id, state = known.get(file.file_no, ("", ""))
            job = by_path.get(import_path(file.path))
            if state == DONE:
                self.done.add(file.file_no)
            elif state == STARTED and job_id:
                adopted.setdefault(job_id, []).append(file)
            elif job is not None and job.job_id != job_id:
                # Killed between starting the job and recording it.
                unrecorded.setdefault(job.job_id, []).append(file.file_no)
                adopted.setdefault(job.job_id, []).append(file)
            elif state or perhaps_started:
                perhaps_started -= 0 if state else 1
                self.doubtful[file.file_no] = (file, "an earlier attempt was cut off")
            else:
                self.waiting.append(file)
        for job_id, numbers in unrecorded.items():
            self.recorder.started(numbers, job_id)
        for job_id, files in adopted.items():
            self.adopted += len(files)
            self._follow_from_now(job_id, files)
        return len(self.done)

    # -- jobs in flight ----------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Start and follow jobs until none waits or runs."""
        self._report()
        while self.waiting or self.next_jobs or self.running:
            while (self.waiting or self.next_jobs) and len(self.running) < self.in_flight:
                if not self.next_jobs:
                    self._note_next_jobs()
                self._start(self.next_jobs.popleft())
            self._follow_once()
        self.recorder.commit()

    def _follow_all(self) -> None:
        while self.running:
            self._follow_once()

    def _follow_once(self) -> None:
        time.sleep(POLL_S)
        for job_id in list(self.running):
            self._follow(job_id)
        self.recorder.commit(after_s=LAG_S)
        self._report()

    def _follow_from_now(self, job_id: str, files: list[StagedFile]) -> None:
        self.running[job_id] = files
        self.pulse.begin(job_id)

    def _note_next_jobs(self) -> None:
        """Put the next jobs on record: killed before that, nobody would know that the collection holds anything."""
        jobs = max(1, min(self.in_flight, NOTED_FILES // self.files_per_job))
        for _ in range(min(jobs, math.ceil(len(self.waiting) / self.files_per_job))):
            files = [self.waiting.popleft() for _ in range(min(self.files_per_job, len(self.waiting)))]
            for file in files:
                check_file(file, self._patiently(lambda file=file: self.digest(file.path)))  # type: ignore[misc]
            self.next_jobs.append(files)
        self.recorder.starting(file.file_no for files in self.next_jobs for file in files)

    def _start(self, files: list[StagedFile]) -> None:
        numbers = [file.file_no for file in files]
        self.recorder.check()
        try:
            job_id = self.index.start_import(
                self.collection, [import_path(file.path) for file in files], token=self._token(files)
            )
        except DependencyUnavailable:
            # The server may have taken it all the same: look once it is back, and by keys in the end.
            self._doubt(files, "the server did not answer when the import was started")
            return
        self.recorder.started(numbers, job_id)
        self._follow_from_now(job_id, files)

    def _token(self, files: Sequence[StagedFile]) -> str:
        """What makes a repeated request the same job, where the server heeds it: these very files, in this collection,
        the n-th time. (It answers with the job of the first request, failed or not, and compares no files.)"""
        digest = hashlib.sha256(self._collection_id.encode())
        digest.update(str(self.recorder.attempt([file.file_no for file in files])).encode())
        for file in files:
            digest.update(f"\n{file.file_no} {file.sha256} {import_path(file.path)}".encode())
        return digest.hexdigest()

    @functools.cached_property
    def _collection_id(self) -> str:
        """The collection, and no other one that had its name before."""
        info = self.index.info(self.collection)
        return f"{self.collection} {info.created_at if info else ''}"

    def _follow(self, job_id: str) -> None:
        files = self.running[job_id]
        rows = sum(file.rows for file in files)
        state = self._patiently(lambda: self.index.import_state(job_id))
        stalled = self.pulse.look(state)
        if state.state == "done" and state.rows == rows:
            del self.running[job_id]
            self._finish(files)
        elif state.state == "uncommitted" and state.rows == rows:
            self._patiently(lambda: self.index.commit_import(job_id))
        elif state.finished or state.state == "uncommitted":
            reason = f": {state.reason}" if state.reason else ""
            self._end(job_id, f"its import is {state.state} with {state.rows} of {rows} rows{reason}")
        elif stalled:
            self._end(job_id, stalled)

    def _end(self, job_id: str, why: str) -> None:
        """Follow a job no more; where it can be stopped it is, so that it brings nothing later."""
        files = self.running.pop(job_id)
        self.given_up.add(job_id)
        if self.index.features.two_phase_import:
            # One that is over already refuses.
            with contextlib.suppress(FaceReindexError):
                self.index.abort_import(job_id)
        self._doubt(files, why)

    def _doubt(self, files: Iterable[StagedFile], why: str) -> None:
        self.doubtful.update({file.file_no: (file, why) for file in files})

    def _patiently(self, ask: Callable[[], T]) -> T:
        """The server's answer, through an outage of up to ``milvus.ready_timeout_s``."""
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_delay(self.settings.milvus.ready_timeout_s),
            wait=tenacity.wait_fixed(OUTAGE_POLL_S),
            retry=tenacity.retry_if_exception_type(DependencyUnavailable),
            reraise=True,
        )
        return retrying(ask)

    def _finish(self, files: Sequence[StagedFile]) -> None:
        numbers = [file.file_no for file in files]
        self.recorder.finished(numbers, DONE)
        self.done.update(numbers)

    def _report(self) -> None:
        """Rows of the files that are done, and of each job in flight as many as it says."""
        if self.on_progress:
            part = sum(
                sum(file.rows for file in files) * min(99, self.pulse.percent(job_id)) // 100
                for job_id, files in self.running.items()
            )
            done = sum(file.rows for file in self.files if file.file_no in self.done)
            self.on_progress(done + part, sum(file.rows for file in self.files))

    # -- doubt -------------------------------------------------------------------------------------------------------

    def _remove_doubt(self) -> list[StagedFile]:
        """Look for the keys of doubtful files; returns those that are not there at all, to be imported again."""
        while True:
            jobs = self._follow_strays()
            if not self.doubtful:
                return []
            # Before the keys are counted: what a job brings in between would be counted neither way.
            alive, failed = self._held(jobs), self._failed(jobs)
            # It may take hours, after which the server has forgotten what is not on record.
            self.recorder.commit()
            found = self._found()
            if self.index.features.shows_failed_imports and any(found[number][1] for number in failed):
                # What a failed job has not shown yet it never shows; what it has is dropped.
                time.sleep(CLEAN_UP_S)
                found = self._found()
            # A request whose answer was lost may have made its job meanwhile.
            if {job.job_id for job in self._jobs()} <= {job.job_id for job in jobs}:
                break
        again = []
        for file, why in self.doubtful.values():
            distinct, copies = found[file.file_no]
            # What a failed job has brought may be dropped at any time.
            if distinct == file.rows == copies and file.file_no not in failed:
                self._finish([file])
            elif copies == 0 and file.file_no not in alive:
                again.append(file)
            else:
                self.recorder.finished([file.file_no], FAILED)
                raise RebuildNeeded(
                    f"Staged file {file.file_no} is in doubt in '{self.collection}' ({why}): {distinct} of {file.rows} "
                    f"keys found in {copies} rows"
                    + (", and its job still runs" if file.file_no in alive else "")
                    + (", and its job has failed: the server drops them." if file.file_no in failed else "."),
                    hint=REBUILD,
                )
        if again:
            self.recorder.finished([file.file_no for file in again], FAILED)
        self.why.update({file.file_no: why for file, why in self.doubtful.values()})
        self.doubtful.clear()
        with contextlib.suppress(FaceReindexError):
            self.index.release(self.collection)
        return again

    def _jobs(self) -> list[ImportState]:
        """All jobs of the collection that the server still knows."""
        return self._patiently(lambda: self.index.list_imports(self.collection))

    def _strays(self, jobs: Iterable[ImportState]) -> dict[str, list[StagedFile] | None]:
        """Jobs that may yet bring rows of doubtful files, and that were not given up: by job, which files.

        None: one that cannot be told by now. A young job names no files yet, and may hold any of those.
        """
        known = self.recorder.known()
        by_path = {import_path(file.path): file for file, _ in self.doubtful.values()}
        others = {job_id for number, (job_id, _) in known.items() if number not in self.doubtful}
        found: dict[str, list[StagedFile] | None] = {}
        for job in jobs:
            if job.finished or job.job_id in self.given_up:
                continue
            files = [by_path[path] for path in job.files if path in by_path]
            if files and len(files) == len(job.files):
                found[job.job_id] = files
            elif files or (not job.files and job.job_id not in others):
                found[job.job_id] = None
        return found

    def _follow_strays(self) -> list[ImportState]:
        """Follow such jobs to their end. One that cannot be told is waited for until it can, or is over.

        Returns all jobs, of which none is such a one any more.
        """
        waited: set[str] = set()
        while True:
            jobs = self._jobs()
            strays = self._strays(jobs)
            if not strays:
                return jobs
            for job_id, files in strays.items():
                if files is None:
                    self._wait_for(job_id, waited)
                elif all(file.file_no in self.doubtful for file in files):
                    for file in files:
                        del self.doubtful[file.file_no]
                    self.recorder.started([file.file_no for file in files], job_id)
                    self.adopted += len(files)
                    self._follow_from_now(job_id, files)
            self._follow_all()
            time.sleep(STRAY_POLL_S)

    def _wait_for(self, job_id: str, waited: set[str]) -> None:
        """Look at a job that may be of any files; it is given up where the load does not get on."""
        if job_id not in waited:
            waited.add(job_id)
            self.pulse.begin(job_id)
        elif self.pulse.look(self._patiently(lambda: self.index.import_state(job_id))):
            self.given_up.add(job_id)

    def _held(self, jobs: Iterable[ImportState]) -> set[int]:
        """Doubtful files that jobs may yet bring rows of, although these were given up."""
        known = self.recorder.known()
        on_record = {job_id for job_id, _ in known.values()}
        live = [job for job in jobs if not job.finished]
        named = {path for job in live for path in job.files}
        nameless = {job.job_id for job in live if not job.files}
        return {
            number
            for number, (file, _) in self.doubtful.items()
            if import_path(file.path) in named
            or (number in known and known[number][0] in nameless)
            or nameless - on_record
        }

    def _failed(self, jobs: Sequence[ImportState]) -> set[int]:
        """Doubtful files of which the last job has failed, as the server says."""
        known = self.recorder.known()
        failed, others = [job for job in jobs if job.state == "failed"], [job for job in jobs if job.state != "failed"]
        ids = {job.job_id for job in failed}
        named = {path for job in failed for path in job.files} - {path for job in others for path in job.files}
        return {
            number
            for number, (file, _) in self.doubtful.items()
            if import_path(file.path) in named or (number in known and known[number][0] in ids)
        }

    def _found(self) -> dict[int, tuple[int, int]]:
        """What is there now of each doubtful file: see `_present`."""
        self._make_countable()
        return {number: self._present(file) for number, (file, _) in self.doubtful.items()}

    def _make_countable(self) -> None:
        """Index and load the collection as it is now: one that was loaded before an import lags behind it."""
        timeout = self.settings.milvus.index_timeout_s
        rows = sum(file.rows for file in self.files)
        with contextlib.suppress(FaceReindexError):
            self.index.release(self.collection)
        spec = default_index(self.settings, rows, embedded=False)
        self.index.build_index(self.collection, spec, timeout=timeout)
        self.index.load(self.collection, timeout=timeout)

    def _present(self, file: StagedFile) -> tuple[int, int]:
        """Distinct keys of the file that are in the collection, and the rows they are in."""
        keys = read_keys(file)
        check_rows(file, len(np.unique(keys)))
        copies = self.index.count_ids(self.collection, keys)
        if copies == 0:
            return 0, 0
        return self.index.count_distinct_ids(self.collection, keys), copies

    def _give_up(self, files: Sequence[StagedFile]) -> None:
        numbers = ", ".join(str(file.file_no) for file in files)
        raise RebuildNeeded(
            f"Import of staged file(s) {numbers} into '{self.collection}' failed "
            f"{self.settings.milvus.import_attempts} times; of file {files[0].file_no} {self.why[files[0].file_no]}.",
            hint="see the data node's log for the reason, then " + REBUILD,
        )

    def _check_every_file_once(self) -> None:
        """None left out; and none twice: a request whose answer was lost may have started a job nobody follows."""
        left_out = [file.file_no for file in self.files if file.file_no not in self.done]
        if left_out:
            raise RebuildNeeded(
                f"Staged file(s) {', '.join(map(str, left_out))} have no outcome in '{self.collection}'.", hint=REBUILD
            )
        seen: dict[str, int] = {}
        for job in self._jobs():
            if job.state != "failed":
                for path in job.files:
                    seen[path] = seen.get(path, 0) + 1
        twice = [file.file_no for file in self.files if seen.get(import_path(file.path), 0) > 1]
        if twice:
            raise RebuildNeeded(
                f"Staged file(s) {', '.join(map(str, twice))} were imported twice into '{self.collection}'.",
                hint=REBUILD,
            )
