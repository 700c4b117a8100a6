"""One real server for the session, and the three indexes that must keep one contract."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.index.milvus.connect import connect
from jobs.index.protocol import VectorIndex
from jobs.settings import Settings
from tests.milvus.server import MilvusStandalone, temporary
from tests.milvus.servers.double import MilvusDouble
from tests.milvus.servers.profiles import PROFILES


def server_settings(uri: str, **milvus: object) -> Settings:
    token = os.environ.get("FACE_REINDEX_MILVUS_TOKEN")
    return Settings.model_validate({"milvus": {"uri": uri, "ready_timeout_s": 120, **milvus}, "milvus_token": token})


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusStandalone]:
    server = MilvusStandalone(tmp_path_factory.mktemp("milvus"))
    with temporary(server, server.kill):
        yield server


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[VectorIndex]:
    """The wheel's server, or a person's own (``make test-server MILVUS_URI=…``), which is used and left running."""
    uri = os.environ.get("MILVUS_URI")
    if not uri:
        own: MilvusStandalone = request.getfixturevalue("milvus_server")
        if not own.running:
            own.start()
        uri = own.uri
    index = connect(server_settings(uri))
    yield index
    index.close()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorIndex]:
    path = tmp_path_factory.mktemp("embedded") / "faces.db"
    index = connect(Settings.model_validate({"milvus": {"uri": str(path)}}))
    yield index
    index.close()


@pytest.fixture(scope="module")
def double() -> Iterator[VectorIndex]:
    """A server's double: what it answers a driver that is used rightly is what a real one answers."""
    with MilvusDouble(PROFILES["2.6.24"]) as server, connect(server_settings(server.uri)) as index:
        yield index


@pytest.fixture(scope="session")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for 127.0.0.1 that is authority, server and client in one."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=face-reindex-tests",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "server.key", "-out", "server.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    (folder / "ca.pem").write_bytes((folder / "server.pem").read_bytes())
    return folder


@pytest.fixture(scope="module", params=["double", "embedded", "server"])
def index(request: pytest.FixtureRequest) -> VectorIndex:
    found: VectorIndex = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def new_name(index: VectorIndex) -> Iterator[Callable[[], str]]:
    """Names nobody else uses; their collections are dropped after the test."""
    prefix = f"t{uuid.uuid4().hex[:10]}_"
    made: list[str] = []

    def make() -> str:
        made.append(f"{prefix}{len(made)}")
        return made[-1]

    yield make
    for name in made:
        index.drop_alias(f"alias_{name}")
    for name in made:
        index.drop(name)
