"""What tests of the double share: collections in it, calls over HTTP, and the versions that a test runs for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from pymilvus.grpc_gen import schema_pb2

from tests.milvus.rows import DIM, make_keys, make_table, make_vectors
from tests.milvus.servers.double import MilvusDouble
from tests.milvus.servers.profiles import PROFILES
from tests.milvus.servers.rest import PREFIX
from tests.milvus.servers.rights import ANY, Grant
from tests.milvus.servers.store import Collection

NAME, OTHER = "faces_r1", "faces_r2"
USER, PASSWORD = "loads", "Only-For-Tests-1"
ROWS = 40
SOON, LATER, HOUR = 2.5, 30.0, 3600.0
"""Seconds of a job at the usual pace: in pre-import; ended; an hour."""


def versions(*, has: str = "", lacks: str = "") -> pytest.MarkDecorator:
    """Run for the versions for which one fact holds and another does not."""
    chosen = [
        pytest.param(name, id=f"{name}: known from source, not run")
        for name, profile in PROFILES.items()
        if (not has or profile.has(has)) and not (lacks and profile.has(lacks))
    ]
    return pytest.mark.parametrize("version", chosen)


@dataclass
class Asking:
    """A double whose time stands still unless it is skipped, and how it is asked over HTTP."""

    double: MilvusDouble
    folder: Path

    @property
    def core(self) -> Any:
        return self.double.core

    def collection(self, name: str = NAME, database: str = "default", kind: str = "FloatVector") -> Collection:
        """An empty collection of the index's schema, with vectors of a kind."""
        schema = schema_pb2.CollectionSchema(name=name)
        schema.fields.add(name="face_id", data_type=schema_pb2.DataType.Int64, is_primary_key=True)
        vector = schema.fields.add(name="embedding", data_type=schema_pb2.DataType.Value(kind))
        vector.type_params.add(key="dim", value=str(DIM))
        for scalar in ("bucket", "purposes", "expires_at"):
            schema.fields.add(name=scalar, data_type=schema_pb2.DataType.Int64)
        self.core.store.databases.add(database)
        self.core.store.create(database, name, schema, {}, 1)
        return self.core.store.get(database, name)

    def file(self, name: str = "a.parquet", table: pa.Table | None = None) -> str:
        """A staged file of `ROWS` rows, or of a table."""
        path = self.folder / name
        table = make_table(make_keys(ROWS), make_vectors(ROWS)) if table is None else table
        pq.write_table(table, path)
        return str(path)

    def post(self, route: str, body: Any, *, credentials: str = "", **headers: str) -> tuple[int, Any]:
        """Status and content of an answer: JSON, or text where it is none. Headers with ``_`` for ``-``."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if credentials:
            sent["Authorization"] = f"Bearer {credentials}"
        answer = requests.post(self.double.rest_uri + PREFIX + route, json=body, headers=sent, timeout=10)
        try:
            return answer.status_code, answer.json()
        except ValueError:
            return answer.status_code, answer.text

    def code(self, route: str, body: Any, **more: str) -> int:
        """The code in an answer of HTTP 200."""
        status, content = self.post(route, body, **more)
        assert status == 200, content
        return int(content["code"])

    def create(self, *paths: str, name: str = NAME, key: str = "", **options: str) -> str:
        """Start a job and return its id."""
        body = {"collectionName": name, "files": [[path] for path in paths], "options": options}
        status, content = self.post("create", body, **({"Idempotency_Key": key} if key else {}))
        assert (status, content["code"]) == (200, 0), content
        return str(content["data"]["jobId"])

    def job(self, number: str) -> dict[str, Any]:
        """What `describe` says of a job."""
        status, content = self.post("describe", {"jobId": number})
        assert (status, content["code"]) == (200, 0), content
        data: dict[str, Any] = content["data"]
        return data

    def skip(self, seconds: float) -> None:
        """Let time pass in steps, as looks at a server do."""
        for _ in range(4):
            self.core.clock.skip(seconds / 4)
            with self.core.lock:
                self.core.tick()

    def permit(self, kind: str, privilege: str, *, name: str = ANY, database: str = "default") -> str:
        """Give the test's user one more privilege; his credentials."""
        rights = self.core.rights
        rights.users[USER] = PASSWORD
        rights.members[USER] = {"role"}
        rights.roles.setdefault("role", set()).add(Grant(kind, privilege, name, database))
        return f"{USER}:{PASSWORD}"


@contextmanager
def asking(version: str, folder: Path, **options: Any) -> Iterator[Asking]:
    """A double of a version in which time stands still."""
    with MilvusDouble(PROFILES[version], speed=0.0, **options) as double:
        yield Asking(double, folder)


def keys_of(rows: int = ROWS) -> np.ndarray:
    """The keys of `Asking.file`."""
    return make_keys(rows)
