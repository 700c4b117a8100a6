"""The two ways in which Milvus servers take Parquet files: gRPC tasks (up to 2.3) and REST jobs (from 2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import tenacity

from jobs.errors import DependencyUnavailable, FaceReindexError
from jobs.index.milvus.calls import CALL_TIMEOUT_S, call, safe_text
from jobs.index.milvus.rest import Refused, RestClient
from jobs.index.milvus.versions import DESCRIBE, UNGRANTABLE_IMPORT
from jobs.index.protocol import Features, ImportState, State, parse_version
from jobs.settings import Settings

NO_SUCH_JOB: Final = frozenset({2100, 2101})
"""What describe says of a job that is forgotten, three hours after its end (2.5.27 internal/datacoord/services.go
GetImportProgress: 2100; from 2.6.19 on 2101; component_param.go ImportTaskRetention)."""
_UPGRADE: Final = (
    "Milvus 2.6.0 to 2.6.6 ask for privileges here that no role can be given: upgrade it to 2.6.7, or set "
    "milvus.load_by=insert."
)


class ImportApi(Protocol):
    """Start jobs and ask about them."""

    def check(self) -> None:
        """Make sure that imports can be asked for."""

    def start(self, name: str, files: Sequence[str], token: str) -> str:
        """Start one job."""

    def state(self, job_id: str) -> ImportState:
        """Where a job stands."""

    def list(self, name: str) -> list[ImportState]:
        """All jobs of a collection that the server still knows."""

    def commit(self, job_id: str) -> None:
        """Make an uncommitted job's rows visible."""

    def abort(self, job_id: str) -> None:
        """Discard a job's rows."""


class RpcImportApi:
    """``do_bulk_insert`` of pymilvus < 3.1: one file a task."""

    # Persisted (5) is not done: the segments may not be sealed yet.
    _STATES: dict[int, State] = {0: "pending", 1: "failed", 2: "running", 5: "running", 6: "done", 7: "failed"}  # noqa: RUF012

    def __init__(self, client: Any, where: str) -> None:
        # The public function, `utility.do_bulk_insert`, calls this handler through a second, deprecated connection.
        self._handler = client._get_connection()
        self._where = where
        if not hasattr(self._handler, "do_bulk_insert"):
            raise FaceReindexError(
                f"This pymilvus cannot import into {where}, which is older than 2.4.",
                hint="install pymilvus 3.0.x, upgrade the server, or set milvus.load_by=insert.",
            )

    def check(self) -> None:
        """They come over the connection that is there."""

    def start(self, name: str, files: Sequence[str], token: str) -> str:  # noqa: ARG002
        """Start one task. Never repeated here: a request whose answer was lost may have started a task already."""
        if len(files) != 1:
            raise FaceReindexError(f"This Milvus takes one file an import task, not {len(files)}.")
        # The time-out goes by position, for pymilvus repeats a call whose time-out it sees as a keyword.
        job = call(
            "start an import",
            f"'{name}' at {self._where}",
            lambda: self._handler.do_bulk_insert(name, "", list(files), CALL_TIMEOUT_S, retry_times=0),
            attempts=1,
        )
        return str(job)

    def state(self, job_id: str) -> ImportState:
        """Where a task stands; ``unknown`` once the server has forgotten it (hours)."""
        from pymilvus.exceptions import MilvusException

        def ask() -> ImportState:
            try:
                return self._read(self._handler.get_bulk_insert_state(int(job_id), timeout=CALL_TIMEOUT_S))
            except MilvusException as error:
                if "not exist" in str(error.message) or "not found" in str(error.message):
                    return ImportState(job_id, "unknown")
                raise

        return call("tell an import's state", self._where, ask)

    def list(self, name: str) -> list[ImportState]:
        """All tasks of a collection that the server still knows."""
        tasks = call(
            "list imports",
            f"'{name}' at {self._where}",
            lambda: self._handler.list_bulk_insert_tasks(0, name, timeout=CALL_TIMEOUT_S),
        )
        return [self._read(task) for task in tasks]

    def commit(self, job_id: str) -> None:
        """These tasks show their rows by themselves."""
        raise FaceReindexError(f"This Milvus has no import in two phases (task {job_id}).")

    abort = commit

    def _read(self, task: Any) -> ImportState:
        files = tuple(filter(None, [str(task.infos.get("files", ""))]))  # one file a task
        return ImportState(
            job_id=str(task.task_id),
            state=self._STATES.get(task.state, "unknown"),
            rows=int(task.row_count),
            progress=int(task.infos.get("progress_percent") or 0),
            reason=str(task.infos.get("failed_reason") or ""),
            files=files,
        )


