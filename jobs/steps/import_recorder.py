"""Outcomes of import jobs, kept in the run record: Milvus itself forgets them within hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs.index.import_records import FAILED, STARTED
from jobs.runs.record import Run
from jobs.runs.results import FileImported


class RunImportRecorder:
    """The loader's recorder: one step `import/NUMBER` per staged file, so that a restart adopts or skips it."""

    def __init__(self, run: Run, collection: str) -> None:
        self._run = run
        self._collection = collection

    def started(self, numbers: Sequence[int], job_id: str) -> None:
        """Note a job before its outcome is known; the first before it is started, and so the collection before it
        holds anything (`stores.not_here`)."""
        self._write(dict.fromkeys(numbers, job_id), STARTED)

    def finished(self, numbers: Sequence[int], state: str) -> None:
        """Note a job's end."""
        known = self.known()
        if state == FAILED:
            # Stalled, failed or forgotten by the server: it is imported again, or the collection built anew.
            self._run.job.console.step("import", "failed or stalled, so its keys were looked for", files=list(numbers))
        self._write({number: known[number][0] if number in known else "" for number in numbers}, state)

    def attempt(self, numbers: Sequence[int]) -> int:
        """How often the import of these files was over without having loaded them: of that one which failed most."""
        return max((self._failed(number) for number in numbers), default=0)

    def _failed(self, number: int) -> int:
        there = self._run.parts(FileImported).get(str(number))
        return (there.failed or 0) if there else 0

    def known(self) -> Mapping[int, tuple[str, str]]:
        """Job id and last state by file number."""
        return {int(number): (file.job_id, file.state) for number, file in self._run.parts(FileImported).items()}

    def _write(self, jobs: Mapping[int, str], state: str) -> None:
        of = self._collection
        self._run.record_parts(
            {
                str(number): FileImported(
                    job_id=job, state=state, collection=of, failed=(self._failed(number) + (state == FAILED)) or None
                )
                for number, job in jobs.items()
            }
        )
