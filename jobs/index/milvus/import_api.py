"""The two ways in which Milvus servers take Parquet files: gRPC tasks (up to 2.3) and REST jobs (from 2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from jobs.errors import DependencyUnavailable, FaceReindexError
from jobs.index.milvus.calls import CALL_TIMEOUT_S, call
from jobs.index.protocol import ImportState, State
from jobs.settings import Settings


class ImportApi(Protocol):
    """Start jobs and ask about them."""

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
    """``/v2/vectordb/jobs/import`` of Milvus ≥ 2.4, from its documentation: untested against such a server."""

    _STATES: dict[str, State] = {  # noqa: RUF012
        "Pending": "pending",
        "Importing": "running",
        "Uncommitted": "uncommitted",
        "Committing": "running",
        "Completed": "done",
        "Failed": "failed",
    }

    def __init__(self, settings: Settings, token: str, *, two_phase: bool) -> None:
        milvus = settings.milvus
        self._base = milvus.uri.rstrip("/") + "/v2/vectordb/jobs/import/"
        self._token = token
        self._database = milvus.database
        self._options = {"options": {"auto_commit": "false"}} if two_phase else {}
        # requests' names: what the server's certificate is checked against, and the client's own.
        self._tls: dict[str, Any] = {"verify": milvus.ca_file or True}
        if milvus.client_cert_file and milvus.client_key_file:
            self._tls["cert"] = (milvus.client_cert_file, milvus.client_key_file)

    def start(self, name: str, files: Sequence[str], token: str) -> str:
        """Start one job. ``token`` goes as Idempotency-Key, which servers before 2.6.24 and 3.0.2 ignore."""
        body = {"collectionName": name, "files": [[file] for file in files], **self._options}
        data = self._post("create", body, {"Idempotency-Key": token} if token else {})
        return str(data["jobId"])

    def state(self, job_id: str) -> ImportState:
        """Where a job stands."""
        data = self._post("describe", {"jobId": job_id}, {})
        details = data.get("details") or ()
        return ImportState(
            job_id=job_id,
            state=self._STATES.get(str(data.get("state")), "running"),
            rows=int(data.get("importedRows") or 0),
            progress=int(data.get("progress") or 0),
            reason=str(data.get("reason") or ""),
            files=tuple(str(d.get("fileName", "")).strip("[]\"'") for d in details),
        )

    def list(self, name: str) -> list[ImportState]:
        """All jobs of a collection that the server still knows."""
        records = self._post("list", {"collectionName": name}, {}).get("records") or ()
        return [self.state(str(record["jobId"])) for record in records]

    def commit(self, job_id: str) -> None:
        """Make an uncommitted job's rows visible."""
        self._post("commit", {"jobId": job_id}, {})

    def abort(self, job_id: str) -> None:
        """Discard a job's rows."""
        self._post("abort", {"jobId": job_id}, {})

    def _post(self, action: str, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        import requests

        body = {**body, "dbName": self._database}
        if self._token:
            headers = {**headers, "Authorization": f"Bearer {self._token}"}
        try:
            answer = requests.post(self._base + action, json=body, headers=headers, timeout=CALL_TIMEOUT_S, **self._tls)
            answer.raise_for_status()
            content = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise DependencyUnavailable(
                f"Milvus did not {action} an import over REST ({type(error).__name__}).",
                hint="check that the server is up and reachable, then run the same command again.",
            ) from None
        if content.get("code") != 0:
            raise FaceReindexError(f"Milvus refused to {action} an import (code {content.get('code')}).")
        data: dict[str, Any] = content.get("data") or {}
        return data
