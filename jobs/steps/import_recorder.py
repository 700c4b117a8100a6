"""Outcomes of import jobs, kept in the run record: Milvus itself forgets them within hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs.index.import_records import FAILED
from jobs.runs.record import Run, utc_now


class RunImportRecorder:
    """The loader's recorder: one step `import/NUMBER` per staged file, so that a restart adopts or skips it."""

    def __init__(self, run: Run, collection: str) -> None:
        self._run = run
        self._collection = collection

    def started(self, numbers: Sequence[int], job_id: str) -> None:
        """Note a job before its outcome is known; the first before it is started, and so the collection before it
        holds anything (`stores.not_here`)."""
        self._write({number: {"job_id": job_id, "state": "started"} for number in numbers})

    def finished(self, numbers: Sequence[int], state: str) -> None:
        """Note a job's end."""
        known = self.known()
        if state == FAILED:
            # Stalled, failed or forgotten by the server: it is imported again, or the collection built anew.
            self._run.job.console.step("import", "failed or stalled, so its keys were looked for", files=list(numbers))
        self._write({n: {"job_id": known[n][0] if n in known else "", "state": state} for n in numbers})

    def known(self) -> Mapping[int, tuple[str, str]]:
        """Job id and last state by file number."""
        steps = self._run.done_like("import/")
        return {int(name.split("/")[1]): (r["job_id"], r["state"]) for name, r in steps.items()}

    def _write(self, results: Mapping[int, dict[str, object]]) -> None:
        steps = {f"import/{n}": {**result, "collection": self._collection} for n, result in results.items()}
        self._run.record_steps(steps, utc_now(), 0.0)
