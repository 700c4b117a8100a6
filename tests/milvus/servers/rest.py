"""The import jobs' interface over HTTP: ``/v2/vectordb/jobs/import/…``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.milvus.servers.core import Core
from tests.milvus.servers.faults import CUT, LATE, LOST, TWICE
from tests.milvus.servers.imports import Job
from tests.milvus.servers.rights import ANY
from tests.milvus.servers.store import Refused

PREFIX = "/v2/vectordb/jobs/import/"
TWO_PHASES = ("commit", "abort")
TIMEOUT_S = 30.0
BY_JOB = ("get_progress", "describe", *TWO_PHASES)
Body = Mapping[str, Any]


class RestApi:
    """What each route does with a body, for a user in a database."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._routes: dict[str, Callable[[Body, str, str, str], dict[str, Any]]] = {
            "create": self._create,
            "list": self._list,
            "get_progress": self._describe,
            "describe": self._describe,
            "commit": self._commit,
            "abort": self._abort,
        }

    def has(self, route: str) -> bool:
        """Whether this version has the route."""
        has = self.core.profile.has
        return route in self._routes and has("describe" if route not in TWO_PHASES else "two-phases")

    def answer(self, route: str, body: Any, headers: Any) -> tuple[dict[str, Any], str]:
        """The data of an answer, and the word for what goes wrong with it.

        Raises:
            Refused: with the code and the HTTP status of the answer.
        """
        core = self.core
        with core.lock:
            word = core.begin(route)
            if word == CUT:
                return {}, word
            user = core.rights.user_of(headers.get("Authorization", "").removeprefix("Bearer "))
            _check_form(route, body)
            database = "" if route in BY_JOB else body.get("dbName", "")
            database = database or headers.get("DB-Name", "") or "default"
            if core.profile.has("unknown-database-first") and database not in core.store.databases:
                raise Refused(800, f"database not found, database: {database}")
            for _ in range(2 if word == TWICE else 1):
                data = self._routes[route](body, user, database, headers.get("Idempotency-Key", ""))
            return data, word

    def _create(self, body: Body, user: str, database: str, key: str) -> dict[str, Any]:
        core, name = self.core, body["collectionName"]
        core.rights.require(user, "Collection", "Import", name, database)
        job = core.imports.create(core.store.get(database, name), body["files"], body.get("options") or {}, key)
        return {"jobId": str(job)}

    def _list(self, body: Body, user: str, database: str, _: str) -> dict[str, Any]:
        core, name = self.core, body.get("collectionName", "")
        if core.profile.has("describe-global"):
            core.rights.require(user, "Global", "ListImport", ANY, database)
        elif core.profile.has("describe-any-collection"):
            core.rights.require(user, "Collection", "Import", name or ANY, database)
        there = core.store.get(database, name) if name else None
        jobs = [job for job in core.imports.jobs.values() if there in (None, job.there)]
        if core.profile.has("describe-own-collection"):
            jobs = [j for j in jobs if core.rights.permits(user, "Collection", "Import", j.there.name, database)]
        return {"records": [core.imports.summary(job) for job in jobs]}

    def _describe(self, body: Body, user: str, database: str, _: str) -> dict[str, Any]:
        core = self.core
        if core.profile.has("describe-global"):
            core.rights.require(user, "Global", "GetImportProgress", ANY, database)
        elif core.profile.has("describe-any-collection"):
            core.rights.require(user, "Collection", "Import", ANY, database)
        job = core.imports.get(_number(body["jobId"]))
        if core.profile.has("describe-own-collection"):
            core.rights.require(user, "Collection", "Import", job.there.name, database)
        return core.imports.describe(job)

    def _commit(self, body: Body, user: str, database: str, _: str) -> dict[str, Any]:
        self.core.imports.commit(self._permitted(body, user, database))
        return {}

    def _abort(self, body: Body, user: str, database: str, _: str) -> dict[str, Any]:
        self.core.imports.abort(self._permitted(body, user, database))
        return {}

    def _permitted(self, body: Body, user: str, database: str) -> int:
        """The number of a job; judged by its collection where anything is."""
        core, number = self.core, _number(body["jobId"])
        if core.rights.checked:
            job: Job = core.imports.get(number)
            core.rights.require(user, "Collection", "Import", job.there.name, database)
        return number


def _check_form(route: str, body: Any) -> None:
    """Refuse what the server's JSON binding would."""
    if not isinstance(body, dict):
        raise Refused(1801, "can only accept json format request")
    required = {"create": ("collectionName", "files"), **dict.fromkeys(BY_JOB, ("jobId",))}.get(route, ())
    files, options = body.get("files", []), body.get("options") or {}
    strings = [body.get(name, "") for name in ("dbName", "collectionName", "jobId")]
    lists = isinstance(files, list) and all(isinstance(entry, list) for entry in files) and isinstance(options, dict)
    if lists:
        strings += [path for entry in files for path in entry] + list(options.values())
    if not (lists and all(isinstance(text, str) for text in strings)):
        raise Refused(1801, "can only accept json format request, error: json: cannot unmarshal")
    for name in required:
        if not body.get(name):
            raise Refused(1802, f"missing required parameters, error: Key: '{name}' failed on the 'required' tag")


def _number(job: str) -> int:
    try:
        return int(job)
    except ValueError:
        raise Refused(1100, f"parse job id failed: {job[:20]}: invalid parameter") from None


class Handler(BaseHTTPRequestHandler):
    """One request. The server that it belongs to has the ``api``."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        api: RestApi = self.server.api  # type: ignore[attr-defined]
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        route = self.path.removeprefix(PREFIX) if self.path.startswith(PREFIX) else ""
        if not api.has(route):
            return self._send(404, b"404 page not found", "text/plain")
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        api.core.asked.append((route, body, {name.lower(): value for name, value in self.headers.items()}))
        if route in api.core.between:
            status, said = api.core.between[route]
            return self._send(status, said.encode(), "text/plain")
        try:
            data, word = api.answer(route, body, self.headers)
        except Refused as refused:
            return self._say({"code": refused.code, "message": refused.message}, refused.http)
        if word in (LOST, CUT):
            self.close_connection = True
            return None
        limit = self.headers.get("Request-Timeout", "")
        if word == LATE or api.core.slow_s > (int(limit) if limit.isdigit() else TIMEOUT_S):
            return self._say_late()
        return self._say({"code": 0, "data": data})

    def do_GET(self) -> None:
        self._send(404, b"404 page not found", "text/plain")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _say_late(self) -> None:
        if self.server.api.core.profile.has("timeout-as-text"):  # type: ignore[attr-defined]
            return self._send(408, b"timeout", "text/plain")
        return self._say({"code": 10001, "message": "request timeout"}, 408)

    def _say(self, content: Mapping[str, Any], status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
