"""Outcomes of import jobs, kept in the run record: Milvus itself forgets them within hours."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from jobs.runs.record import Run, utc_now


class RunImportRecorder:
    """The loader's recorder: one step `import/NUMBER` per staged file, so that a restart adopts or skips it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        # Several imports are in flight, and each reports from its own thread.
        self._lock = threading.Lock()

    def started(self, file_no: int, job_id: str) -> None:
        """Note a job before its outcome is known."""
        self._write(file_no, {"job_id": job_id, "state": "started", "rows": 0})

    def finished(self, file_no: int, state: str, rows: int) -> None:
        """Note a job's end."""
        known = self._run.result(f"import/{file_no}") or {}
        self._write(file_no, {"job_id": known.get("job_id", ""), "state": state, "rows": rows})

    def known(self) -> Mapping[int, tuple[str, str]]:
        """Job id and last state by file number."""
        steps = self._run.done_like("import/")
        return {int(name.split("/")[1]): (r["job_id"], r["state"]) for name, r in steps.items()}

    def _write(self, file_no: int, result: dict[str, object]) -> None:
        with self._lock:
            self._run.record_step(f"import/{file_no}", result, utc_now(), 0.0)
