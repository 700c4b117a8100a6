"""Outcomes of import jobs, kept in the run record: Milvus itself forgets them within hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from jobs.index.import_records import FAILED, FileState, ImportRecorder
from jobs.runs.record import Run
from jobs.runs.results import FileImported

# Of the lease; a job that is started a little late brings rows into a collection that is dropped for it.
_ANSWER_S: Final = 10.0


class RunImportRecorder(ImportRecorder):
    """The loader's recorder: one step `import/NUMBER` per staged file, so that a restart adopts or skips it.

    The first is on record before its job is started, and so the collection before it holds anything
    (`stores.not_here`).
    """

    def __init__(self, run: Run, collection: str) -> None:
        super().__init__()
        self._run = run
        self._collection = collection

    def check(self) -> None:
        """Make sure that the run still holds the lease.

        Raises:
            LeaseLost: it does not.
        """
        self._run.lease.check(max_age_s=_ANSWER_S)

    def finished(self, numbers: Sequence[int], state: str) -> None:
        """Note a job's end."""
        if state == FAILED:
            # Stalled, failed or forgotten by the server: it is imported again, or the collection built anew.
            self._run.job.console.step("import", "failed or stalled, so its keys were looked for", files=list(numbers))
        super().finished(numbers, state)

    def _on_record(self) -> Mapping[int, FileState]:
        return {
            int(number): FileState(file.job_id, file.state, file.failed or 0, file.began, file.ended)
            for number, file in self._run.parts(FileImported).items()
        }

    def _record(self, files: Mapping[int, FileState]) -> None:
        self._run.record_parts(
            {
                str(number): FileImported(
                    job_id=file.job_id,
                    state=file.state,
                    collection=self._collection,
                    failed=file.failed or None,
                    began=file.began,
                    ended=file.ended,
                )
                for number, file in files.items()
            }
        )
