"""Bulk import of many files: several jobs in flight, polled, timed out, retried, and never a file twice.

Milvus never removes duplicates of an import, so a second import of a file whose first one *may* have worked is the
one thing that must not happen. After a failed, stalled or forgotten job, the file's own keys are looked for: all of
them once, and it counts as loaded; none, and it is imported again; anything else, and the collection is to be rebuilt.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from jobs.errors import DependencyUnavailable, FaceReindexError
from jobs.index.collections import default_index
from jobs.index.milvus_files import REBUILD, RebuildNeeded, StagedFile, check_file, check_rows, import_path, read_keys
from jobs.index.milvus_records import DONE, FAILED, STARTED, ImportRecorder, LoadResult
from jobs.index.milvus_types import ImportState, VectorIndex
from jobs.settings import Settings

POLL_S = 0.3
OUTAGE_POLL_S = 1.0


@dataclass
class Importer:
    """One bulk load: a file waits, runs, and is done, or it is doubtful until its keys have been looked for."""

    index: VectorIndex
    collection: str
    files: Sequence[StagedFile]
    settings: Settings
    recorder: ImportRecorder
    digest: Callable[[str], str]
    on_progress: Callable[[int, int], None] | None
    waiting: deque[StagedFile] = field(default_factory=deque)
    running: dict[str, tuple[StagedFile, float]] = field(default_factory=dict)
    doubtful: dict[int, tuple[StagedFile, str]] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    adopted: int = 0
    retried: int = 0

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

        Jobs are started in the files' order and recorded one by one, so at most one was started without being
        recorded: the first that is not on record. (If the server still knows its job, the job is adopted.)
        """
        known = self.recorder.known()
        jobs = {job.job_id: job for job in self.index.list_imports(self.collection)}
        by_path = {path: job for job in jobs.values() if job.state != "failed" for path in job.files}
        first_unrecorded = True
        for file in self.files:
            job_id, state = known.get(file.file_no, ("", ""))
            unrecorded = by_path.get(import_path(file.path))
            if state == DONE:
                self.done.add(file.file_no)
            elif state == STARTED and job_id:
                self._adopt(file, job_id)
            elif unrecorded is not None and unrecorded.job_id != job_id:
                # Killed between starting the job and recording it.
                self.recorder.started(file.file_no, unrecorded.job_id)
                self._adopt(file, unrecorded.job_id)
            elif state or ((known or jobs) and first_unrecorded):
                first_unrecorded = first_unrecorded and bool(state)
                self.doubtful[file.file_no] = (file, "an earlier attempt was cut off")
            else:
                self.waiting.append(file)
        return len(self.done)

    def _adopt(self, file: StagedFile, job_id: str) -> None:
        self.adopted += 1
        self.running[job_id] = (file, time.monotonic() + self.settings.milvus.import_timeout_s)

    # -- jobs in flight ----------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Start and follow jobs until none waits or runs."""
        self._report()
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.settings.milvus.import_jobs:
                self._start(self.waiting.popleft())
            self._follow_once()

    def _follow_all(self) -> None:
        while self.running:
            self._follow_once()

    def _follow_once(self) -> None:
        time.sleep(POLL_S)
        for job_id in list(self.running):
            self._follow(job_id)

    def _start(self, file: StagedFile) -> None:
        check_file(file, self.digest(file.path))
        path = import_path(file.path)
        token = f"{self.collection}-{file.file_no}-{self.retried}"
        try:
            job_id = self.index.start_import(self.collection, [path], token=token)
        except DependencyUnavailable:
            # The server may have taken it all the same: look once it is back, and by keys in the end.
            self.recorder.started(file.file_no, "")
            self.doubtful[file.file_no] = (file, "the server did not answer when the import was started")
            return
        self.recorder.started(file.file_no, job_id)
        self.running[job_id] = (file, time.monotonic() + self.settings.milvus.import_timeout_s)

    def _follow(self, job_id: str) -> None:
        file, deadline = self.running[job_id]
        state = self._state(job_id)
        if state.state == "done" and state.rows == file.rows:
            del self.running[job_id]
            self._finish(file, state.rows)
        elif state.finished:
            del self.running[job_id]
            self.doubtful[file.file_no] = (file, f"its import is {state.state} with {state.rows} of {file.rows} rows")
        elif time.monotonic() > deadline:
            del self.running[job_id]
            self.doubtful[file.file_no] = (file, "its import stalled")

    def _state(self, job_id: str) -> ImportState:
        """A job's state, through an outage of the server of up to ``milvus.ready_timeout_s``."""
        patience = time.monotonic() + self.settings.milvus.ready_timeout_s
        while True:
            try:
                return self.index.import_state(job_id)
            except DependencyUnavailable:
                if time.monotonic() > patience:
                    raise
                time.sleep(OUTAGE_POLL_S)

    def _finish(self, file: StagedFile, rows: int) -> None:
        self.recorder.finished(file.file_no, DONE, rows)
        self.done.add(file.file_no)
        self._report()

    def _report(self) -> None:
        if self.on_progress:
            rows = sum(file.rows for file in self.files)
            self.on_progress(sum(file.rows for file in self.files if file.file_no in self.done), rows)

    # -- doubt -------------------------------------------------------------------------------------------------------

    def _remove_doubt(self) -> list[StagedFile]:
        """Look for the keys of doubtful files; returns those that are not there at all, to be imported again."""
        alive = self._jobs_alive()
        self._make_countable()
        again = []
        for file, why in self.doubtful.values():
            found, copies = self._present(file)
            if found == file.rows == copies:
                self._finish(file, file.rows)
            elif copies == 0 and import_path(file.path) not in alive:
                self.recorder.finished(file.file_no, FAILED, 0)
                again.append(file)
            else:
                self.recorder.finished(file.file_no, FAILED, copies)
                raise RebuildNeeded(
                    f"Staged file {file.file_no} is in doubt in '{self.collection}' ({why}): {found} of {file.rows} "
                    f"keys found in {copies} rows"
                    + (", and its job still runs." if import_path(file.path) in alive else "."),
                    hint=REBUILD,
                )
        self.doubtful.clear()
        with contextlib.suppress(FaceReindexError):
            self.index.release(self.collection)
        return again

    def _jobs_alive(self) -> set[str]:
        """Files whose jobs could still bring rows: there is no call that would stop them."""
        patience = time.monotonic() + self.settings.milvus.ready_timeout_s
        while True:
            try:
                jobs = self.index.list_imports(self.collection)
                return {path for job in jobs if job.state in ("pending", "running") for path in job.files}
            except DependencyUnavailable:
                if time.monotonic() > patience:
                    raise
                time.sleep(OUTAGE_POLL_S)

    def _make_countable(self) -> None:
        """Index and load the collection as it is now: one that was loaded before an import lags behind it."""
        timeout = self.settings.milvus.ready_timeout_s
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

    def _give_up(self, files: Iterable[StagedFile]) -> None:
        numbers = ", ".join(str(file.file_no) for file in files)
        raise RebuildNeeded(
            f"Import of staged file(s) {numbers} into '{self.collection}' failed "
            f"{self.settings.milvus.import_attempts} times.",
            hint="see the data node's log for the reason, then " + REBUILD,
        )

    def _check_every_file_once(self) -> None:
        """None left out; and none twice: a request whose answer was lost may have started a job nobody follows."""
        left_out = [file.file_no for file in self.files if file.file_no not in self.done]
        if left_out:
            raise RebuildNeeded(
                f"Staged file(s) {', '.join(map(str, left_out))} have no outcome in '{self.collection}'.", hint=REBUILD
            )
        if self.index.features.idempotent_import:
            return
        seen: dict[str, int] = {}
        for job in self.index.list_imports(self.collection):
            if job.state != "failed":
                for path in job.files:
                    seen[path] = seen.get(path, 0) + 1
        twice = [file.file_no for file in self.files if seen.get(import_path(file.path), 0) > 1]
        if twice:
            raise RebuildNeeded(
                f"Staged file(s) {', '.join(map(str, twice))} were imported twice into '{self.collection}'.",
                hint=REBUILD,
            )
