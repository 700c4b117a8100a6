"""A small HTTP server that answers a script, as Milvus's source says that it answers."""

from __future__ import annotations

import json
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CUT = object()
"""The connection is cut after the request was read: its answer is lost."""


@dataclass
class Request:
    """One request: the last part of its path, its body and its headers (lower case)."""

    action: str
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass
class RestServer:
    """``answers``: by action, what comes next; the last one is repeated. A pair is a status and a body, which is JSON
    or text."""

    answers: dict[str, deque[Any]] = field(default_factory=lambda: defaultdict(deque))
    asked: list[Request] = field(default_factory=list)
    port: int = 0

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def say(self, action: str, *answers: Any) -> None:
        self.answers[action] = deque(answers)

    def actions(self) -> list[str]:
        return [request.action for request in self.asked]

    def next_answer(self, action: str) -> Any:
        there = self.answers[action]
        if not there:
            return 404, "404 page not found"
        return there.popleft() if len(there) > 1 else there[0]


def ok(**data: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"code": 0, "data": data}


def refused(code: int, message: str, status: int = 200) -> tuple[int, dict[str, Any]]:
    return status, {"code": code, "message": message}


@contextmanager
def serving() -> Iterator[RestServer]:
    script = RestServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            action = self.path.removeprefix("/v2/vectordb/jobs/import/")
            script.asked.append(Request(action, body, {k.lower(): v for k, v in self.headers.items()}))
            answer = script.next_answer(action)
            if answer is CUT:
                self.close_connection = True
                return
            status, content = answer
            data = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    script.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