class RestImportApi:
    """``/v2/vectordb/jobs/import`` of Milvus 2.4 and later, from its source: not run against such a server."""

    _STATES: dict[str, State] = {  # noqa: RUF012
        "Pending": "pending",
        "Importing": "running",
        "Uncommitted": "uncommitted",
        "Committing": "running",
        "Completed": "done",
        "Failed": "failed",
    }

    def __init__(self, settings: Settings, token: str, features: Features) -> None:
        number = parse_version(features.version)
        self._rest = RestClient(settings, token, on_403=_UPGRADE if UNGRANTABLE_IMPORT.holds(number) else None)
        self._features = features
        self._patience_s = settings.milvus.ready_timeout_s
        self._describe = "describe" if DESCRIBE.holds(number) else "get_progress"
        # No `timeout` among the options: nothing renews it, and before 2.6.7 it also fails a job that is complete, and
        # its rows go (2.5.27 internal/datacoord/import_checker.go tryTimeoutJob). So below 3.0, where nothing aborts a
        # job, one that is given up is stopped by dropping its collection.
        self._options = {"options": {"auto_commit": "false"}} if features.two_phase_import else {}

    def check(self) -> None:
        """Ask for all jobs of the database: it needs what a load needs, and changes nothing."""
        self._rest.post("jobs/import/list", {}, action="list imports")

    def start(self, name: str, files: Sequence[str], token: str) -> str:
        """Start one job. With ``token``, where the server heeds it, a request whose answer was lost is repeated."""
        body = {"collectionName": name, "files": [[file] for file in files], **self._options}

        def ask() -> str:
            headers = {"Idempotency-Key": token} if token else {}
            data = self._rest.post(
                "jobs/import/create", body, action="start an import", headers=headers, patience_s=self._patience_s
            )
            return str(data["jobId"])

        if not (token and self._features.idempotent_import):
            return ask()
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_delay(self._patience_s),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=3.0),
            retry=tenacity.retry_if_exception_type(DependencyUnavailable),
            reraise=True,
        )
        return retrying(ask)

    def state(self, job_id: str) -> ImportState:
        """Where a job stands; ``unknown`` once the server has forgotten it, hours after its end."""
        try:
            data = self._rest.post(f"jobs/import/{self._describe}", {"jobId": job_id}, action="tell an import's state")
        except Refused as refused:
            if refused.code in NO_SUCH_JOB:
                return ImportState(job_id, "unknown")
            raise
        details = data.get("details") or ()
        return ImportState(
            job_id=job_id,
            state=self._STATES.get(str(data.get("state")), "running"),
            rows=int(data.get("importedRows") or 0),
            progress=int(data.get("progress") or 0),
            reason=safe_text(ValueError(str(data.get("reason") or ""))),
            files=tuple(str(d.get("fileName", "")).strip("[]\"'") for d in details),
        )

    def list(self, name: str) -> list[ImportState]:
        """All jobs of a collection that the server still knows."""
        records = self._rest.post("jobs/import/list", {"collectionName": name}, action="list imports").get("records")
        return [self._listed(record) for record in records or ()]

    def _listed(self, record: dict[str, Any]) -> ImportState:
        """A job of a list, which names no files: for them it is asked about, unless it has failed."""
        job_id = str(record["jobId"])
        return ImportState(job_id, "failed") if record.get("state") == "Failed" else self.state(job_id)

    def commit(self, job_id: str) -> None:
        """Make an uncommitted job's rows visible."""
        self._rest.post("jobs/import/commit", {"jobId": job_id}, action="commit an import")

    def abort(self, job_id: str) -> None:
        """Discard a job's rows."""
        self._rest.post("jobs/import/abort", {"jobId": job_id}, action="abort an import")
